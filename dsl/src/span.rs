//! Source positions that a program can carry without depending on a parser.

/// An index into the span table of one parse ([`crate::parse::SourceSpans`] with feature `parse`).
///
/// Programs built or loaded without source carry [`Span::NONE`] everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span(pub(crate) u32);

impl Span {
    /// No position.
    pub const NONE: Span = Span(u32::MAX);
}

impl Default for Span {
    fn default() -> Self {
        Span::NONE
    }
}
