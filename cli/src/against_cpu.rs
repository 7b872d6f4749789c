//! Results held against those of the CPU backend, where the reference is too slow.
//!
//! The selection is held to the rule on both sides: expiry equal, tau within 2 ulp of one root each.
//! Of a tensor's limit only the order is known, since the plain error is not: 1e-4 in f32, where it
//! is far below, and two roundings of the element type times 4 otherwise.

use crate::cases::Case;
use crate::commands::failure;
use crate::failure::Failure;
use crate::tensors::file::HostTensor;
use sparsek::{Elem, Options, Tensor};
use sparsek_reference::rule::{self, Measurement};
use sparsek_reference::{Array, Plan, Sequence};

/// The errors of every result of one call, both sides in the same order.
pub(crate) fn measure(
    got: &[(String, Tensor)],
    want: &[(String, Tensor)],
    elem: Elem,
) -> Result<Vec<Measurement>, Failure> {
    let named = got.iter().zip(want);
    let all = named.map(|((name, got), (_, want))| one(name, got, want, elem));
    all.collect::<Result<_, _>>().map_err(Failure::new)
}

/// Of two thresholds in ulp; infinite where one of them alone is −inf or no number.
fn distance(got: f64, want: f64) -> f64 {
    match got == want {
        true => 0.0,
        false if !got.is_finite() || !want.is_finite() => f64::INFINITY,
        false => (got - want).abs() / rule::ulp(want),
    }
}

fn one(
    name: &str,
    got: &Tensor,
    want: &Tensor,
    elem: Elem,
) -> Result<Measurement, sparsek_reference::Error> {
    let title = format!("{name} (CPU)");
    if let (Some(got), Some(want)) = (got.as_i32(), want.as_i32()) {
        let differ = got.iter().zip(want).filter(|(a, b)| a != b).count();
        return Ok(Measurement::new(&title, differ as f64, 0.0));
    }
    let array = |t: &Tensor| Array::from_f32(t.shape(), &t.to_f32());
    let (got, want) = (array(got)?, array(want)?);
    if name == "tau" {
        let pairs = got.data().iter().zip(want.data());
        let ulps = pairs.map(|(a, b)| distance(*a, *b));
        return Ok(Measurement::new(&title, ulps.fold(0.0, f64::max), 4.0));
    }
    let limit = match elem {
        Elem::F32 => 1e-4,
        Elem::F16 => 8.0 * 2f64.powi(-11),
        Elem::Bf16 => 8.0 * 2f64.powi(-8),
    };
    Ok(Measurement::new(&title, rule::relative_error(&got, &want), limit))
}

/// Positions up to which every pair of a query and a candidate is looked at.
const MOST_PAIRWISE: usize = 20_000;

/// Zeroes the rows of d_o \[B, N, Hq, D\] with a score close to tau or tau + 1 among those of the whole
/// row, whether or not its key is a candidate: more rows than need be, and O(N log N).
fn zero_any_kinks(d_o: &mut Array, plan: &Plan) {
    let (Some(scores), &[_, n, hq, d]) = (&plan.scores, d_o.shape()) else { return };
    let &[_, hkv, _] = plan.tau.shape() else { return };
    for (at, u) in scores.data().chunks_exact(n).enumerate() {
        let (b, g) = (at / hkv, at % hkv);
        let mut sorted = u.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let any = |low: f64, high: f64| {
            sorted.get(sorted.partition_point(|x| *x < low)).is_some_and(|x| *x <= high)
        };
        for i in 0..n {
            let tau = plan.tau.data()[at * n + i];
            let near = rule::KINK * tau.abs().max(1.0);
            if any(tau - near, tau + near) || any(tau + 1.0 - near, tau + 1.0 + near) {
                let group = hq / hkv * d;
                let row = ((b * n + i) * hq) * d + g * group;
                d_o.data_mut()[row..row + group].fill(0.0);
            }
        }
    }
}

/// Zeroes the rows of d_o whose masks are close to a kink: one flip there moves every gradient.
pub(crate) fn zero_kinks(case: &mut Case) -> Result<(), Failure> {
    let instance = case.kernel.instance();
    let options = Options { cu_seqlens: case.loaded.cu_seqlens.as_deref(), ..Options::default() };
    let failed = |e| failure(e, None);
    let inputs = case.loaded.inputs().map_err(failed)?;
    let results = case.kernel.forward(&inputs, &options).map_err(failed)?;
    let (Some(u), Some(d_o)) = (case.loaded.get("u"), &case.loaded.d_o) else { return Ok(()) };
    let (scores, mut d_o) = (u.array().map_err(Failure::new)?, d_o.array().map_err(Failure::new)?);
    let &[batch, _, n] = results.tau.shape() else { return Ok(()) };
    let cu_seqlens = case.loaded.cu_seqlens.as_deref();
    let expiry = results.expiry.as_i32().unwrap_or_default();
    let plan = Plan {
        k: Some(instance.k),
        window: instance.w,
        sinks: instance.sinks,
        sequences: Sequence::all(batch, n, cu_seqlens).map_err(Failure::new)?,
        scores: Some(scores),
        tau: Array::from_f32(results.tau.shape(), &results.tau.to_f32()).map_err(Failure::new)?,
        expiry: Array::from_i32(results.expiry.shape(), expiry).map_err(Failure::new)?,
    };
    if n > MOST_PAIRWISE {
        zero_any_kinks(&mut d_o, &plan);
    } else {
        rule::zero_kinks(&mut d_o, &plan, rule::KINK).map_err(Failure::new)?;
    }
    case.loaded.d_o = Some(HostTensor::from_array(&d_o, Some(instance.elem)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_infinite_where_it_should_be_and_never_no_number() {
        let none = f64::NEG_INFINITY;
        assert_eq!((distance(none, none), distance(1.0, 1.0)), (0.0, 0.0));
        for (got, want) in [(0.0, none), (none, 0.0), (f64::NAN, none), (f64::NAN, 0.0)] {
            assert_eq!(distance(got, want), f64::INFINITY, "{got} {want}");
        }
    }
}
