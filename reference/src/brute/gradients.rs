//! Gradients of one row, by hand.
//!
//! With w = p a, a the factor of the gate on the values, and x the logit before the softcap:
//!
//! ```text
//! dv_j += w_ij do_i                      dp_ij = (do_i · v_j) a_ij      da_ij = (do_i · v_j) p_ij
//! dy_ij = p_ij (dp_ij − Σ_l p_il dp_il)   dx_ij = dy_ij (1 − (y_ij / c)²)
//! dslope_h += dx_ij (j − i)              ds_ij = dx_ij b_ij             db_ij = dx_ij s_ij
//! dq_i += scale ds_ij k_j                dk_j += scale ds_ij q_i
//! ```
//!
//! s is the scaled dot, b the factor of the gate on the keys; dm = da + db where the gate stands.

use super::output::Row;
use super::{Gate, Problem, dot};
use crate::{Arrays, Sequence};

impl Problem<'_> {
    /// Adds the gradients of one row, and its adjoint of the gates to `d_gate`.
    #[allow(clippy::too_many_arguments)] // Coordinates of the row, and where its results go.
    pub(super) fn row_gradients(
        &self,
        s: Sequence,
        g: usize,
        h: usize,
        i: usize,
        row: &Row,
        d_o: &[f64],
        arrays: &mut Arrays,
        d_gate: &mut [f64],
    ) {
        let d = self.sizes.d;
        let at_query = self.sizes.query(s, i, h);
        let d_o = &d_o[at_query..][..d];
        let form = self.form;
        let d_w: Vec<f64> =
            row.keys.iter().map(|j| dot(d_o, &self.v[self.sizes.key(s, *j, g)..][..d])).collect();
        let d_p = |n: usize| if form.gate.on_values() { d_w[n] * row.gate[n] } else { d_w[n] };
        let delta: f64 = (0..row.keys.len()).map(|n| row.p[n] * d_p(n)).sum();
        for (n, j) in row.keys.iter().enumerate() {
            let d_y = row.p[n] * (d_p(n) - delta);
            let d_x = form.softcap.map_or(d_y, |c| d_y * (1.0 - (row.logit[n] / c).powi(2)));
            let d_s = if form.gate.on_keys() { d_x * row.gate[n] } else { d_x };
            d_gate[*j] += match form.gate {
                Gate::Value | Gate::StraightThrough => d_w[n] * row.p[n],
                Gate::Key => d_x * row.product[n],
                Gate::Both => d_w[n] * row.p[n] + d_x * row.product[n],
                Gate::Hard => 0.0,
            };
            if let Some(d_slope) = arrays.get_mut("d_slope") {
                d_slope.data_mut()[h] += d_x * (*j as f64 - i as f64);
            }
            let at_key = self.sizes.key(s, *j, g);
            let mut add = |name: &str, at: usize, factor: f64, vector: &[f64]| {
                if let Some(array) = arrays.get_mut(name) {
                    let to = &mut array.data_mut()[at..at + d];
                    to.iter_mut().zip(vector).for_each(|(t, x)| *t += factor * x);
                }
            };
            add("d_v", at_key, self.weight(row, n), d_o);
            add("d_q", at_query, self.scale * d_s, &self.k[at_key..at_key + d]);
            add("d_k", at_key, self.scale * d_s, &self.q[at_query..at_query + d]);
        }
    }
}
