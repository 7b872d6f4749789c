//! Derivatives of the gate.

use super::Derivation;
use crate::ir::{Op, ValueId};

impl Derivation<'_> {
    pub(super) fn sparsek(&mut self, score: ValueId, gate: ValueId, d_gate: ValueId) {
        let d_score = self.builder.derive(Op::MaskVjp { gate, d_gate });
        self.give(score, d_score);
    }

    /// The value is 1 and the derivative is the gate's own.
    pub(super) fn straight_through(&mut self, gate: ValueId, d: ValueId) {
        self.give(gate, d);
    }
}
