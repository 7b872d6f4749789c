//! Kernels in a Rust source file.

use super::cursor::is_punct;
use super::{Compiled, CompiledKernel, Reader, depth};
use crate::diagnostic::{Code, Diagnostic};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Compiles every `sparsek_kernel! { .. }` of a Rust source file, in modules and function bodies
/// too. Lexical and syntactical errors of the file itself are reported; a file without kernels
/// gives neither kernels nor diagnostics. A text that starts with a kernel (`pub kernel ..`) is
/// compiled as the body of one invocation.
pub fn compile_file(text: &str) -> Compiled {
    // The table of spans counts from behind a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::default();
    let tokens = match text.parse::<TokenStream>() {
        Ok(tokens) => tokens,
        Err(error) => {
            reader.lexical(&error, text);
            return reader.finish(Vec::new());
        }
    };
    let kernels = if starts_with_kernel(tokens.clone()) {
        reader.compile(tokens, None)
    } else {
        reader.rust(tokens.clone());
        let mut kernels: Vec<CompiledKernel> = Vec::new();
        for invocation in invocations(tokens) {
            let end = invocation.span_close();
            kernels.extend(reader.compile(invocation.stream(), Some(end)));
        }
        kernels
    };
    let mut compiled = reader.finish(kernels);
    let spans = &compiled.spans;
    compiled.diagnostics.sort_by_key(|d| spans.range(d.primary).map_or(0, |r| r.start));
    compiled
}

impl Reader {
    fn lexical(&mut self, error: &proc_macro2::LexError, text: &str) {
        let start = error.span().byte_range().start.min(text.len());
        let width = text.get(start..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8);
        let span = self.spans.add_bytes(start..start + width);
        self.report(
            Diagnostic::new(Code::RustSyntax, span, "the text is not made of Rust tokens")
                .label("cannot be read from here on")
                .help("look for an unclosed bracket, quote or comment, or a stray character"),
        );
    }

    /// Reports when the file does not parse as Rust. One too deep for this parser is left to rustc.
    fn rust(&mut self, tokens: TokenStream) {
        if depth::beyond(tokens.clone(), depth::FILE).is_some() {
            return;
        }
        if let Err(error) = syn::parse2::<syn::File>(tokens.clone()) {
            let at_end = error.to_string().starts_with("unexpected end of input");
            let last = tokens.into_iter().last().map(|t| super::cursor::last_span(&t));
            let token = last.filter(|_| at_end).unwrap_or_else(|| error.span());
            let span = self.spans.add(token);
            self.report(
                Diagnostic::new(Code::RustSyntax, span, format!("not Rust: {error}"))
                    .help("the file must be one that rustc reads"),
            );
        }
    }
}

/// Whether the first thing behind documentation and visibility is a kernel.
fn starts_with_kernel(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter().peekable();
    loop {
        match tokens.next() {
            Some(TokenTree::Punct(p)) if p.as_char() == '#' => {
                tokens.next();
            }
            Some(TokenTree::Ident(word)) if word == "pub" => {
                tokens.next_if(
                    |t| matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Parenthesis),
                );
            }
            Some(TokenTree::Ident(word)) if word == "kernel" => {
                return matches!(tokens.next(), Some(TokenTree::Ident(_)));
            }
            _ => return false,
        }
    }
}

/// The bodies of all invocations, in order. Definitions of macros are not looked into. Works
/// without recursion.
fn invocations(tokens: TokenStream) -> Vec<Group> {
    let mut found = Vec::new();
    let level = |stream: TokenStream| stream.into_iter().collect::<Vec<_>>().into_iter();
    let mut stack = vec![level(tokens)];
    while let Some(top) = stack.last_mut() {
        let Some(token) = top.next() else {
            stack.pop();
            continue;
        };
        match token {
            TokenTree::Ident(word) if is_punct(top.as_slice().first(), '!') => {
                if word == "macro_rules" {
                    // `!`, the name, the rules.
                    top.by_ref().take(3).for_each(drop);
                } else if word == "sparsek_kernel"
                    && let Some(TokenTree::Group(body)) = top.as_slice().get(1)
                {
                    found.push(body.clone());
                    top.by_ref().take(2).for_each(drop);
                }
            }
            TokenTree::Group(group) => stack.push(level(group.stream())),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}
