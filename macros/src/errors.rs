//! Diagnostics as compile errors.

use proc_macro2::{Ident, TokenStream, TokenTree};
use sparsek_dsl::diagnostic::Diagnostic;
use sparsek_dsl::parse::SourceSpans;

/// `compile_error!` with the diagnostic's text at its primary position.
pub(crate) fn compile_error(diagnostic: &Diagnostic, spans: &SourceSpans) -> TokenStream {
    // An error over two tokens spans from the first to the second.
    let ends = [spans.first(diagnostic.primary), spans.last(diagnostic.primary)];
    let tokens: TokenStream =
        ends.into_iter().map(|span| TokenTree::Ident(Ident::new("x", span))).collect();
    syn::Error::new_spanned(tokens, diagnostic.text()).to_compile_error()
}
