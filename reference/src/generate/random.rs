//! Random programs.

use super::grammar::{Grammar, Term};
use super::standard;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{
    Binary, Class, ElemParam, Extent, Input, IntSet, Op, Program, Role, Seen, Spec, Type, Unary,
    ValueId,
};

/// A random program and parameters to instantiate it with.
#[derive(Clone, Debug)]
pub struct Generated {
    /// A forward program. Its inputs are all used, and its text parses back to it.
    pub program: Program,
    /// Element type, head dimension 16 and a value for every parameter.
    pub spec: Spec,
}

/// A random program for sequences of about `n` tokens: equal seeds give equal programs.
///
/// Expressions stay within a few units, divisors, logarithms and square roots away from 0, and minima,
/// maxima, absolute values and comparisons away from equality, so that f32 and f64 agree and finite
/// differences exist, for inputs as [`super::inputs`] makes them.
pub fn random(seed: u64, n: usize) -> Generated {
    let mut g = Grammar::new(StdRng::seed_from_u64(seed), n);
    let [q, k, v] = g.vectors();
    let head_dim = g.head_dim();
    let with_topk = g.chance(0.9);
    let gate = if with_topk { Some(g.sparsek()) } else { None };
    let seen = g.seen_set(gate);
    // Predicates and scores come before anything pair-wise; from here on it may be used.
    g.gate = gate.filter(|_| g.chance(0.85));
    let logit = g.logit(q, k, head_dim);
    let sink = g.chance(0.3).then(|| g.term(2, Class::PerQuery).value);
    let p = g.a.push(Op::Softmax { logit, seen, sink });
    let weight = g.weight(p, 2);
    g.finish(weight, v, p, seen, head_dim)
}

impl Grammar {
    fn vectors(&mut self) -> [ValueId; 3] {
        let query = Type::new(Class::PerQuery, sparsek_dsl::ir::Kind::Vector);
        let key = Type::new(Class::PerKey, sparsek_dsl::ir::Kind::Vector);
        [
            self.a.input("q", Role::Query, query),
            self.a.input("k", Role::Key, key),
            self.a.input("v", Role::Value, key),
        ]
    }

    fn head_dim(&mut self) -> Extent {
        if self.chance(0.5) {
            return Extent::Literal(16);
        }
        Extent::Param(self.param("D", 16, IntSet::Multiples { of: 16, up_to: 64 }))
    }

    /// `sparsek(score, K)` of the score input or an expression over it.
    fn sparsek(&mut self) -> ValueId {
        let value = 1 + self.below(self.n.div_ceil(3));
        let k = self.extent("K", value);
        let mut score = self.score_input();
        if self.chance(0.4) {
            let factor = self.term(1, Class::PerKey);
            let factor = self.tanh(factor);
            let factor = self.plus(factor, 1.75);
            score = self.a.binary(Binary::Mul, score, factor.value);
        }
        if self.chance(0.4) {
            let shift = self.term(2, Class::PerKey);
            score = self.a.binary(Binary::Add, score, shift.value);
        }
        self.a.push(Op::Sparsek { score, k })
    }

    fn seen_set(&mut self, gate: Option<ValueId>) -> ValueId {
        let size = self.below(self.n.div_ceil(3));
        let window = match gate {
            Some(_) if self.chance(0.3) => None,
            Some(_) => Some(self.extent("W", size)),
            None => Some(self.extent("W", size + 1)),
        };
        let sinks = self.below(4);
        let sinks = self.chance(0.4).then(|| self.extent("S", sinks));
        let predicates = self.predicates();
        self.a.push(Op::Seen(Seen { topk: gate, window, sinks, predicates }))
    }

    /// An expression over scale (q·k) and everything else.
    fn logit(&mut self, q: ValueId, k: ValueId, head_dim: Extent) -> ValueId {
        let dot = self.a.push(Op::Dot(q, k));
        let scale = self.scale(head_dim);
        let product = self.a.binary(Binary::Mul, dot, scale);
        let mut logit = Term { value: product, bound: 4.0 };
        if self.gate.is_some() && self.chance(0.4) {
            let gate = self.gate_term();
            logit.value = self.a.binary(Binary::Mul, logit.value, gate.value);
        }
        self.product = Some(product);
        for _ in 0..self.below(4) {
            let t = self.term(2, Class::Pair);
            let f = self.pick(&[Binary::Add, Binary::Sub, Binary::Mul]);
            let bound =
                if f == Binary::Mul { logit.bound * t.bound } else { logit.bound + t.bound };
            logit = Term { value: self.a.binary(f, logit.value, t.value), bound };
            if logit.bound > 12.0 {
                logit = Term { value: self.a.softcap(logit.value, 6.0), bound: 6.0 };
            }
        }
        logit.value
    }

    /// `scale: Scalar = rsqrt(D)`, or a constant.
    fn scale(&mut self, head_dim: Extent) -> ValueId {
        if self.chance(0.4) {
            return self.a.real(0.25);
        }
        let d = match head_dim {
            Extent::Literal(d) => self.a.real(d as f32),
            Extent::Param(id) => {
                let d = self.a.push(Op::Param(id));
                self.a.push(Op::ToFloat(d))
            }
        };
        let default = self.a.unary(Unary::Rsqrt, d);
        let id = self.a.builder.input(Input {
            name: "scale".to_owned(),
            role: Role::Extra,
            ty: Type::f32(Class::Scalar),
            default: Some(default),
            span: sparsek_dsl::Span::NONE,
        });
        self.a.push(Op::Input(id))
    }

    /// An expression linear in `p`.
    fn weight(&mut self, p: ValueId, depth: usize) -> ValueId {
        if depth == 0 {
            return p;
        }
        let w = self.weight(p, depth - 1);
        match self.below(8) {
            0 | 1 if self.gate.is_some() => {
                let gate = self.gate_term();
                self.a.binary(Binary::Mul, w, gate.value)
            }
            2 => {
                let t = self.term(2, Class::Pair);
                self.a.binary(Binary::Mul, t.value, w)
            }
            3 => {
                let t = self.term(1, Class::Pair);
                let t = self.tanh(t);
                let divisor = self.plus(t, 1.75);
                self.a.binary(Binary::Div, w, divisor.value)
            }
            4 => {
                let t = self.term(1, Class::Pair);
                let other = self.a.binary(Binary::Mul, p, t.value);
                let f = self.pick(&[Binary::Add, Binary::Sub]);
                self.a.binary(f, w, other)
            }
            5 => {
                let mask = self.mask(1, Class::Pair);
                let t = self.term(1, Class::Pair);
                let other = self.a.binary(Binary::Mul, p, t.value);
                self.a.push(Op::Select(mask, w, other))
            }
            6 => self.a.unary(Unary::Neg, w),
            _ => w,
        }
    }

    fn finish(
        mut self,
        weight: ValueId,
        v: ValueId,
        p: ValueId,
        seen: ValueId,
        head_dim: Extent,
    ) -> Generated {
        let generic = self.chance(0.5);
        let mut spec = Spec::new(Elem::F32, 16);
        for (param, value) in self.params.iter().zip(&self.values) {
            spec = match param.name.as_str() {
                "D" => spec,
                "K" => spec.k(*value),
                "W" => spec.w(*value),
                name => spec.set(name, *value),
            };
        }
        let mut program = standard::Arena::finish(self.a, weight, v, p, seen);
        program.params = self.params;
        program.head_dim = head_dim;
        if generic {
            program.elem = ElemParam { name: Some("E".to_owned()), set: Elem::ALL.to_vec() };
        }
        Generated { program, spec }
    }
}
