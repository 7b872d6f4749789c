//! Random numbers: expressions over inputs, coordinates, the gate and the product.

use super::grammar::{Grammar, Term};
use sparsek_dsl::ir::{Binary, Class, Coord, Kind, Op, Type, Unary};

impl Grammar {
    /// An expression of at most `depth` levels whose class broadcasts to `limit`.
    pub(super) fn term(&mut self, depth: usize, limit: Class) -> Term {
        if depth == 0 || self.chance(0.15) {
            return self.leaf(limit);
        }
        let x = self.term(depth - 1, limit);
        let x = match self.below(12) {
            0 | 1 => {
                let y = self.term(depth - 1, limit);
                let f = self.pick(&[Binary::Add, Binary::Sub]);
                Term { value: self.a.binary(f, x.value, y.value), bound: x.bound + y.bound }
            }
            2 | 3 => {
                let y = self.term(depth - 1, limit);
                Term {
                    value: self.a.binary(Binary::Mul, x.value, y.value),
                    bound: x.bound * y.bound,
                }
            }
            4 => self.quotient(x, depth, limit),
            5 | 6 => self.function(x),
            7 => self.negated(x),
            8 => self.far_choice(x, depth, limit),
            9 => self.near_choice(x, limit),
            10 => {
                let mask = self.mask(1, limit);
                let y = self.term(depth - 1, limit);
                Term {
                    value: self.a.push(Op::Select(mask, x.value, y.value)),
                    bound: x.bound.max(y.bound),
                }
            }
            _ => {
                let c = self.constant();
                let value = self.a.binary(Binary::Mul, c.value, x.value);
                Term { value, bound: x.bound * c.bound }
            }
        };
        self.tamed(x)
    }

    fn leaf(&mut self, limit: Class) -> Term {
        match self.below(8) {
            0 => self.constant(),
            1 | 2 => self.position(limit),
            3 if limit == Class::Pair && self.gate.is_some() => self.gate_term(),
            4 if limit == Class::Pair && self.product.is_some() => self.product_term(),
            5 if Class::PerKey.broadcasts_to(limit) => {
                // Scores may be of any size.
                let u = self.score_input();
                let u = Term { value: u, bound: 1.0 };
                let scaled = self.times(u, 0.5);
                self.tanh(scaled)
            }
            6 => {
                let class = self.input_class(limit);
                let value = self.extra(Type::new(class, Kind::I32));
                let x = Term { value: self.a.push(Op::ToFloat(value)), bound: 2.0 };
                self.times(x, 0.3)
            }
            _ => {
                let class = self.input_class(limit);
                Term { value: self.extra(Type::f32(class)), bound: 1.5 }
            }
        }
    }

    /// The gate, or 1 with its derivative.
    pub(super) fn gate_term(&mut self) -> Term {
        let Some(gate) = self.gate else { return self.constant() };
        let value = if self.chance(0.25) { self.a.push(Op::StraightThrough(gate)) } else { gate };
        Term { value, bound: 1.0 }
    }

    fn product_term(&mut self) -> Term {
        match self.product {
            Some(value) => self.tanh(Term { value, bound: 4.0 }),
            None => self.constant(),
        }
    }

    /// A coordinate, scaled to a few units, or the distance of a pair.
    fn position(&mut self, limit: Class) -> Term {
        let longest = self.n.max(4) as f32;
        if limit == Class::Pair && self.chance(0.5) {
            let key = self.a.coord(Coord::KeyPos);
            let query = self.a.coord(Coord::QueryPos);
            let value = self.a.binary(Binary::Sub, key, query);
            return self.times(Term { value, bound: longest }, 0.0625);
        }
        if limit == Class::Scalar || limit == Class::PerHead && self.chance(0.5) {
            return self.constant();
        }
        let c = self.coordinate(limit);
        let value = self.a.coord(c);
        self.times(Term { value, bound: longest }, 0.0625)
    }

    /// x over something that stays away from 0.
    fn quotient(&mut self, x: Term, depth: usize, limit: Class) -> Term {
        let y = self.term(depth - 1, limit);
        let (y, least) = if self.chance(0.5) {
            let y = self.tanh(y);
            (self.plus(y, 1.75), 0.75)
        } else {
            let value = self.a.binary(Binary::Mul, y.value, y.value);
            (self.plus(Term { value, bound: y.bound * y.bound }, 0.5), 0.5)
        };
        Term { value: self.a.binary(Binary::Div, x.value, y.value), bound: x.bound / least }
    }

    fn function(&mut self, x: Term) -> Term {
        match self.pick(&Unary::ALL) {
            Unary::Neg => self.negated(x),
            Unary::Tanh => self.tanh(x),
            Unary::Sigmoid => Term { value: self.a.unary(Unary::Sigmoid, x.value), bound: 1.0 },
            Unary::Exp => {
                let x = if x.bound > 1.0 { self.tanh(x) } else { x };
                Term { value: self.a.unary(Unary::Exp, x.value), bound: x.bound.exp() }
            }
            // Of x² + ½ or more: away from 0.
            f @ (Unary::Log | Unary::Sqrt | Unary::Rsqrt) => {
                let value = self.a.binary(Binary::Mul, x.value, x.value);
                let y = self.plus(Term { value, bound: x.bound * x.bound }, 0.5);
                let bound = match f {
                    Unary::Log => y.bound.ln().max(0.7),
                    Unary::Sqrt => y.bound.sqrt(),
                    _ => 1.5,
                };
                Term { value: self.a.unary(f, y.value), bound }
            }
            Unary::Abs => {
                let x = self.tanh(x);
                let shift = self.pick(&[2.0f32, -2.0]);
                let y = self.plus(x, shift);
                Term { value: self.a.unary(Unary::Abs, y.value), bound: 3.0 }
            }
        }
    }

    /// −x. The language reads −c as a constant, which negation of one would not print back as.
    fn negated(&mut self, x: Term) -> Term {
        if self.a.builder.constant(x.value).is_some() {
            return self.tanh(x);
        }
        Term { value: self.a.unary(Unary::Neg, x.value), bound: x.bound }
    }

    /// `min`, `max` or a clamp whose operands are far apart.
    fn far_choice(&mut self, x: Term, depth: usize, limit: Class) -> Term {
        let x = self.tanh(x);
        let f = self.pick(&[Binary::Min, Binary::Max]);
        if self.chance(0.5) {
            let y = self.term(depth - 1, limit);
            let y = self.tanh(y);
            let shift = self.pick(&[2.5f32, -2.5]);
            let y = self.plus(y, shift);
            let (a, b) = if self.chance(0.5) { (x, y) } else { (y, x) };
            return Term { value: self.a.binary(f, a.value, b.value), bound: 3.5 };
        }
        let (low, high) = (self.a.real(-1.5), self.a.real(1.5));
        let above = self.a.binary(Binary::Max, x.value, low);
        Term { value: self.a.binary(Binary::Min, above, high), bound: 1.0 }
    }

    /// `min`, `max` or `abs` whose choice changes from place to place, along a coordinate whose
    /// half-integers keep it half a unit away from the other operand.
    fn near_choice(&mut self, x: Term, limit: Class) -> Term {
        let x = self.tanh(x);
        let x = self.times(x, 0.375);
        let along = if limit == Class::Pair {
            let (key, query) = (self.a.coord(Coord::KeyPos), self.a.coord(Coord::QueryPos));
            self.a.binary(Binary::Sub, key, query)
        } else {
            let c = self.coordinate(limit);
            if !c.class().broadcasts_to(limit) {
                return x;
            }
            self.a.coord(c)
        };
        let shift = self.pick(&[2.5f32, -2.5, 0.5]);
        let y = self.plus(Term { value: along, bound: self.n as f32 }, shift);
        let value = match self.below(3) {
            0 => self.a.binary(Binary::Min, x.value, y.value),
            1 => self.a.binary(Binary::Max, y.value, x.value),
            _ => {
                let sum = self.a.binary(Binary::Add, y.value, x.value);
                self.a.unary(Unary::Abs, sum)
            }
        };
        self.times(Term { value, bound: y.bound + 1.0 }, 0.125)
    }
}
