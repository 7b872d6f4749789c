//! Source text to programs: tokens to [`ast::Kernel`], and through `crate::lower` to
//! [`Program`]. Everything that is wrong is reported at once: a part that cannot be read is left
//! out and reading goes on behind it.

mod body;
mod cursor;
mod depth;
mod expr;
mod file;
mod header;
mod schedule;
mod sets;
mod spans;

pub(crate) use expr::PARENTHESES;
pub use file::compile_file;
pub use spans::SourceSpans;

use crate::ast;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::Program;
use crate::{Span, lower};
use cursor::Cursor;
use proc_macro2::{Span as TokenSpan, TokenStream};

/// One kernel of an invocation.
#[derive(Clone, Debug)]
pub struct CompiledKernel {
    /// As it was written.
    pub ast: ast::Kernel,
    /// The typed forward program; `None` when something is wrong with the kernel.
    pub program: Option<Program>,
}

/// What became of a text.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Every kernel whose name could be read, in the order of the text.
    pub kernels: Vec<CompiledKernel>,
    /// Everything that is wrong, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// Where spans are.
    pub spans: SourceSpans,
}

/// Compiles the body of one `sparsek_kernel!` invocation: one or more kernels.
pub fn compile_tokens(tokens: TokenStream) -> Compiled {
    let mut reader = Reader::default();
    let kernels = reader.compile(tokens, None);
    reader.finish(kernels)
}

/// Span table and diagnostics under collection.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) spans: SourceSpans,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Reader {
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Something else was expected where the cursor is.
    fn expected(&mut self, what: &str, cursor: &Cursor<'_>) -> Diagnostic {
        let span = self.spans.add(cursor.span());
        Diagnostic::new(Code::Syntax, span, format!("expected {what}, found {}", cursor.found()))
            .label(format!("expected {what}"))
    }

    fn name(&mut self, ident: &proc_macro2::Ident) -> ast::Ident {
        let span = self.spans.add(ident.span());
        let text = ident.to_string();
        if text.starts_with("r#") {
            self.report(
                Diagnostic::new(Code::NotInLanguage, span, format!("raw identifier `{text}`"))
                    .help("names of kernels are plain identifiers; take another name"),
            );
        } else if syn::parse_str::<syn::Ident>(&text).is_err() {
            self.report(
                Diagnostic::new(Code::Syntax, span, format!("expected a name, found `{text}`"))
                    .label("this is a word of Rust")
                    .help("take another name"),
            );
        }
        ast::Ident { text, span }
    }

    /// Reads and lowers every kernel of an invocation; `end` is the bracket that closes it.
    fn compile(&mut self, tokens: TokenStream, end: Option<TokenSpan>) -> Vec<CompiledKernel> {
        if let Some(at) = depth::beyond(tokens.clone(), depth::KERNEL) {
            let span = self.spans.add(at);
            self.report(too_deep(span));
            return Vec::new();
        }
        let trees = cursor::trees(tokens);
        let last = || trees.last().map_or_else(TokenSpan::call_site, cursor::last_span);
        let end = end.unwrap_or_else(last);
        let kernels = self.kernels(Cursor::new(&trees, end));
        if kernels.is_empty() && self.diagnostics.is_empty() {
            let span = self.spans.add(end);
            let empty = Diagnostic::new(Code::NoKernel, span, "no kernel here")
                .help("write `pub kernel Name<..>(..) -> Output<E, D> { .. }`");
            self.report(empty);
        }
        let compiled = kernels.into_iter().map(|ast| {
            let program = lower::lower(&ast, self);
            CompiledKernel { ast, program }
        });
        let mut compiled: Vec<CompiledKernel> = compiled.collect();
        self.duplicate_kernels(&mut compiled);
        compiled
    }

    /// Reports kernels of one name; the second has no program.
    fn duplicate_kernels(&mut self, kernels: &mut [CompiledKernel]) {
        for n in 0..kernels.len() {
            let (before, rest) = kernels.split_at_mut(n);
            let Some(kernel) = rest.first_mut() else { continue };
            let name = &kernel.ast.name;
            let Some(first) = before.iter().find(|k| k.ast.name.text == name.text) else {
                continue;
            };
            let message = format!("two kernels are named `{}`", name.text);
            self.report(
                Diagnostic::new(Code::DuplicateName, name.span, message)
                    .label("the second")
                    .also(first.ast.name.span, "the first")
                    .help("give one of them another name"),
            );
            kernel.program = None;
        }
    }

    fn finish(self, kernels: Vec<CompiledKernel>) -> Compiled {
        Compiled { kernels, diagnostics: self.diagnostics, spans: self.spans }
    }
}

fn too_deep(span: Span) -> Diagnostic {
    let depth::Limits { brackets, operators } = depth::KERNEL;
    Diagnostic::new(Code::TooDeep, span, "this expression is too long or too deeply nested")
        .label(format!("beyond {brackets} brackets or {operators} operators in one expression"))
        .help("give parts of it a name with `let`")
}
