//! Arithmetic, comparison, logic and the elementwise functions.

use super::{Lowerer, Value};
use crate::Span;
use crate::ast::{Expr, ExprKind, Operator};
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Binary, Class, Compare, Kind, Logic, Op, Real, Type, Unary, ValueId};
use crate::parse::PARENTHESES;

/// A type in words.
pub(super) fn describe(ty: Type) -> String {
    match (ty.kind, ty.class) {
        (Kind::F32, class) => format!("a {class} number"),
        (Kind::I32, class) => format!("a {class} integer"),
        (Kind::Bool, _) => "a mask".to_owned(),
        (Kind::Vector, Class::PerQuery) => "a query vector".to_owned(),
        (Kind::Vector, _) => "a key vector".to_owned(),
    }
}

impl Lowerer<'_> {
    /// A value as an f32 number: an integer literal becomes a constant, any other integer is
    /// turned into f32. Anything else is reported.
    pub(super) fn as_f32(&mut self, value: &Value, span: Span) -> Option<ValueId> {
        let v = match value {
            Value::Node(v) => *v,
            Value::Poison => return None,
            Value::Set(_) => {
                self.not_a_number(value, span);
                return None;
            }
        };
        match (self.builder.ty(v).kind, &self.builder.node(v).op) {
            (Kind::F32, _) => Some(v),
            (Kind::I32, Op::Int(n)) => {
                let real = Real::new(*n as f32);
                self.node(Op::Const(real), span)
            }
            (Kind::I32, _) => self.node(Op::ToFloat(v), span),
            (Kind::Bool | Kind::Vector, _) => {
                self.not_a_number(value, span);
                None
            }
        }
    }

    pub(super) fn not_a_number(&mut self, value: &Value, span: Span) {
        let found = self.describe(value);
        let help = match self.kind(value) {
            Some(Kind::Bool) => "turn a mask into a number with `select(mask, 1.0, 0.0)`",
            Some(Kind::Vector) => {
                "vectors are only used in `dot(q, k)` and `dot(weights, v)`; factors go on the \
                 logit or the weights"
            }
            _ => "sets of keys are only used in the seen set: `causal & (topk(gate) | window(W))`",
        };
        self.report(
            Diagnostic::new(Code::NotANumber, span, "a number is needed here")
                .label(format!("this is {found}"))
                .help(help),
        );
    }

    pub(super) fn number(&mut self, expr: &Expr) -> Option<ValueId> {
        let value = self.value(expr);
        self.as_f32(&value, expr.span)
    }

    /// A value as a mask. Anything else is reported.
    pub(super) fn as_mask(&mut self, value: &Value, span: Span) -> Option<ValueId> {
        match (value, self.kind(value)) {
            (Value::Node(v), Some(Kind::Bool)) => Some(*v),
            (Value::Poison, _) => None,
            _ => {
                let found = self.describe(value);
                let help = match value {
                    Value::Set(_) => {
                        "sets of keys are only used in the seen set; compare positions instead: \
                         `(q.pos - k.pos) < 64.0`"
                    }
                    Value::Node(v) if matches!(self.builder.node(*v).op, Op::Sparsek { .. }) => {
                        "the gate is a number; the keys that it selects are `topk(gate)`"
                    }
                    _ => "compare it with something: `(x > 0.0)`",
                };
                self.report(
                    Diagnostic::new(Code::NotAMask, span, "a mask is needed here")
                        .label(format!("this is {found}"))
                        .help(help),
                );
                None
            }
        }
    }

    pub(super) fn unary(&mut self, f: Unary, x: &Expr, span: Span) -> Value {
        match self.number(x) {
            Some(x) => self.push(Op::Unary(f, x), span),
            None => Value::Poison,
        }
    }

    /// Negation; a negated literal is a literal.
    pub(super) fn negation(&mut self, x: &Expr, span: Span) -> Value {
        if let ExprKind::Int(n) = x.bare().kind {
            return self.integer(n.saturating_neg(), span);
        }
        let value = self.value(x);
        if let Value::Node(v) = value {
            match self.builder.node(v).op {
                Op::Const(c) => return self.push(Op::Const(Real::new(-c.get())), span),
                Op::Int(n) => return self.integer(-i64::from(n), span),
                _ => {}
            }
        }
        match self.as_f32(&value, x.span) {
            Some(x) => self.push(Op::Unary(Unary::Neg, x), span),
            None => Value::Poison,
        }
    }

    pub(super) fn arithmetic(&mut self, f: Binary, a: &Expr, b: &Expr, span: Span) -> Value {
        match (self.number(a), self.number(b)) {
            (Some(a), Some(b)) => self.push(Op::Binary(f, a, b), span),
            _ => Value::Poison,
        }
    }

    /// `clamp(x, lo, hi)` = min(max(x, lo), hi)
    pub(super) fn clamp(&mut self, x: &Expr, lo: &Expr, hi: &Expr, span: Span) -> Value {
        let (Some(x), Some(lo), Some(hi)) = (self.number(x), self.number(lo), self.number(hi))
        else {
            return Value::Poison;
        };
        match self.node(Op::Binary(Binary::Max, x, lo), span) {
            Some(raised) => self.push(Op::Binary(Binary::Min, raised, hi), span),
            None => Value::Poison,
        }
    }

    /// `softcap(x, c)` = c · tanh(x / c)
    pub(super) fn softcap(&mut self, x: &Expr, cap: &Expr, span: Span) -> Value {
        let (Some(x), Some(cap)) = (self.number(x), self.number(cap)) else {
            return Value::Poison;
        };
        let ratio = self.node(Op::Binary(Binary::Div, x, cap), span);
        let bent = ratio.and_then(|r| self.node(Op::Unary(Unary::Tanh, r), span));
        match bent {
            Some(bent) => self.push(Op::Binary(Binary::Mul, cap, bent), span),
            None => Value::Poison,
        }
    }

    pub(super) fn select(&mut self, mask: &Expr, a: &Expr, b: &Expr, span: Span) -> Value {
        let condition = self.value(mask);
        let condition = self.as_mask(&condition, mask.span);
        match (condition, self.number(a), self.number(b)) {
            (Some(c), Some(a), Some(b)) => self.push(Op::Select(c, a, b), span),
            _ => Value::Poison,
        }
    }

    /// A comparison: two integers compare as integers, anything else as f32.
    pub(super) fn comparison(&mut self, f: Compare, a: &Expr, b: &Expr, span: Span) -> Value {
        let logic = |x: &Expr| matches!(x.kind, ExprKind::Binary(Operator::Logic(_), ..));
        if let Some(side) = [a, b].into_iter().find(|x| logic(x)) {
            let message = format!("`&` and `|` bind tighter than `{}`", f.name());
            self.report(
                Diagnostic::new(Code::Precedence, side.span, message)
                    .label("this is one side of the comparison")
                    .help(PARENTHESES),
            );
            self.read_names(a);
            self.read_names(b);
            return Value::Poison;
        }
        let (left, right) = (self.value(a), self.value(b));
        if let (Value::Node(x), Value::Node(y)) = (&left, &right)
            && self.builder.ty(*x).kind == Kind::I32
            && self.builder.ty(*y).kind == Kind::I32
        {
            return self.push(Op::Compare(f, *x, *y), span);
        }
        match (self.as_f32(&left, a.span), self.as_f32(&right, b.span)) {
            (Some(a), Some(b)) => self.push(Op::Compare(f, a, b), span),
            _ => Value::Poison,
        }
    }

    /// Marks every name of an expression as read, without looking at it otherwise.
    fn read_names(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Name(name) => {
                self.scope.read(name);
            }
            ExprKind::Field(base, _) => {
                self.scope.read(&base.text);
            }
            ExprKind::Neg(x) | ExprKind::Not(x) | ExprKind::Paren(x) => self.read_names(x),
            ExprKind::Binary(_, _, a, b) => {
                self.read_names(a);
                self.read_names(b);
            }
            ExprKind::Call { args, named, .. } => {
                args.iter().chain(named.iter().map(|(_, x)| x)).for_each(|x| self.read_names(x));
            }
            ExprKind::Float(_) | ExprKind::Int(_) | ExprKind::Invalid => {}
        }
    }

    /// `a & b` and `a | b` of masks; with sets of keys among them, parts of the seen set.
    pub(super) fn connective(&mut self, f: Logic, a: &Expr, b: &Expr, span: Span) -> Value {
        let (left, right) = (self.value(a), self.value(b));
        if matches!(left, Value::Set(_)) || matches!(right, Value::Set(_)) {
            return self.combine(f, (left, a.span), (right, b.span), span);
        }
        match (self.as_mask(&left, a.span), self.as_mask(&right, b.span)) {
            (Some(a), Some(b)) => self.push(Op::Logic(f, a, b), span),
            _ => Value::Poison,
        }
    }

    pub(super) fn complement(&mut self, x: &Expr, span: Span) -> Value {
        let value = self.value(x);
        if let Value::Set(_) = value {
            self.report(
                Diagnostic::new(Code::SeenShape, span, "the complement of a set of keys")
                    .help(super::topk::SEEN_FORM),
            );
            return Value::Poison;
        }
        match self.as_mask(&value, x.span) {
            Some(x) => self.push(Op::Not(x), span),
            None => Value::Poison,
        }
    }
}
