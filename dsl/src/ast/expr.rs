//! Expressions.

use super::Ident;
use crate::Span;
use crate::ir::{Binary, Compare, Logic};

/// An expression and where it stands.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands, from its first to its last token.
    pub span: Span,
}

/// The forms of an expression.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// `30.0`
    Float(f32),
    /// `4`
    Int(i64),
    /// `gate`
    Name(String),
    /// `q.pos`
    Field(Ident, Ident),
    /// `-x`
    Neg(Box<Expr>),
    /// `!m`
    Not(Box<Expr>),
    /// `a + b`, `a < b`, `a & b`; the span is the operator's.
    Binary(Operator, Span, Box<Expr>, Box<Expr>),
    /// `softmax(s, seen, sink = x)`
    Call {
        /// The function.
        function: Ident,
        /// Arguments by position.
        args: Vec<Expr>,
        /// Arguments by name.
        named: Vec<(Ident, Expr)>,
    },
    /// `(x)`
    Paren(Box<Expr>),
    /// Something outside the language; a diagnostic says what.
    Invalid,
}

/// An operator between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+ - * /`
    Arithmetic(Binary),
    /// `== != < <= > >=`
    Compare(Compare),
    /// `& |`
    Logic(Logic),
}

impl Operator {
    /// The operator as written.
    pub fn name(self) -> &'static str {
        match self {
            Operator::Arithmetic(f) => f.name(),
            Operator::Compare(f) => f.name(),
            Operator::Logic(f) => f.name(),
        }
    }
}

impl Expr {
    /// The expression without the parentheses around it.
    pub fn bare(&self) -> &Expr {
        let mut inner = self;
        while let ExprKind::Paren(x) = &inner.kind {
            inner = x;
        }
        inner
    }
}
