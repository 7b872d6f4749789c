//! The table behind [`Span`]: first and last token of every position that was recorded.

use crate::Span;
use proc_macro2::Span as TokenSpan;
use std::ops::Range;

/// Positions of one parse, as the tokens they start and end with.
#[derive(Clone, Debug, Default)]
pub struct SourceSpans {
    entries: Vec<(TokenSpan, TokenSpan)>,
    /// Where a position was given by bytes, the bytes.
    ranges: Vec<Option<Range<usize>>>,
}

impl SourceSpans {
    /// Records the position of one token.
    pub(crate) fn add(&mut self, token: TokenSpan) -> Span {
        self.add_range(token, token)
    }

    /// Records a position from its first to its last token.
    pub(crate) fn add_range(&mut self, first: TokenSpan, last: TokenSpan) -> Span {
        self.push(first, last, None)
    }

    /// Records a position by bytes, where there is no token.
    pub(crate) fn add_bytes(&mut self, range: Range<usize>) -> Span {
        self.push(TokenSpan::call_site(), TokenSpan::call_site(), Some(range))
    }

    fn push(&mut self, first: TokenSpan, last: TokenSpan, range: Option<Range<usize>>) -> Span {
        self.entries.push((first, last));
        self.ranges.push(range);
        Span(self.entries.len() as u32 - 1)
    }

    /// The position from the start of `a` to the end of `b`.
    pub(crate) fn join(&mut self, a: Span, b: Span) -> Span {
        self.add_range(self.first(a), self.last(b))
    }

    /// The first token of a position; the whole invocation for [`Span::NONE`].
    pub fn first(&self, span: Span) -> TokenSpan {
        self.entries.get(span.0 as usize).map_or_else(TokenSpan::call_site, |e| e.0)
    }

    /// The last token of a position; the whole invocation for [`Span::NONE`].
    pub fn last(&self, span: Span) -> TokenSpan {
        self.entries.get(span.0 as usize).map_or_else(TokenSpan::call_site, |e| e.1)
    }

    /// The bytes of a position in the text that was parsed; `None` for [`Span::NONE`]. Only
    /// meaningful outside of a macro call.
    pub fn range(&self, span: Span) -> Option<Range<usize>> {
        let n = span.0 as usize;
        if let Some(Some(range)) = self.ranges.get(n) {
            return Some(range.clone());
        }
        let (first, last) = self.entries.get(n)?;
        let (start, end) = (first.byte_range().start, last.byte_range().end);
        Some(start..end.max(start))
    }
}
