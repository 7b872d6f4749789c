//! Random problems: programs, parameters, shapes.

use crate::cases::{self, Case, Geometry};
use crate::failure::Failure;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sparsek::Elem;
use sparsek::dsl::ir::{Extent, Program, Spec};
use sparsek_reference::generate::{self, Scores, Shape};

/// Work of a reference, in pairs times 64 head dimensions, that takes a thread about two seconds.
const MOST_WORK: usize = 1 << 20;

/// The same where every memory access is watched.
const MOST_SMALL_WORK: usize = 1 << 14;

/// Query and key-value heads: groups of 1 to 8.
const HEADS: [(usize, usize); 12] = [
    (1, 1),
    (2, 2),
    (4, 2),
    (8, 1),
    (6, 3),
    (3, 1),
    (5, 1),
    (7, 1),
    (4, 1),
    (6, 1),
    (16, 2),
    (2, 1),
];

const HEAD_DIMS: [i64; 9] = [16, 32, 48, 64, 80, 96, 128, 192, 256];

/// The case of a seed; a program of the grammar for even seeds, a built-in kernel for odd ones.
pub(super) fn case(seed: u64, small: bool) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let n = length(&mut rng, small);
    if seed.is_multiple_of(2) {
        let generated = generate::random(seed, n);
        let program = cases::reread(&generated.program)?;
        let mut spec = generated.spec;
        spec.elem = choose(&mut rng, &program.elem.set).unwrap_or(spec.elem);
        return finish(&program, spec, n, seed, small, &mut rng);
    }
    let (program, spec) = builtin(n, small, &mut rng)?;
    finish(&program, spec, n, seed, small, &mut rng)
}

/// A built-in case of `batch` rows, not packed.
pub(super) fn batch(seed: u64, batch: usize, small: bool) -> Result<Case, Failure> {
    let mut rng = StdRng::seed_from_u64(seed);
    let n = rng.random_range(1..=if small { 24 } else { 700 });
    let (program, spec) = builtin(n, small, &mut rng)?;
    let (hq, hkv) = choose(&mut rng, &HEADS).unwrap_or((1, 1));
    let scores = scores(&program, &mut rng);
    let shape = Shape { batch, n, hq, hkv };
    cases::build(&program, &spec, &Geometry { shape, cu_seqlens: None, scores }, seed)
}

fn length(rng: &mut StdRng, small: bool) -> usize {
    if small {
        return rng.random_range(1..=40);
    }
    match rng.random_range(0..10) {
        0 => rng.random_range(1..=8),
        1..=5 => rng.random_range(2..=140),
        6..=8 => rng.random_range(141..=400),
        // More than one chunk of queries.
        _ => rng.random_range(401..=1100),
    }
}

fn choose<T: Copy>(rng: &mut StdRng, from: &[T]) -> Option<T> {
    from.get(rng.random_range(0..from.len().max(1))).copied()
}

/// A built-in kernel and its parameters; extents at the edges come up often.
pub(super) fn builtin(n: usize, small: bool, rng: &mut StdRng) -> Result<(Program, Spec), Failure> {
    let all = sparsek_kernels::all();
    let kernel = &all[rng.random_range(0..all.len())];
    let program = kernel.program().map_err(Failure::new)?;
    let elem = choose(rng, &Elem::ALL).unwrap_or(Elem::F32);
    let dims = if small { &HEAD_DIMS[..4] } else { &HEAD_DIMS };
    let d = choose(rng, dims).unwrap_or(16);
    let n = n as i64;
    let extent = |rng: &mut StdRng, least: i64, most: i64| {
        let value = match rng.random_range(0..6) {
            0 => least,
            1 => 1,
            2 => n + rng.random_range(0..=3),
            3 => rng.random_range(least..=16),
            _ => rng.random_range(least..=(n / 3).max(least)),
        };
        value.clamp(least, most)
    };
    let (k, w) = (extent(rng, 1, 4096), extent(rng, 0, 8192));
    Ok((program, Spec::new(elem, d).k(k).w(w)))
}

fn finish(
    program: &Program,
    mut spec: Spec,
    n: usize,
    seed: u64,
    small: bool,
    rng: &mut StdRng,
) -> Result<Case, Failure> {
    let packed = rng.random_range(0..4) == 0;
    let most = if small { MOST_SMALL_WORK } else { MOST_WORK };
    let open = matches!(program.head_dim, Extent::Param(_));
    let mut shape = Shape { batch: 1, n, hq: 1, hkv: 1 };
    for _ in 0..12 {
        let (hq, hkv) = choose(rng, &HEADS).unwrap_or((1, 1));
        let batch = if packed { 1 } else { rng.random_range(1..=3) };
        if batch * hq * n * n * (spec.d as usize).div_ceil(64) <= most {
            shape = Shape { batch, n, hq, hkv };
            break;
        }
        // A large head dimension goes with a short sequence.
        if open && spec.d > 64 {
            spec.d = 64;
        }
    }
    let cu_seqlens = packed.then(|| boundaries(n, rng));
    let scores = scores(program, rng);
    let mut case = cases::build(program, &spec, &Geometry { shape, cu_seqlens, scores }, seed)?;
    case.strided = rng.random_range(0..4) == 0;
    Ok(case)
}

/// Boundaries of packed sequences, some of them empty.
fn boundaries(n: usize, rng: &mut StdRng) -> Vec<i32> {
    let mut all = vec![0, n as i32];
    for _ in 0..rng.random_range(0..5) {
        let cut = rng.random_range(0..=n) as i32;
        // Twice: an empty sequence.
        all.extend(std::iter::repeat_n(cut, rng.random_range(1..=2)));
    }
    all.sort_unstable();
    all
}

fn scores(program: &Program, rng: &mut StdRng) -> Scores {
    let mut kinds: Vec<Scores> = Scores::ALL.to_vec();
    if !generate::score_is_input(program) {
        // What is not finite would reach other expressions than the mask.
        kinds.retain(|s| s.suits_expressions());
    }
    kinds[rng.random_range(0..kinds.len())]
}
