//! The user's predicates: as a function of a pair and, where sweeps decide whole tiles, as the same function of
//! bounds on what a tile's rows and columns have.

use super::elementwise::{Body, Domain, Expressions};
use super::module::Builder;
use crate::plan::{BoundedField, Function};
use sparsek_dsl::ir::{Binary, Coord, Kind, Op, Unary, ValueId};
use std::collections::BTreeSet;

impl Builder<'_> {
    /// The user's predicates as one function. Returns what it reads.
    pub(crate) fn predicates(&mut self, e: &Expressions<'_>) -> BTreeSet<ValueId> {
        let masks = e.program.seen_set().predicates.clone();
        if masks.is_empty() {
            return BTreeSet::new();
        }
        let body = e.body(&masks, Domain::Pair, false);
        self.values.has_predicate = true;
        let terms: Vec<String> = body.results.iter().map(|r| format!("({r})")).collect();
        let result = match terms.as_slice() {
            [_] => body.results[0].clone(),
            _ => terms.join(" && "),
        };
        let mut lines = body.lines.clone();
        if self.decides_tiles() && masks.iter().all(|m| has_bounds(e, *m)) {
            self.values.predicate_of_tiles = true;
            lines = lines.iter().map(|line| of_any_type(line)).collect();
            self.values.row_bounds = bounded(e, &body, Domain::Row);
            self.values.column_bounds = bounded(e, &body, Domain::Column);
        }
        let name = "predicate".to_owned();
        self.values.predicate = Function { name, lines, result };
        body.fields
    }
}

/// A local of a function body whose operands are numbers or bounds on them.
fn of_any_type(line: &str) -> String {
    let after =
        ["float", "int", "bool"].iter().find_map(|ty| line.strip_prefix(&format!("const {ty} ")));
    after.map_or_else(|| line.to_owned(), |rest| format!("const auto {rest}"))
}

/// The fields of one domain that the function reads.
fn bounded(e: &Expressions<'_>, body: &Body, domain: Domain) -> Vec<BoundedField> {
    let of_domain = body.fields.iter().filter(|v| e.at(**v).domain == domain);
    let field = |v: &ValueId| BoundedField {
        ty: e.c_type(*v).to_owned(),
        name: e.name(*v).to_owned(),
        is_position: is_position(e, *v),
    };
    of_domain.map(field).collect()
}

/// Whether a value is the position of a query or key, as an integer or f32.
fn is_position(e: &Expressions<'_>, v: ValueId) -> bool {
    let op = |v: ValueId| &e.program.node(e.resolve(v)).op;
    let integer = match op(v) {
        Op::ToFloat(x) => op(*x),
        whole => whole,
    };
    matches!(integer, Op::Coord(Coord::QueryPos | Coord::KeyPos))
}

/// Whether bounds on what a mask of pairs is made of give bounds on it: comparisons of sums and differences, each of
/// which f32 rounds to a number between what the ends are rounded to, and their connectives. A product
/// may be fused with a sum in one place and not in another.
fn has_bounds(e: &Expressions<'_>, mask: ValueId) -> bool {
    let mut seen = BTreeSet::new();
    let mut stack = vec![mask];
    while let Some(v) = stack.pop().map(|v| e.resolve(v)) {
        if e.at(v).domain != Domain::Pair || !seen.insert(v) {
            continue;
        }
        let op = &e.program.node(v).op;
        let supported = match op {
            Op::Unary(f, _) => *f == Unary::Neg,
            Op::Binary(f, ..) => matches!(f, Binary::Add | Binary::Sub),
            // Masks are compared by no bounds.
            Op::Compare(_, a, _) => e.program.ty(*a).kind != Kind::Bool,
            Op::Not(_) | Op::Logic(..) => true,
            Op::Select(..)
            | Op::ToFloat(_)
            | Op::Const(_)
            | Op::Int(_)
            | Op::Param(_)
            | Op::Input(_)
            | Op::Coord(_)
            | Op::Sparsek { .. }
            | Op::StraightThrough(_)
            | Op::Seen(_)
            | Op::MaskVjp { .. }
            | Op::Softmax { .. }
            | Op::Lse(_)
            | Op::Dot(..)
            | Op::WeightedSum { .. }
            | Op::Sum { .. } => false,
        };
        if !supported {
            return false;
        }
        stack.extend(op.operands());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::has_bounds;
    use crate::lower::cases::with_expressions;
    use sparsek_dsl::Elem;

    /// Whether bounds decide a predicate, after some definitions.
    fn decided(predicate: &str, definitions: &str) -> bool {
        let extras = [
            ("doc_q", "PerQuery<i32>"),
            ("doc_k", "PerKey<i32>"),
            ("slope", "PerHead"),
            ("bias", "PerKey"),
        ];
        let seen = format!("causal & window(W) & ({predicate})");
        let body = format!("{definitions} dot(softmax(dot(q, k), {seen}), v)");
        with_expressions(Elem::Bf16, &extras, &body, |e| {
            e.program.seen_set().predicates.iter().all(|m| has_bounds(e, *m))
        })
    }

    #[test]
    fn bounds_decide_comparisons_of_sums_and_their_connectives() {
        for predicate in [
            "doc_q == doc_k",
            "q.pos - k.pos < 1000",
            "(q.pos - k.pos + bias <= slope) & !(doc_q != doc_k) | (bias > 0.0)",
            "k.pos > 16",
            "slope * 2.0 - bias / 3.0 >= 0.5",
        ] {
            assert!(decided(predicate, ""), "{predicate}");
        }
    }

    #[test]
    fn other_arithmetic_of_pairs_is_left_to_pairs() {
        for predicate in [
            "(q.pos - k.pos) * 0.5 < 1000",
            "abs(q.pos - k.pos) < slope",
            "min(bias, slope) > 0.0",
            "select(doc_q == doc_k, bias, slope) > 0.0",
            "(doc_q == doc_k) & (exp(bias - slope) < 2.0)",
        ] {
            assert!(!decided(predicate, ""), "{predicate}");
        }
    }

    #[test]
    fn a_long_chain_is_no_recursion() {
        let mut text = "let m0 = doc_q == doc_k;".to_owned();
        for n in 0..3000 {
            text.push_str(&format!("let m{} = m{n} & (doc_q == doc_k);", n + 1));
        }
        assert!(decided("m3000", &text));
    }
}
