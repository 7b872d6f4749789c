//! Derived backward programs against central differences of their forward programs, in f64.
//!
//! For a random direction r of one input x, (L(x + εr) − L(x − εr)) / 2ε with L = Σ o · d_o must be
//! Σ d_x · r. Rows of d_o are zero where the mask is near a kink, so that L is smooth. With
//! ε = 1e-6 the difference is good to about 1e-9 of L: rounding, 1e-16 / ε, outweighs ε².

use super::cases::Case;
use sparsek_dsl::ir::Type;
use sparsek_reference::dense::{self, Options, Run};
use sparsek_reference::{Array, Arrays, generate, rule};

const STEP: f64 = 1e-6;

/// Distance to a kink below which a query takes no part: many steps.
const AWAY: f64 = 1e-4;

const PROGRAMS: u64 = 300;

fn product(a: &Array, b: &Array) -> f64 {
    a.data().iter().zip(b.data()).map(|(x, y)| x * y).sum()
}

fn size(a: &Array) -> f64 {
    product(a, a).sqrt()
}

/// L at x + `step` · `direction` for the input `name`; `None` when another key is selected there.
fn loss(
    case: &Case,
    options: &Options,
    base: &Run,
    name: &str,
    direction: &Array,
    step: f64,
) -> Option<f64> {
    let mut moved: Arrays = case.inputs.clone();
    let x = moved.get_mut(name).expect("an input that is there");
    x.data_mut().iter_mut().zip(direction.data()).for_each(|(x, r)| *x += step * r);
    let run = dense::run(&case.forward, &moved, options).expect("the base point ran");
    let same = run.plan.expiry == base.plan.expiry;
    same.then(|| product(&run.outputs["o"], &case.inputs["d_o"]))
}

/// What happened to the gradients of one program.
#[derive(Default)]
struct Tally {
    compared: usize,
    nonzero: usize,
    skipped: usize,
}

fn check(seed: u64, tally: &mut Tally) {
    let mut case = Case::new(seed);
    let options = case.options();
    let first = dense::run(&case.forward, &case.inputs, &options)
        .unwrap_or_else(|e| panic!("seed {seed}: {e}\n{}", case.generated.program));
    let mut d_o = case.inputs["d_o"].clone();
    rule::zero_kinks(&mut d_o, &first.plan, AWAY).expect("shapes agree");
    case.inputs.insert("d_o".to_owned(), d_o);
    let options = case.options();
    let (base, gradients) =
        dense::run_both(&case.forward, &case.backward, &case.inputs, &options).expect("it ran");
    let moving = Options { straight_through_at: base.gates.as_deref(), ..options.clone() };
    for input in case.forward.inputs.iter().filter(|i| Type::differentiable(i.ty)) {
        let Some(x) = case.inputs.get(&input.name) else { continue };
        let gradient = &gradients.outputs[&format!("d_{}", input.name)];
        assert_eq!(gradient.shape(), x.shape(), "seed {seed}: d_{}", input.name);
        let direction = generate::normals(seed ^ 0x5eed, x.shape());
        let at = |step| loss(&case, &moving, &base, &input.name, &direction, step);
        let (Some(above), Some(below)) = (at(STEP), at(-STEP)) else {
            tally.skipped += 1;
            continue;
        };
        let difference = (above - below) / (2.0 * STEP);
        let derivative = product(gradient, &direction);
        let scale = 1.0 + size(gradient) * size(&direction) + above.abs();
        assert!(
            (difference - derivative).abs() <= 1e-7 * scale,
            "seed {}: d_{}: derivative {derivative:e}, difference {difference:e}\n{}\n{}",
            case.seed,
            input.name,
            case.generated.program,
            case.backward,
        );
        tally.compared += 1;
        tally.nonzero += usize::from(size(gradient) > 1e-6);
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut tally = Tally::default();
    (0..PROGRAMS).for_each(|seed| check(seed, &mut tally));
    let Tally { compared, nonzero, skipped } = tally;
    assert!(compared >= 5 * PROGRAMS as usize, "only {compared} gradients compared");
    // Zero: inputs of masks, scores of programs that use no gate, products where one key is seen.
    assert!(nonzero * 10 >= compared * 7, "{nonzero} of {compared} gradients are not zero");
    assert!(skipped * 50 <= compared, "{skipped} skipped, {compared} compared");
}
