//! Random masks: of integers, which compare exactly, and of numbers that are never close.

use super::grammar::Grammar;
use sparsek_dsl::ir::{Binary, Class, Compare, Coord, IntSet, Kind, Logic, Op, Type, ValueId};

impl Grammar {
    /// A mask of at most `depth` connectives whose class broadcasts to `limit`.
    pub(super) fn mask(&mut self, depth: usize, limit: Class) -> ValueId {
        if depth > 0 && self.chance(0.4) {
            let a = self.mask(depth - 1, limit);
            if self.chance(0.3) {
                return self.a.push(Op::Not(a));
            }
            let b = self.mask(depth - 1, limit);
            let f = self.pick(&[Logic::And, Logic::Or]);
            return if a == b { a } else { self.a.push(Op::Logic(f, a, b)) };
        }
        match self.below(5) {
            0 if limit == Class::Pair => self.same_document(),
            1 if limit == Class::Pair => self.distance(),
            2 => {
                let class = self.input_class(limit);
                let x = self.extra(Type::f32(class));
                let zero = self.a.real(0.0);
                let f = self.pick(&[Compare::Lt, Compare::Gt, Compare::Le, Compare::Ge]);
                self.a.push(Op::Compare(f, x, zero))
            }
            3 => {
                let class = self.input_class(limit);
                let x = self.extra(Type::new(class, Kind::I32));
                let n = self.below(3);
                let n = self.a.push(Op::Int(n as i32));
                let f = self.pick(&Compare::ALL);
                self.a.push(Op::Compare(f, x, n))
            }
            _ => self.coordinate_mask(limit),
        }
    }

    /// `xi == yi`, of integers for each query and each key.
    fn same_document(&mut self) -> ValueId {
        let query = self.extra(Type::new(Class::PerQuery, Kind::I32));
        let key = self.extra(Type::new(Class::PerKey, Kind::I32));
        let f = self.pick(&[Compare::Eq, Compare::Eq, Compare::Ne, Compare::Ge]);
        self.a.push(Op::Compare(f, query, key))
    }

    /// q.pos − k.pos against a number.
    fn distance(&mut self) -> ValueId {
        let (query, key) = (self.a.coord(Coord::QueryPos), self.a.coord(Coord::KeyPos));
        let distance = self.a.binary(Binary::Sub, query, key);
        let limit = self.pick(&[2.0f32, 3.5, 5.0]);
        let limit = self.a.real(limit);
        let f = self.pick(&[Compare::Lt, Compare::Ge, Compare::Ne]);
        self.a.push(Op::Compare(f, distance, limit))
    }

    /// A coordinate against a literal or a parameter.
    fn coordinate_mask(&mut self, limit: Class) -> ValueId {
        let c = self.coordinate(limit);
        if !c.class().broadcasts_to(limit) {
            let x = self.extra(Type::f32(Class::Scalar));
            let zero = self.a.real(0.0);
            return self.a.push(Op::Compare(Compare::Gt, x, zero));
        }
        let bound = match c {
            Coord::QueryPos | Coord::KeyPos => self.below(self.n.max(2)),
            Coord::QueryHead | Coord::KeyHead | Coord::Batch => self.below(2),
        };
        let bound = if self.chance(0.3) {
            let id = self.param("T", bound as i64, IntSet::Range { lo: 0, hi: 4096 });
            Op::Param(id)
        } else {
            Op::Int(bound as i32)
        };
        let (bound, c) = (self.a.push(bound), self.a.push(Op::Coord(c)));
        let f = self.pick(&Compare::ALL);
        self.a.push(Op::Compare(f, c, bound))
    }

    /// Predicates for the seen set: none of them an `and`, no two the same.
    pub(super) fn predicates(&mut self) -> Vec<ValueId> {
        let mut all = Vec::new();
        for _ in 0..self.pick(&[0, 0, 1, 1, 2]) {
            // A mask of one coordinate or input alone often removes every pair, or none.
            let p = match self.below(5) {
                0 => self.mask(2, Class::Pair),
                1 => self.same_document(),
                2 => self.distance(),
                _ => {
                    let (a, b) = (self.mask(1, Class::Pair), self.distance());
                    if a == b { a } else { self.a.push(Op::Logic(Logic::Or, a, b)) }
                }
            };
            self.flatten(p, &mut all);
        }
        all
    }

    fn flatten(&self, mask: ValueId, into: &mut Vec<ValueId>) {
        match self.a.builder.node(mask).op {
            Op::Logic(Logic::And, a, b) => {
                self.flatten(a, into);
                self.flatten(b, into);
            }
            _ if into.contains(&mask) => {}
            _ => into.push(mask),
        }
    }
}
