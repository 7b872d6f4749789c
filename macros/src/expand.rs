//! The items that a kernel expands to.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};
use sparsek_dsl::ast;
use sparsek_dsl::parse::{CompiledKernel, SourceSpans};

/// One field of the inputs struct.
struct Field {
    ident: Ident,
    name: String,
    docs: Vec<String>,
    optional: bool,
}

/// The types of a kernel. Without a program (something is wrong with the kernel) they have the
/// same interface, so that only what is wrong is reported. Nothing for a kernel whose names cannot
/// be names of items.
pub(crate) fn kernel(kernel: &CompiledKernel, spans: &SourceSpans) -> TokenStream {
    let ast = &kernel.ast;
    let Some(name) = identifier(&ast.name, spans) else { return TokenStream::new() };
    let Some(fields) = fields(ast, spans) else { return TokenStream::new() };
    let json = kernel.program.as_ref().map(|p| p.to_json()).unwrap_or_default();
    let inputs = format_ident!("{name}Inputs", span = name.span());
    let inputs_struct = inputs_struct(ast, &inputs, &fields);
    let cuda = format_ident!("{name}Cuda", span = name.span());
    let kernel_struct = kernel_struct(ast, &name, &inputs, &cuda, &json);
    let cuda_struct = cuda_struct(ast, &inputs, &cuda);
    quote! { #kernel_struct #inputs_struct #cuda_struct }
}

/// The name as an identifier at the place where it was written.
fn identifier(name: &ast::Ident, spans: &SourceSpans) -> Option<Ident> {
    let mut ident = syn::parse_str::<Ident>(&name.text).ok()?;
    ident.set_span(spans.first(name.span));
    Some(ident)
}

fn fields(kernel: &ast::Kernel, spans: &SourceSpans) -> Option<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::new();
    for input in &kernel.inputs {
        let name = input.name.text.clone();
        if fields.iter().any(|f| f.name == name) {
            continue;
        }
        let ident = identifier(&input.name, spans)?;
        let mut docs = input.docs.clone();
        if !docs.is_empty() {
            docs.push(String::new());
        }
        docs.push(layout(input));
        fields.push(Field { ident, name, docs, optional: input.default.is_some() });
    }
    // A struct without fields would leave its type parameter unused.
    (!fields.is_empty()).then_some(fields)
}

/// Class, shape and default of an input in words.
fn layout(input: &ast::Input) -> String {
    let ty = input.ty.as_ref().map(ast::TypeExpr::to_string).unwrap_or_default();
    let class = input.ty.as_ref().map(|t| t.name.text.as_str()).unwrap_or_default();
    let shape = match (input.name.text.as_str(), class) {
        ("u", _) => "`[B, Hkv, N]`",
        (_, "Query") => "`[B, N, Hq, D]`",
        (_, "Key" | "Value") => "`[B, N, Hkv, D]`",
        (_, "Scalar") => "`[1]`",
        (_, "PerHead") => "`[Hq]`",
        (_, "PerQuery") => "`[B, N]` or `[B, N, Hq]`",
        (_, "PerKey") => "`[B, N]` or `[B, N, Hkv]`",
        _ => "unknown",
    };
    let kind = match (class, ty.contains("i32")) {
        ("Query" | "Key" | "Value", _) => "the kernel's element type",
        (_, true) => "i32",
        (_, false) => "f32",
    };
    match &input.default {
        Some(default) => format!("`{ty}`: {shape}, {kind}. `{default}` when `None`."),
        None => format!("`{ty}`: {shape}, {kind}."),
    }
}

fn doc_attributes(lines: &[String]) -> TokenStream {
    let lines = lines.iter().map(|l| if l.is_empty() { String::new() } else { format!(" {l}") });
    quote! { #(#[doc = #lines])* }
}

fn inputs_struct(kernel: &ast::Kernel, inputs: &Ident, fields: &[Field]) -> TokenStream {
    let visibility = &kernel.visibility;
    let doc = format!(
        " Input tensors of [`{}`]: `sparsek::TensorView` on the host, `sparsek::cuda::TensorView` on a GPU.",
        kernel.name.text
    );
    let members = fields.iter().map(|Field { ident, docs, optional, .. }| {
        let docs = doc_attributes(docs);
        let ty = match optional {
            true => quote! { ::core::option::Option<T> },
            false => quote! { T },
        };
        quote! { #docs pub #ident: #ty }
    });
    let calls = fields.iter().map(|Field { ident, name, optional, .. }| {
        let value = quote! { ::core::clone::Clone::clone(&self.#ident) };
        match optional {
            true => quote! { .with_optional(#name, #value) },
            false => quote! { .with(#name, #value) },
        }
    });
    quote! {
        #[doc = #doc]
        #[allow(non_snake_case, unreachable_pub)]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #inputs<T> {
            #(#members,)*
        }

        #[allow(dead_code, unreachable_pub)]
        impl<T: ::core::clone::Clone> #inputs<T> {
            /// The tensors by name.
            pub fn by_name(&self) -> ::sparsek::NamedTensors<T> {
                ::sparsek::NamedTensors::new() #(#calls)*
            }
        }
    }
}

/// The kernel on a GPU.
fn cuda_struct(kernel: &ast::Kernel, inputs: &Ident, cuda: &Ident) -> TokenStream {
    let visibility = &kernel.visibility;
    let doc = format!(" [`{}`] on a GPU.", kernel.name.text);
    quote! {
        #[doc = #doc]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #cuda {
            kernel: ::sparsek::cuda::Kernel,
        }

        #[allow(dead_code, unreachable_pub)]
        impl #cuda {
            /// Queues the computation of the output `o` and what the backward reads.
            ///
            /// Fails when a tensor's shape, element type, strides or device does not fit, and when
            /// the kernel cannot be compiled for the GPU or run on it.
            pub fn forward(
                &self,
                inputs: &#inputs<::sparsek::cuda::TensorView<'_>>,
            ) -> ::core::result::Result<::sparsek::cuda::Forward, ::sparsek::Error> {
                self.forward_with(inputs, &::core::default::Default::default())
            }

            /// [`Self::forward`] with options: packed sequences, schedule, profile.
            pub fn forward_with(
                &self,
                inputs: &#inputs<::sparsek::cuda::TensorView<'_>>,
                options: &::sparsek::cuda::Options<'_>,
            ) -> ::core::result::Result<::sparsek::cuda::Forward, ::sparsek::Error> {
                self.kernel.forward(&inputs.by_name(), options)
            }

            /// Queues the computation of the gradient of every floating-point input that was
            /// given, from the gradient `d_o` of the output, which has the shape of `q`.
            ///
            /// Fails as [`Self::forward`] does.
            pub fn backward(
                &self,
                inputs: &#inputs<::sparsek::cuda::TensorView<'_>>,
                forward: &::sparsek::cuda::Forward,
                d_o: &::sparsek::cuda::TensorView<'_>,
            ) -> ::core::result::Result<::sparsek::cuda::Gradients, ::sparsek::Error> {
                self.backward_with(inputs, forward, d_o, &::core::default::Default::default())
            }

            /// [`Self::backward`] with options: the gradients wanted, schedule, profile.
            pub fn backward_with(
                &self,
                inputs: &#inputs<::sparsek::cuda::TensorView<'_>>,
                forward: &::sparsek::cuda::Forward,
                d_o: &::sparsek::cuda::TensorView<'_>,
                options: &::sparsek::cuda::Options<'_>,
            ) -> ::core::result::Result<::sparsek::cuda::Gradients, ::sparsek::Error> {
                self.kernel.backward(&inputs.by_name(), forward, d_o, options)
            }

            /// The kernel behind this type.
            pub fn kernel(&self) -> &::sparsek::cuda::Kernel {
                &self.kernel
            }
        }
    }
}

fn kernel_struct(
    kernel: &ast::Kernel,
    name: &Ident,
    inputs: &Ident,
    cuda: &Ident,
    json: &str,
) -> TokenStream {
    let visibility = &kernel.visibility;
    let docs = match kernel.docs.is_empty() {
        true => doc_attributes(&[format!("Attention kernel `{}`.", kernel.name.text)]),
        false => doc_attributes(&kernel.docs),
    };
    let tuned = kernel.tuned.as_ref().map(|tuned| &tuned.literal);
    let (manifest, with_manifest) = match tuned {
        // The compiler reads the file again when it changes.
        Some(path) => (
            quote! { ::core::option::Option::Some(::core::include_str!(#path)) },
            quote! { .with_manifest(Self::MANIFEST.unwrap_or_default())? },
        ),
        None => (quote! { ::core::option::Option::None }, TokenStream::new()),
    };
    quote! {
        #docs
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #name {
            kernel: ::sparsek::Kernel,
        }

        #[allow(dead_code, unreachable_pub)]
        impl #name {
            /// The typed program in its serialised form, with format version.
            pub const PROGRAM: &'static str = #json;

            /// The tuned schedules that the kernel carries: the file that its `tuned` attribute names.
            pub const MANIFEST: ::core::option::Option<&'static str> = #manifest;

            /// The typed program.
            pub fn program()
            -> ::core::result::Result<::sparsek::dsl::ir::Program, ::sparsek::Error> {
                ::core::result::Result::Ok(::sparsek::dsl::ir::Program::from_json(Self::PROGRAM)?)
            }

            /// An instance for one element type, head dimension and set of integer parameters.
            ///
            /// Fails when a parameter is missing or outside its set, and when the kernel carries a
            /// manifest of tuned schedules that cannot be read.
            pub fn new(
                spec: ::sparsek::Spec,
            ) -> ::core::result::Result<Self, ::sparsek::Error> {
                ::core::result::Result::Ok(Self {
                    kernel: ::sparsek::Kernel::from_program(&Self::program()?, &spec)?
                        #with_manifest,
                })
            }

            /// Computes the output `o` and what the backward reads.
            ///
            /// Fails when a tensor's shape or element type does not fit.
            pub fn forward(
                &self,
                inputs: &#inputs<::sparsek::TensorView<'_>>,
            ) -> ::core::result::Result<::sparsek::Forward, ::sparsek::Error> {
                self.forward_with(inputs, &::core::default::Default::default())
            }

            /// [`Self::forward`] with options: packed sequences, progress.
            pub fn forward_with(
                &self,
                inputs: &#inputs<::sparsek::TensorView<'_>>,
                options: &::sparsek::Options<'_>,
            ) -> ::core::result::Result<::sparsek::Forward, ::sparsek::Error> {
                self.kernel.forward(&inputs.by_name(), options)
            }

            /// Computes the gradient of every floating-point input that was given, from the
            /// gradient `d_o` of the output, which has the shape of `q`.
            ///
            /// Fails when a tensor's shape or element type does not fit.
            pub fn backward(
                &self,
                inputs: &#inputs<::sparsek::TensorView<'_>>,
                forward: &::sparsek::Forward,
                d_o: &::sparsek::TensorView<'_>,
            ) -> ::core::result::Result<::sparsek::Gradients, ::sparsek::Error> {
                self.backward_with(inputs, forward, d_o, &::core::default::Default::default())
            }

            /// [`Self::backward`] with options: packed sequences, the gradients wanted, progress.
            pub fn backward_with(
                &self,
                inputs: &#inputs<::sparsek::TensorView<'_>>,
                forward: &::sparsek::Forward,
                d_o: &::sparsek::TensorView<'_>,
                options: &::sparsek::Options<'_>,
            ) -> ::core::result::Result<::sparsek::Gradients, ::sparsek::Error> {
                self.kernel.backward(&inputs.by_name(), forward, d_o, options)
            }

            /// This kernel on a GPU. Its code is compiled by the first call that needs it.
            pub fn cuda(&self, device: &::sparsek::cuda::Device) -> #cuda {
                #cuda { kernel: self.kernel.cuda(device) }
            }

            /// The instance behind this type.
            pub fn kernel(&self) -> &::sparsek::Kernel {
                &self.kernel
            }
        }
    }
}
