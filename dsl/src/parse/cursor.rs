//! Reading token trees one at a time, with the position to report at when they run out.

use proc_macro2::{Delimiter, Group, Ident, Span as TokenSpan, TokenStream, TokenTree};

/// A position in a list of token trees.
#[derive(Clone)]
pub(crate) struct Cursor<'t> {
    trees: &'t [TokenTree],
    /// The closing bracket behind the last tree.
    end: TokenSpan,
}

impl<'t> Cursor<'t> {
    pub(crate) fn new(trees: &'t [TokenTree], end: TokenSpan) -> Cursor<'t> {
        Cursor { trees, end }
    }

    pub(crate) fn at_end(&self) -> bool {
        self.trees.is_empty()
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'t [TokenTree] {
        self.trees
    }

    pub(crate) fn peek(&self) -> Option<&'t TokenTree> {
        self.trees.first()
    }

    /// Where the next token stands, or what closes the list.
    pub(crate) fn span(&self) -> TokenSpan {
        self.peek().map_or(self.end, first_span)
    }

    /// What closes the list.
    pub(crate) fn end(&self) -> TokenSpan {
        self.end
    }

    /// The next token in words, for messages.
    pub(crate) fn found(&self) -> String {
        match self.peek() {
            Some(tree) => describe(tree),
            None => "the end".to_owned(),
        }
    }

    pub(crate) fn next(&mut self) -> Option<&'t TokenTree> {
        let (first, rest) = self.trees.split_first()?;
        self.trees = rest;
        Some(first)
    }

    pub(crate) fn peek_ident(&self) -> Option<&'t Ident> {
        match self.peek()? {
            TokenTree::Ident(ident) => Some(ident),
            _ => None,
        }
    }

    pub(crate) fn ident(&mut self) -> Option<&'t Ident> {
        let ident = self.peek_ident()?;
        self.next();
        Some(ident)
    }

    pub(crate) fn keyword(&mut self, word: &str) -> Option<&'t Ident> {
        self.peek_ident().filter(|i| *i == word)?;
        self.ident()
    }

    pub(crate) fn peek_punct(&self, c: char) -> bool {
        is_punct(self.peek(), c)
    }

    pub(crate) fn punct(&mut self, c: char) -> bool {
        let is = self.peek_punct(c);
        if is {
            self.next();
        }
        is
    }

    /// Several punctuation characters in a row, such as `..=`.
    pub(crate) fn puncts(&mut self, text: &str) -> bool {
        let is = text.chars().enumerate().all(|(n, c)| is_punct(self.trees.get(n), c));
        if is {
            self.trees = self.trees.get(text.len()..).unwrap_or_default();
        }
        is
    }

    pub(crate) fn group(&mut self, delimiter: Delimiter) -> Option<&'t Group> {
        match self.peek()? {
            TokenTree::Group(group) if group.delimiter() == delimiter => {
                self.next();
                Some(group)
            }
            _ => None,
        }
    }
}

pub(crate) fn is_punct(tree: Option<&TokenTree>, c: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(p)) if p.as_char() == c)
}

/// The token trees of a stream. Invisible groups around a single token, which `macro_rules`
/// makes of its arguments, are removed.
pub(crate) fn trees(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().map(unwrapped).collect()
}

fn unwrapped(tree: TokenTree) -> TokenTree {
    let mut tree = tree;
    loop {
        let TokenTree::Group(group) = &tree else { return tree };
        if group.delimiter() != Delimiter::None {
            return tree;
        }
        let mut inside = group.stream().into_iter();
        match (inside.next(), inside.next()) {
            (Some(only), None) => tree = only,
            _ => return tree,
        }
    }
}

/// Splits at a punctuation character. A separator at the end makes no empty last piece. Each piece
/// comes with the position behind it.
pub(crate) fn split(trees: &[TokenTree], separator: char, end: TokenSpan) -> Vec<Cursor<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (n, tree) in trees.iter().enumerate() {
        if is_punct(Some(tree), separator) {
            pieces.push(Cursor::new(&trees[start..n], tree.span()));
            start = n + 1;
        }
    }
    if start < trees.len() {
        pieces.push(Cursor::new(&trees[start..], end));
    }
    pieces
}

/// Where a tree starts: the opening bracket of a group.
pub(crate) fn first_span(tree: &TokenTree) -> TokenSpan {
    match tree {
        TokenTree::Group(group) if group.delimiter() != Delimiter::None => group.span_open(),
        other => other.span(),
    }
}

/// Where a tree ends: the closing bracket of a group.
pub(crate) fn last_span(tree: &TokenTree) -> TokenSpan {
    match tree {
        TokenTree::Group(group) if group.delimiter() != Delimiter::None => group.span_close(),
        other => other.span(),
    }
}

fn describe(tree: &TokenTree) -> String {
    match tree {
        TokenTree::Group(group) => match group.delimiter() {
            Delimiter::Parenthesis => "`(`".to_owned(),
            Delimiter::Brace => "`{`".to_owned(),
            Delimiter::Bracket => "`[`".to_owned(),
            Delimiter::None => "an expression".to_owned(),
        },
        other => format!("`{other}`"),
    }
}
