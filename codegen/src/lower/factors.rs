//! Constant factors of pair values, gathered: every instruction of a pair counts, those of a row, a key
//! or a block hardly do.
//!
//! * Division by a constant, or by what a row, a key or a block has, is multiplication by its
//!   reciprocal.
//! * Exponentials, tangents and sigmoids are computed from powers of two; where the factor log2 e, or
//!   2 log2 e of tangents, costs nothing inside, they become functions of those.
//! * A factor moves inward to where it costs nothing: into another constant factor, or into a value of
//!   a row, a key or a block. (a x + s (j − i)) / c becomes (a / c) x + (s / c) (j − i); differences
//!   of a row's and a key's numbers stay, since they would cancel after a product.
//!
//! Results differ in rounding alone, which 16-bit elements do not see. What comparisons read stays as
//! it is: there rounding decides.

use sparsek_dsl::ir::{Binary, Builder, Class, Kind, Op, Program, Real, Unary, ValueId};
use std::collections::BTreeSet;
use std::f64::consts::LOG2_E;

/// How far factors move inward: expressions may be chains of any length.
const DEPTH: u32 = 16;

/// The program with its factors gathered, and which of its exponentials, sigmoids and tangents take their
/// argument times log2 e, and those 2 log2 e.
pub(crate) fn gathered(program: &Program) -> (Program, BTreeSet<ValueId>) {
    // A program may hold a function of the very number that another one's argument becomes.
    Factors::gather(program, true)
        .or_else(|| Factors::gather(program, false))
        .unwrap_or_else(|| (program.clone(), BTreeSet::new()))
}

struct Factors<'a> {
    old: &'a Program,
    /// How often other values use one.
    uses: Vec<u32>,
    /// Whether a comparison depends on it.
    compared: Vec<bool>,
    builder: Builder,
    /// What has become of old values.
    map: Vec<ValueId>,
    powers: BTreeSet<ValueId>,
}

impl Factors<'_> {
    fn gather(old: &Program, with_powers: bool) -> Option<(Program, BTreeSet<ValueId>)> {
        let mut uses = vec![0u32; old.nodes.len()];
        let mut compared = vec![false; old.nodes.len()];
        for v in old.ids().rev() {
            let op = &old.node(v).op;
            op.for_each_operand(|o| {
                uses[o.index()] += 1;
                compared[o.index()] |= matches!(op, Op::Compare(..)) || compared[v.index()];
            });
        }
        let mut builder = Builder::new();
        for input in &old.inputs {
            builder.input(input.clone());
        }
        let (map, powers) = (Vec::with_capacity(old.nodes.len()), BTreeSet::new());
        let mut this = Factors { old, uses, compared, builder, map, powers };
        for v in old.ids() {
            let node = old.node(v);
            let is_pair = node.ty.class == Class::Pair && node.ty.kind == Kind::F32;
            let new = match is_pair && !this.compared[v.index()] {
                true => this.pair(v, with_powers)?,
                false => None,
            };
            let new = match new {
                Some(new) => new,
                None => {
                    let new = this.builder.derive(node.op.map_operands(|o| this.map[o.index()]));
                    if this.powers.contains(&new) {
                        return None;
                    }
                    new
                }
            };
            if let Some(name) = &node.name {
                this.builder.name(new, name);
            }
            this.map.push(new);
        }
        Some(this.finish())
    }

    fn finish(self) -> (Program, BTreeSet<ValueId>) {
        let at = |v: ValueId| self.map[v.index()];
        let (mut inputs, nodes) = self.builder.finish();
        for input in &mut inputs {
            input.default = input.default.map(at);
        }
        let mut program = Program { inputs, nodes, seen: at(self.old.seen), ..self.old.clone() };
        for output in &mut program.outputs {
            output.value = at(output.value);
        }
        // Nodes keep their order when those that nothing needs are removed.
        let live = program.live();
        let new = |v: &ValueId| live[..v.index()].iter().filter(|l| **l).count() as u32;
        let powers = self.powers.iter().filter(|v| live[v.index()]);
        let powers = powers.map(|v| ValueId(new(v))).collect();
        (program.without_dead_nodes(), powers)
    }

    /// The new form of a pair value, if it has one; `None` outside where functions of powers and
    /// others would be taken for one another.
    fn pair(&mut self, v: ValueId, with_powers: bool) -> Option<Option<ValueId>> {
        let new = match self.old.node(v).op {
            Op::Binary(Binary::Mul, a, b) => match (self.constant(a), self.constant(b)) {
                (Some(c), _) if self.is_free(b, DEPTH) => Some(self.times(b, c, DEPTH)),
                (_, Some(c)) if self.is_free(a, DEPTH) => Some(self.times(a, c, DEPTH)),
                _ => None,
            },
            Op::Binary(Binary::Div, a, b) => match self.constant(b) {
                Some(c) if is_normal(1.0 / c) => Some(self.times(a, 1.0 / c, DEPTH)),
                None if self.class(b) != Class::Pair => {
                    let reciprocal = self.reciprocal(b, 1.0);
                    let a = self.map[a.index()];
                    Some(self.builder.derive(Op::Binary(Binary::Mul, a, reciprocal)))
                }
                _ => None,
            },
            Op::Unary(f, x) if with_powers && self.is_free(x, DEPTH) => {
                let factor = match f {
                    Unary::Exp | Unary::Sigmoid => LOG2_E,
                    Unary::Tanh => 2.0 * LOG2_E,
                    _ => return Some(None),
                };
                let x = self.times(x, factor, DEPTH);
                let known = self.builder.len();
                let new = self.builder.derive(Op::Unary(f, x));
                if new.index() < known && !self.powers.contains(&new) {
                    return None;
                }
                self.powers.insert(new);
                Some(new)
            }
            _ => None,
        };
        Some(new)
    }

    fn name(&self, v: ValueId) -> Option<&str> {
        let node = self.old.node(v);
        match node.op {
            Op::Input(id) => Some(&self.old.input(id).name),
            _ => node.name.as_deref(),
        }
    }

    fn class(&self, v: ValueId) -> Class {
        self.old.ty(v).class
    }

    fn constant(&self, v: ValueId) -> Option<f64> {
        match self.old.node(v).op {
            Op::Const(x) => Some(f64::from(x.get())),
            _ => None,
        }
    }

    /// Whether this is the only use of a value that may be computed in another way.
    fn is_own(&self, v: ValueId) -> bool {
        self.uses[v.index()] == 1 && !self.compared[v.index()]
    }

    /// Whether a value costs a multiplication, which a sum takes in.
    fn is_product(&self, v: ValueId) -> bool {
        matches!(self.old.node(v).op, Op::Binary(Binary::Mul, ..))
    }

    /// Whether that value times a constant costs no more than the value.
    fn is_free(&self, v: ValueId, depth: u32) -> bool {
        if self.constant(v).is_some() {
            return true;
        }
        if depth == 0 || !self.is_own(v) {
            return false;
        }
        if self.class(v) != Class::Pair {
            return self.old.ty(v).kind == Kind::F32;
        }
        let free = |v: ValueId| self.is_free(v, depth - 1);
        match self.old.node(v).op {
            Op::Unary(Unary::Neg, x) => free(x),
            Op::Binary(Binary::Mul, a, b) => free(a) || free(b),
            Op::Binary(Binary::Div, a, b) => self.class(b) != Class::Pair || free(a),
            // Of a row's and a key's number, positions say, the difference may be all that counts.
            Op::Binary(Binary::Add | Binary::Sub, a, b)
                if self.class(a) != Class::Pair && self.class(b) != Class::Pair =>
            {
                false
            }
            // A factor of one addend alone is taken in by the sum, unless a product was already.
            Op::Binary(Binary::Add | Binary::Sub, a, b) => {
                let one = !self.is_product(a) && !self.is_product(b);
                if one { free(a) || free(b) } else { free(a) && free(b) }
            }
            Op::Select(_, a, b) => free(a) && free(b),
            _ => false,
        }
    }

    /// A value times a constant.
    fn times(&mut self, v: ValueId, factor: f64, depth: u32) -> ValueId {
        let new = self.map[v.index()];
        if factor as f32 == 1.0 {
            return new;
        }
        if let Some(c) = self.constant(v) {
            return self.builder.real((c * factor) as f32);
        }
        if depth > 0 && self.is_own(v) && self.class(v) == Class::Pair {
            let depth = depth - 1;
            let inner = match self.old.node(v).op {
                Op::Unary(Unary::Neg, x) => Some(self.times(x, -factor, depth)),
                Op::Binary(f @ (Binary::Mul | Binary::Div), a, b) => {
                    self.product_times(f, a, b, factor, depth)
                }
                Op::Binary(f @ (Binary::Add | Binary::Sub), a, b) if self.is_free(v, depth) => {
                    let (a, b) = (self.times(a, factor, depth), self.times(b, factor, depth));
                    Some(self.builder.derive(Op::Binary(f, a, b)))
                }
                Op::Select(c, a, b) if self.is_free(v, depth) => {
                    let (a, b) = (self.times(a, factor, depth), self.times(b, factor, depth));
                    Some(self.builder.derive(Op::Select(self.map[c.index()], a, b)))
                }
                _ => None,
            };
            if let Some(inner) = inner {
                return inner;
            }
        }
        let factor = self.builder.derive(Op::Const(Real::new(factor as f32)));
        let product = self.builder.derive(Op::Binary(Binary::Mul, new, factor));
        if self.class(v) != Class::Pair
            && let Some(name) = self.name(v)
        {
            self.builder.name(product, &format!("{name}_scaled"));
        }
        product
    }

    /// a f b times a constant that one of the two takes in.
    fn product_times(
        &mut self,
        f: Binary,
        a: ValueId,
        b: ValueId,
        factor: f64,
        depth: u32,
    ) -> Option<ValueId> {
        let (new_a, new_b) = (self.map[a.index()], self.map[b.index()]);
        if f == Binary::Div {
            return match self.constant(b) {
                Some(c) if is_normal(factor / c) => Some(self.times(a, factor / c, depth)),
                Some(_) => None,
                None if self.class(b) != Class::Pair => {
                    let reciprocal = self.reciprocal(b, factor);
                    Some(self.builder.derive(Op::Binary(Binary::Mul, new_a, reciprocal)))
                }
                None if self.is_free(a, depth) => {
                    let a = self.times(a, factor, depth);
                    Some(self.builder.derive(Op::Binary(Binary::Div, a, new_b)))
                }
                None => None,
            };
        }
        match (self.constant(a), self.constant(b)) {
            (Some(c), _) if is_normal(factor * c) => Some(self.times(b, factor * c, depth)),
            (_, Some(c)) if is_normal(factor * c) => Some(self.times(a, factor * c, depth)),
            (None, None) if self.is_free(a, depth) => {
                let a = self.times(a, factor, depth);
                Some(self.builder.derive(Op::Binary(Binary::Mul, a, new_b)))
            }
            (None, None) if self.is_free(b, depth) => {
                let b = self.times(b, factor, depth);
                Some(self.builder.derive(Op::Binary(Binary::Mul, new_a, b)))
            }
            _ => None,
        }
    }

    /// `factor` over a value that a row, a key or a block has.
    fn reciprocal(&mut self, v: ValueId, factor: f64) -> ValueId {
        let factor = self.builder.real(factor as f32);
        self.builder.derive(Op::Binary(Binary::Div, factor, self.map[v.index()]))
    }
}

/// Whether a factor is a number that f32 holds to its full precision.
fn is_normal(x: f64) -> bool {
    (x as f32).is_normal()
}

#[cfg(test)]
mod tests {
    use crate::lower::cases::with_expressions;
    use crate::lower::elementwise::Domain;
    use sparsek_dsl::Elem;
    use sparsek_dsl::ir::Op;

    /// The statements and the result that a logit becomes.
    fn logit(elem: Elem, text: &str) -> String {
        let extras = [("slope", "PerHead"), ("bias", "PerKey")];
        with_expressions(elem, &extras, &format!("{text} dot(softmax(s, seen), v)"), |e| {
            let softmax = e.program.ids().find_map(|v| match e.program.node(v).op {
                Op::Softmax { logit, .. } => Some(logit),
                _ => None,
            });
            let roots: Vec<_> = e.program.seen_set().predicates.clone();
            let roots: Vec<_> = softmax.into_iter().chain(roots).collect();
            let body = e.body(&roots, Domain::Pair, false);
            [body.lines, body.results].concat().join("; ")
        })
    }

    fn seen(logit: &str) -> String {
        format!("let seen = causal & window(W); let s = {logit};")
    }

    #[test]
    fn division_by_a_constant_becomes_a_factor() {
        let text = seen("(dot(q, k) * 0.5 + slope * (k.pos - q.pos)) / 4.0");
        let found = logit(Elem::Bf16, &text);
        assert!(found.starts_with("(dot_qk * 0.125f) + (r.slope_scaled * (c."), "{found}");
        let found = logit(Elem::F32, &text);
        assert!(found.starts_with("divide((dot_qk * 0.5f) + (r.slope * (c."), "{found}");
    }

    #[test]
    fn differences_are_taken_before_factors() {
        for (text, difference) in [
            ("dot(q, k) * 0.5 + (k.pos - q.pos) * 0.1", "((c."),
            ("softcap(dot(q, k) + (k.pos - q.pos) * 0.1, 30.0)", "((c."),
            ("dot(q, k) + tanh((k.pos - q.pos) / 60.0)", "(c."),
            ("(dot(q, k) + slope * (k.pos - q.pos) + slope) / 3.0", "(c."),
            ("(slope - bias) / 3.0 + dot(q, k)", "(r.slope - c.bias)"),
        ] {
            let found = logit(Elem::Bf16, &seen(text));
            assert!(found.contains(difference) && !found.contains("pos_scaled"), "{text}: {found}");
            let scaled = found.matches("_scaled").count();
            assert_eq!(scaled, 0, "{text}: {found}");
        }
    }

    #[test]
    fn what_every_pair_divides_by_is_inverted_once() {
        let found = logit(Elem::Bf16, &seen("dot(q, k) / (1.0 + abs(slope))"));
        assert!(found.starts_with("dot_qk * r.") && !found.contains("divide"), "{found}");
    }

    #[test]
    fn a_tangent_takes_powers_where_that_is_free() {
        let found = logit(Elem::Bf16, &seen("tanh(dot(q, k) * 0.5 + bias)"));
        let free = "hyperbolic_tangent_of_powers((dot_qk * 1.442695f) + c.bias_scaled)";
        assert_eq!(found, free);
        let found = logit(Elem::Bf16, &seen("tanh(dot(q, k))"));
        assert_eq!(found, "hyperbolic_tangent(dot_qk)");
    }

    #[test]
    fn an_exponential_takes_powers_where_that_is_free() {
        let found = logit(Elem::Bf16, &seen("exp(dot(q, k) * 0.5 - slope)"));
        assert_eq!(found, "power_of_two((dot_qk * 0.7213475f) - r.slope_scaled)");
        let found = logit(Elem::F32, &seen("exp(dot(q, k) * 0.5 - slope)"));
        assert_eq!(found, "exponential((dot_qk * 0.5f) - r.slope)");
    }

    #[test]
    fn comparisons_stay_as_written() {
        let text = "let seen = causal & window(W) & ((bias + q.pos) / 3.0 < slope);
            let s = dot(q, k) / 3.0;";
        let found = logit(Elem::Bf16, text);
        assert!(found.contains("dot_qk * 0.33333334f"), "{found}");
        assert!(found.contains("divide(c.bias + r."), "{found}");
    }

    #[test]
    fn a_long_chain_of_sums_is_no_recursion() {
        let mut text = "let seen = causal & window(W); let x0 = dot(q, k) * 2.0;".to_owned();
        for n in 0..3000 {
            text.push_str(&format!("let x{} = x{n} + bias;", n + 1));
        }
        text.push_str("let s = x3000 / 3.0;");
        assert!(logit(Elem::Bf16, &text).contains("0.33333334f"));
    }
}
