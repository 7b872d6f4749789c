//! Limits on nesting, looked at before anything recursive touches the tokens.

use proc_macro2::{Delimiter, Span as TokenSpan, TokenStream, TokenTree};

/// Bounds that keep every later stage within a small stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Brackets inside brackets.
    pub(crate) brackets: usize,
    /// Operators and keywords on one way from the outermost expression to an operand: a bound on
    /// the depth of its tree.
    pub(crate) operators: usize,
}

/// Limits of a kernel.
pub(crate) const KERNEL: Limits = Limits { brackets: 64, operators: 256 };
/// Limits of a Rust file that is checked as Rust.
pub(crate) const FILE: Limits = Limits { brackets: 128, operators: 1024 };

/// The first token beyond the limits. Works without recursion.
pub(crate) fn beyond(stream: TokenStream, limits: Limits) -> Option<TokenSpan> {
    struct Level {
        tokens: std::vec::IntoIter<TokenTree>,
        /// Operators of the enclosing expressions.
        outside: usize,
        /// Operators since the last `,` or `;` of this level.
        here: usize,
        after: After,
    }
    #[derive(Clone, Copy, Default, PartialEq)]
    enum After {
        #[default]
        Other,
        Ident,
        /// A block: what follows is a new statement or item, unless it continues the expression.
        Block,
        /// The `#` of an attribute.
        Hash,
    }
    let level = |stream: TokenStream, outside: usize| Level {
        tokens: stream.into_iter().collect::<Vec<_>>().into_iter(),
        outside,
        here: 0,
        after: After::Other,
    };
    let mut stack = vec![level(stream, 0)];
    while let Some(top) = stack.last_mut() {
        let Some(token) = top.tokens.next() else {
            stack.pop();
            continue;
        };
        let span = token.span();
        let after = std::mem::take(&mut top.after);
        match token {
            TokenTree::Punct(p) if matches!(p.as_char(), ',' | ';') => top.here = 0,
            TokenTree::Punct(p) if p.as_char() == '#' => {
                top.here = if after == After::Block { 0 } else { top.here };
                top.after = After::Hash;
            }
            TokenTree::Punct(_) => top.here += 1,
            TokenTree::Ident(word) => {
                match after {
                    After::Block if word != "else" && word != "as" => top.here = 0,
                    // Words in a row are keywords that take an operand.
                    After::Ident | After::Block => top.here += 1,
                    After::Other | After::Hash => {}
                }
                top.after = After::Ident;
            }
            TokenTree::Literal(_) => {}
            TokenTree::Group(group) => {
                top.here += usize::from(after != After::Hash);
                if group.delimiter() == Delimiter::Brace {
                    top.after = After::Block;
                }
                let outside = top.outside + top.here;
                if stack.len() > limits.brackets || outside > limits.operators {
                    return Some(span);
                }
                stack.push(level(group.stream(), outside));
                continue;
            }
        }
        if top.outside + top.here > limits.operators {
            return Some(span);
        }
    }
    None
}
