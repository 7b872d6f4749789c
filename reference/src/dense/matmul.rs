//! Products over the head dimension and weighted sums of vectors.

use super::geometry::At;
use super::{Evaluation, Value};
use sparsek_dsl::ir::{Class, Kind, Type, ValueId};

impl Evaluation<'_> {
    pub(super) fn dot(&self, a: ValueId, b: ValueId) -> Value {
        let (a, b) = (self.value(a), self.value(b));
        let add = self.options.arithmetic.result(false);
        let class = a.ty.class.join(b.ty.class);
        // Products of pairs keep their order: d_o · v and d_o · o of a row that sees one key are the
        // same sum, and would cancel without a trace if both were reversed.
        let reversed = self.options.arithmetic.reversed() && class != Class::Pair;
        self.map(Type::f32(class), |at| {
            let (x, y) = (self.vector(a, at), self.vector(b, at));
            let terms = x.iter().zip(y).map(|(x, y)| x * y);
            let step = |sum, x| add(sum + x);
            if reversed { terms.rev().fold(0.0, step) } else { terms.fold(0.0, step) }
        })
    }

    /// Σ_{j in seen(i)} weight_ij tile_j, or Σ_{h in group(g)} Σ_{i: j in seen(i)} weight_ij tile_i.
    pub(super) fn weighted_sum(&self, weight: ValueId, tile: ValueId) -> Value {
        let (weight, tile) = (self.value(weight), self.value(tile));
        let class = match tile.ty.class {
            Class::PerKey => Class::PerQuery,
            _ => Class::PerKey,
        };
        let d = self.geometry.d;
        let round = self.options.arithmetic.weights();
        let add = self.options.arithmetic.result(false);
        let mut data = vec![0.0; self.geometry.size(class) * d];
        self.geometry.each_in_order(Class::Pair, self.options.arithmetic.reversed(), |at: At| {
            if !self.is_seen(at) {
                return;
            }
            let w = round(self.get(weight, at));
            let to = self.geometry.offset(class, at) * d;
            let sum = &mut data[to..to + d];
            sum.iter_mut().zip(self.vector(tile, at)).for_each(|(s, x)| *s = add(*s + w * x));
        });
        Value { ty: Type::new(class, Kind::Vector), data }
    }
}
