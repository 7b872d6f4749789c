//! Source text to programs.

mod common;

use sparsek_dsl::diagnostic::render;
use sparsek_dsl::ir::Program;
use sparsek_dsl::parse::compile_file;

/// The one program of a text without anything wrong.
fn program(text: &str) -> Program {
    let mut compiled = compile_file(text);
    let shown: Vec<String> = compiled
        .diagnostics
        .iter()
        .map(|d| render(d, &compiled.spans, "kernel.rs", text, false))
        .collect();
    assert!(shown.is_empty(), "{}", shown.join("\n"));
    assert_eq!(compiled.kernels.len(), 1);
    compiled.kernels.remove(0).program.expect("a kernel without diagnostics has a program")
}

#[test]
fn a_full_kernel_compiles() {
    let p = program(common::FULL);
    println!("{p}");
    println!("{}", compile_file(common::FULL).kernels[0].ast.dump());
}
