//! The forward module: tile lists, then one sweep over rows with the online softmax.

use super::elementwise::{Body, Domain, Expressions, float};
use super::matmul::{self, Fields};
use super::module::Builder;
use super::topk::TopK;
use super::warpgroups;
use crate::plan::PairFunction;
use crate::{Error, Factor, Family, KernelPlan, Module, Problem, Scalar, Schedule, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Binary, Op, Unary, ValueId};
use std::collections::BTreeSet;

pub(crate) fn lower(
    problem: &Problem<'_>,
    schedule: &Schedule,
    target: &Target,
) -> Result<KernelPlan, Error> {
    let e = Expressions::new(problem, &problem.instance.program)?;
    let mut b = Builder::new(Module::Forward, problem, schedule, target);
    let s = &schedule.forward;
    matmul::check_shape(problem, schedule, "forward", s)?;
    b.sweep_constants(s);
    for name in ["q", "k", "v"] {
        b.vector(name, false);
    }
    b.vector("o", true);
    b.tensor("lse", Scalar::F32, true, &[]);
    b.tensor("expiry", Scalar::I32, false, &[]);
    b.score();

    let softmax = softmax(&e)?;
    let mut used = b.predicates(&e);
    used.extend(pair_functions(&mut b, &e, &softmax));
    used.extend(sink(&mut b, &e, &softmax)?);
    b.structs(&e, &used)?;

    let positions = b.values.shapes[0].positions;
    b.tiles(&TopK::of(problem, schedule), positions)?;
    // The launch before is the plan's last, in the same call: it has waited for the one that lists keys.
    b.values.tiles_wait_last = b.values.has_topk;
    let fields = Fields::of(&b.values);
    match s.family {
        Family::Sm80 => {
            let need = matmul::forward_need(problem, s, fields);
            matmul::check_fits(problem, target, "forward", s, need)?;
            b.constant("int", "BLOCKS_PER_MULTIPROCESSOR", need.blocks(target), "");
            b.constant("int", "SHARED", need.shared, "bytes of a block");
            b.constant("int", "STEP", matmul::forward_step(s), "keys of a streamed tile at a time");
            let unrolled = matmul::unrolled(problem, matmul::parts(s), fields);
            b.constant("int", "UNROLLED", unrolled, "steps of 16 of the head dimension");
            let held = matmul::queries_in_registers(problem, s);
            b.constant("bool", "QUERIES_IN_REGISTERS", held, "");
            let (width, slices) = matmul::rows_slice(problem);
            b.constant("int", "SLICE", width, "columns of the output that a block accumulates");
            let blocks = [Factor::Blocks(u64::from(positions))];
            let slices = [Factor::Literal(u64::from(slices))];
            b.launch("forward", [&blocks, &[Factor::Hkv], &slices], need.threads, need.shared);
        }
        Family::Sm90 => {
            let need = warpgroups::forward_need(problem, s, fields, b.values.needs_product);
            warpgroups::check_fits(problem, target, "forward", s, need, fields)?;
            b.constant("int", "SHARED", need.shared, "bytes of a block");
            let held = warpgroups::queries_in_registers(problem, s);
            b.constant("bool", "QUERIES_IN_REGISTERS", held, "");
            b.values.window_first = warpgroups::window_first(problem, s);
            // Kinds of tiles that the compiler knows to be the same for a warp: where predicates make another one of
            // them, 3 % less; where none do, it takes longer than it spares.
            b.values.by_stretches = b.values.window_first || b.values.predicate_of_tiles;
            let in_turn = match b.values.has_cap {
                true => warpgroups::caps_in_turn(problem, b.values.predicate_of_tiles),
                false => warpgroups::gates_in_turn(problem, s),
            };
            b.constant("bool", "COLUMNS_IN_TURN", in_turn, "whose logits a warp makes in turn");
            let buffers = warpgroups::query_buffers(problem, s);
            b.constant("int", "QUERY_BUFFERS", buffers, "tiles of queries in shared memory");
            let blocks = warpgroups::blocks(s, target, need);
            let widths = [s.tile_kv / 2, s.tile_kv, problem.instance.d as u32];
            b.warpgroup_constants(s, need, &widths, blocks);
            let blocks = [Factor::Literal(u64::from(blocks)), Factor::Multiprocessors];
            b.launch("forward", [&blocks, &[], &[]], need.threads, need.shared);
        }
    }
    Ok(b.finish())
}

/// The one softmax of a forward program and the weight made of it.
struct Softmax {
    logit: ValueId,
    sink: Option<ValueId>,
    weight: ValueId,
}

fn softmax(e: &Expressions<'_>) -> Result<Softmax, Error> {
    let found = e.program.ids().find_map(|v| match &e.program.node(v).op {
        Op::Softmax { logit, sink, .. } => Some((*logit, *sink)),
        _ => None,
    });
    let output = e.program.output_named("o").map(|o| &e.program.node(o.value).op);
    match (found, output) {
        (Some((logit, sink)), Some(Op::WeightedSum { weight, .. })) => {
            Ok(Softmax { logit, sink, weight: *weight })
        }
        _ => Err(e.unsupported("its output is no weighted sum under a softmax")),
    }
}

/// `logit` and `weight`. Returns what they read.
fn pair_functions(b: &mut Builder<'_>, e: &Expressions<'_>, s: &Softmax) -> BTreeSet<ValueId> {
    let (comment, mut logit): (&str, Body);
    if let Some((argument, cap)) = soft_cap(b, e, s.logit) {
        logit = argument;
        comment = "// What a logit is CAP tanh of, times 2 log2 e.";
        b.values.has_cap = true;
        // The sum of a row's exponentials times its values is far from the range of f32; f16 holds
        // no such weights, and a sink may be anything. Where no maximum is waited for, compilers
        // work on a whole tile at once, for which mma.sync leaves no registers.
        let wide = b.problem.instance.elem == Elem::Bf16;
        let warpgroups = b.schedule.forward.family == Family::Sm90;
        b.values.bounded_logits = wide && warpgroups && s.sink.is_none() && cap <= 80.0;
        b.constant("float", "CAP", float(cap), "of logits, in powers of two");
        b.constant("float", "LOGIT_SCALE", float(1.0), "powers of two for 1 of a capped logit");
    } else {
        logit = e.body(&[s.logit], Domain::Pair, false);
        let (unscaled, scale) = without_factor(e, s.logit, &logit);
        logit.results = vec![unscaled];
        comment =
            "// The logit of a pair over its constant factor: times LOGIT_SCALE, in powers of two.";
        b.constant("float", "LOGIT_SCALE", float(scale), "powers of two for 1 of `logit`");
    }
    // Weights stay far from the largest f16, 2^16, whatever factors a program gives them.
    let slack = if b.problem.instance.elem == Elem::F16 { 4.0 } else { 8.0 };
    b.constant("float", "SLACK", float(slack), "powers of two that a share may exceed 1 by");
    let bounded = is_bounded(e, s.weight);
    b.constant("bool", "WEIGHT_BOUNDED", bounded, "a share of 0 has the weight 0");
    let weight = e.body(&[s.weight], Domain::Pair, false);
    let reads = |leaves: &BTreeSet<ValueId>, name| leaves.iter().any(|v| e.name(*v) == name);
    b.values.uses_gate = reads(&logit.leaves, "gate") || reads(&weight.leaves, "gate");
    b.values.needs_product = reads(&weight.leaves, "dot_qk");
    let product = if b.values.needs_product { ", float dot_qk" } else { "" };
    for (body, name, comment, arguments) in [
        (&logit, "logit", comment, ", float dot_qk".to_owned()),
        (
            &weight,
            "weight",
            "// The weight of a pair's value, p being its share of the softmax.",
            format!("{product}, float p"),
        ),
    ] {
        let mut lines = body.lines.clone();
        lines.push(format!("return {};", body.results[0]));
        b.values.pair_functions.push(PairFunction {
            comment: comment.to_owned(),
            returns: "float".to_owned(),
            name: name.to_owned(),
            arguments,
            lines,
        });
    }
    &logit.fields | &weight.fields
}

/// Of a logit that is c tanh(x): 2 x log2 e, and c in powers of two. An exponential notices an error of
/// c times 1e-7, however close to 0 the tangent is; where that is much, the tangent is computed by itself.
fn soft_cap(b: &Builder<'_>, e: &Expressions<'_>, logit: ValueId) -> Option<(Body, f32)> {
    let node = |v: ValueId| &e.program.node(e.resolve(v)).op;
    let (tangent, factor) = match node(logit) {
        Op::Binary(Binary::Mul, x, y) => match (node(*x), node(*y)) {
            (Op::Const(c), _) => (*y, c.get()),
            (_, Op::Const(c)) => (*x, c.get()),
            _ => return None,
        },
        _ => (logit, 1.0),
    };
    let cap = (f64::from(factor) * std::f64::consts::LOG2_E) as f32;
    let Op::Unary(Unary::Tanh, x) = node(tangent) else { return None };
    let approximate = b.problem.instance.elem != Elem::F32;
    if !approximate || !(0.01..=256.0).contains(&cap) {
        return None;
    }
    let mut body = e.body(&[*x], Domain::Pair, false);
    if !e.takes_powers(e.resolve(tangent)) {
        body.results[0] = format!("2.0f * LOG2_E * ({})", body.results[0]);
    }
    Some((body, cap))
}

/// A logit without its last factor where that is a positive constant, and log2 e times that factor:
/// the softmax multiplies when it subtracts the maximum, which costs nothing.
fn without_factor(e: &Expressions<'_>, logit: ValueId, body: &Body) -> (String, f32) {
    let log2_e = std::f64::consts::LOG2_E;
    if let Op::Binary(Binary::Mul, a, b) = &e.program.node(e.resolve(logit)).op {
        let constant = |v: &ValueId| match e.program.node(e.resolve(*v)).op {
            Op::Const(x) => Some(x.get()),
            _ => None,
        };
        let (factor, other) = if constant(b).is_some() { (b, a) } else { (a, b) };
        if let Some(factor) = constant(factor).filter(|f| *f > 0.0 && f.is_finite()) {
            let rest = e.body(&[*other], Domain::Pair, false);
            let scale = (f64::from(factor) * log2_e) as f32;
            // The other factor must need no statements that the whole does not have.
            if rest.lines == body.lines && scale.is_normal() {
                return (rest.results[0].clone(), scale);
            }
        }
    }
    (body.results[0].clone(), log2_e as f32)
}

/// Whether a weight is 0 where the share of the softmax is 0: it is made of the share, the gate and
/// constants by sums and products, which are finite.
fn is_bounded(e: &Expressions<'_>, weight: ValueId) -> bool {
    let mut stack = vec![weight];
    while let Some(v) = stack.pop().map(|v| e.resolve(v)) {
        match &e.program.node(v).op {
            Op::Const(x) if x.get().is_finite() => {}
            Op::Int(_) | Op::StraightThrough(_) | Op::Sparsek { .. } | Op::Softmax { .. } => {}
            Op::Binary(Binary::Add | Binary::Sub | Binary::Mul, a, b) => stack.extend([*a, *b]),
            _ => return false,
        }
    }
    true
}

/// The sink logit of a row. Returns what it reads.
fn sink(b: &mut Builder<'_>, e: &Expressions<'_>, s: &Softmax) -> Result<BTreeSet<ValueId>, Error> {
    let Some(sink) = s.sink.map(|sink| e.resolve(sink)) else { return Ok(BTreeSet::new()) };
    b.values.has_sink = true;
    let owner = match e.at(sink).domain {
        Domain::Constant => {
            b.values.sink = format!("({})", e.body(&[sink], Domain::Pair, false).results[0]);
            return Ok(BTreeSet::new());
        }
        Domain::Uniform => "x",
        Domain::Row => "rows[m][h]",
        Domain::Column | Domain::Pair | Domain::Small => {
            return Err(e.unsupported("a sink logit that varies by key"));
        }
    };
    b.values.sink = format!("{owner}.{}", e.name(sink));
    Ok(BTreeSet::from([sink]))
}
