//! Sequences of many chunks, which the reference is too slow for: against the CPU backend
//! ([`against_cpu`]).

use crate::against_cpu;
use crate::backend::Backend;
use crate::cases::{self, Case, Geometry};
use crate::failure::Failure;
use crate::suite::{Measured, random};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sparsek::{Elem, Spec};
use sparsek_reference::generate::{Scores, Shape};

sparsek::sparsek_kernel! {
    /// Predicates that leave some tiles whole, cut others, and leave nothing of the rest.
    kernel Horizon<
        E in [bf16, f16, f32], D in multiples_of(16) up to 128, K in 1..=4096, W in 0..=8192, FAR in 0..=16384,
    >(
        q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let near = (q.pos - k.pos < FAR) | (k.pos < 100);
        let seen = causal & (topk(gate) | window(W) | sinks(2)) & near & !(q.pos - k.pos == 700);
        dot(softmax(dot(q, k) * rsqrt(D), seen) * gate, v)
    }
}

/// The case of a seed, with few enough heads for the CPU.
pub(super) fn case(seed: u64) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let n = rng.random_range(3000..=14_000);
    let (mut program, mut spec) = random::builtin(n, true, &mut rng)?;
    if seed % 4 == 3 {
        program = Horizon::program().map_err(Failure::new)?;
        spec = spec.set("FAR", rng.random_range(0..=n as i64));
        spec.elem = [Elem::Bf16, Elem::F16][rng.random_range(0..2)];
    }
    spec.k = Some(rng.random_range(1..=600));
    spec.w = Some([0, 64, 257, 600][rng.random_range(0..4)]);
    spec.d = [32, 64, 128][rng.random_range(0..3)];
    let (hq, hkv) = [(1, 1), (4, 1), (2, 2), (16, 1)][rng.random_range(0..4)];
    let kinds = [
        Scores::Normal(1.0),
        Scores::Normal(0.1),
        Scores::Normal(0.01),
        Scores::Rising,
        Scores::Falling,
        Scores::Equal,
        Scores::Ties,
        Scores::NonFinite,
        Scores::Masked,
        Scores::Zeros,
        Scores::Bursts,
        Scores::Tails,
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
    against_cpu::zero_kinks(case)?;
    let want = Backend::Cpu.results(case)?;
    let got = backend.results(case)?;
    Ok(against_cpu::measure(&got, &want, case.kernel.instance().elem)?)
}
