//! Recomputation and derivative of the softmax.

use super::Derivation;
use crate::ir::{Binary, Class, Op, Unary, ValueId};

impl Derivation<'_> {
    /// p = exp(logit − lse)
    pub(super) fn probability(&mut self, logit: ValueId) -> ValueId {
        let shifted = self.builder.derive(Op::Binary(Binary::Sub, logit, self.lse));
        self.builder.derive(Op::Unary(Unary::Exp, shifted))
    }

    /// d_logit = p (d_p − Σ_j p d_p).
    ///
    /// The weight is linear in p, so Σ_j p_ij d_p_ij = Σ_j weight_ij d_weight_ij = d_o_i · o_i: the row
    /// sum is known before the row is swept. A sink has no value vector, so its d_p is 0.
    pub(super) fn softmax(
        &mut self,
        logit: ValueId,
        sink: Option<ValueId>,
        p: ValueId,
        d_p: ValueId,
    ) {
        let delta = self.builder.derive(Op::Dot(self.d_o, self.o));
        self.builder.name(delta, "delta");
        let centred = self.sub(d_p, delta);
        let term = self.mul(p, centred);
        self.give(logit, term);
        if let Some(sink) = sink {
            let value = self.at(sink);
            let p_sink = self.probability(value);
            self.builder.name(p_sink, "p_sink");
            let scaled = self.mul(p_sink, delta);
            let minus = self.builder.derive(Op::Unary(Unary::Neg, scaled));
            debug_assert!(self.builder.ty(minus).class == Class::PerQuery);
            self.give(sink, minus);
        }
    }
}
