//! A kernel, the tensors of its calls, and what the CPU makes of them.
#![allow(dead_code, reason = "not every test uses all of it")]

use half::bf16;
use sparsek::cuda::{Device, HostOptions, Kernel, OwnedTensor, TensorView};
use sparsek::{Elem, NamedTensors, Spec, Tensor, sparsek_kernel};

sparsek_kernel! {
    pub(crate) kernel Local<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey, slope: PerHead = 0.0,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let s = dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos);
        let p = softmax(s, causal & (topk(gate) | window(W) | sinks(2)));
        dot(p * gate, v)
    }
}

pub(crate) const D: usize = 64;
pub(crate) const HQ: usize = 4;
pub(crate) const HKV: usize = 2;

/// Selected keys and window where a test asks for no others.
const USUAL: [i64; 2] = [32, 48];

pub(crate) fn local() -> Local {
    local_of(Elem::Bf16, USUAL)
}

pub(crate) fn local_of(elem: Elem, [k, w]: [i64; 2]) -> Local {
    Local::new(Spec::new(elem, D as i64).k(k).w(w)).unwrap()
}

/// Numbers without a pattern, between -1 and 1.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

/// Host tensors of one call.
pub(crate) struct Case {
    pub(crate) k_and_w: [i64; 2],
    pub(crate) shapes: [Vec<usize>; 3],
    pub(crate) vectors: [Vec<bf16>; 4],
    pub(crate) u: Vec<f32>,
    pub(crate) slope: Vec<f32>,
}

impl Case {
    pub(crate) fn new(batch: usize, n: usize) -> Case {
        Case::of_seed(0, batch, n)
    }

    pub(crate) fn of_seed(first: u64, batch: usize, n: usize) -> Case {
        let noise = |seed, len| noise(first + seed, len);
        let vector = |seed, heads| -> Vec<bf16> {
            noise(seed, batch * n * heads * D).into_iter().map(bf16::from_f32).collect()
        };
        Case {
            k_and_w: USUAL,
            shapes: [vec![batch, n, HQ, D], vec![batch, n, HKV, D], vec![batch, HKV, n]],
            vectors: [vector(1, HQ), vector(2, HKV), vector(3, HKV), vector(4, HQ)],
            u: noise(5, batch * HKV * n),
            slope: noise(6, HQ),
        }
    }

    pub(crate) fn view(&self, name: &str) -> sparsek::TensorView<'_> {
        let [query, key, score] = &self.shapes;
        let made = match name {
            "q" => sparsek::TensorView::new(query, self.vectors[0].as_slice()),
            "k" => sparsek::TensorView::new(key, self.vectors[1].as_slice()),
            "v" => sparsek::TensorView::new(key, self.vectors[2].as_slice()),
            "d_o" => sparsek::TensorView::new(query, self.vectors[3].as_slice()),
            "u" => sparsek::TensorView::new(score, self.u.as_slice()),
            _ => sparsek::TensorView::new(&[HQ], self.slope.as_slice()),
        };
        made.unwrap()
    }

    pub(crate) fn inputs(&self) -> sparsek::Inputs<'_> {
        let names = ["q", "k", "v", "u", "slope"];
        names.into_iter().fold(NamedTensors::new(), |all, name| all.with(name, self.view(name)))
    }

    pub(crate) fn upload(&self, device: &Device) -> LocalInputs<OwnedTensor> {
        let up = |name| device.upload(&self.view(name)).unwrap();
        LocalInputs { q: up("q"), k: up("k"), v: up("v"), u: up("u"), slope: Some(up("slope")) }
    }
}

pub(crate) fn views(tensors: &LocalInputs<OwnedTensor>) -> LocalInputs<TensorView<'_>> {
    LocalInputs {
        q: tensors.q.view(),
        k: tensors.k.view(),
        v: tensors.v.view(),
        u: tensors.u.view(),
        slope: tensors.slope.as_ref().map(OwnedTensor::view),
    }
}

pub(crate) fn results(
    kernel: &Kernel,
    case: &Case,
    cu_seqlens: Option<&[i32]>,
) -> Vec<(String, Tensor)> {
    let options = HostOptions { cu_seqlens, ..HostOptions::default() };
    let d_o = case.view("d_o");
    let (forward, gradients) = kernel.run_host(&case.inputs(), Some(&d_o), &options).unwrap();
    let sparsek::Forward { o, lse, tau, expiry } = forward;
    let mut all: Vec<(String, Tensor)> = [("o", o), ("lse", lse), ("tau", tau), ("expiry", expiry)]
        .into_iter()
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect();
    all.extend(gradients.unwrap().iter().map(|(n, t)| (n.to_owned(), t.clone())));
    all
}

/// Relative distance of two tensors in the Frobenius norm; entries that are equal, infinite ones
/// among them, count nothing.
pub(crate) fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    let pairs = || found.to_f32().into_iter().zip(expected.to_f32());
    let off: f64 = pairs().filter(|(a, b)| a != b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let finite = pairs().filter(|(_, b)| b.is_finite());
    let norm: f64 = finite.map(|(_, b)| f64::from(b).powi(2)).sum();
    if off == 0.0 { 0.0 } else { (off / norm).sqrt() }
}

/// Results of the CPU backend, its vectors stored in bf16 or f32.
pub(crate) fn on_the_cpu(case: &Case, elem: Elem) -> NamedTensors<Tensor> {
    let wide: Vec<Vec<f32>> =
        case.vectors.iter().map(|v| v.iter().map(|x| x.to_f32()).collect()).collect();
    let view = |name: &str| match ["q", "k", "v", "d_o"].iter().position(|n| *n == name) {
        Some(at) if elem == Elem::F32 => {
            let shape = case.view(name).shape().to_vec();
            sparsek::TensorView::new(&shape, wide[at].as_slice()).unwrap()
        }
        _ => case.view(name),
    };
    let names = ["q", "k", "v", "u", "slope"];
    let inputs = names.into_iter().fold(NamedTensors::new(), |all, n| all.with(n, view(n)));
    let local = local_of(elem, case.k_and_w);
    let kernel = local.kernel();
    let forward = kernel.forward(&inputs, &Default::default()).unwrap();
    let gradients = kernel.backward(&inputs, &forward, &view("d_o"), &Default::default()).unwrap();
    let all = gradients.iter().fold(NamedTensors::new(), |all, (n, t)| all.with(n, t.clone()));
    let sparsek::Forward { o, lse, tau, expiry } = forward;
    all.with("o", o).with("lse", lse).with("tau", tau).with("expiry", expiry)
}

/// Forward and backward are no further from f32 arithmetic than twice what rounding to bf16 does on
/// the CPU: a gradient that sums over all positions, as d_slope, is mostly that.
pub(crate) fn check_against_the_cpu(kernel: &Kernel, case: &Case) {
    let (exact, rounded) = (on_the_cpu(case, Elem::F32), on_the_cpu(case, Elem::Bf16));
    for (name, found) in results(kernel, case, None) {
        let expected = exact.get(&name).unwrap();
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let plain = distance(rounded.get(&name).unwrap(), expected);
        let error = distance(&found, expected);
        assert!(error <= 2.0 * plain + 2e-5, "{name}: {error:.2e}, the CPU {plain:.2e}");
    }
}
