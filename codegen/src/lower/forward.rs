//! The forward module: tile lists, then one sweep over rows with the online softmax.

use super::elementwise::{Body, Domain, Expressions, float};
use super::matmul;
use super::module::Builder;
use super::topk::TopK;
use super::warpgroups;
use crate::plan::PairFunction;
use crate::{Error, Factor, Family, KernelPlan, Module, Problem, Scalar, Schedule, Target};
use sparsek_dsl::ir::{Binary, Op, ValueId};
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
    let column_fields = 3 + usize::from(b.values.uses_gate) + b.values.column_fields.len();
    match s.family {
        Family::Sm80 => {
            let need = matmul::forward_need(problem, s, column_fields);
            matmul::check_fits(problem, target, "forward", s, need)?;
            b.constant("int", "BLOCKS_PER_MULTIPROCESSOR", need.blocks(target), "");
            b.constant("int", "STEP", matmul::forward_step(s), "keys of a streamed tile at a time");
            b.constant(
                "bool",
                "QUERIES_IN_REGISTERS",
                matmul::queries_in_registers(problem, s),
                "",
            );
            let blocks = [Factor::Blocks(u64::from(positions))];
            b.launch("forward", [&blocks, &[Factor::Hkv], &[]], need.threads, need.shared);
        }
        Family::Sm90 => {
            let need = warpgroups::forward_need(problem, s, column_fields, b.values.needs_product);
            warpgroups::check_fits(problem, target, "forward", s, need)?;
            let blocks = warpgroups::blocks(s, target, need);
            b.warpgroup_constants(s, &[s.tile_kv, problem.instance.d as u32], blocks);
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
    let mut logit = e.body(&[s.logit], Domain::Pair, false);
    logit.results = vec![in_powers_of_two(e, s.logit, &logit)];
    let weight = e.body(&[s.weight], Domain::Pair, false);
    let reads = |leaves: &BTreeSet<ValueId>, name| leaves.iter().any(|v| e.name(*v) == name);
    b.values.uses_gate = reads(&logit.leaves, "gate") || reads(&weight.leaves, "gate");
    b.values.needs_product = reads(&weight.leaves, "dot_qk");
    let product = if b.values.needs_product { ", float dot_qk" } else { "" };
    let comment = "// The logit of a pair times log2 e: the softmax counts in powers of two.";
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

/// A logit times log2 e, put into its last factor where that is a constant.
fn in_powers_of_two(e: &Expressions<'_>, logit: ValueId, body: &Body) -> String {
    if let Op::Binary(Binary::Mul, a, b) = &e.program.node(e.resolve(logit)).op {
        let constant = |v: &ValueId| match e.program.node(e.resolve(*v)).op {
            Op::Const(x) => Some(x.get()),
            _ => None,
        };
        let (factor, other) = if constant(b).is_some() { (b, a) } else { (a, b) };
        if let Some(factor) = constant(factor) {
            let rest = e.body(&[*other], Domain::Pair, false);
            // The other factor must need no statements that the whole does not have.
            if rest.lines == body.lines {
                let scaled = (f64::from(factor) * std::f64::consts::LOG2_E) as f32;
                return format!("{} * {}", parenthesised(&rest.results[0]), float(scaled));
            }
        }
    }
    format!("LOG2_E * {}", parenthesised(&body.results[0]))
}

fn parenthesised(expression: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if expression.chars().all(plain) { expression.to_owned() } else { format!("({expression})") }
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
