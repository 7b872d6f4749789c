//! Brute force and the interpreter against each other on random problems: they share no code.

use sparsek_dsl::Elem;
use sparsek_dsl::backward::derive;
use sparsek_reference::brute::{self, Attention, Gate};
use sparsek_reference::dense::{self, Options};
use sparsek_reference::generate::{self, Scores, Shape};
use sparsek_reference::{Arrays, rule};

/// Both compute in f64, in different orders.
const LIMIT: f64 = 1e-11;

struct Problem {
    form: Attention,
    with_slope: bool,
    shape: Shape,
    scores: Scores,
    cu_seqlens: Option<Vec<i32>>,
}

/// Every kind of score with every gate, and the rest from the digits of the seed.
fn problem(seed: usize) -> Problem {
    let digit = |place: usize, base: usize| seed / place % base;
    let n = 1 + seed * 7 % 40;
    let (hq, hkv) = [(1, 1), (4, 2), (2, 2), (3, 1)][digit(3, 4)];
    let packed = digit(2, 3) == 0;
    Problem {
        form: Attention {
            k: 1 + digit(1, 7),
            window: digit(5, 6),
            sinks: [0, 0, 1, 3][digit(11, 4)],
            gate: Gate::ALL[seed % 5],
            // Exact as f32, for the program's constants are.
            scale: Some(0.25),
            softcap: (digit(7, 3) == 0).then_some(3.0),
        },
        with_slope: digit(4, 2) == 0,
        shape: Shape { batch: if packed { 1 } else { 1 + digit(6, 2) }, n, hq, hkv },
        scores: Scores::ALL[seed / 5 % Scores::ALL.len()],
        cu_seqlens: packed.then(|| vec![0, 0, n as i32 / 3, n as i32 / 3 * 2, n as i32]),
    }
}

fn check(seed: usize) {
    let p = problem(seed);
    let forward = generate::program(&p.form, Elem::F32, 16, p.with_slope);
    let backward = derive(&forward);
    let mut inputs =
        generate::inputs(seed as u64, &forward, &p.shape, p.scores).expect("an instance");
    let cu_seqlens = p.cu_seqlens.as_deref();
    let first = brute::run(&p.form, &inputs, cu_seqlens).expect("valid inputs");
    let mut d_o = inputs["d_o"].clone();
    rule::zero_kinks(&mut d_o, &first.plan, rule::KINK).expect("shapes agree");
    inputs.insert("d_o".to_owned(), d_o);
    let by_hand = brute::run(&p.form, &inputs, cu_seqlens).expect("valid inputs");
    let options = Options { cu_seqlens, ..Options::default() };
    let (run, gradients) =
        dense::run_both(&forward, &backward, &inputs, &options).expect("valid inputs");
    let mut got: Arrays = run.outputs;
    got.extend(gradients.outputs);
    for (name, want) in &by_hand.arrays {
        let error = rule::relative_error(&got[name], want);
        assert!(error <= LIMIT, "seed {seed}: {name} differs by {error:e}");
    }
    assert_eq!(got.len(), by_hand.arrays.len(), "seed {seed}");
    let tau = rule::relative_error(&run.plan.tau, &by_hand.plan.tau);
    assert!(tau <= LIMIT, "seed {seed}: tau differs by {tau:e}");
    assert_eq!(run.plan.expiry, by_hand.plan.expiry, "seed {seed}");
}

#[test]
fn brute_force_and_the_interpreter_agree() {
    (0..400).for_each(check);
}
