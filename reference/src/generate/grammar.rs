//! What a random program is made of: the arena, the inputs so far, and bounded terms.

use super::standard::Arena;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use sparsek_dsl::Span;
use sparsek_dsl::ir::{
    Binary, Class, Coord, Extent, Input, IntSet, Kind, Op, Param, ParamId, Role, Type, Unary,
    ValueId,
};

/// An expression and a bound of its magnitude, which keeps programs in a range where f32 and f64 agree
/// well and exponentials stay small.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) value: ValueId,
    pub(super) bound: f32,
}

/// A program under construction.
pub(super) struct Grammar {
    pub(super) rng: StdRng,
    pub(super) a: Arena,
    /// Length of the sequences that the program is meant for.
    pub(super) n: usize,
    pub(super) params: Vec<Param>,
    /// Values of the parameters, in their order.
    pub(super) values: Vec<i64>,
    pub(super) u: Option<ValueId>,
    /// scale (q·k), where expressions may use it.
    pub(super) product: Option<ValueId>,
    /// The gate, where expressions may use it.
    pub(super) gate: Option<ValueId>,
    /// Names of the extra inputs, with their types.
    extras: Vec<(ValueId, Type)>,
}

impl Grammar {
    pub(super) fn new(rng: StdRng, n: usize) -> Grammar {
        Grammar {
            rng,
            a: Arena::new(),
            n,
            params: Vec::new(),
            values: Vec::new(),
            u: None,
            product: None,
            gate: None,
            extras: Vec::new(),
        }
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len());
        from[at]
    }

    /// A constant with few digits, never 0 or 1, of either sign.
    pub(super) fn constant(&mut self) -> Term {
        let size = self.pick(&[0.25f32, 0.3, 0.5, 0.7, 0.75, 1.25, 1.5, 2.0]);
        let x = if self.chance(0.3) { -size } else { size };
        Term { value: self.a.real(x), bound: size }
    }

    /// The score input, declared when it is first read.
    pub(super) fn score_input(&mut self) -> ValueId {
        if let Some(u) = self.u {
            return u;
        }
        let u = self.a.input("u", Role::Score, Type::f32(Class::PerKey));
        self.u = Some(u);
        u
    }

    /// An extra input of that type: one that exists, or a new one, with a default at times.
    pub(super) fn extra(&mut self, ty: Type) -> ValueId {
        let same: Vec<ValueId> =
            self.extras.iter().filter(|(_, t)| *t == ty).map(|(v, _)| *v).collect();
        if !same.is_empty() && (same.len() > 2 || self.chance(0.6)) {
            return self.pick(&same);
        }
        let letter = match (ty.class, ty.kind) {
            (Class::Scalar, _) => "a",
            (Class::PerHead, Kind::I32) => "hi",
            (Class::PerHead, _) => "h",
            (Class::PerQuery, Kind::I32) => "xi",
            (Class::PerQuery, _) => "x",
            (Class::PerKey, Kind::I32) => "yi",
            (Class::PerKey, _) => "y",
            (Class::PerBatch | Class::Pair, _) => "z",
        };
        let letter = if ty == Type::new(Class::Scalar, Kind::I32) { "ai" } else { letter };
        let default = (ty.kind == Kind::F32 && self.chance(0.3)).then(|| self.constant().value);
        let name = format!("{letter}{}", same.len());
        let id =
            self.a.builder.input(Input { name, role: Role::Extra, ty, default, span: Span::NONE });
        let v = self.a.push(Op::Input(id));
        self.extras.push((v, ty));
        v
    }

    /// An integer parameter of that value, or the one of that name.
    pub(super) fn param(&mut self, name: &str, value: i64, set: IntSet) -> ParamId {
        if let Some(at) = self.params.iter().position(|p| p.name == name) {
            return ParamId(at as u32);
        }
        self.params.push(Param { name: name.to_owned(), set });
        self.values.push(value);
        ParamId(self.params.len() as u32 - 1)
    }

    /// A size of that value: a literal, or a parameter of that name.
    pub(super) fn extent(&mut self, name: &str, value: usize) -> Extent {
        if self.chance(0.5) {
            return Extent::Literal(value as u32);
        }
        let hi = value.max(8) as i64;
        let list = vec![value as i64, value as i64 + 3];
        let set = if self.chance(0.3) {
            IntSet::List(list)
        } else {
            IntSet::Range { lo: (value as i64).min(1), hi }
        };
        Extent::Param(self.param(name, value as i64, set))
    }

    /// A coordinate that a value of class `limit` may read.
    pub(super) fn coordinate(&mut self, limit: Class) -> Coord {
        let all: Vec<Coord> =
            Coord::ALL.into_iter().filter(|c| c.class().broadcasts_to(limit)).collect();
        if all.is_empty() { Coord::Batch } else { self.pick(&all) }
    }

    /// Classes that a value of class `limit` may read, as inputs have them.
    pub(super) fn input_class(&mut self, limit: Class) -> Class {
        let all = [Class::Scalar, Class::PerHead, Class::PerQuery, Class::PerKey];
        let all: Vec<Class> = all.into_iter().filter(|c| c.broadcasts_to(limit)).collect();
        // Larger classes more often than scalars.
        if all.len() > 1 && self.chance(0.8) { self.pick(&all[1..]) } else { self.pick(&all) }
    }

    pub(super) fn times(&mut self, x: Term, factor: f32) -> Term {
        let c = self.a.real(factor);
        let value = self.a.binary(Binary::Mul, x.value, c);
        Term { value, bound: x.bound * factor.abs() }
    }

    pub(super) fn plus(&mut self, x: Term, shift: f32) -> Term {
        let c = self.a.real(shift);
        let value = self.a.binary(Binary::Add, x.value, c);
        Term { value, bound: x.bound + shift.abs() }
    }

    pub(super) fn tanh(&mut self, x: Term) -> Term {
        Term { value: self.a.unary(Unary::Tanh, x.value), bound: 1.0 }
    }

    /// The term itself, or in a range of a few units when it could be larger.
    pub(super) fn tamed(&mut self, x: Term) -> Term {
        if x.bound <= 4.0 {
            return x;
        }
        let c = self.pick(&[2.0f32, 3.0]);
        Term { value: self.a.softcap(x.value, c), bound: c }
    }
}
