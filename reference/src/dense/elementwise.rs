//! Leaves and elementwise operations.

use super::{Evaluation, Value};
use crate::Error;
use sparsek_dsl::ir::{Binary, Class, Compare, Coord, Kind, Logic, Op, Type, Unary, ValueId};

impl Evaluation<'_> {
    pub(super) fn constant(&self, x: f64) -> Value {
        // Integers and numbers are both held as f64, and a constant is only read entry by entry.
        Value { ty: Type::f32(Class::Scalar), data: vec![x] }
    }

    /// The value of a default: an expression of constants alone, which may come after the input.
    pub(super) fn constant_value(&self, v: ValueId) -> Result<f64, Error> {
        let at = |v: &ValueId| self.constant_value(*v);
        let truth = |v: &ValueId| self.constant_value(*v).map(|x| x != 0.0);
        let round = self.options.arithmetic.result(false);
        Ok(match &self.program.node(v).op {
            Op::Const(x) => f64::from(x.get()),
            Op::Int(n) => f64::from(*n),
            Op::Unary(f, x) => round(f.apply(at(x)?)),
            Op::Binary(f, a, b) => round(f.apply(at(a)?, at(b)?)),
            Op::Compare(f, a, b) => f64::from(f.apply(at(a)?, at(b)?)),
            Op::Logic(f, a, b) => f64::from(f.apply(truth(a)?, truth(b)?)),
            Op::Not(x) => f64::from(!truth(x)?),
            Op::Select(c, a, b) => {
                if truth(c)? {
                    at(a)?
                } else {
                    at(b)?
                }
            }
            Op::ToFloat(x) => round(at(x)?),
            Op::Param(_) => return self.fail("has a parameter left; instantiate it first"),
            Op::Input(_)
            | Op::Coord(_)
            | Op::Sparsek { .. }
            | Op::StraightThrough(_)
            | Op::Seen(_)
            | Op::MaskVjp { .. }
            | Op::Softmax { .. }
            | Op::Lse(_)
            | Op::Dot(..)
            | Op::WeightedSum { .. }
            | Op::Sum { .. } => return self.fail("has a default that is not a constant"),
        })
    }

    pub(super) fn coordinate(&self, c: Coord) -> Value {
        self.map(Type::new(c.class(), Kind::I32), |at| {
            let x = match c {
                Coord::QueryPos => at.i,
                Coord::KeyPos => at.j,
                Coord::QueryHead => at.h,
                Coord::KeyHead => at.g,
                Coord::Batch => at.s,
            };
            x as f64
        })
    }

    pub(super) fn unary(&self, f: Unary, x: ValueId) -> Value {
        let x = self.value(x);
        self.map(x.ty, |at| f.apply(self.get(x, at)))
    }

    pub(super) fn binary(&self, f: Binary, a: ValueId, b: ValueId) -> Value {
        let (a, b) = (self.value(a), self.value(b));
        let ty = Type::f32(a.ty.class.join(b.ty.class));
        self.map(ty, |at| f.apply(self.get(a, at), self.get(b, at)))
    }

    pub(super) fn compare(&self, f: Compare, a: ValueId, b: ValueId) -> Value {
        let (a, b) = (self.value(a), self.value(b));
        let ty = Type::new(a.ty.class.join(b.ty.class), Kind::Bool);
        self.map(ty, |at| f64::from(f.apply(self.get(a, at), self.get(b, at))))
    }

    pub(super) fn logic(&self, f: Logic, a: ValueId, b: ValueId) -> Value {
        let (a, b) = (self.value(a), self.value(b));
        let ty = Type::new(a.ty.class.join(b.ty.class), Kind::Bool);
        self.map(ty, |at| f64::from(f.apply(self.get(a, at) != 0.0, self.get(b, at) != 0.0)))
    }

    pub(super) fn not(&self, x: ValueId) -> Value {
        let x = self.value(x);
        self.map(x.ty, |at| f64::from(self.get(x, at) == 0.0))
    }

    pub(super) fn select(&self, cond: ValueId, a: ValueId, b: ValueId) -> Value {
        let (cond, a, b) = (self.value(cond), self.value(a), self.value(b));
        let class = cond.ty.class.join(a.ty.class).join(b.ty.class);
        self.map(Type::f32(class), |at| {
            if self.get(cond, at) != 0.0 { self.get(a, at) } else { self.get(b, at) }
        })
    }

    pub(super) fn to_float(&self, x: ValueId) -> Value {
        let x = self.value(x);
        self.map(Type::f32(x.ty.class), |at| self.get(x, at))
    }
}
