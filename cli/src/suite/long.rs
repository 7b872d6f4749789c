//! Sequences of many chunks, which the reference is too slow for: against the CPU backend.
//!
//! The selection is held to the rule on both sides: expiry equal, tau within 2 ulp of one root each.
//! Of a tensor's limit only the order is known, since the plain error is not: 1e-4 in f32, where it
//! is far below, and two roundings of the element type times 4 otherwise.

use crate::backend::Backend;
use crate::cases::{self, Case, Geometry};
use crate::failure::Failure;
use crate::suite::{Measured, Problem, random};
use crate::tensors::file::HostTensor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sparsek::{Elem, Options, Spec, Tensor};
use sparsek_reference::generate::{Scores, Shape};
use sparsek_reference::rule::{self, Measurement};
use sparsek_reference::{Array, Plan, Sequence};

/// The case of a seed, with few enough heads for the CPU.
pub(super) fn case(seed: u64) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let n = rng.random_range(3000..=14_000);
    let (program, mut spec) = random::builtin(n, true, &mut rng)?;
    spec.k = Some(rng.random_range(1..=600));
    spec.w = Some([0, 64, 257, 600][rng.random_range(0..4)]);
    spec.d = [32, 64, 128][rng.random_range(0..3)];
    let (hq, hkv) = [(1, 1), (4, 1), (2, 2)][rng.random_range(0..3)];
    let kinds = [
        Scores::Normal(1.0),
        Scores::Normal(0.1),
        Scores::Normal(0.01),
        Scores::Rising,
        Scores::Falling,
        Scores::Equal,
        Scores::Ties,
        Scores::NonFinite,
    ];
    let scores = kinds[rng.random_range(0..kinds.len())];
    let cu_seqlens = (rng.random_range(0..3) == 0).then(|| {
        let cut = rng.random_range(0..=n) as i32;
        vec![0, cut, cut, n as i32]
    });
    let shape = Shape { batch: 1, n, hq, hkv };
    cases::build(&program, &spec, &Geometry { shape, cu_seqlens, scores }, seed)
}

/// 2^20 positions, where positions and prefix sums are long, with few and narrow heads.
pub(super) fn million(seed: u64) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let kernel = sparsek_kernels::builtin("sparsek-value");
    let program = kernel.ok_or_else(|| Failure::new("a built-in kernel is missing"))?.program();
    let spec = Spec::new(Elem::F32, 16).k(64).w(64);
    let scores = [Scores::Normal(1.0), Scores::Normal(0.1)][rng.random_range(0..2)];
    let shape = Shape { batch: 1, n: 1 << 20, hq: 2, hkv: 1 };
    let geometry = Geometry { shape, cu_seqlens: None, scores };
    cases::build(&program.map_err(Failure::new)?, &spec, &geometry, seed)
}

/// Both backends on the same case.
pub(super) fn compare(backend: &Backend, case: &mut Case) -> Measured {
    zero_kinks(case)?;
    let want = Backend::Cpu.results(case)?;
    let got = backend.results(case)?;
    let elem = case.kernel.instance().elem;
    let named = got.iter().zip(&want);
    let all = named.map(|((name, got), (_, want))| measure(name, got, want, elem));
    let all: Result<Vec<_>, _> = all.collect();
    Ok(all.map_err(Failure::new)?)
}

fn measure(
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
        let ulps = pairs.map(|(a, b)| match a == b {
            true => 0.0,
            false => (a - b).abs() / rule::ulp(*b),
        });
        // Of which one is −inf: an infinite distance.
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
fn zero_kinks(case: &mut Case) -> Result<(), Problem> {
    let instance = case.kernel.instance();
    let options = Options { cu_seqlens: case.loaded.cu_seqlens.as_deref(), ..Options::default() };
    let results = case.kernel.forward(&case.loaded.inputs()?, &options)?;
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
