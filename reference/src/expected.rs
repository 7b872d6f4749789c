//! What an implementation is held against on one problem.

use crate::dense::{self, Arithmetic, Options, Run, VARIANTS};
use crate::rule::{self, Measurement};
use crate::{Array, Arrays, Error, Plan, generate};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Program;

/// Exact and plain results of a forward program and its backward on the same inputs.
#[derive(Clone, Debug)]
pub struct Expected {
    /// o, lse and the gradients of every input that was given, in f64 (scores in f32).
    exact: Arrays,
    /// The same from plain implementations.
    plain: Vec<Arrays>,
    /// The selection.
    plan: Plan,
    /// Error of thresholds, in ulp, that comes from scores being computed in f32.
    of_scores: f64,
    /// What more plain results are computed from.
    problem: Problem,
}

/// Variants of the plain implementation that every tensor is held against.
const FIRST: u8 = 3;

/// Programs and inputs.
#[derive(Clone, Debug)]
struct Problem {
    forward: Program,
    backward: Program,
    inputs: Arrays,
    elem: Elem,
    cu_seqlens: Option<Vec<i32>>,
}

impl Problem {
    /// Every result, and what the forward gave.
    fn run(&self, arithmetic: Arithmetic) -> Result<(Arrays, Run), Error> {
        let cu_seqlens = self.cu_seqlens.as_deref();
        let options = Options { arithmetic, cu_seqlens, ..Options::default() };
        let (first, second) =
            dense::run_both(&self.forward, &self.backward, &self.inputs, &options)?;
        let mut all = first.outputs.clone();
        all.extend(second.outputs);
        Ok((all, first))
    }

    /// Results of the variants of those numbers.
    fn variants(&self, numbers: std::ops::Range<u8>) -> Result<Vec<Arrays>, Error> {
        numbers.map(|n| Ok(self.run(Arithmetic::Varied(self.elem, n))?.0)).collect()
    }
}

impl Expected {
    /// Evaluates an instance of a forward program and its backward. `inputs` holds d_o; rows of it at
    /// kinks of the mask are zeroed there first ([`rule::zero_kinks`]).
    ///
    /// # Errors
    /// As [`dense::run`].
    pub fn new(
        forward: &Program,
        backward: &Program,
        inputs: &mut Arrays,
        elem: Elem,
        cu_seqlens: Option<&[i32]>,
    ) -> Result<Expected, Error> {
        let options = |arithmetic| Options { arithmetic, cu_seqlens, ..Options::default() };
        let plan = dense::run(forward, inputs, &options(Arithmetic::F32Scores))?.plan;
        if let Some(d_o) = inputs.get_mut("d_o") {
            rule::zero_kinks(d_o, &plan, rule::KINK)?;
        }
        let given = |n: &str| n.strip_prefix("d_").is_some_and(|n| inputs.contains_key(n));
        let problem = Problem {
            forward: forward.clone(),
            backward: backward.with_outputs(given),
            inputs: inputs.clone(),
            elem,
            cu_seqlens: cu_seqlens.map(<[i32]>::to_vec),
        };
        let (exact, _) = problem.run(Arithmetic::F32Scores)?;
        let (plain, rounded) = problem.run(Arithmetic::Plain(elem))?;
        let mut plain = vec![plain];
        plain.extend(problem.variants(0..FIRST)?);
        let mut of_scores = 0.0;
        if !generate::score_is_input(forward) {
            // A threshold moves by no more than the scores do.
            let unrounded = dense::run(forward, inputs, &options(Arithmetic::Exact))?;
            of_scores = largest_ulps(&rounded.plan.tau, &unrounded.plan.tau);
        }
        Ok(Expected { exact, plain, plan, of_scores, problem })
    }

    /// Every error of an implementation's results by the rule. A tensor that is beyond what a few plain
    /// implementations show is held against all of them. `got` holds o, lse, gradients, and tau
    /// and expiry \[B, Hkv, N\]. Where the kernel computes its scores from an expression, the limit of
    /// tau takes in twice what f32 does to them.
    ///
    /// # Errors
    /// A tau or expiry of another shape.
    pub fn measure(&self, got: &Arrays) -> Result<Vec<Measurement>, Error> {
        let mut all = rule::tensors(got, &self.exact, &self.plain);
        if all.iter().any(|m| !m.ok) {
            let mut plain = self.plain.clone();
            plain.extend(self.problem.variants(FIRST..VARIANTS)?);
            all = rule::tensors(got, &self.exact, &plain);
        }
        if let (Some(tau), Some(expiry)) = (got.get("tau"), got.get("expiry")) {
            for m in rule::selection(tau, expiry, &self.plan)? {
                let more = if m.name == rule::TAU { 2.0 * self.of_scores } else { 0.0 };
                all.push(Measurement::new(&m.name, m.error, m.limit + more));
            }
        }
        Ok(all)
    }
}

/// The largest difference of finite entries.
fn largest_ulps(a: &Array, b: &Array) -> f64 {
    let pairs = a.data().iter().zip(b.data()).filter(|(a, b)| a.is_finite() && b.is_finite());
    pairs.map(|(a, b)| (a - b).abs() / rule::ulp(*b)).fold(0.0, f64::max)
}
