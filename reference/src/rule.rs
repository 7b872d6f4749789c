//! The rule by which a result is accepted.
//!
//! * A tensor's relative Frobenius error is at most twice the plain error plus 2e-5. The plain error is
//!   that of [`Arithmetic::Plain`](crate::dense::Arithmetic::Plain), an implementation that computes in
//!   f32 and rounds inputs, probabilities, score gradients and outputs to the element type; of several
//!   such ([`Arithmetic::Varied`](crate::dense::Arithmetic::Varied)), the largest. Where the reference
//!   is zero, every entry is at most 1e-6 more than twice the plain one.
//! * Expiry is exact, and so is where tau is −inf. Finite tau is within 2 ulp of max(1, |tau|).
//! * The gates of a query with finite tau sum to k within 1e-5 k + |I| ulp, I the fractional candidates.
//!
//! A query whose mask is close to a kink (a candidate within 1e-5 max(1, |tau|) of tau or of tau + 1)
//! moves every key's gradient when one gate flips there: its rows of d_o are zeroed before gradients
//! are compared ([`zero_kinks`]).

use crate::{Array, Arrays, Error, Plan, Sequence};

/// Relative error allowed beyond twice the plain error.
pub const RELATIVE: f64 = 2e-5;

/// Largest entry allowed where the reference is zero.
pub const ABSOLUTE: f64 = 1e-6;

/// Name of the measurement of finite thresholds.
pub const TAU: &str = "tau (ulp)";

/// Distance from a kink, relative to max(1, |tau|).
pub const KINK: f64 = 1e-5;

/// One measured error and its limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What was measured: a tensor's name, or `tau at -inf`, `tau (ulp)`, `expiry`, `sum of gates`.
    pub name: String,
    /// The error; infinite when shapes or non-finite entries differ.
    pub error: f64,
    /// The largest error that is accepted.
    pub limit: f64,
    /// Whether the error is within its limit.
    pub ok: bool,
}

impl Measurement {
    /// A measurement; an error that is NaN is not accepted.
    pub fn new(name: &str, error: f64, limit: f64) -> Measurement {
        Measurement { name: name.to_owned(), error, limit, ok: error <= limit }
    }
}

/// ‖got − want‖ / ‖want‖ over all entries, or the largest |got| where `want` is zero. Entries that are
/// not finite must be equal (two NaN are); one that differs makes the error infinite.
pub fn relative_error(got: &Array, want: &Array) -> f64 {
    if got.shape() != want.shape() {
        return f64::INFINITY;
    }
    let zero = is_zero(want);
    let (mut difference, mut norm, mut largest) = (0.0, 0.0, 0.0f64);
    for (g, w) in got.data().iter().zip(want.data()) {
        if g.is_finite() && w.is_finite() {
            difference += (g - w) * (g - w);
            norm += w * w;
            largest = largest.max(g.abs());
        } else if g != w && !(g.is_nan() && w.is_nan()) {
            return f64::INFINITY;
        }
    }
    if zero { largest } else { (difference / norm).sqrt() }
}

/// Whether a reference is zero up to the rounding of f64: terms of about 1 that cancel leave 1e-16.
fn is_zero(want: &Array) -> bool {
    want.data().iter().all(|x| x.abs() < 1e-13 || !x.is_finite())
}

/// The error of one tensor, against the exact result and plain ones.
pub fn tensor(name: &str, got: &Array, exact: &Array, plain: &[&Array]) -> Measurement {
    // Where terms cancel to zero (a shift of all logits of a row, say), a plain implementation leaves
    // what its rounding does not cancel; where nothing flows at all it leaves 0.
    let least = if is_zero(exact) { ABSOLUTE } else { RELATIVE };
    let plain = plain.iter().map(|plain| relative_error(plain, exact)).fold(0.0, f64::max);
    Measurement::new(name, relative_error(got, exact), 2.0 * plain + least)
}

/// The errors of every tensor of `exact`, in the order of names. A tensor that `got` lacks has an
/// infinite error.
pub fn tensors(got: &Arrays, exact: &Arrays, plain: &[Arrays]) -> Vec<Measurement> {
    let one = |(name, exact): (&String, &Array)| {
        let plain: Vec<&Array> = plain.iter().filter_map(|p| p.get(name)).collect();
        match got.get(name) {
            Some(got) => tensor(name, got, exact, &plain),
            None => Measurement::new(name, f64::INFINITY, RELATIVE),
        }
    };
    exact.iter().map(one).collect()
}

/// Distance from |x|, or from 1 if that is larger, to the next f32.
pub fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).max(1.0);
    if x.is_finite() { f64::from(x.next_up()) - f64::from(x) } else { f64::INFINITY }
}

/// The errors of a selection: tau \[B, Hkv, N\] and expiry \[B, Hkv, N\] of an implementation.
///
/// # Errors
/// Arrays of another shape than the plan's.
pub fn selection(tau: &Array, expiry: &Array, plan: &Plan) -> Result<Vec<Measurement>, Error> {
    for (name, array, want) in [("tau", tau, &plan.tau), ("expiry", expiry, &plan.expiry)] {
        if array.shape() != want.shape() {
            return Err(Error::Shape {
                name: name.to_owned(),
                found: array.shape().to_vec(),
                wanted: format!("{:?}", want.shape()),
            });
        }
    }
    let pairs = || tau.data().iter().zip(plan.tau.data());
    let none = f64::NEG_INFINITY;
    let misplaced = pairs().filter(|(g, w)| (**g == none) != (**w == none)).count();
    let ulps = |(got, want): (&f64, &f64)| match (got.is_finite(), want.is_finite()) {
        (true, true) => (got - want).abs() / ulp(*want),
        _ if got == want => 0.0,
        _ if *got == none || *want == none => 0.0,
        _ => f64::INFINITY,
    };
    let worst = pairs().map(ulps).fold(0.0, f64::max);
    let late = expiry.data().iter().zip(plan.expiry.data()).filter(|(g, w)| g != w).count();
    let mut all = vec![
        Measurement::new("tau at -inf", misplaced as f64, 0.0),
        Measurement::new(TAU, worst, 2.0),
        Measurement::new("expiry", late as f64, 0.0),
    ];
    if let (Some(k), Some(scores)) = (plan.k, &plan.scores) {
        let error = sum_of_gates(tau, scores, k, plan);
        all.push(Measurement::new("sum of gates", error, 1.0));
    }
    Ok(all)
}

/// The largest |Σ m − k| / (1e-5 k + |I| ulp) over all queries with finite tau.
fn sum_of_gates(tau: &Array, scores: &Array, k: usize, plan: &Plan) -> f64 {
    let mut worst = 0.0f64;
    each_query(plan, |query, candidates| {
        let tau = tau.data()[query];
        if !tau.is_finite() {
            return;
        }
        let gates = candidates.filter_map(|j| candidate(scores.data()[j]));
        let gates: Vec<f64> = gates.map(|u| (u - tau).clamp(0.0, 1.0)).collect();
        let fractional = gates.iter().filter(|m| **m > 0.0 && **m < 1.0).count() as f64;
        let sum: f64 = gates.iter().sum();
        let k = k as f64;
        worst = worst.max((sum - k).abs() / (1e-5 * k + fractional * ulp(tau)));
    });
    worst
}

/// A score that can be a candidate's.
fn candidate(u: f64) -> Option<f64> {
    (!u.is_nan() && u != f64::NEG_INFINITY).then_some(u)
}

/// Calls `f` with the place of every (b, g, i) in \[B, Hkv, N\] and the places of its keys
/// s <= j <= i − w.
fn each_query(plan: &Plan, mut f: impl FnMut(usize, std::ops::Range<usize>)) {
    let &[_, heads, n] = plan.tau.shape() else { return };
    for Sequence { row, start, len } in &plan.sequences {
        for g in 0..heads {
            let at = (row * heads + g) * n + start;
            for i in 0..*len {
                let end = (i + 1).saturating_sub(plan.window).max(plan.sinks);
                f(at + i, at + plan.sinks..at + end);
            }
        }
    }
}

/// Which queries' masks are within `distance` · max(1, |tau|) of a kink, \[B, Hkv, N\].
pub fn kinks(plan: &Plan, distance: f64) -> Vec<bool> {
    let mut near = vec![false; plan.tau.data().len()];
    let Some(scores) = &plan.scores else { return near };
    each_query(plan, |query, candidates| {
        let tau = plan.tau.data()[query];
        if tau == f64::NEG_INFINITY {
            return;
        }
        let distance = distance * tau.abs().max(1.0);
        let close = |u: f64| (u - tau).abs() <= distance || (u - tau - 1.0).abs() <= distance;
        near[query] = candidates.filter_map(|j| candidate(scores.data()[j])).any(close);
    });
    near
}

/// Zeroes the rows of `d_o` \[B, N, Hq, D\] of queries whose masks are within `distance` ·
/// max(1, |tau|) of a kink ([`KINK`] is the rule's). Returns how many (b, g, i) they are.
///
/// # Errors
/// A `d_o` that does not go with the plan.
pub fn zero_kinks(d_o: &mut Array, plan: &Plan, distance: f64) -> Result<usize, Error> {
    let near = kinks(plan, distance);
    let fits = match (d_o.shape(), plan.tau.shape()) {
        (&[b, n, hq, d], &[pb, hkv, pn]) if b == pb && n == pn && hkv > 0 && hq % hkv == 0 => {
            Some((n, hq, d, hkv))
        }
        _ => None,
    };
    let Some((n, hq, d, hkv)) = fits else {
        return Err(Error::Shape {
            name: "d_o".to_owned(),
            found: d_o.shape().to_vec(),
            wanted: format!("[B, N, Hq, D] for a tau of {:?}", plan.tau.shape()),
        });
    };
    for (at, row) in d_o.data_mut().chunks_exact_mut(d.max(1)).enumerate() {
        let (token, h) = (at / hq, at % hq);
        let g = h / (hq / hkv);
        if near[((token / n) * hkv + g) * n + token % n] {
            row.fill(0.0);
        }
    }
    Ok(near.iter().filter(|k| **k).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_limits() {
        let a = |x: &[f64]| Array::new(&[x.len()], x.to_vec()).unwrap();
        assert!((relative_error(&a(&[3.0, 4.5]), &a(&[3.0, 4.0])) - 0.1).abs() < 1e-12);
        assert_eq!(
            relative_error(&a(&[1.0, f64::NEG_INFINITY]), &a(&[1.0, f64::NEG_INFINITY])),
            0.0
        );
        assert_eq!(relative_error(&a(&[1.0, 0.0]), &a(&[1.0, f64::NEG_INFINITY])), f64::INFINITY);
        assert_eq!(relative_error(&a(&[f64::NAN]), &a(&[1.0])), f64::INFINITY);
        let zero = tensor("d_u", &a(&[0.0, 2e-6]), &a(&[0.0, 0.0]), &[]);
        assert!((zero.error, zero.limit, zero.ok) == (2e-6, ABSOLUTE, false));
        let plain = tensor("o", &a(&[1.001]), &a(&[1.0]), &[&a(&[1.0006])]);
        assert!(plain.ok && (plain.limit - 1.22e-3).abs() < 1e-9);
        assert!(!Measurement::new("o", f64::NAN, 1.0).ok);
        assert_eq!((ulp(0.0), ulp(-3.0)), (2f64.powi(-23), 2f64.powi(-22)));
    }
}
