//! Properties of any kernel on the CPU, by proptest, and shapes at the edges.

use crate::problem::{Elements, Problem};
use proptest::prelude::*;
use sparsek::{Forward, Gradients, Options, Spec, Tensor};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Program;
use sparsek_dsl::parse::compile_file;
use sparsek_reference::generate::{self, Scores, Shape};

/// Gate on the logits and on the values, sinks, a slope: everything that a selection can do.
const KERNEL: &str = "
pub kernel Everything<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
    q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey, slope: PerHead = 0.05, bias: PerKey,
) -> Output<E, D> {
    let gate = sparsek(u, K);
    let seen = causal & (topk(gate) | window(W) | sinks(2));
    let s = dot(q, k) * rsqrt(D) * gate + slope * (k.pos - q.pos) + bias;
    dot(softmax(s, seen) * gate, v)
}";

fn program(text: &str) -> Program {
    let compiled = compile_file(text);
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    let kernel = compiled.kernels.into_iter().next().expect("one kernel");
    kernel.program.expect("no diagnostics, so a program")
}

fn problem(seed: u64, spec: &Spec, shape: &Shape, scores: Scores, cu: Option<Vec<i32>>) -> Problem {
    let program = program(KERNEL);
    let instance = program.instantiate(spec).expect("values of the sets").program;
    let inputs = generate::inputs(seed, &instance, shape, scores).expect("an instance");
    Problem::new(&program, &program, spec, inputs, cu)
}

#[test]
fn edges_of_every_size_and_kind_of_score() {
    // (N, k, w): one token, fewer keys than k, no window, window beyond N, k = 1, tile edges.
    let sizes = [
        (1, 1, 0),
        (1, 4, 4),
        (2, 1, 0),
        (15, 40, 3),
        (33, 1, 0),
        (64, 5, 1),
        (65, 7, 100),
        (129, 16, 31),
        (200, 3, 64),
    ];
    for (n, (size, scores)) in sizes.iter().flat_map(|s| Scores::ALL.map(|k| (s, k))).enumerate() {
        let (hq, hkv) = [(1, 1), (4, 2), (5, 1)][n % 3];
        let elem = [Elem::F32, Elem::F32, Elem::Bf16, Elem::F16][n % 4];
        let d = [16, 48][n % 2];
        let spec = Spec::new(elem, d).k(size.1).w(size.2);
        let shape = Shape { batch: 1 + n % 2, n: size.0, hq, hkv };
        problem(n as u64, &spec, &shape, scores, None).check(&format!("{size:?} {scores:?}"));
    }
}

#[test]
fn no_tokens_and_no_sequences() {
    let spec = Spec::new(Elem::F32, 16).k(3).w(2);
    for (batch, n, cu) in [(2, 0, None), (0, 5, None), (1, 0, Some(vec![0, 0]))] {
        let shape = Shape { batch, n, hq: 2, hkv: 1 };
        let p = problem(1, &spec, &shape, Scores::Equal, cu);
        let (forward, gradients) = p.call.run(&p.kernel).expect("nothing to do is not an error");
        assert_eq!(forward.o.shape(), [batch, n, 2, 16]);
        assert_eq!(gradients.get("d_slope").map(Tensor::to_f32), Some(vec![0.0, 0.0]));
    }
}

#[test]
fn a_weight_that_folds_to_zero_leaves_lse() {
    let program = program(
        "pub kernel Off<M in [0, 1]>(
            q: Query<f32, 16>, k: Key<f32, 16>, v: Key<f32, 16>, u: PerKey,
        ) -> Output<f32, 16> {
            let gate = sparsek(u, 3);
            dot(softmax(dot(q, k), causal & (topk(gate) | window(2))) * M * gate, v)
        }",
    );
    for m in [0, 1] {
        let spec = Spec::new(Elem::F32, 16).set("M", m);
        let instance = program.instantiate(&spec).expect("values of the sets").program;
        let shape = Shape { batch: 2, n: 21, hq: 4, hkv: 2 };
        let inputs = generate::inputs(7, &instance, &shape, Scores::Normal(1.0)).expect("inputs");
        Problem::new(&program, &program, &spec, inputs, None).check(&format!("M = {m}"));
    }
}

fn bits(forward: &Forward, gradients: &Gradients) -> Vec<(String, Vec<u32>)> {
    let own = [("o", &forward.o), ("lse", &forward.lse), ("tau", &forward.tau)];
    let all = own.into_iter().chain(gradients.iter());
    all.map(|(n, t)| (n.to_owned(), t.to_f32().iter().map(|x| x.to_bits()).collect())).collect()
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let spec = Spec::new(Elem::F32, 16).k(20).w(9);
    // Three chunks of queries, so that threads have something to share.
    let shape = Shape { batch: 1, n: 1200, hq: 4, hkv: 2 };
    let program = program(KERNEL);
    let instance = program.instantiate(&spec).expect("values of the sets").program;
    let inputs = generate::inputs(5, &instance, &shape, Scores::Normal(0.3)).expect("an instance");
    let kernel = sparsek::Kernel::from_program(&program, &spec).expect("values of the sets");
    let call = crate::problem::Call::new(&kernel, &inputs, None);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| call.run(&kernel).map(|(f, g)| bits(&f, &g)).expect("it runs"))
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        assert!(run(threads) == one, "{threads} threads");
    }
    assert!(one.iter().any(|(n, x)| n == "d_u" && x.iter().any(|b| *b != 0)));
}

/// Elements of entry `b` of a tensor whose first dimension is the batch.
fn entry(t: &Tensor, b: usize) -> Vec<u32> {
    let size: usize = t.shape()[1..].iter().product();
    t.to_f32()[b * size..(b + 1) * size].iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn gates_sum_to_k_and_selection_is_final(
        seed in 0u64..1 << 40,
        n in 1usize..150,
        k in 1i64..40,
        w in 0i64..30,
        kind in 0usize..9,
    ) {
        let spec = Spec::new(Elem::F32, 16).k(k).w(w);
        let shape = Shape { batch: 1, n, hq: 2, hkv: 1 };
        let p = problem(seed, &spec, &shape, Scores::ALL[kind], None);
        let forward = p.kernel.forward(&p.call.inputs(), &Options::default())?;
        let (tau, expiry) = (forward.tau.to_f32(), forward.expiry.as_i32().unwrap());
        let Some((_, _, Elements::F32(u))) = p.call.tensors.iter().find(|(n, ..)| n == "u") else {
            return Err(TestCaseError::fail("u is f32"));
        };
        let (sinks, w) = (2usize, w as usize);
        prop_assert!(tau.windows(2).all(|t| t[0] <= t[1]), "tau falls");
        for (i, tau) in tau.iter().enumerate() {
            let candidates: Vec<usize> = (sinks..(i + 1).saturating_sub(w).max(sinks)).collect();
            // Selected are as many as there can be, and each is at least as good as any that is not.
            let selected: Vec<usize> =
                candidates.iter().copied().filter(|j| expiry[*j] as usize > i).collect();
            prop_assert_eq!(selected.len(), candidates.len().min(k as usize));
            let worst = selected.iter().map(|j| u[*j]).fold(f32::INFINITY, f32::min);
            let others = candidates.iter().filter(|j| !selected.contains(j));
            prop_assert!(others.clone().all(|j| u[*j] <= worst));
            if *tau > f32::NEG_INFINITY {
                let m = |j: &usize| f64::from((u[*j] - tau).clamp(0.0, 1.0));
                let sum: f64 = candidates.iter().map(m).sum();
                let ulp = f64::from(tau.abs().max(1.0) * f32::EPSILON);
                let limit = 1e-5 * k as f64 + candidates.len() as f64 * ulp;
                prop_assert!((sum - k as f64).abs() <= limit, "gates of query {} sum to {}", i, sum);
            }
        }
    }

    #[test]
    fn batch_neighbours_change_no_bit(seed in 0u64..1 << 40, n in 1usize..90, elem in 0usize..3) {
        let spec = Spec::new(Elem::ALL[elem], 16).k(6).w(5);
        let shape = Shape { batch: 3, n, hq: 4, hkv: 2 };
        let all = problem(seed, &spec, &shape, Scores::Normal(0.5), None);
        let (forward, gradients) = all.call.run(&all.kernel)?;
        for b in 0..3 {
            let one = all.call.row(b, 3);
            let (f, g) = one.run(&all.kernel)?;
            for (name, whole, single) in [("o", &forward.o, &f.o), ("lse", &forward.lse, &f.lse)] {
                prop_assert!(entry(whole, b) == entry(single, 0), "{} of entry {}", name, b);
            }
            for name in ["d_q", "d_k", "d_v", "d_u", "d_bias"] {
                let (whole, single) = (gradients.get(name).unwrap(), g.get(name).unwrap());
                prop_assert!(entry(whole, b) == entry(single, 0), "{} of entry {}", name, b);
            }
        }
    }

    #[test]
    fn packed_sequences_are_separate_calls(seed in 0u64..1 << 40, a in 0i32..60, b in 0i32..60) {
        let spec = Spec::new(Elem::F32, 16).k(5).w(3);
        let n = (a + b) as usize;
        let shape = Shape { batch: 1, n, hq: 2, hkv: 2 };
        let packed = problem(seed, &spec, &shape, Scores::Normal(1.0), Some(vec![0, a, a + b]));
        packed.check("packed");
        let (forward, _) = packed.call.run(&packed.kernel)?;
        let o = forward.o.to_f32();
        for (from, to) in [(0, a as usize), (a as usize, n)] {
            let alone = packed.call.tokens(from, to);
            let f = packed.kernel.forward(&alone.inputs(), &Options::default())?;
            let row = 2 * 16;
            prop_assert!(f.o.to_f32() == o[from * row..to * row], "tokens {}..{}", from, to);
        }
    }
}
