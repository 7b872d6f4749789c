//! Evaluates any typed program, forward or backward, in f64.
//!
//! Nodes are evaluated one after the other, each over its whole index set: a pair value is an array
//! \[Hq, N, N\] for each sequence, of which entries that are not seen (or not causal) never reach a sum.
//! Selection is worked out for each query from its own candidates. What the operations mean is
//! written in [`sparsek_dsl::ir`]; every function here is that text in the plainest form.

mod bind;
mod elementwise;
mod geometry;
mod matmul;
mod reduce;
pub(crate) mod round;
mod softmax;
mod topk;

pub use round::{Arithmetic, VARIANTS};

use crate::{Array, Arrays, Error, Plan};
use geometry::{At, Geometry};
use sparsek_dsl::ir::{Class, Op, Program, Type, ValueId, check};
use std::collections::HashMap;
use topk::Selection;

/// How to evaluate.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// Which numbers are rounded, and to what.
    pub arithmetic: Arithmetic,
    /// Boundaries of packed sequences, \[sequences + 1\].
    pub cu_seqlens: Option<&'a [i32]>,
    /// Gates of an earlier [`Run`], at which `straight_through(gate)` is 1 + gate − that gate: a
    /// function that is 1 there and whose derivative is the one that backward programs give it.
    pub straight_through_at: Option<&'a [f64]>,
}

/// Results of one evaluation.
#[derive(Clone, Debug)]
pub struct Run {
    /// The program's outputs: `o` \[B, N, Hq, D\], `lse` \[B, Hq, N\], or each gradient in the shape
    /// that its input was given in.
    pub outputs: Arrays,
    /// Scores, tau and expiry.
    pub plan: Plan,
    /// Every gate, for [`Options::straight_through_at`].
    pub gates: Option<Vec<f64>>,
}

/// One node's value: entries of its class in the order of [`Geometry::each`], times D for vectors.
/// Masks are 0 and 1.
#[derive(Clone, Debug)]
struct Value {
    ty: Type,
    data: Vec<f64>,
}

/// An evaluation under way.
struct Evaluation<'a> {
    program: &'a Program,
    inputs: &'a Arrays,
    options: &'a Options<'a>,
    geometry: Geometry,
    values: Vec<Option<Value>>,
    /// Nodes that the score is computed from, itself among them.
    in_score: Vec<bool>,
    /// What is selected, once the score is known.
    selection: Option<Selection>,
    /// Log-sum-exp of each softmax, in the order of PerQuery.
    lse: HashMap<ValueId, Vec<f64>>,
}

/// Evaluates an instance of a program, one without parameters ([`Program::instantiate`]), on inputs by
/// name: q \[B, N, Hq, D\], k v \[B, N, Hkv, D\], u \[B, Hkv, N\], Scalar \[1\], PerHead \[Hq\], PerQuery \[B, N\]
/// or \[B, N, Hq\], PerKey \[B, N\] or \[B, N, Hkv\]; for a backward program also o and d_o like q and
/// lse \[B, Hq, N\]. Inputs that are absent take their default; other names are ignored.
///
/// # Errors
/// A program that is not well formed or has parameters left, a missing input, shapes that do not agree,
/// unusable `cu_seqlens`.
pub fn run(program: &Program, inputs: &Arrays, options: &Options) -> Result<Run, Error> {
    let fail = |reason: String| Err(Error::Program { name: program.name.clone(), reason });
    if let Some(broken) = check::well_formed(program).first() {
        return fail(format!("not well formed: {broken}"));
    }
    let geometry = Geometry::new(program, inputs, options)?;
    let mut evaluation = Evaluation {
        program,
        inputs,
        options,
        geometry,
        values: vec![None; program.nodes.len()],
        in_score: vec![false; program.nodes.len()],
        selection: None,
        lse: HashMap::new(),
    };
    if let Some(gate) = program.gate() {
        evaluation.in_score = cone(program, gate.score);
    }
    evaluation.evaluate_all()?;
    evaluation.finish()
}

/// Runs a forward program and then its backward program on the forward's `o` and `lse`; `inputs` also
/// holds `d_o`.
///
/// # Errors
/// As [`run`].
pub fn run_both(
    forward: &Program,
    backward: &Program,
    inputs: &Arrays,
    options: &Options,
) -> Result<(Run, Run), Error> {
    let first = run(forward, inputs, options)?;
    let mut saved = inputs.clone();
    for name in ["o", "lse"] {
        if let Some(array) = first.outputs.get(name) {
            saved.insert(name.to_owned(), array.clone());
        }
    }
    let second = run(backward, &saved, options)?;
    Ok((first, second))
}

/// Which nodes `root` is computed from, itself among them.
fn cone(program: &Program, root: ValueId) -> Vec<bool> {
    let mut inside = vec![false; program.nodes.len()];
    inside[root.index()] = true;
    for v in program.ids().rev().filter(|v| v.index() <= root.index()) {
        if inside[v.index()] {
            program.node(v).op.for_each_operand(|o| inside[o.index()] = true);
        }
    }
    inside
}

impl Evaluation<'_> {
    fn evaluate_all(&mut self) -> Result<(), Error> {
        let program = self.program;
        let live = program.live();
        // Sums need the seen set and do not name it as an operand: it goes first.
        let first = cone(program, program.seen);
        let order = program.ids().filter(|v| first[v.index()]);
        let order = order.chain(program.ids().filter(|v| live[v.index()] && !first[v.index()]));
        // Values are dropped after their last use, or pair values would fill memory.
        let mut uses = vec![0usize; program.nodes.len()];
        for v in program.ids().filter(|v| live[v.index()]) {
            program.node(v).op.for_each_operand(|o| uses[o.index()] += 1);
        }
        let kept = program.outputs.iter().map(|o| o.value).chain([program.seen]);
        for v in kept.chain(program.inputs.iter().filter_map(|i| i.default)) {
            uses[v.index()] += 1;
        }
        if let Some(gate) = program.gate() {
            uses[gate.value.index()] += 1;
        }
        for v in order {
            let value = self.evaluate(v)?;
            self.values[v.index()] = Some(value);
            program.node(v).op.for_each_operand(|o| {
                uses[o.index()] -= 1;
                if uses[o.index()] == 0 {
                    self.values[o.index()] = None;
                }
            });
        }
        Ok(())
    }

    fn evaluate(&mut self, v: ValueId) -> Result<Value, Error> {
        let program = self.program;
        let node = program.node(v);
        let mut value = match &node.op {
            Op::Const(x) => self.constant(f64::from(x.get())),
            Op::Int(n) => self.constant(f64::from(*n)),
            Op::Param(_) => return self.fail("has a parameter left; instantiate it first"),
            Op::Input(id) => self.input(*id)?,
            Op::Coord(c) => self.coordinate(*c),
            Op::Unary(f, x) => self.unary(*f, *x),
            Op::Binary(f, a, b) => self.binary(*f, *a, *b),
            Op::Compare(f, a, b) => self.compare(*f, *a, *b),
            Op::Logic(f, a, b) => self.logic(*f, *a, *b),
            Op::Not(x) => self.not(*x),
            Op::Select(c, a, b) => self.select(*c, *a, *b),
            Op::ToFloat(x) => self.to_float(*x),
            Op::Sparsek { .. } => self.sparsek(),
            Op::StraightThrough(gate) => self.straight_through(*gate),
            Op::Seen(seen) => self.seen(seen),
            Op::MaskVjp { d_gate, .. } => self.mask_vjp(*d_gate),
            Op::Softmax { logit, sink, .. } => self.softmax(v, *logit, *sink),
            Op::Lse(p) => self.log_sum_exp(*p),
            Op::Dot(a, b) => self.dot(*a, *b),
            Op::WeightedSum { weight, tile } => self.weighted_sum(*weight, *tile),
            Op::Sum { value, to } => self.sum(*value, *to),
        };
        if node.ty.differentiable() {
            let round = self.options.arithmetic.result(self.in_score[v.index()]);
            value.data.iter_mut().for_each(|x| *x = round(*x));
        }
        Ok(value)
    }

    fn fail<T>(&self, reason: &str) -> Result<T, Error> {
        Err(Error::Program { name: self.program.name.clone(), reason: reason.to_owned() })
    }

    /// The value of an operand. Operands are evaluated before their users.
    fn value(&self, v: ValueId) -> &Value {
        static NOTHING: Value =
            Value { ty: Type::new(Class::Scalar, sparsek_dsl::ir::Kind::F32), data: Vec::new() };
        debug_assert!(self.values[v.index()].is_some(), "node {} is used before it is known", v.0);
        self.values[v.index()].as_ref().unwrap_or(&NOTHING)
    }

    /// An operand's entry at some index, broadcast when its class is smaller.
    fn get(&self, value: &Value, at: At) -> f64 {
        value.data[self.geometry.offset(value.ty.class, at)]
    }

    /// An operand's vector at some index.
    fn vector<'v>(&self, value: &'v Value, at: At) -> &'v [f64] {
        let d = self.geometry.d;
        &value.data[self.geometry.offset(value.ty.class, at) * d..][..d]
    }

    /// Whether a pair is seen.
    fn is_seen(&self, at: At) -> bool {
        self.get(self.value(self.program.seen), at) != 0.0
    }

    /// A value computed entry by entry.
    fn map(&self, ty: Type, mut f: impl FnMut(At) -> f64) -> Value {
        let mut data = vec![0.0; self.geometry.size(ty.class)];
        self.geometry.each(ty.class, |at| data[self.geometry.offset(ty.class, at)] = f(at));
        Value { ty, data }
    }

    fn finish(self) -> Result<Run, Error> {
        let mut outputs = Arrays::new();
        for output in &self.program.outputs {
            outputs.insert(output.name.clone(), self.output(output)?);
        }
        let gate = self.program.gate();
        let gates = gate.map(|g| self.value(g.value).data.clone());
        let seen = self.program.seen_set();
        let extent =
            |e: Option<sparsek_dsl::ir::Extent>| e.and_then(|e| e.literal()).unwrap_or(0) as usize;
        let selection = self.selection.as_ref();
        let heads = |data: Option<&Vec<f64>>| -> Array {
            self.geometry.by_key_head(data.map_or(&[], |d| d.as_slice()))
        };
        let plan = Plan {
            k: gate.and_then(|g| g.k.literal()).map(|k| k as usize),
            window: extent(seen.window),
            sinks: extent(seen.sinks),
            sequences: self.geometry.sequences.iter().map(|s| s.place).collect(),
            scores: selection.and_then(|s| s.scores.as_ref()).map(|s| heads(Some(s))),
            tau: heads(selection.map(|s| &s.tau)),
            expiry: heads(selection.map(|s| &s.expiry)),
        };
        Ok(Run { outputs, plan, gates })
    }
}
