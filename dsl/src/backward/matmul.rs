//! Derivatives of the products with q, k and v.

use super::Derivation;
use crate::ir::{Op, ValueId};

impl Derivation<'_> {
    /// s_ij = q_i · k_j: d_q_i = Σ_j d_s_ij k_j and d_k_j = Σ_i d_s_ij q_i.
    pub(super) fn dot(&mut self, a: ValueId, b: ValueId, d: ValueId) {
        let (va, vb) = (self.at(a), self.at(b));
        let term = self.builder.derive(Op::WeightedSum { weight: d, tile: vb });
        self.give(a, term);
        let term = self.builder.derive(Op::WeightedSum { weight: d, tile: va });
        self.give(b, term);
    }

    /// o_i = Σ_j w_ij v_j: d_w_ij = d_o_i · v_j and d_v_j = Σ_i w_ij d_o_i.
    pub(super) fn weighted_sum(&mut self, weight: ValueId, tile: ValueId) {
        let (vw, vt) = (self.at(weight), self.at(tile));
        let d_weight = self.builder.derive(Op::Dot(self.d_o, vt));
        self.give(weight, d_weight);
        let d_tile = self.builder.derive(Op::WeightedSum { weight: vw, tile: self.d_o });
        self.give(tile, d_tile);
    }
}
