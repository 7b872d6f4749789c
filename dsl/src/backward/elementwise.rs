//! Derivatives of elementwise operations.

use super::Derivation;
use crate::ir::{Binary, Compare, Op, Unary, ValueId};

impl Derivation<'_> {
    /// `y` is the node's own value, which most derivatives are shortest in.
    pub(super) fn unary(&mut self, f: Unary, x: ValueId, y: ValueId, d: ValueId) {
        let value = self.at(x);
        let term = match f {
            Unary::Neg => self.builder.derive(Op::Unary(Unary::Neg, d)),
            Unary::Exp => self.mul(d, y),
            Unary::Log => self.builder.derive(Op::Binary(Binary::Div, d, value)),
            // 1 − y²
            Unary::Tanh => {
                let one = self.builder.real(1.0);
                let square = self.mul(y, y);
                let slope = self.sub(one, square);
                self.mul(d, slope)
            }
            // y (1 − y)
            Unary::Sigmoid => {
                let one = self.builder.real(1.0);
                let rest = self.sub(one, y);
                let slope = self.mul(y, rest);
                self.mul(d, slope)
            }
            // The sign; +1 at 0.
            Unary::Abs => {
                let zero = self.builder.real(0.0);
                let negative = self.builder.derive(Op::Compare(Compare::Lt, value, zero));
                let minus = self.builder.derive(Op::Unary(Unary::Neg, d));
                self.builder.derive(Op::Select(negative, minus, d))
            }
            // 1 / 2y
            Unary::Sqrt => {
                let two = self.builder.real(2.0);
                let twice = self.mul(two, y);
                self.builder.derive(Op::Binary(Binary::Div, d, twice))
            }
            // −x^(−3/2) / 2 = −y³ / 2
            Unary::Rsqrt => {
                let half = self.builder.real(-0.5);
                let square = self.mul(y, y);
                let cube = self.mul(square, y);
                let slope = self.mul(half, cube);
                self.mul(d, slope)
            }
        };
        self.give(x, term);
    }

    pub(super) fn binary(&mut self, f: Binary, a: ValueId, b: ValueId, y: ValueId, d: ValueId) {
        let (va, vb) = (self.at(a), self.at(b));
        match f {
            Binary::Add => {
                self.give(a, d);
                self.give(b, d);
            }
            Binary::Sub => {
                self.give(a, d);
                let minus = self.builder.derive(Op::Unary(Unary::Neg, d));
                self.give(b, minus);
            }
            Binary::Mul => {
                let term = self.mul(d, vb);
                self.give(a, term);
                let term = self.mul(d, va);
                self.give(b, term);
            }
            Binary::Div => {
                let term = self.builder.derive(Op::Binary(Binary::Div, d, vb));
                self.give(a, term);
                // −d a / b² = −(d / b) y
                let scaled = self.mul(term, y);
                let minus = self.builder.derive(Op::Unary(Unary::Neg, scaled));
                self.give(b, minus);
            }
            // All of it to the operand that was returned.
            Binary::Min | Binary::Max => {
                let second = if f == Binary::Min { Compare::Lt } else { Compare::Gt };
                let took_b = self.builder.derive(Op::Compare(second, vb, va));
                let zero = self.builder.real(0.0);
                let term = self.builder.derive(Op::Select(took_b, zero, d));
                self.give(a, term);
                let term = self.builder.derive(Op::Select(took_b, d, zero));
                self.give(b, term);
            }
        }
    }

    pub(super) fn select(&mut self, cond: ValueId, a: ValueId, b: ValueId, d: ValueId) {
        let cond = self.at(cond);
        let zero = self.builder.real(0.0);
        let term = self.builder.derive(Op::Select(cond, d, zero));
        self.give(a, term);
        let term = self.builder.derive(Op::Select(cond, zero, d));
        self.give(b, term);
    }
}
