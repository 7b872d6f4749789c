//! Expressions to values: names, coordinates, calls, and what each kind of value is called in
//! messages.

use super::function::{self, Entry, FUNCTIONS, Function};
use super::scope::Meaning;
use super::topk::KeySet;
use super::{Lowerer, elementwise};
use crate::Span;
use crate::ast::{Expr, ExprKind, Ident, Operator};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::ir::{Coord, Kind, Op, Real, ValueId};

/// What an expression is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number, integer, mask or vector.
    Node(ValueId),
    /// `causal`, `topk`, `window`, `sinks` and what they combine to: not a value of the program,
    /// only a part of its one seen set.
    Set(Box<KeySet>),
    /// Something wrong that was reported.
    Poison,
}

impl Lowerer<'_> {
    /// The value of an expression. Every part of it is looked at, whatever is wrong elsewhere.
    pub(super) fn value(&mut self, expr: &Expr) -> Value {
        match &expr.kind {
            ExprKind::Float(x) => self.push(Op::Const(Real::new(*x)), expr.span),
            ExprKind::Int(n) => self.integer(*n, expr.span),
            ExprKind::Name(name) => self.name_value(name, expr.span),
            ExprKind::Field(base, field) => self.coordinate(base, field, expr.span),
            ExprKind::Neg(x) => self.negation(x, expr.span),
            ExprKind::Not(x) => self.complement(x, expr.span),
            ExprKind::Binary(op, _, a, b) => match op {
                Operator::Arithmetic(f) => self.arithmetic(*f, a, b, expr.span),
                Operator::Compare(f) => self.comparison(*f, a, b, expr.span),
                Operator::Logic(f) => self.connective(*f, a, b, expr.span),
            },
            ExprKind::Call { function, args, named } => self.call(function, args, named, expr.span),
            ExprKind::Paren(x) => self.value(x),
            ExprKind::Invalid => Value::Poison,
        }
    }

    pub(super) fn push(&mut self, op: Op, span: Span) -> Value {
        self.node(op, span).map_or(Value::Poison, Value::Node)
    }

    pub(super) fn integer(&mut self, n: i64, span: Span) -> Value {
        match i32::try_from(n) {
            Ok(n) => self.push(Op::Int(n), span),
            Err(_) => {
                self.report(
                    Diagnostic::new(Code::IntRange, span, format!("{n} does not fit 32 bits"))
                        .help("integers have 32 bits; write a number with a point: `3e9`"),
                );
                Value::Poison
            }
        }
    }

    fn name_value(&mut self, name: &str, span: Span) -> Value {
        match name {
            "causal" | "batch" if self.in_default => return self.not_constant(name, span),
            "causal" => return Value::Set(Box::new(KeySet::causal(span))),
            "batch" => return self.push(Op::Coord(Coord::Batch), span),
            _ => {}
        }
        match self.scope.read(name).cloned() {
            Some(Meaning::Let(value)) => value,
            Some(Meaning::IntParam(Some(id))) => self.param_value(id, span),
            Some(Meaning::Input(..)) if self.in_default => self.not_constant(name, span),
            Some(Meaning::Input(Some(id), _)) => self.input_value(id, span),
            Some(Meaning::IntParam(None) | Meaning::Input(None, _)) => Value::Poison,
            Some(Meaning::ElemParam) => {
                let message = format!("the element type `{name}` is not a value");
                self.report(
                    Diagnostic::new(Code::NotANumber, span, message)
                        .help("integer parameters are values; element types are not"),
                );
                Value::Poison
            }
            None => {
                self.unknown_name(name, span);
                Value::Poison
            }
        }
    }

    fn not_constant(&mut self, what: &str, span: Span) -> Value {
        let message = format!("a default cannot depend on `{what}`");
        self.report(
            Diagnostic::new(Code::Default, span, message)
                .help("defaults are computed from constants and integer parameters: `rsqrt(D)`"),
        );
        Value::Poison
    }

    fn coordinate(&mut self, base: &Ident, field: &Ident, span: Span) -> Value {
        let text = format!("{}.{}", base.text, field.text);
        if self.in_default {
            return self.not_constant(&text, span);
        }
        if let Some(coord) = Coord::ALL.into_iter().find(|c| c.name() == text) {
            return self.push(Op::Coord(coord), span);
        }
        let near = nearest(&text, Coord::ALL.map(Coord::name));
        // `bias.pos` reads the name, even if wrongly.
        self.scope.read(&base.text);
        self.report(
            Diagnostic::new(Code::UnknownName, span, format!("there is no coordinate `{text}`"))
                .help("coordinates are q.pos, k.pos, q.head, k.head and batch")
                .help_if(near.map(|n| format!("did you mean `{n}`?"))),
        );
        Value::Poison
    }

    fn call(&mut self, name: &Ident, args: &[Expr], named: &[(Ident, Expr)], span: Span) -> Value {
        let Some(entry) = function::named(&name.text) else {
            self.unknown_function(name);
            self.visit(args.iter().chain(named.iter().map(|(_, x)| x)));
            return Value::Poison;
        };
        let elementwise = matches!(
            entry.function,
            Function::Unary(_)
                | Function::Binary(_)
                | Function::Clamp
                | Function::Softcap
                | Function::Select
        );
        if self.in_default && !elementwise {
            return self.not_constant(entry.name, span);
        }
        if !self.arguments_fit(entry, name, args, named) {
            self.visit(args.iter().chain(named.iter().map(|(_, x)| x)));
            return Value::Poison;
        }
        match (entry.function, args) {
            (Function::Unary(f), [x]) => self.unary(f, x, span),
            (Function::Binary(f), [a, b]) => self.arithmetic(f, a, b, span),
            (Function::Clamp, [x, lo, hi]) => self.clamp(x, lo, hi, span),
            (Function::Softcap, [x, cap]) => self.softcap(x, cap, span),
            (Function::Select, [c, a, b]) => self.select(c, a, b, span),
            (Function::Sparsek, [score, k]) => self.sparsek(score, k, span),
            (Function::Topk, [gate]) => self.topk(gate, span),
            (Function::Window, [w]) => self.window(w, span),
            (Function::Sinks, [s]) => self.sinks(s, span),
            (Function::StraightThrough, [gate]) => self.straight_through(gate, span),
            (Function::Softmax, [logit, seen]) => {
                self.softmax(logit, seen, named.first().map(|(_, x)| x), span)
            }
            (Function::Dot, [a, b]) => self.dot(a, b, span),
            // The number of arguments was checked.
            _ => Value::Poison,
        }
    }

    /// Looks at expressions for what is wrong inside them.
    fn visit<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>) {
        for expr in exprs {
            self.value(expr);
        }
    }

    fn unknown_function(&mut self, name: &Ident) {
        let message = format!("there is no function `{}`", name.text);
        let near = nearest(&name.text, FUNCTIONS.iter().map(|f| f.name));
        let help = match (near.and_then(function::named), name.text.as_str()) {
            (_, "pow" | "powi" | "powf") => "write powers as products: `x * x`".to_owned(),
            (_, "relu") => "write `max(x, 0.0)`".to_owned(),
            (_, "where" | "ite") => "write `select(mask, a, b)`".to_owned(),
            (Some(near), _) => format!("did you mean `{}`?", near.signature),
            (None, _) => {
                let all: Vec<&str> = FUNCTIONS.iter().map(|f| f.name).collect();
                format!("functions are {}", all.join(", "))
            }
        };
        self.report(Diagnostic::new(Code::UnknownFunction, name.span, message).help(help));
    }

    fn arguments_fit(
        &mut self,
        entry: &Entry,
        name: &Ident,
        args: &[Expr],
        named: &[(Ident, Expr)],
    ) -> bool {
        let mut fit = true;
        for (n, (arg, _)) in named.iter().enumerate() {
            let diagnostic = if entry.function != Function::Softmax || arg.text != "sink" {
                let message = format!("`{}` has no argument named `{}`", entry.name, arg.text);
                Diagnostic::new(Code::UnknownArgument, arg.span, message)
                    .help(format!("call it as `{}`", entry.signature))
            } else if let Some((first, _)) = named[..n].first() {
                Diagnostic::new(Code::DuplicateName, arg.span, "the argument `sink` is given twice")
                    .also(first.span, "the first")
                    .help("a softmax has one sink logit; add the exponentials yourself: log(exp(a) + exp(b))")
            } else {
                continue;
            };
            self.report(diagnostic);
            fit = false;
        }
        if args.len() != entry.arity {
            let arguments = if entry.arity == 1 { "argument" } else { "arguments" };
            let message =
                format!("`{}` takes {} {arguments}, found {}", entry.name, entry.arity, args.len());
            // What was left out may have used anything.
            self.names_left_out = true;
            self.report(
                Diagnostic::new(Code::ArgumentCount, name.span, message)
                    .help(format!("call it as `{}`", entry.signature)),
            );
            fit = false;
        }
        fit
    }

    /// A value in words.
    pub(super) fn describe(&self, value: &Value) -> String {
        match value {
            Value::Node(v) => elementwise::describe(self.builder.ty(*v)),
            Value::Set(_) => "a set of keys".to_owned(),
            Value::Poison => "wrong".to_owned(),
        }
    }

    /// Whether a value depends on an operation that `is` one of.
    pub(super) fn depends(&self, v: ValueId, is: impl Fn(&Op) -> bool) -> bool {
        let mut seen = vec![false; v.index() + 1];
        let mut stack = vec![v];
        while let Some(v) = stack.pop() {
            if std::mem::replace(&mut seen[v.index()], true) {
                continue;
            }
            let op = &self.builder.node(v).op;
            if is(op) {
                return true;
            }
            stack.extend(op.operands());
        }
        false
    }

    /// What a predicate or a score may not depend on.
    pub(super) fn is_late(op: &Op) -> bool {
        matches!(
            op,
            Op::Dot(..)
                | Op::Softmax { .. }
                | Op::Sparsek { .. }
                | Op::StraightThrough(_)
                | Op::WeightedSum { .. }
                | Op::Lse(_)
        )
    }

    /// The kind of a value that is a node.
    pub(super) fn kind(&self, value: &Value) -> Option<Kind> {
        match value {
            Value::Node(v) => Some(self.builder.ty(*v).kind),
            Value::Set(_) | Value::Poison => None,
        }
    }
}
