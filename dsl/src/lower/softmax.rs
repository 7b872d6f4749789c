//! The softmax over the seen set.

use super::topk::SEEN_FORM;
use super::{Lowerer, Softmax, Value};
use crate::Span;
use crate::ast::Expr;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Class, Kind, Op, ValueId};

impl Lowerer<'_> {
    /// `softmax(logit, seen)` and `softmax(logit, seen, sink = x)`
    pub(super) fn softmax(
        &mut self,
        logit: &Expr,
        seen: &Expr,
        sink: Option<&Expr>,
        span: Span,
    ) -> Value {
        let l = self.logit(logit);
        let s = self.seen(seen);
        let sink = match sink {
            None => Some(None),
            Some(x) => self.sink(x).map(Some),
        };
        if let Some(first) = self.softmax {
            // The same softmax written twice is one value.
            let same = match (l, s, sink) {
                (Some(logit), Some(seen), Some(sink)) => {
                    let op = Op::Softmax { logit, seen, sink };
                    self.builder.node(first.value).op == op
                }
                _ => false,
            };
            if same {
                return Value::Node(first.value);
            }
            self.report(
                Diagnostic::new(Code::TwoSoftmaxes, span, "a second softmax")
                    .also(first.span, "the first")
                    .help("a kernel has one softmax; write two kernels"),
            );
            return Value::Poison;
        }
        let (Some(logit), Some(seen), Some(sink)) = (l, s, sink) else { return Value::Poison };
        let Some(value) = self.node(Op::Softmax { logit, seen, sink }, span) else {
            return Value::Poison;
        };
        self.softmax = Some(Softmax { value, seen, span });
        Value::Node(value)
    }

    fn logit(&mut self, expr: &Expr) -> Option<ValueId> {
        let v = self.number(expr)?;
        if self.depends(v, |op| matches!(op, Op::Softmax { .. } | Op::Lse(_))) {
            // The second softmax is reported where it stands.
            return Some(v);
        }
        if self.depends(v, |op| matches!(op, Op::Dot(..))) {
            return Some(v);
        }
        let class = self.builder.ty(v).class;
        let diagnostic = if class == Class::Pair {
            Diagnostic::new(Code::MissingProduct, expr.span, "the logit does not use `dot(q, k)`")
                .label("this does not compare queries with keys")
        } else {
            Diagnostic::new(Code::WrongClass, expr.span, "a Pair logit is needed here")
                .label(format!("this is a {class} number"))
        };
        self.report(diagnostic.help("a logit is an expression of `dot(q, k)`"));
        None
    }

    fn seen(&mut self, expr: &Expr) -> Option<ValueId> {
        let value = self.value(expr);
        if let Value::Poison = value {
            return None;
        }
        if matches!(value, Value::Node(_)) && self.kind(&value) != Some(Kind::Bool) {
            let found = self.describe(&value);
            self.report(
                Diagnostic::new(Code::NotAMask, expr.span, "a seen set is needed here")
                    .label(format!("this is {found}"))
                    .help(SEEN_FORM),
            );
            return None;
        }
        let set = self.conjunct(value, expr.span)?;
        let missing = if !set.causal {
            Some((Code::MissingCausal, "the seen set is not causal", "`causal` is missing here"))
        } else if set.union().is_none() {
            let label = "every earlier key is in this set";
            Some((Code::DenseSeen, "the seen set is dense", label))
        } else {
            None
        };
        if let Some((code, message, label)) = missing {
            let diagnostic = Diagnostic::new(code, expr.span, message).label(label).help(SEEN_FORM);
            self.report(diagnostic);
            return None;
        }
        let name = set.name.clone();
        let v = self.node(Op::Seen(set.seen()), expr.span)?;
        if let Some(name) = name {
            self.builder.name(v, &name);
        }
        Some(v)
    }

    fn sink(&mut self, expr: &Expr) -> Option<ValueId> {
        let v = self.number(expr)?;
        let class = self.builder.ty(v).class;
        if class.broadcasts_to(Class::PerQuery) {
            return Some(v);
        }
        self.report(
            Diagnostic::new(Code::WrongClass, expr.span, "a PerQuery sink logit is needed here")
                .label(format!("this is a {class} number"))
                .help("a sink is one more logit for each query: Scalar, PerHead or PerQuery"),
        );
        None
    }
}
