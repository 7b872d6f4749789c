//! The CPU backend against the gemm crate in one process.
//!
//! `cargo bench -p sparsek-tests` times, on all cores, the product of two 1024 × 1024 f32 matrices
//! and `sparsek-value` (8 query and 2 key-value heads, D = 64, k = 256, w = 256, f32), plan
//! included. At the end it prints useful GFLOP/s (forward 4 D Hq Σ|seen|, backward 10 D Hq Σ|seen|),
//! their share of the product's rate, and how time grows from N = 8,192 to 65,536.
#![allow(missing_docs, reason = "criterion's macros define public items")]

use criterion::{Criterion, criterion_main};
use sparsek::{Elem, Inputs, Kernel, Options, Spec, TensorView};
use sparsek_reference::generate;
use std::time::{Duration, Instant};

const HQ: usize = 8;
const HKV: usize = 2;
const D: usize = 64;
const K: usize = 256;
const W: usize = 256;
const SHORT: usize = 8_192;
const LONG: usize = 65_536;

/// Scores of one kind.
#[derive(Clone, Copy)]
enum Scores {
    Normal(f32),
    /// 1e-5 · position + 0.1 · noise
    Rising,
}

impl Scores {
    fn name(self) -> String {
        match self {
            Scores::Normal(deviation) => format!("deviation {deviation}"),
            Scores::Rising => "rising".to_owned(),
        }
    }
}

/// Tensors of one problem.
struct Problem {
    n: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    u: Vec<f32>,
    d_o: Vec<f32>,
    kernel: Kernel,
}

impl Problem {
    fn new(n: usize, scores: Scores) -> Problem {
        let normals = |seed, len| generate::normals(seed, &[len]).to_f32();
        let noise = normals(4, HKV * n).into_iter().enumerate();
        let score = |(at, z): (usize, f32)| match scores {
            Scores::Normal(deviation) => deviation * z,
            Scores::Rising => 1e-5 * (at % n) as f32 + 0.1 * z,
        };
        let builtin = sparsek_kernels::builtin("sparsek-value").expect("a built-in kernel");
        let program = builtin.program().expect("of this build");
        let spec = Spec::new(Elem::F32, D as i64).k(K as i64).w(W as i64);
        Problem {
            n,
            q: normals(1, n * HQ * D),
            k: normals(2, n * HKV * D),
            v: normals(3, n * HKV * D),
            u: noise.map(score).collect(),
            d_o: normals(5, n * HQ * D),
            kernel: Kernel::from_program(&program, &spec).expect("values of the sets"),
        }
    }

    fn view<'a>(&self, heads: usize, x: &'a [f32]) -> TensorView<'a> {
        TensorView::new(&[1, self.n, heads, D], x).expect("shape and data agree")
    }

    fn inputs(&self) -> Inputs<'_> {
        let u = TensorView::new(&[1, HKV, self.n], self.u.as_slice()).expect("they agree");
        Inputs::new()
            .with("q", self.view(HQ, &self.q))
            .with("k", self.view(HKV, &self.k))
            .with("v", self.view(HKV, &self.v))
            .with("u", u)
    }

    /// Median times of forward and backward over `rounds`.
    fn times(&self, rounds: usize) -> (Duration, Duration) {
        let (inputs, options) = (self.inputs(), Options::default());
        let d_o = self.view(HQ, &self.d_o);
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            let forward = self.kernel.forward(&inputs, &options).expect("it runs");
            times.0.push(start.elapsed());
            let start = Instant::now();
            self.kernel.backward(&inputs, &forward, &d_o, &options).expect("it runs");
            times.1.push(start.elapsed());
        }
        (median(times.0), median(times.1))
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Useful operations of a forward pass: 4 D Hq Σ|seen|.
fn operations(n: usize) -> f64 {
    let seen: usize = (0..n).map(|i| (i + 1).min(K + W)).sum();
    4.0 * (D * HQ * seen) as f64
}

/// c = a · b, 1024³, on all threads.
#[allow(unsafe_code)]
fn product(a: &[f32], b: &[f32], c: &mut [f32]) {
    const M: usize = 1024;
    assert!(a.len() == M * M && b.len() == M * M && c.len() == M * M);
    let m = M as isize;
    let threads = gemm::Parallelism::Rayon(0);
    // SAFETY: three distinct slices of M × M elements, addressed row by row within them.
    unsafe {
        gemm::gemm(
            M,
            M,
            M,
            c.as_mut_ptr(),
            1,
            m,
            false,
            a.as_ptr(),
            1,
            m,
            b.as_ptr(),
            1,
            m,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

fn run(c: &mut Criterion) {
    let a = generate::normals(7, &[1024 * 1024]).to_f32();
    let (b, mut out) = (a.clone(), vec![0f32; 1024 * 1024]);
    c.bench_function("gemm 1024", |bench| bench.iter(|| product(&a, &b, &mut out)));
    let kinds = [Scores::Normal(1.0), Scores::Normal(0.1), Scores::Rising];
    let short = Problem::new(SHORT, kinds[0]);
    let inputs = short.inputs();
    let options = Options::default();
    let mut group = c.benchmark_group("sparsek-value, N = 8192");
    group.sample_size(20);
    group.bench_function("forward", |bench| {
        bench.iter(|| short.kernel.forward(&inputs, &options).expect("it runs"));
    });
    let forward = short.kernel.forward(&inputs, &options).expect("it runs");
    let d_o = short.view(HQ, &short.d_o);
    group.bench_function("backward", |bench| {
        bench.iter(|| short.kernel.backward(&inputs, &forward, &d_o, &options).expect("it runs"));
    });
    group.finish();
    summary(&kinds, || {
        let start = Instant::now();
        product(&a, &b, &mut out);
        start.elapsed()
    });
}

/// The table for docs/performance/cpu.md, of medians.
fn summary(kinds: &[Scores], mut gemm: impl FnMut() -> Duration) {
    let rate = |operations: f64, time: Duration| operations / time.as_secs_f64() / 1e9;
    let peak = rate(2.0 * 1024f64.powi(3), median((0..200).map(|_| gemm()).collect()));
    let threads = rayon::current_num_threads();
    println!("\n{threads} threads, gemm 1024³: {peak:.1} GFLOP/s\n");
    println!("| scores | N | forward ms | GFLOP/s | share | backward ms | GFLOP/s | share |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for kind in kinds {
        let mut all = Vec::new();
        for (n, rounds) in [(SHORT, 15), (LONG, 5)] {
            let (forward, backward) = Problem::new(n, *kind).times(rounds);
            let (f, b) = (rate(operations(n), forward), rate(2.5 * operations(n), backward));
            println!(
                "| {} | {n} | {:.1} | {f:.1} | {:.0} % | {:.1} | {b:.1} | {:.0} % |",
                kind.name(),
                forward.as_secs_f64() * 1e3,
                100.0 * f / peak,
                backward.as_secs_f64() * 1e3,
                100.0 * b / peak,
            );
            all.push((forward, backward));
        }
        let grows = |short: Duration, long: Duration| long.as_secs_f64() / short.as_secs_f64();
        println!(
            "| | grows | {:.2} times | | | {:.2} times | | |",
            grows(all[0].0, all[1].0),
            grows(all[0].1, all[1].1)
        );
    }
}

fn benches() {
    let mut criterion = Criterion::default().configure_from_args();
    run(&mut criterion);
    criterion.final_summary();
}

criterion_main!(benches);
