//! Softmax over the seen keys and its log-sum-exp.

use super::geometry::At;
use super::round::Round;
use super::{Evaluation, Value};
use sparsek_dsl::ir::{Class, Type, ValueId};

impl Evaluation<'_> {
    /// p = exp(logit − lse); 0 where nothing is seen, and off the seen set, where it is not read.
    pub(super) fn softmax(
        &mut self,
        node: ValueId,
        logit: ValueId,
        sink: Option<ValueId>,
    ) -> Value {
        let logit = self.value(logit);
        let sink = sink.map(|s| self.value(s));
        let ty = Type::f32(Class::Pair);
        let round = self.options.arithmetic.result(false);
        let mut p = vec![0.0; self.geometry.size(Class::Pair)];
        let mut all = vec![0.0; self.geometry.size(Class::PerQuery)];
        self.geometry.each(Class::PerQuery, |query| {
            let pairs = (0..=query.i).map(|j| At { j, ..query }).filter(|at| self.is_seen(*at));
            let row: Vec<(At, f64)> = pairs.map(|at| (at, self.get(logit, at))).collect();
            let sink = sink.map_or(f64::NEG_INFINITY, |s| self.get(s, query));
            let lse = round(log_sum_exp(row.iter().map(|(_, x)| *x).chain([sink]), round));
            for (at, x) in row.iter().filter(|_| lse != f64::NEG_INFINITY) {
                p[self.geometry.offset(Class::Pair, *at)] = round(x - lse).exp();
            }
            all[self.geometry.offset(Class::PerQuery, query)] = lse;
        });
        self.lse.insert(node, all);
        Value { ty, data: p }
    }

    pub(super) fn log_sum_exp(&self, softmax: ValueId) -> Value {
        let data = self.lse.get(&softmax).cloned();
        Value { ty: Type::f32(Class::PerQuery), data: data.unwrap_or_default() }
    }
}

/// log Σ e^x; −inf over nothing.
fn log_sum_exp(xs: impl Iterator<Item = f64> + Clone, round: Round) -> f64 {
    let max = xs.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + xs.fold(0.0, |sum, x| round(sum + (x - max).exp())).ln()
}
