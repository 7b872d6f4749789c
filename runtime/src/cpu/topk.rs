//! The plan, tau and expiry, and the gate's vector-Jacobian product: exact for any scores, in
//! O(N log N), from two facts. tau never falls as queries advance, and a key that leaves the top k
//! never returns.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What selects keys in one sequence for one key-value head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    /// Keys kept; `None` for a kernel without a top-k mask.
    pub(crate) k: Option<usize>,
    /// Window.
    pub(crate) w: usize,
    /// Sinks.
    pub(crate) sinks: usize,
}

/// Whether a key of that score can be a candidate.
fn valid(score: f32) -> bool {
    !score.is_nan() && score != f32::NEG_INFINITY
}

/// Fills tau and expiry of one sequence, positions counted from its start.
pub(crate) fn plan(scores: &[f32], s: Selection, tau: &mut [f32], expiry: &mut [i32]) {
    let n = tau.len();
    tau.fill(f32::NEG_INFINITY);
    for (j, e) in expiry.iter_mut().enumerate() {
        // Until it is selected a key is seen while in the window; a sink to the end.
        *e = if j < s.sinks { n } else { j.saturating_add(s.w).min(n) } as i32;
    }
    let Some(k) = s.k else { return };
    select(scores, k, s, n, expiry);
    threshold(scores, k, s, tau);
}

/// A candidate, ordered so that the worst one is the greatest: lower score first, and of equal
/// scores the larger index.
#[derive(PartialEq)]
struct Worst {
    score: f32,
    index: usize,
}

impl Eq for Worst {}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        // Scores are not NaN here, and −0 = +0.
        let by_score = other.score.partial_cmp(&self.score).unwrap_or(Ordering::Equal);
        by_score.then(self.index.cmp(&other.index))
    }
}

/// Expiry of every candidate: a heap of the k best, its worst leaving as better ones arrive.
fn select(scores: &[f32], k: usize, s: Selection, n: usize, expiry: &mut [i32]) {
    let mut best: BinaryHeap<Worst> = BinaryHeap::with_capacity(k.min(n) + 1);
    for i in s.sinks.saturating_add(s.w)..n {
        let index = i - s.w;
        if !valid(scores[index]) {
            continue;
        }
        expiry[index] = n as i32;
        best.push(Worst { score: scores[index], index });
        if best.len() > k
            && let Some(out) = best.pop()
        {
            expiry[out.index] = i as i32;
        }
    }
}

/// A sum in two doubles, so that millions of additions and subtractions leave no drift.
#[derive(Clone, Copy, Default)]
struct Exact {
    hi: f64,
    lo: f64,
}

impl Exact {
    fn add(&mut self, x: f64) {
        let sum = self.hi + x;
        let part = sum - self.hi;
        self.lo += (self.hi - (sum - part)) + (x - part);
        self.hi = sum;
    }

    fn get(self) -> f64 {
        self.hi + self.lo
    }
}

/// Tau of every query. f(t) = Σ clip(u − t, 0, 1) over the candidates that have arrived is linear
/// between the breakpoints u and u − 1; t only rises, so two cursors over the sorted scores pass
/// every breakpoint once.
fn threshold(scores: &[f32], k: usize, s: Selection, tau: &mut [f32]) {
    let n = tau.len();
    let mut sorted: Vec<u32> =
        (s.sinks as u32..n as u32).filter(|j| valid(scores[*j as usize])).collect();
    sorted.sort_unstable_by(|a, b| {
        scores[*a as usize].total_cmp(&scores[*b as usize]).then(a.cmp(b))
    });
    let mut rank = vec![u32::MAX; n];
    for (r, j) in sorted.iter().enumerate() {
        rank[*j as usize] = r as u32;
    }
    let u: Vec<f64> = sorted.iter().map(|j| f64::from(scores[*j as usize])).collect();
    let mut root = Root::new(k, u);
    let mut candidates = 0usize;
    for i in s.sinks.saturating_add(s.w)..n {
        let r = rank[i - s.w];
        if r != u32::MAX {
            root.arrive(r as usize);
            candidates += 1;
        }
        if candidates > k {
            root.rise();
            tau[i] = root.t as f32;
        }
    }
}

/// The root of f and what f is made of around it. By rank, `[0, low)` have u <= t and count
/// nothing, `[low, high)` have u − 1 <= t < u and count u − t, `[high, …)` count 1.
struct Root {
    k: f64,
    u: Vec<f64>,
    arrived: Vec<bool>,
    t: f64,
    low: usize,
    high: usize,
    /// Number and sum of the arrived fractional candidates.
    fractional: usize,
    sum: Exact,
    /// Number of the arrived saturated candidates.
    saturated: usize,
}

impl Root {
    fn new(k: usize, u: Vec<f64>) -> Root {
        Root {
            k: k as f64,
            arrived: vec![false; u.len()],
            u,
            t: f64::NEG_INFINITY,
            low: 0,
            high: 0,
            fractional: 0,
            sum: Exact::default(),
            saturated: 0,
        }
    }

    fn arrive(&mut self, rank: usize) {
        self.arrived[rank] = true;
        if rank >= self.high {
            self.saturated += 1;
        } else if rank >= self.low {
            self.fractional += 1;
            self.sum.add(self.u[rank]);
        }
    }

    /// Moves t up to the largest value with f(t) >= k. More than k candidates have arrived.
    fn rise(&mut self) {
        loop {
            let root = if self.fractional > 0 {
                // Σ u − fractional · t + saturated = k. The integers first: where f stays at k for
                // a while, the root is a score, and then it comes out exactly.
                (self.sum.get() - (self.k - self.saturated as f64)) / self.fractional as f64
            } else if self.saturated as f64 >= self.k {
                f64::INFINITY
            } else {
                self.t
            };
            let leave = self.u.get(self.low).copied().filter(|_| self.low < self.high);
            let enter = self.u.get(self.high).map(|u| u - 1.0);
            let next = match (leave, enter) {
                (Some(a), Some(b)) => a.min(b),
                (Some(a), None) => a,
                (None, Some(b)) => b,
                (None, None) => return,
            };
            // At a breakpoint f may stay at k beyond it.
            if root < next {
                self.t = self.t.max(root);
                return;
            }
            self.t = self.t.max(next);
            if enter.is_some_and(|e| e <= next) {
                self.enter();
            } else {
                self.leave();
            }
        }
    }

    /// The smallest saturated candidate becomes fractional.
    fn enter(&mut self) {
        if self.arrived[self.high] {
            self.saturated -= 1;
            self.fractional += 1;
            self.sum.add(self.u[self.high]);
        }
        self.high += 1;
    }

    /// The smallest fractional candidate counts nothing any more.
    fn leave(&mut self) {
        if self.arrived[self.low] {
            self.fractional -= 1;
            self.sum.add(-self.u[self.low]);
            if self.fractional == 0 {
                self.sum = Exact::default();
            }
        }
        self.low += 1;
    }
}

/// The range of queries `[from, to)` at which each key is fractional: 0 < u − tau < 1 in f32.
fn fractional_range(score: f32, from: usize, tau: &[f32]) -> (usize, usize) {
    // tau never falls and rounding is monotone, so both conditions change once.
    let a = from + tau[from..].partition_point(|t| score - *t >= 1.0 || (score - *t).is_nan());
    let b = a + tau[a..].partition_point(|t| score - *t > 0.0);
    (a, b)
}

/// Finishes the gate's vector-Jacobian product for one sequence and key-value head.
///
/// `direct[j]` = Σ_i [j in I_i] dm_ij, `row[i]` = Σ_{l in I_i} dm_il. Subtracts the threshold's
/// share from `direct`: with h_i = row_i / |I_i| and H its prefix sums in f64, key j loses
/// H(b_j) − H(a_j), [a_j, b_j) the queries at which it is fractional. |I_i| counts every such key,
/// seen or not.
pub(crate) fn threshold_share(
    scores: &[f32],
    s: Selection,
    tau: &[f32],
    row: &[f64],
    direct: &mut [f64],
) {
    let n = tau.len();
    let first = s.sinks.min(n);
    let mut ranges = vec![(0u32, 0u32); n];
    // |I_i| from where ranges start and end.
    let mut change = vec![0i32; n + 1];
    for j in first..n {
        let from = j.saturating_add(s.w);
        if from >= n || !valid(scores[j]) {
            continue;
        }
        let (a, b) = fractional_range(scores[j], from, tau);
        ranges[j] = (a as u32, b as u32);
        change[a] += 1;
        change[b] -= 1;
    }
    let mut prefix = vec![0f64; n + 1];
    let mut count = 0i32;
    for i in 0..n {
        count += change[i];
        let h = if count > 0 { row[i] / f64::from(count) } else { 0.0 };
        prefix[i + 1] = prefix[i] + h;
    }
    for (direct, (a, b)) in direct.iter_mut().zip(ranges) {
        *direct -= prefix[b as usize] - prefix[a as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(scores: &[f32], k: usize, w: usize, sinks: usize) -> (Vec<f32>, Vec<i32>) {
        let n = scores.len();
        let (mut tau, mut expiry) = (vec![0.0; n], vec![0; n]);
        plan(scores, Selection { k: Some(k), w, sinks }, &mut tau, &mut expiry);
        (tau, expiry)
    }

    /// f(t) of the definition.
    fn total(candidates: &[f32], t: f64) -> f64 {
        candidates.iter().map(|u| (f64::from(*u) - t).clamp(0.0, 1.0)).sum()
    }

    #[test]
    fn equal_scores_keep_the_oldest() {
        let (tau, expiry) = run(&[0.5; 8], 2, 1, 0);
        assert_eq!(expiry, [8, 8, 3, 4, 5, 6, 7, 8]);
        assert_eq!(tau[..3], [f32::NEG_INFINITY; 3]);
        // Three candidates of 0.5 summing to 2: each 2/3.
        assert!((tau[3] - (0.5 - 2.0 / 3.0)).abs() < 1e-7);
    }

    #[test]
    fn tau_is_the_largest_root_for_many_kinds_of_scores() {
        let noise = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
        let kinds: [fn(usize, f32) -> f32; 7] = [
            |_, z| z * 3.0,
            |_, z| z * 0.03,
            |i, z| i as f32 * 0.1 + z,
            |i, z| -(i as f32) * 0.1 + z,
            |_, z| (z * 4.0).round(),
            |_, z| z * 1e6,
            |i, z| {
                if i % 5 == 0 {
                    f32::NAN
                } else if i % 7 == 0 {
                    f32::NEG_INFINITY
                } else {
                    z
                }
            },
        ];
        for (kind, f) in kinds.iter().enumerate() {
            let scores: Vec<f32> = (0..300).map(|i| f(i, noise(i))).collect();
            for (k, w, sinks) in [(1, 0, 0), (7, 3, 0), (20, 16, 4), (100, 1, 2)] {
                let (tau, _) = run(&scores, k, w, sinks);
                for i in 0..300usize {
                    let end = (i + 1).saturating_sub(w).max(sinks);
                    let r: Vec<f32> =
                        scores[sinks.min(end)..end].iter().copied().filter(|u| valid(*u)).collect();
                    if r.len() <= k {
                        assert_eq!(tau[i], f32::NEG_INFINITY);
                        continue;
                    }
                    let t = f64::from(tau[i]);
                    let step = 4.0 * f64::from(f32::EPSILON) * t.abs().max(1.0);
                    assert!(total(&r, t - step) >= k as f64 - 1e-9, "kind {kind} query {i}");
                    // Strictly below k just above: t is not the lower end of a flat part.
                    assert!(total(&r, t + step) < k as f64, "kind {kind} query {i}");
                    assert!(i == 0 || tau[i] >= tau[i - 1]);
                }
            }
        }
    }
}
