//! The gate, and the sets of keys that the seen set is made of.

use super::params::Use;
use super::{Lowerer, Value};
use crate::Span;
use crate::ast::Expr;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Class, Extent, Kind, Logic, Op, Seen, ValueId};

pub(super) const SEEN_FORM: &str = "a seen set is `causal & (topk(gate) | window(W) | sinks(4)) & \
                                    (predicate) & ..`, with at least one of topk, window and sinks";

/// A part of the seen set, or all of it: `causal`, one union, predicates.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    pub(super) causal: bool,
    topk: Option<(ValueId, Span)>,
    window: Option<(Extent, Span)>,
    sinks: Option<(Extent, Span)>,
    predicates: Vec<ValueId>,
    /// The first name it was bound to.
    pub(super) name: Option<String>,
}

impl KeySet {
    pub(super) fn causal(_: Span) -> KeySet {
        KeySet { causal: true, ..KeySet::default() }
    }

    /// Where its union was written, if it has one.
    pub(super) fn union(&self) -> Option<Span> {
        let spans = [self.topk.map(|t| t.1), self.window.map(|w| w.1), self.sinks.map(|s| s.1)];
        spans.into_iter().flatten().next()
    }

    fn is_union_only(&self) -> bool {
        !self.causal && self.predicates.is_empty()
    }

    pub(super) fn predicates(predicates: Vec<ValueId>) -> KeySet {
        KeySet { predicates, ..KeySet::default() }
    }

    /// As the operation.
    pub(super) fn seen(self) -> Seen {
        Seen {
            topk: self.topk.map(|t| t.0),
            window: self.window.map(|w| w.0),
            sinks: self.sinks.map(|s| s.0),
            predicates: self.predicates,
        }
    }
}

impl Lowerer<'_> {
    /// `sparsek(score, K)`
    pub(super) fn sparsek(&mut self, score: &Expr, k: &Expr, span: Span) -> Value {
        let value = self.number(score);
        let extent = self.extent(k, Use::Keys);
        let (Some(v), Some(k)) = (value, extent) else { return Value::Poison };
        if self.depends(v, Self::is_late) {
            let message = "the score depends on a product, a softmax or the gate";
            self.report(
                Diagnostic::new(Code::ScoreDependence, score.span, message)
                    .label("this is not known before keys are selected")
                    .help("a score is computed from PerKey and Scalar inputs and `k.pos`"),
            );
            return Value::Poison;
        }
        let class = self.builder.ty(v).class;
        if !class.broadcasts_to(Class::PerKey) {
            self.report(
                Diagnostic::new(Code::WrongClass, score.span, "a PerKey score is needed here")
                    .label(format!("this is a {class} number"))
                    .help("one score serves all queries: it varies by key, not by query or head"),
            );
            return Value::Poison;
        }
        let Some(gate) = self.node(Op::Sparsek { score: v, k }, span) else {
            return Value::Poison;
        };
        match self.gate {
            Some((first, at)) if first != gate => {
                self.report(
                    Diagnostic::new(Code::TwoGates, span, "a second `sparsek`")
                        .also(at, "the first")
                        .help("a kernel selects once; combine the scores into one"),
                );
                Value::Poison
            }
            _ => {
                self.gate = Some((gate, span));
                Value::Node(gate)
            }
        }
    }

    /// The gate that an expression is; anything else is reported.
    fn gate_of(&mut self, function: &str, expr: &Expr) -> Option<ValueId> {
        let value = self.value(expr);
        match value {
            Value::Node(v) if matches!(self.builder.node(v).op, Op::Sparsek { .. }) => Some(v),
            Value::Poison => None,
            Value::Node(_) | Value::Set(_) => {
                let found = self.describe(&value);
                let message = format!("`{function}` takes the gate itself");
                self.report(
                    Diagnostic::new(Code::TopkOfOther, expr.span, message)
                        .label(format!("this is {found}, not the result of `sparsek`"))
                        .help(format!("write `let gate = sparsek(u, K);` and `{function}(gate)`")),
                );
                None
            }
        }
    }

    pub(super) fn topk(&mut self, gate: &Expr, span: Span) -> Value {
        let topk = self.gate_of("topk", gate).map(|g| (g, span));
        self.set(topk.map(|t| KeySet { topk: Some(t), ..KeySet::default() }))
    }

    pub(super) fn straight_through(&mut self, gate: &Expr, span: Span) -> Value {
        match self.gate_of("straight_through", gate) {
            Some(gate) => self.push(Op::StraightThrough(gate), span),
            None => Value::Poison,
        }
    }

    pub(super) fn window(&mut self, w: &Expr, span: Span) -> Value {
        let window = self.extent(w, Use::Window).map(|w| (w, span));
        self.set(window.map(|w| KeySet { window: Some(w), ..KeySet::default() }))
    }

    pub(super) fn sinks(&mut self, s: &Expr, span: Span) -> Value {
        let sinks = self.extent(s, Use::Sinks).map(|s| (s, span));
        self.set(sinks.map(|s| KeySet { sinks: Some(s), ..KeySet::default() }))
    }

    fn set(&mut self, set: Option<KeySet>) -> Value {
        set.map_or(Value::Poison, |s| Value::Set(Box::new(s)))
    }

    /// `&` or `|` where at least one side is a set of keys.
    pub(super) fn combine(
        &mut self,
        f: Logic,
        (a, a_span): (Value, Span),
        (b, b_span): (Value, Span),
        span: Span,
    ) -> Value {
        if matches!(a, Value::Poison) || matches!(b, Value::Poison) {
            return Value::Poison;
        }
        match f {
            Logic::And => match (self.conjunct(a, a_span), self.conjunct(b, b_span)) {
                (Some(a), Some(b)) => self.conjunction(a, b, b_span),
                _ => Value::Poison,
            },
            Logic::Or => match (self.disjunct(a, a_span), self.disjunct(b, b_span)) {
                (Some(a), Some(b)) => self.union(a, b, span),
                _ => Value::Poison,
            },
        }
    }

    /// One side of a conjunction: a set, or a mask as a predicate.
    pub(super) fn conjunct(&mut self, value: Value, span: Span) -> Option<KeySet> {
        match value {
            Value::Set(set) => Some(*set),
            other => {
                let mask = self.as_mask(&other, span)?;
                if self.depends(mask, Self::is_late) {
                    let message = "a predicate depends on a product, a softmax or the gate";
                    self.report(
                        Diagnostic::new(Code::PredicateDependence, span, message)
                            .label("which keys are seen must be known before")
                            .help("predicates compare inputs and coordinates: `(doc_q == doc_k)`"),
                    );
                    return None;
                }
                Some(KeySet::predicates(self.flattened(mask)))
            }
        }
    }

    /// The parts of a conjunction of masks, left to right.
    fn flattened(&self, mask: ValueId) -> Vec<ValueId> {
        let mut out = Vec::new();
        let mut stack = vec![mask];
        while let Some(v) = stack.pop() {
            match self.builder.node(v).op {
                Op::Logic(Logic::And, a, b) => stack.extend([b, a]),
                _ => out.push(v),
            }
        }
        out
    }

    fn conjunction(&mut self, a: KeySet, b: KeySet, b_span: Span) -> Value {
        if let (Some(first), Some(_)) = (a.union(), b.union()) {
            self.report(
                Diagnostic::new(Code::SeenShape, b_span, "two sets of keys joined by `&`")
                    .also(first, "the first")
                    .help(format!("join topk, window and sinks with `|`; {SEEN_FORM}")),
            );
            return Value::Poison;
        }
        let mut predicates = a.predicates;
        predicates.extend(b.predicates);
        Value::Set(Box::new(KeySet {
            causal: a.causal || b.causal,
            topk: a.topk.or(b.topk),
            window: a.window.or(b.window),
            sinks: a.sinks.or(b.sinks),
            predicates,
            name: None,
        }))
    }

    /// One side of a union: topk, window or sinks, and nothing else.
    fn disjunct(&mut self, value: Value, span: Span) -> Option<KeySet> {
        let (message, label) = match &value {
            Value::Set(set) if set.is_union_only() => return Some((**set).clone()),
            Value::Set(_) => (
                "`|` joins topk, window and sinks only",
                "more than those; `&` binds tighter than `|`",
            ),
            Value::Node(v) if self.builder.ty(*v).kind == Kind::Bool => {
                ("a predicate cannot add keys to the seen set", "")
            }
            Value::Node(_) | Value::Poison => {
                self.as_mask(&value, span);
                return None;
            }
        };
        let diagnostic = Diagnostic::new(Code::SeenShape, span, message).label(label);
        self.report(diagnostic.help(SEEN_FORM));
        None
    }

    fn union(&mut self, a: KeySet, b: KeySet, span: Span) -> Value {
        let twice = match (a.topk, b.topk, a.window, b.window, a.sinks, b.sinks) {
            (Some(x), Some(y), ..) => Some(("topk", x.1, y.1)),
            (_, _, Some(x), Some(y), ..) => Some(("window", x.1, y.1)),
            (_, _, _, _, Some(x), Some(y)) => Some(("sinks", x.1, y.1)),
            _ => None,
        };
        if let Some((what, first, second)) = twice {
            let message = format!("`{what}` twice in one union");
            let at = if second == Span::NONE { span } else { second };
            self.report(
                Diagnostic::new(Code::SeenShape, at, message)
                    .also(first, "the first")
                    .help("keep the larger one"),
            );
            return Value::Poison;
        }
        Value::Set(Box::new(KeySet {
            causal: false,
            topk: a.topk.or(b.topk),
            window: a.window.or(b.window),
            sinks: a.sinks.or(b.sinks),
            predicates: Vec::new(),
            name: None,
        }))
    }

    /// Reports a gate that is used although the seen set does not select by it.
    pub(super) fn gate_is_selected(&mut self) {
        let (Some((gate, span)), Some(softmax)) = (self.gate, self.softmax) else { return };
        let Op::Seen(seen) = &self.builder.node(softmax.seen).op else { return };
        if seen.topk == Some(gate) {
            return;
        }
        self.report(
            Diagnostic::new(
                Code::GateWithoutTopk,
                span,
                "the seen set does not select by this gate",
            )
            .label("its candidates follow from `topk(gate)` in the seen set")
            .also(softmax.span, "the softmax over that set")
            .help("add `topk(gate)` to the union: `causal & (topk(gate) | window(W))`"),
        );
    }
}
