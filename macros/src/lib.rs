//! The `sparsek_kernel!` procedural macro: parse, check, expand. All of the language lives in
//! `sparsek-dsl`; see `sparsek` for how kernels are declared and used.

mod errors;
mod expand;

use proc_macro::TokenStream;
use sparsek_dsl::parse::compile_tokens;

/// Declares one or more attention kernels.
///
/// For a kernel `Name` this defines
///
/// * `Name`, one instance of the kernel, with `Name::new(Spec)`, `forward`, `backward`, the same
///   with options (`forward_with`, `backward_with`), `kernel()`, `Name::PROGRAM` and
///   `Name::program()`, the typed program that it runs, and `Name::MANIFEST`, the tuned schedules
///   of the file that `#[tuned("file.json")]` on the kernel names;
/// * `NameInputs<T>`, a struct with one field for each input, an `Option` where the input has a
///   default; `T` is the type of tensors, of the host or of a GPU;
/// * `NameCuda`, what `Name::cuda(&Device)` gives: the same calls on a GPU.
///
/// All have the visibility and `Name` the documentation that the kernel is declared with.
///
/// What is wrong with a kernel is a compile error at the token it is about. A kernel with errors
/// still defines its types, so that code around it is checked as usual.
#[proc_macro]
pub fn sparsek_kernel(input: TokenStream) -> TokenStream {
    let compiled = compile_tokens(input.into());
    let errors = compiled.diagnostics.iter().map(|d| errors::compile_error(d, &compiled.spans));
    let mut out: proc_macro2::TokenStream = errors.collect();
    for (n, kernel) in compiled.kernels.iter().enumerate() {
        let name = &kernel.ast.name.text;
        // A second kernel of the same name was reported; its items would be reported again.
        if compiled.kernels[..n].iter().all(|k| k.ast.name.text != *name) {
            out.extend(expand::kernel(kernel, &compiled.spans));
        }
    }
    out.into()
}
