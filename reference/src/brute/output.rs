//! One row of the attention: logits, softmax and output.

use super::select::Selection;
use super::{Gate, Problem, dot};
use crate::{Arrays, Sequence};

/// What one query sees.
pub(super) struct Row {
    /// Seen keys.
    pub(super) keys: Vec<usize>,
    /// Gate of each.
    pub(super) gate: Vec<f64>,
    /// scale (q·k) of each.
    pub(super) product: Vec<f64>,
    /// Logit of each.
    pub(super) logit: Vec<f64>,
    /// Probability of each.
    pub(super) p: Vec<f64>,
    lse: f64,
}

impl Problem<'_> {
    /// The row of query i of head h.
    pub(super) fn row(
        &self,
        s: Sequence,
        g: usize,
        h: usize,
        i: usize,
        selection: &Selection,
    ) -> Row {
        let d = self.sizes.d;
        let keys: Vec<usize> = (0..=i).filter(|j| selection.seen(i, *j)).collect();
        let gate: Vec<f64> = keys.iter().map(|j| selection.gate(i, *j)).collect();
        let q = &self.q[self.sizes.query(s, i, h)..][..d];
        let key = |j: usize| &self.k[self.sizes.key(s, j, g)..][..d];
        let product: Vec<f64> = keys.iter().map(|j| self.scale * dot(q, key(*j))).collect();
        let logit: Vec<f64> = keys
            .iter()
            .enumerate()
            .map(|(n, j)| {
                let gated =
                    if self.form.gate.on_keys() { product[n] * gate[n] } else { product[n] };
                let slope = self.slope.map_or(0.0, |slope| slope[h]);
                let x = gated + slope * (*j as f64 - i as f64);
                self.form.softcap.map_or(x, |c| c * (x / c).tanh())
            })
            .collect();
        let max = logit.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logit.iter().map(|x| (x - max).exp()).sum();
        let lse = if keys.is_empty() { f64::NEG_INFINITY } else { max + sum.ln() };
        let p = logit.iter().map(|x| (x - lse).exp()).collect();
        Row { keys, gate, product, logit, p, lse }
    }

    /// Weight of the row's n-th key on its value.
    pub(super) fn weight(&self, row: &Row, n: usize) -> f64 {
        match self.form.gate {
            Gate::Value | Gate::Both => row.p[n] * row.gate[n],
            Gate::Key | Gate::Hard | Gate::StraightThrough => row.p[n],
        }
    }

    pub(super) fn store_output(
        &self,
        s: Sequence,
        g: usize,
        h: usize,
        i: usize,
        row: &Row,
        arrays: &mut Arrays,
    ) {
        let d = self.sizes.d;
        if let Some(lse) = arrays.get_mut("lse") {
            lse.data_mut()[self.sizes.per_query_head(s, h, i)] = row.lse;
        }
        let Some(o) = arrays.get_mut("o") else { return };
        let o = &mut o.data_mut()[self.sizes.query(s, i, h)..][..d];
        for (n, j) in row.keys.iter().enumerate() {
            let weight = self.weight(row, n);
            let v = &self.v[self.sizes.key(s, *j, g)..][..d];
            o.iter_mut().zip(v).for_each(|(o, v)| *o += weight * v);
        }
    }
}
