//! Products over the head dimension and weighted sums of vectors.

use super::geometry::At;
use super::{Evaluation, Value};
use sparsek_dsl::ir::{Class, Kind, Type, ValueId};

impl Evaluation<'_> {
    pub(super) fn dot(&self, a: ValueId, b: ValueId) -> Value {
        let (a, b) = (self.value(a), self.value(b));
        let add = self.options.arithmetic.result(false);
        self.map(Type::f32(a.ty.class.join(b.ty.class)), |at| {
            let (x, y) = (self.vector(a, at), self.vector(b, at));
            x.iter().zip(y).fold(0.0, |sum, (x, y)| add(sum + x * y))
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
        let round = self.options.arithmetic.stored();
        let add = self.options.arithmetic.result(false);
        let mut data = vec![0.0; self.geometry.size(class) * d];
        self.geometry.each(Class::Pair, |at: At| {
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
