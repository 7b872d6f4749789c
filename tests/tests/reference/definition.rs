//! Properties that follow from the definition of the selection, for every kind of score.

use sparsek_dsl::Elem;
use sparsek_reference::brute::{self, Attention, Gate};
use sparsek_reference::generate::{self, Scores, Shape};
use sparsek_reference::{Array, Arrays, Plan, rule};

fn form(k: usize, window: usize, sinks: usize) -> Attention {
    Attention { k, window, sinks, gate: Gate::Value, scale: None, softcap: None }
}

fn random_inputs(form: &Attention, seed: u64, n: usize, scores: Scores) -> Arrays {
    let shape = Shape { batch: 1, n, hq: 2, hkv: 1 };
    let program = generate::program(form, Elem::F32, 16, false);
    generate::inputs(seed, &program, &shape, scores).expect("an instance")
}

fn plan(form: &Attention, scores: Scores, seed: u64) -> Plan {
    let inputs = random_inputs(form, seed, 80, scores);
    brute::run(form, &inputs, None).expect("valid inputs").plan
}

#[test]
fn thresholds_never_fall_and_gates_sum_to_k() {
    for (n, scores) in Scores::ALL.into_iter().enumerate() {
        for (k, window, sinks) in [(1, 0, 0), (5, 3, 0), (12, 8, 2), (40, 60, 0)] {
            let plan = plan(&form(k, window, sinks), scores, n as u64);
            let tau = plan.tau.data();
            // Each is a root in f64, good to a few of its last digits.
            let rises = |t: &[f64]| t[0] <= t[1] || t[0] - t[1] <= 1e-14 * t[1].abs().max(1.0);
            assert!(tau.windows(2).all(rises), "{scores:?} k {k}: {tau:?}");
            for m in rule::selection(&plan.tau, &plan.expiry, &plan).expect("same shapes") {
                // Against itself: what is measured is the sum of gates.
                assert!(m.ok, "{scores:?} k {k}: {m:?}");
            }
        }
    }
}

#[test]
fn a_selection_that_is_off_is_not_accepted() {
    let plan = plan(&form(5, 3, 0), Scores::Normal(1.0), 3);
    let last = plan.tau.data().len() - 1;
    let broken = |tau: &Array, expiry: &Array| -> Vec<String> {
        let all = rule::selection(tau, expiry, &plan).expect("same shapes");
        all.into_iter().filter(|m| !m.ok).map(|m| m.name).collect()
    };
    let mut tau = plan.tau.clone();
    tau.data_mut()[last] += 4.0 * rule::ulp(1.0);
    assert_eq!(broken(&tau, &plan.expiry), ["tau (ulp)"]);
    tau.data_mut()[last] = f64::NEG_INFINITY;
    assert_eq!(broken(&tau, &plan.expiry), ["tau at -inf"]);
    tau.data_mut()[last] = plan.tau.data()[last] + 0.01;
    assert_eq!(broken(&tau, &plan.expiry), ["tau (ulp)", "sum of gates"]);
    let mut expiry = plan.expiry.clone();
    expiry.data_mut()[7] += 1.0;
    assert_eq!(broken(&plan.tau, &expiry), ["expiry"]);
    assert!(rule::selection(&Array::zeros(&[1]), &expiry, &plan).is_err());
}

#[test]
fn kinks_are_found_on_both_sides() {
    // Query 2 is the first with more than k = 2 candidates.
    let form = form(2, 0, 0);
    let mut inputs = random_inputs(&form, 1, 3, Scores::Equal);
    let mut with = |scores: [f64; 3]| {
        inputs.insert("u".to_owned(), Array::new(&[1, 1, 3], scores.to_vec()).expect("3 scores"));
        let plan = brute::run(&form, &inputs, None).expect("valid inputs").plan;
        (plan.tau.data()[2], rule::kinks(&plan, rule::KINK))
    };
    // All fractional: tau = (1.25 − 2) / 3.
    let (tau, kinks) = with([0.25, 0.5, 0.5]);
    assert!((tau + 0.25).abs() < 1e-12);
    assert_eq!(kinks, [false, false, false]);
    // The best two saturate exactly: tau is a score less 1, and the other score may be anything.
    let (tau, kinks) = with([7.0, 3.0, 5.0]);
    assert_eq!(tau, 4.0);
    assert_eq!(kinks, [false, false, true]);
    // The least candidate sits at tau.
    let (tau, kinks) = with([0.0, 1.0, 1.0]);
    assert_eq!(tau, 0.0);
    assert_eq!(kinks, [false, false, true]);
}

#[test]
fn packed_sequences_are_separate_sequences() {
    let form = form(4, 3, 1);
    let all = random_inputs(&form, 5, 30, Scores::Normal(1.0));
    let packed = brute::run(&form, &all, Some(&[0, 12, 30])).expect("valid inputs");
    // Tokens lie on axis 1 of q, k, v, d_o and on the last of u, with one head and one batch entry.
    let part = |name: &str, a: &Array, from: usize, to: usize| {
        let mut shape = a.shape().to_vec();
        let axis = if name == "u" { 2 } else { 1 };
        let width: usize = shape[axis + 1..].iter().product();
        shape[axis] = to - from;
        Array::new(&shape, a.data()[from * width..to * width].to_vec()).expect("a slice of it")
    };
    for (from, to) in [(0, 12), (12, 30)] {
        let alone = all.iter().map(|(n, a)| (n.clone(), part(n, a, from, to))).collect();
        let alone = brute::run(&form, &alone, None).expect("valid inputs");
        for name in ["o", "d_q", "d_k", "d_v", "d_u"] {
            let name_of = if name == "d_u" { "u" } else { name };
            assert_eq!(part(name_of, &packed.arrays[name], from, to), alone.arrays[name], "{name}");
        }
        assert_eq!(part("u", &packed.plan.expiry, from, to), alone.plan.expiry);
        assert_eq!(part("u", &packed.plan.tau, from, to), alone.plan.tau);
    }
}
