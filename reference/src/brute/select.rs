//! Thresholds, gates and selected keys of one sequence and key-value head.

use super::Attention;

/// Selection of every query of one sequence for one key-value head.
pub(super) struct Selection<'a> {
    scores: &'a [f64],
    window: usize,
    sinks: usize,
    /// Threshold of each query.
    pub(super) tau: Vec<f64>,
    /// Whether query i selects key j, at i · N + j.
    selected: Vec<bool>,
}

impl<'a> Selection<'a> {
    /// Selects for every query.
    pub(super) fn new(scores: &'a [f64], form: &Attention) -> Selection<'a> {
        let n = scores.len();
        let mut selection = Selection {
            scores,
            window: form.window,
            sinks: form.sinks,
            tau: vec![f64::NEG_INFINITY; n],
            selected: vec![false; n * n],
        };
        for i in 0..n {
            let mut candidates: Vec<usize> =
                (0..=i).filter(|j| selection.candidate(i, *j)).collect();
            candidates.sort_by(|a, b| {
                let by_score = scores[*b].partial_cmp(&scores[*a]);
                by_score.unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(b))
            });
            for j in candidates.iter().take(form.k) {
                selection.selected[i * n + j] = true;
            }
            if candidates.len() > form.k {
                let sorted: Vec<f64> = candidates.iter().map(|j| scores[*j]).collect();
                selection.tau[i] = threshold(&sorted, form.k as f64);
            }
        }
        selection
    }

    fn candidate(&self, i: usize, j: usize) -> bool {
        let u = self.scores[j];
        j >= self.sinks && j + self.window <= i && !u.is_nan() && u != f64::NEG_INFINITY
    }

    /// Whether query i sees key j.
    pub(super) fn seen(&self, i: usize, j: usize) -> bool {
        let near = j <= i && i < j + self.window;
        j <= i && (near || j < self.sinks || self.selected[i * self.scores.len() + j])
    }

    /// The gate of key j for query i.
    pub(super) fn gate(&self, i: usize, j: usize) -> f64 {
        if self.candidate(i, j) && self.tau[i] != f64::NEG_INFINITY {
            clip(self.scores[j] - self.tau[i])
        } else {
            1.0
        }
    }

    /// First query from j + w on that does not select key j; N for sinks and for keys kept to the
    /// end.
    pub(super) fn expiry(&self) -> Vec<usize> {
        let n = self.scores.len();
        let first =
            |j: usize| (j + self.window..n).find(|i| !self.selected[i * n + j]).unwrap_or(n);
        (0..n).map(|j| if j < self.sinks { n } else { first(j) }).collect()
    }

    /// Adds the vector-Jacobian product of query i's gates to `d_u`.
    pub(super) fn backward(&self, i: usize, d_gate: &[f64], d_u: &mut [f64]) {
        let fractional: Vec<usize> = (0..=i)
            .filter(|j| self.candidate(i, *j) && self.tau[i] != f64::NEG_INFINITY)
            .filter(|j| self.gate(i, *j) > 0.0 && self.gate(i, *j) < 1.0)
            .collect();
        let sum: f64 = fractional.iter().map(|j| d_gate[*j]).sum();
        let mean = sum / fractional.len() as f64;
        for j in fractional {
            d_u[j] += d_gate[j] - mean;
        }
    }
}

/// min(max(x, 0), 1); 0 for NaN, the difference of +inf and a tau of +inf.
fn clip(x: f64) -> f64 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// The largest t with f(t) = Σ clip(u − t, 0, 1) >= k for more than k scores in falling order.
///
/// f is linear between its breakpoints u and u − 1 and never rises, so a binary search over the
/// breakpoints finds the piece that holds the root, and the root of that piece is exact.
fn threshold(sorted: &[f64], k: f64) -> f64 {
    // A breakpoint is (u, 0) or (u, 1) for u − 1; f is computed from differences of scores, so that
    // the key a breakpoint comes from counts exactly 0 or 1 there.
    let f = |(u, less): (f64, f64)| -> f64 {
        let part = |x: f64| if x == u { less } else { (x - u + less).clamp(0.0, 1.0) };
        sorted.iter().map(|x| part(*x)).sum()
    };
    let mut breaks: Vec<(f64, f64)> = sorted.iter().flat_map(|u| [(*u, 0.0), (*u, 1.0)]).collect();
    // Beyond 2^53, u − 1 is u: there the breakpoint that counts less goes first.
    breaks.sort_by(|a, b| (b.0 - b.1).total_cmp(&(a.0 - a.1)).then(a.1.total_cmp(&b.1)));
    // Breakpoints fall, so f rises along them.
    let at = breaks.partition_point(|b| f(*b) < k);
    let Some(low) = breaks.get(at) else { return f64::NEG_INFINITY };
    let low = low.0 - low.1;
    let Some(high) = at.checked_sub(1).and_then(|i| breaks.get(i)) else { return low };
    let high = high.0 - high.1;
    // On [low, high] a key is saturated (u − 1 >= high), absent (u <= low) or fractional.
    let saturated = sorted.iter().filter(|u| *u - 1.0 >= high).count() as f64;
    let fractional: Vec<f64> =
        sorted.iter().copied().filter(|u| u - 1.0 < high && *u > low).collect();
    if fractional.is_empty() {
        return low;
    }
    // Relative to the piece's end, so that large scores lose nothing.
    let over: f64 = fractional.iter().map(|u| u - low).sum();
    let root = low + (over + saturated - k) / fractional.len() as f64;
    root.clamp(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_by_hand() {
        // Far apart: the two best are saturated on a whole stretch, whose largest t is 5 − 1.
        assert_eq!(threshold(&[10.0, 5.0, 1.0], 2.0), 4.0);
        // All fractional: 3 (0.5 − t) = 2.
        assert!((threshold(&[0.5, 0.5, 0.5], 2.0) - (0.5 - 2.0 / 3.0)).abs() < 1e-15);
        // One saturated, two fractional: 1 + (0.2 − t) + (0.1 − t) = 1.5 at t = −0.1.
        assert!((threshold(&[5.0, 0.2, 0.1], 1.5) + 0.1).abs() < 1e-15);
        assert_eq!(threshold(&[f64::INFINITY, 3.0, 0.0], 2.0), 2.0);
        assert_eq!(threshold(&[1e30, -1e30], 1.0), 1e30);
    }
}
