//! Sums to a smaller class.

use super::{Evaluation, Value};
use sparsek_dsl::ir::{Class, Type, ValueId};

impl Evaluation<'_> {
    /// Adds every entry to the one that it broadcasts from; pairs count only where seen.
    pub(super) fn sum(&self, value: ValueId, to: Class) -> Value {
        let value = self.value(value);
        let add = self.options.arithmetic.result(false);
        let mut data = vec![0.0; self.geometry.size(to)];
        let reversed = self.options.arithmetic.reversed();
        self.geometry.each_in_order(value.ty.class, reversed, |at| {
            if value.ty.class != Class::Pair || self.is_seen(at) {
                let sum = &mut data[self.geometry.offset(to, at)];
                *sum = add(*sum + self.get(value, at));
            }
        });
        Value { ty: Type::f32(to), data }
    }
}
