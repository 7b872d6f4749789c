//! Both references against every golden case.
//!
//! Expected tensors are stored as f32, and the programs' scale is an f32: both are a relative error of
//! 2^-24, and a few of them where a value is a difference of larger ones.

use sparsek_dsl::backward::derive;
use sparsek_reference::dense::{Arithmetic, Options};
use sparsek_reference::{Array, Arrays, Plan, brute, dense, generate, rule};
use sparsek_tests::golden::{self, Golden};

/// Relative error of a result that was rounded to f32 once.
const ROUNDED: f64 = 1e-7;

/// The same for the gradients of a program whose scale is an f32.
const ROUNDED_SCALE: f64 = 4e-7;

fn with_plan(mut arrays: Arrays, plan: &Plan) -> Arrays {
    arrays.insert("tau".to_owned(), plan.tau.clone());
    arrays.insert("expiry".to_owned(), plan.expiry.clone());
    arrays
}

fn compare(case: &Golden, got: &Arrays, limit: f64) {
    for (name, want) in &case.expected {
        let got = got.get(name).unwrap_or_else(|| panic!("{}: no {name}", case.name));
        let error = rule::relative_error(got, want);
        let zero = want.data().iter().all(|x| *x == 0.0);
        let limit = match name.as_str() {
            "expiry" => 0.0,
            _ if zero => 1e-12,
            _ => limit,
        };
        assert!(error <= limit, "{}: {name} is off by {error:e}, limit {limit:e}", case.name);
    }
}

#[test]
fn brute_force_gives_every_golden_result() {
    for case in golden::all() {
        let results = brute::run(&case.form, &case.inputs, None).expect("a golden case is valid");
        compare(&case, &with_plan(results.arrays, &results.plan), ROUNDED);
    }
}

fn interpret(case: &Golden, arithmetic: Arithmetic) -> (Arrays, Plan) {
    let d = case.inputs["q"].shape()[3];
    let with_slope = case.inputs.contains_key("slope");
    let forward = generate::program(&case.form, case.elem, d, with_slope);
    let backward = derive(&forward);
    let options = Options { arithmetic, ..Options::default() };
    let (first, second) = dense::run_both(&forward, &backward, &case.inputs, &options)
        .unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let mut all = first.outputs;
    all.extend(second.outputs);
    (all, first.plan)
}

#[test]
fn the_interpreter_gives_every_golden_result() {
    for case in golden::all() {
        let (arrays, plan) = interpret(&case, Arithmetic::Exact);
        compare(&case, &with_plan(arrays, &plan), ROUNDED_SCALE);
    }
}

#[test]
fn plain_arithmetic_keeps_the_rule_and_is_not_exact() {
    for case in golden::all() {
        let (plain, plan) = interpret(&case, Arithmetic::Plain(case.elem));
        // In f32 a plain implementation needs none of the allowance for its own error.
        if case.elem.name() == "f32" {
            let names = case.expected.iter().filter(|(name, _)| plain.contains_key(*name));
            let exact: Arrays = names.map(|(n, a)| (n.clone(), a.clone())).collect();
            for m in rule::tensors(&plain, &exact, &[]) {
                assert!(m.ok, "{}: {m:?}", case.name);
            }
        }
        let exact = brute::run(&case.form, &case.inputs, None).expect("a golden case is valid");
        for m in rule::selection(&plan.tau, &plan.expiry, &exact.plan).expect("same shapes") {
            assert!(m.ok, "{}: {m:?}", case.name);
        }
        let error = rule::relative_error(&plain["o"], &exact.arrays["o"]);
        let expected = match case.elem.name() {
            "bf16" => 1e-4..1e-2,
            "f16" => 1e-5..1e-3,
            // One key only, and its weight is 1.
            _ if case.name == "one_token" => 0.0..1e-6,
            _ => 1e-9..1e-6,
        };
        assert!(expected.contains(&error), "{}: plain error of o {error:e}", case.name);
    }
}

#[test]
fn stored_gradients_have_no_row_at_a_kink() {
    for case in golden::all() {
        let results = brute::run(&case.form, &case.inputs, None).expect("a golden case is valid");
        let mut d_o: Array = case.inputs["d_o"].clone();
        rule::zero_kinks(&mut d_o, &results.plan, rule::KINK * 0.5).expect("shapes agree");
        assert_eq!(d_o, case.inputs["d_o"], "{}", case.name);
    }
}
