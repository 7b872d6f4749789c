//! Online softmax: one row at a time, tile after tile of its keys.

use super::vector;
use multiversion::multiversion;

/// Lanes of every reduction. Fixed, so that results are the same on every machine.
const LANES: usize = 16;

/// Sum of a vector: 16 running sums, then those in order.
#[inline(always)]
fn sum_lanes(x: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        acc.iter_mut().zip(chunk).for_each(|(a, x)| *a += x);
    }
    acc.iter_mut().zip(rest).for_each(|(a, x)| *a += x);
    acc.iter().sum()
}

/// Puts e^(x − shift) in the place of x and returns the sum.
#[inline(always)]
fn exp_and_sum(x: &mut [f32], shift: f32) -> f32 {
    let mut acc = [0f32; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (a, x) in acc.iter_mut().zip(chunk) {
            *x = vector::exp(*x - shift);
            *a += *x;
        }
    }
    for (a, x) in acc.iter_mut().zip(chunks.into_remainder()) {
        *x = vector::exp(*x - shift);
        *a += *x;
    }
    acc.iter().sum()
}

#[inline(always)]
fn max_lanes(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        acc.iter_mut().zip(chunk).for_each(|(a, x)| *a = if *x > *a { *x } else { *a });
    }
    acc.iter_mut().zip(rest).for_each(|(a, x)| *a = if *x > *a { *x } else { *a });
    acc.iter().fold(f32::NEG_INFINITY, |a, x| a.max(*x))
}

/// Sum of a vector in a fixed order.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
pub(crate) fn sum(x: &[f32]) -> f32 {
    sum_lanes(x)
}

/// Scalar product in a fixed order.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
pub(crate) fn inner(x: &[f32], y: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for (a, (x, y)) in acc.iter_mut().zip(x.iter().zip(y)) {
            *a = x.mul_add(*y, *a);
        }
    }
    for (a, (x, y)) in acc.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *a = x.mul_add(*y, *a);
    }
    acc.iter().sum()
}

/// What is known of a row after some of its keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowState {
    /// Largest logit.
    pub(crate) max: f32,
    /// Σ exp(logit − max)
    pub(crate) sum: f32,
}

impl RowState {
    /// Before any key; a sink is a logit like any other.
    pub(crate) fn new(sink: f32) -> RowState {
        if sink == f32::NEG_INFINITY {
            RowState { max: sink, sum: 0.0 }
        } else {
            RowState { max: sink, sum: 1.0 }
        }
    }

    /// Natural log of the denominator.
    pub(crate) fn lse(&self) -> f32 {
        if self.sum == 0.0 {
            f32::NEG_INFINITY
        } else {
            (f64::from(self.max) + f64::from(self.sum).ln()) as f32
        }
    }

    /// What the summed-up values are divided by; 0 where nothing was seen, NaN where a logit was.
    pub(crate) fn scale(&self) -> f32 {
        if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum }
    }
}

/// Takes logits into a row's state (−inf where unseen), leaves exp(logit − max) in their place, and
/// returns the factor by which what was summed up so far shrinks.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
pub(crate) fn absorb(state: &mut RowState, x: &mut [f32]) -> f32 {
    let largest = max_lanes(x);
    let max = if largest > state.max { largest } else { state.max };
    // Where everything is −inf there is nothing to subtract.
    let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let sum = exp_and_sum(x, shift);
    let factor = if state.max == max { 1.0 } else { vector::exp(state.max - shift) };
    state.sum = state.sum * factor + sum;
    state.max = max;
    factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_is_zero_and_nan_stays_nan() {
        let nothing = [f32::NEG_INFINITY; 3];
        for (logits, nan) in [
            (nothing, false),
            ([f32::NAN; 3], true),
            ([1.0, f32::NAN, f32::NEG_INFINITY], true),
            ([f32::INFINITY, 0.0, 0.0], true),
        ] {
            // Whatever comes before and after.
            for blocks in [vec![logits], vec![[0.5; 3], logits], vec![logits, [0.5; 3]]] {
                let mut state = RowState::new(f32::NEG_INFINITY);
                let unseen = blocks.iter().all(|b| *b == nothing);
                for mut block in blocks {
                    absorb(&mut state, &mut block);
                }
                assert_eq!((state.scale().is_nan(), state.lse().is_nan()), (nan, nan));
                assert_eq!(state.scale() == 0.0, unseen);
                assert_eq!(state.lse() == f32::NEG_INFINITY, unseen);
            }
        }
    }
}
