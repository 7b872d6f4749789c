//! The program of one form of attention.

use crate::brute::{Attention, Gate};
use sparsek_dsl::ir::{
    Binary, Builder, Class, Coord, Direction, ElemParam, Extent, Input, Kind, Op, Output, Program,
    Role, ScheduleBlock, Seen, Type, Unary, ValueId,
};
use sparsek_dsl::{Elem, Span};

/// A builder of operations that are known to be well typed.
pub(super) struct Arena {
    pub(super) builder: Builder,
}

impl Arena {
    pub(super) fn new() -> Arena {
        Arena { builder: Builder::new() }
    }

    pub(super) fn input(&mut self, name: &str, role: Role, ty: Type) -> ValueId {
        let (name, default, span) = (name.to_owned(), None, Span::NONE);
        let id = self.builder.input(Input { name, role, ty, default, span });
        self.push(Op::Input(id))
    }

    /// The value of an operation, which is not simplified: programs keep the form they were made in.
    pub(super) fn push(&mut self, op: Op) -> ValueId {
        match self.builder.try_push(op.clone(), Span::NONE) {
            Ok(v) => v,
            Err(rule) => unreachable!("generated operation {op:?} breaks a rule: {rule}"),
        }
    }

    pub(super) fn real(&mut self, x: f32) -> ValueId {
        self.builder.real(x)
    }

    pub(super) fn unary(&mut self, f: Unary, x: ValueId) -> ValueId {
        self.push(Op::Unary(f, x))
    }

    pub(super) fn binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> ValueId {
        self.push(Op::Binary(f, a, b))
    }

    pub(super) fn coord(&mut self, c: Coord) -> ValueId {
        let c = self.push(Op::Coord(c));
        self.push(Op::ToFloat(c))
    }

    /// c tanh(x / c)
    pub(super) fn softcap(&mut self, x: ValueId, c: f32) -> ValueId {
        let c = self.real(c);
        let ratio = self.binary(Binary::Div, x, c);
        let tanh = self.unary(Unary::Tanh, ratio);
        self.binary(Binary::Mul, c, tanh)
    }

    /// The forward program with result `weight` · v under the softmax `p`.
    pub(super) fn finish(
        mut self,
        weight: ValueId,
        v: ValueId,
        p: ValueId,
        seen: ValueId,
    ) -> Program {
        let o = self.push(Op::WeightedSum { weight, tile: v });
        let lse = self.push(Op::Lse(p));
        let (inputs, nodes) = self.builder.finish();
        let vector = Type::new(Class::PerQuery, Kind::Vector);
        let output = |name: &str, value, ty| Output { name: name.to_owned(), value, ty };
        Program {
            direction: Direction::Forward,
            name: "Generated".to_owned(),
            docs: Vec::new(),
            elem: ElemParam { name: None, set: vec![Elem::F32] },
            head_dim: Extent::Literal(16),
            params: Vec::new(),
            inputs,
            nodes,
            seen,
            outputs: vec![output("o", o, vector), output("lse", lse, Type::f32(Class::PerQuery))],
            schedule: ScheduleBlock::default(),
        }
    }
}

/// The q, k, v, u of every program.
pub(super) fn vectors(a: &mut Arena) -> [ValueId; 4] {
    let query = Type::new(Class::PerQuery, Kind::Vector);
    let key = Type::new(Class::PerKey, Kind::Vector);
    [
        a.input("q", Role::Query, query),
        a.input("k", Role::Key, key),
        a.input("v", Role::Value, key),
        a.input("u", Role::Score, Type::f32(Class::PerKey)),
    ]
}

/// The program of `form`, for that element type and head dimension, without parameters; with an input
/// `slope: PerHead` when asked for. It computes what [`crate::brute::run`] does, but that a scale is
/// an f32.
pub fn program(form: &Attention, elem: Elem, d: usize, with_slope: bool) -> Program {
    let mut a = Arena::new();
    let [q, k, v, u] = vectors(&mut a);
    let gate = a.push(Op::Sparsek { score: u, k: Extent::Literal(form.k as u32) });
    let extent = |n: usize| (n > 0).then_some(Extent::Literal(n as u32));
    let seen = a.push(Op::Seen(Seen {
        topk: Some(gate),
        window: extent(form.window),
        sinks: extent(form.sinks),
        predicates: Vec::new(),
    }));
    let dot = a.push(Op::Dot(q, k));
    let scale = a.real(form.scale.unwrap_or(1.0 / (d as f64).sqrt()) as f32);
    let mut logit = a.binary(Binary::Mul, dot, scale);
    if matches!(form.gate, Gate::Key | Gate::Both) {
        logit = a.binary(Binary::Mul, logit, gate);
    }
    if with_slope {
        let slope = a.input("slope", Role::Extra, Type::f32(Class::PerHead));
        let (key, query) = (a.coord(Coord::KeyPos), a.coord(Coord::QueryPos));
        let distance = a.binary(Binary::Sub, key, query);
        let bias = a.binary(Binary::Mul, slope, distance);
        logit = a.binary(Binary::Add, logit, bias);
    }
    if let Some(c) = form.softcap {
        logit = a.softcap(logit, c as f32);
    }
    let p = a.push(Op::Softmax { logit, seen, sink: None });
    let weight = match form.gate {
        Gate::Value | Gate::Both => a.binary(Binary::Mul, p, gate),
        Gate::StraightThrough => {
            let one = a.push(Op::StraightThrough(gate));
            a.binary(Binary::Mul, p, one)
        }
        Gate::Key | Gate::Hard => p,
    };
    let mut program = a.finish(weight, v, p, seen);
    program.elem.set = vec![elem];
    program.head_dim = Extent::Literal(d as u32);
    program
}
