//! Selection, the gate, and the gate's vector-Jacobian product.

use super::geometry::At;
use super::{Evaluation, Value};
use sparsek_dsl::ir::{Class, Extent, Kind, Seen, Type, ValueId};
use std::cmp::Ordering;

/// What is selected. Vectors are in the order of PerKey; tau is indexed by query in place of key.
pub(super) struct Selection {
    /// Score of each key; `None` without a top-k mask.
    pub(super) scores: Option<Vec<f64>>,
    /// Threshold of each query.
    pub(super) tau: Vec<f64>,
    /// First query that no longer sees each key.
    pub(super) expiry: Vec<f64>,
    /// Whether query i selects key j, at \[sequence\]\[g\]\[i · N + j\].
    chosen: Vec<Vec<Vec<bool>>>,
}

fn literal(e: Option<Extent>) -> usize {
    e.and_then(Extent::literal).unwrap_or(0) as usize
}

impl Evaluation<'_> {
    /// Works out the selection, from the score when there is a top-k mask.
    fn select_keys(&self) -> Selection {
        let keys = self.geometry.size(Class::PerKey);
        let scores = self.program.gate().map(|gate| {
            let score = self.value(gate.score);
            self.map(Type::f32(Class::PerKey), |at| self.get(score, at)).data
        });
        let mut selection = Selection {
            scores,
            tau: vec![f64::NEG_INFINITY; keys],
            expiry: vec![0.0; keys],
            chosen: Vec::new(),
        };
        for s in 0..self.geometry.sequences.len() {
            let heads = 0..self.geometry.hkv;
            let chosen = heads.map(|g| self.select_head(s, g, &mut selection)).collect();
            selection.chosen.push(chosen);
        }
        selection
    }

    /// Thresholds and expiry of one sequence and key-value head; returns what each query selects.
    fn select_head(&self, s: usize, g: usize, selection: &mut Selection) -> Vec<bool> {
        let seen = self.program.seen_set();
        let (window, sinks) = (literal(seen.window), literal(seen.sinks));
        let k = literal(self.program.gate().map(|g| g.k));
        let round = self.options.arithmetic.tau();
        let len = self.geometry.len(s);
        let start = self.geometry.offset(Class::PerKey, At { s, g, ..At::default() });
        let mut chosen = vec![false; len * len];
        if let Some(scores) = &selection.scores {
            let scores = &scores[start..start + len];
            for i in 0..len {
                let range = sinks..(i + 1).saturating_sub(window).max(sinks);
                let mut best: Vec<usize> = range.filter(|j| can_be_selected(scores[*j])).collect();
                if best.len() > k {
                    selection.tau[start + i] = round(threshold(&best, scores, k));
                }
                best.sort_by(|a, b| better(scores[*a], *a, scores[*b], *b));
                best.iter().take(k).for_each(|j| chosen[i * len + j] = true);
            }
        }
        for j in 0..len {
            let leaves = (j + window..len).find(|i| !chosen[i * len + j]);
            let last = if j < sinks { len } else { leaves.unwrap_or(len) };
            selection.expiry[start + j] = last as f64;
        }
        chosen
    }

    /// Whether a key is in R_i, −inf scores and NaN aside.
    fn in_range(&self, at: At) -> bool {
        let seen = self.program.seen_set();
        at.j >= literal(seen.sinks) && at.j + literal(seen.window) <= at.i
    }

    /// The gate. The seen set comes after it, so the selection is worked out here.
    pub(super) fn sparsek(&mut self) -> Value {
        self.selection = Some(self.select_keys());
        let round = self.options.arithmetic.result(false);
        self.map(Type::f32(Class::Pair), |at| {
            let Some((u, tau)) = self.score_and_tau(at) else { return 1.0 };
            if !self.in_range(at) || !can_be_selected(u) || tau == f64::NEG_INFINITY {
                return 1.0;
            }
            clip(round(u - tau))
        })
    }

    /// Score of the key and threshold of the query of a pair.
    fn score_and_tau(&self, at: At) -> Option<(f64, f64)> {
        let selection = self.selection.as_ref()?;
        let key = self.geometry.offset(Class::PerKey, at);
        let query = self.geometry.offset(Class::PerKey, At { j: at.i, ..at });
        Some((selection.scores.as_ref()?[key], selection.tau[query]))
    }

    pub(super) fn straight_through(&self, gate: ValueId) -> Value {
        let gate = self.value(gate);
        let ty = Type::f32(Class::Pair);
        self.map(ty, |at| match self.options.straight_through_at {
            Some(base) => 1.0 + self.get(gate, at) - base[self.geometry.offset(Class::Pair, at)],
            None => 1.0,
        })
    }

    pub(super) fn seen(&mut self, seen: &Seen) -> Value {
        if self.selection.is_none() {
            self.selection = Some(self.select_keys());
        }
        let (window, sinks) = (literal(seen.window), literal(seen.sinks));
        let predicates: Vec<&Value> = seen.predicates.iter().map(|p| self.value(*p)).collect();
        self.map(Type::new(Class::Pair, Kind::Bool), |at| {
            let kept = at.i < at.j + window || at.j < sinks || self.is_selected(at);
            f64::from(kept && predicates.iter().all(|p| self.get(p, at) != 0.0))
        })
    }

    fn is_selected(&self, at: At) -> bool {
        let Some(selection) = &self.selection else { return false };
        selection.chosen[at.s][at.g][at.i * self.geometry.len(at.s) + at.j]
    }

    /// d_u_j = Σ_i \[j in I_i\] (dm_ij − (1/|I_i|) Σ_{l in I_i} dm_il).
    pub(super) fn mask_vjp(&self, d_gate: ValueId) -> Value {
        let d_gate = self.value(d_gate);
        let ty = Type::f32(Class::PerKey);
        let mut data = vec![0.0; self.geometry.size(Class::PerKey)];
        let round = self.options.arithmetic.result(false);
        self.geometry.each(Class::PerKey, |query| {
            // Every (s, g) with each query position in the place of j.
            let i = query.j;
            let mut fractional = Vec::new();
            for j in 0..=i {
                let at = At { i, j, ..query };
                let Some((u, tau)) = self.score_and_tau(at) else { continue };
                let m = round(u - tau);
                if self.in_range(at) && can_be_selected(u) && m > 0.0 && m < 1.0 {
                    let heads = query.g * self.geometry.group()..;
                    let d_m: f64 = heads
                        .take(self.geometry.group())
                        .map(|h| At { h, ..at })
                        .filter(|at| self.is_seen(*at))
                        .map(|at| self.get(d_gate, at))
                        .sum();
                    fractional.push((at, d_m));
                }
            }
            let sum: f64 = fractional.iter().map(|(_, d_m)| d_m).sum();
            let mean = sum / fractional.len() as f64;
            for (at, d_m) in fractional {
                data[self.geometry.offset(Class::PerKey, at)] += d_m - mean;
            }
        });
        Value { ty, data }
    }
}

fn can_be_selected(u: f64) -> bool {
    !u.is_nan() && u != f64::NEG_INFINITY
}

/// clip(x, 0, 1); 0 for NaN, which +inf − +inf is.
fn clip(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// Higher score first, then smaller index.
fn better(a: f64, i: usize, b: f64, j: usize) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal).then(i.cmp(&j))
}

/// The largest f64 with Σ clip(u − t, 0, 1) >= k, by bisection over all f64: halving the distance
/// between the bit patterns of two numbers ends at neighbours in 64 steps, whatever the scores.
fn threshold(keys: &[usize], scores: &[f64], k: usize) -> f64 {
    let enough = |t: f64| {
        let sum: f64 = keys.iter().map(|j| clip(scores[*j] - t)).sum();
        sum >= k as f64
    };
    // Bit patterns in the order of the numbers they stand for.
    let order = |x: f64| {
        let bits = x.to_bits() as i64;
        if bits < 0 { i64::MIN - bits } else { bits }
    };
    let number = |o: i64| f64::from_bits(if o < 0 { i64::MIN - o } else { o } as u64);
    let (mut low, mut high) = (order(f64::MIN), order(f64::INFINITY));
    if enough(f64::MAX) {
        return f64::INFINITY;
    }
    while low + 1 < high {
        let middle = ((i128::from(low) + i128::from(high)) / 2) as i64;
        if enough(number(middle)) {
            low = middle;
        } else {
            high = middle;
        }
    }
    number(low)
}

#[cfg(test)]
mod tests {
    use super::threshold;

    #[test]
    fn thresholds_by_hand() {
        let of = |scores: &[f64], k| threshold(&(0..scores.len()).collect::<Vec<_>>(), scores, k);
        assert_eq!(of(&[1.0, 10.0, 5.0], 2), 4.0);
        assert!((of(&[0.5; 3], 2) - (0.5 - 2.0 / 3.0)).abs() < 1e-15);
        assert!((of(&[5.0, 0.2, 0.1], 2) + 0.35).abs() < 1e-15);
        assert_eq!(of(&[f64::INFINITY, 3.0, 0.0], 2), 2.0);
        assert_eq!(of(&[f64::INFINITY, 3.0, 0.0], 1), f64::INFINITY);
        assert_eq!(of(&[-3.0, -2.0, -7.5], 1), -3.0);
    }
}
