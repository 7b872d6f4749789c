//! The backward module: a row sweep for d_q and sums over keys, a key sweep for d_k, d_v and sums over
//! queries, and what is finished when sums are complete ([`super::reduce`]).

use super::elementwise::{Body, Domain, Expressions, float};
use super::matmul::{self, Fields, Need};
use super::module::{Builder, row_dot_buffer};
use super::reduce::Sums;
use super::topk::TopK;
use super::warpgroups;
use crate::plan::{PairFunction, RowDot};
use crate::{
    Buffer, Error, Factor, Family, Keep, KernelPlan, Launch, Module, PassSchedule, Problem,
    Product, Scalar, Schedule, Target,
};
use sparsek_dsl::ir::{Binary, Op, Role, ValueId};
use std::collections::BTreeSet;

/// The weights of the vector gradients, without their constant factors.
#[derive(Default)]
struct Products {
    weight_q: Option<Weight>,
    weight_k: Option<Weight>,
    weight_v: Option<Weight>,
}

/// What the vectors of a sum are multiplied with: a value of pairs, and a factor that the sum is multiplied
/// with once.
#[derive(Clone, Copy)]
struct Weight {
    of_pairs: ValueId,
    factor: f32,
}

impl Weight {
    fn new(e: &Expressions<'_>, weight: ValueId) -> Weight {
        let constant = |v: ValueId| match e.program.node(v).op {
            Op::Const(x) => Some(x.get()),
            _ => None,
        };
        let found = match e.program.node(weight).op {
            Op::Binary(Binary::Mul, a, b) => match (constant(a), constant(b)) {
                (None, Some(factor)) => Some(Weight { of_pairs: a, factor }),
                (Some(factor), None) => Some(Weight { of_pairs: b, factor }),
                _ => None,
            },
            _ => None,
        };
        // The weights themselves must stay within the range of f16.
        let near = |factor: f32| (1.0 / 32.0..=32.0).contains(&factor.abs());
        found.filter(|w| near(w.factor)).unwrap_or(Weight { of_pairs: weight, factor: 1.0 })
    }
}

pub(crate) fn lower(
    problem: &Problem<'_>,
    schedule: &Schedule,
    target: &Target,
) -> Result<KernelPlan, Error> {
    let e = Expressions::new(problem, problem.backward)?;
    let mut b = Builder::new(Module::Backward, problem, schedule, target);
    matmul::check_shape(problem, schedule, "backward", &schedule.backward)?;
    b.sweep_constants(&schedule.backward);
    for name in ["q", "k", "v", "d_o"] {
        b.vector(name, false);
    }
    b.tensor("expiry", Scalar::I32, false, &[]);
    b.score();
    let products = products(&e)?;
    let sums = Sums::of(&e);
    b.values.has_d_q = products.weight_q.is_some();
    b.values.has_d_k = products.weight_k.is_some();
    b.values.has_d_v = products.weight_v.is_some();
    b.values.has_threshold = sums.d_gate.is_some();
    b.values.has_rows = b.values.has_d_q || !sums.rows.is_empty() || sums.d_gate.is_some();
    b.values.has_keys = b.values.has_d_k || b.values.has_d_v || !sums.keys.is_empty();
    for (weight, name, factor) in [
        (products.weight_q, "d_q", "FACTOR_Q"),
        (products.weight_k, "d_k", "FACTOR_K"),
        (products.weight_v, "d_v", "FACTOR_V"),
    ] {
        if let Some(weight) = weight {
            b.vector(name, true);
            b.constant(
                "float",
                factor,
                float(weight.factor),
                "of the weights, taken out of their sum",
            );
        }
    }

    let mut used = b.predicates(&e);
    let (rows, keys) = pair_functions(&mut b, &e, &products, &sums);
    used.extend(rows.fields.iter().chain(&keys.fields));
    let gate = |body: &Body| body.leaves.iter().any(|v| e.name(*v) == "gate");
    b.values.uses_gate = gate(&rows) || gate(&keys) || sums.d_gate.is_some();
    used.extend(sums.late_rows(&mut b, &e));
    used.extend(sums.late_keys(&mut b, &e));
    b.structs(&e, &used)?;
    row_dots(&mut b, &e, &used)?;
    sweeps(&mut b, problem, schedule, target)?;
    sums.finish(&mut b, &e)?;
    begin_together(&mut b);
    Ok(b.finish())
}

/// What needs nothing of the module's other launches begins it, side by side: the first of them waits for what
/// was before the module, and the others wait in the end, so that whoever waits for the last has waited for all.
fn begin_together(b: &mut Builder<'_>) {
    let launches = std::mem::take(&mut b.interface.launches);
    let place = |l: &Launch| TOGETHER.iter().position(|entry| l.entry == *entry);
    let (mut together, others): (Vec<Launch>, Vec<Launch>) =
        launches.into_iter().partition(|l| place(l).is_some());
    together.sort_by_key(place);
    let waits_last = |entry: &str| together.iter().skip(1).any(|l| l.entry == entry);
    b.values.ranges_wait_last = waits_last("threshold_ranges");
    b.values.row_dots_wait_last = waits_last("row_dots");
    b.interface.launches = together.into_iter().chain(others).collect();
}

/// The longest comes last: what follows waits for all of them.
const TOGETHER: [&str; 3] = ["tiles", "threshold_ranges", "row_dots"];

/// Which weight each vector gradient sums.
fn products(e: &Expressions<'_>) -> Result<Products, Error> {
    let mut products = Products::default();
    for output in &e.program.outputs {
        let Op::WeightedSum { weight, tile } = &e.program.node(output.value).op else { continue };
        let role = match e.program.node(*tile).op {
            Op::Input(id) => e.program.input(id).role,
            _ => return Err(e.unsupported("a weighted sum of something else than an input")),
        };
        let place = match (role, output.name.as_str()) {
            (Role::Key, "d_q") => &mut products.weight_q,
            (Role::Query, "d_k") => &mut products.weight_k,
            (Role::OutputGrad, "d_v") => &mut products.weight_v,
            _ => return Err(e.unsupported("a product that is not among d_q, d_k and d_v")),
        };
        *place = Some(Weight::new(e, *weight));
    }
    Ok(products)
}

/// The two functions of a pair: what rows sum, and what keys sum.
fn pair_functions(
    b: &mut Builder<'_>,
    e: &Expressions<'_>,
    products: &Products,
    sums: &Sums,
) -> (Body, Body) {
    let numbered = |(n, v): (usize, ValueId)| (format!("sum_{n}"), v);
    let mut rows: Vec<(String, ValueId)> = Vec::new();
    rows.extend(products.weight_q.map(|w| ("weight_q".to_owned(), w.of_pairs)));
    rows.extend(sums.rows.iter().map(|s| s.summand).enumerate().map(numbered));
    rows.extend(sums.d_gate.map(|d| ("d_gate".to_owned(), d)));
    let mut keys: Vec<(String, ValueId)> = Vec::new();
    keys.extend(products.weight_k.map(|w| ("weight_k".to_owned(), w.of_pairs)));
    keys.extend(products.weight_v.map(|w| ("weight_v".to_owned(), w.of_pairs)));
    keys.extend(sums.keys.iter().map(|s| s.summand).enumerate().map(numbered));
    let rows = pair_function(b, e, ("RowPair", "row_pair", "a row"), &["weight_q"], &rows);
    let keys =
        pair_function(b, e, ("KeyPair", "key_pair", "a key"), &["weight_k", "weight_v"], &keys);
    (rows, keys)
}

/// A function that gives a struct of numbers; the struct has the members `always` in any case.
fn pair_function(
    b: &mut Builder<'_>,
    e: &Expressions<'_>,
    (structure, name, of): (&str, &str, &str),
    always: &[&str],
    values: &[(String, ValueId)],
) -> Body {
    let roots: Vec<ValueId> = values.iter().map(|(_, v)| *v).collect();
    let body = e.body(&roots, Domain::Pair, false);
    let others = values.iter().map(|(n, _)| n.as_str()).filter(|n| !always.contains(n));
    let members: Vec<&str> = always.iter().copied().chain(others).collect();
    b.values.pair_structs.push(format!(
        "// What a pair adds to the sums of {of}.\nstruct {structure} {{ float {}; }};",
        members.join(", ")
    ));
    let mut lines = body.lines.clone();
    lines.push(format!("{structure} pair = {{}};"));
    for ((member, _), result) in values.iter().zip(&body.results) {
        lines.push(format!("pair.{member} = {result};"));
    }
    lines.push("return pair;".to_owned());
    b.values.pair_functions.push(PairFunction {
        comment: "// Those of one pair that is seen; dot_qk is q · k, dot_dov d_o · v.".to_owned(),
        returns: structure.to_owned(),
        name: name.to_owned(),
        arguments: ", float dot_qk, float dot_dov".to_owned(),
        lines,
    });
    body
}

/// Products of two query vectors that rows read, computed before the sweeps.
fn row_dots(
    b: &mut Builder<'_>,
    e: &Expressions<'_>,
    used: &BTreeSet<ValueId>,
) -> Result<(), Error> {
    let name = |v: &ValueId| match e.program.node(*v).op {
        Op::Input(id) => Ok(e.program.input(id).name.clone()),
        _ => Err(e.unsupported("a product of something else than inputs")),
    };
    // Row values that are read may be made of products.
    let mut stack: Vec<ValueId> = used.iter().copied().collect();
    let mut seen = BTreeSet::new();
    while let Some(v) = stack.pop().map(|v| e.resolve(v)) {
        if !seen.insert(v) || e.at(v).domain != Domain::Row {
            continue;
        }
        match &e.program.node(v).op {
            Op::Dot(left, right) => {
                let (left, right) = (name(left)?, name(right)?);
                let buffer = row_dot_buffer(e, v);
                b.vector(&left, false);
                b.vector(&right, false);
                b.scratch(&buffer, Scalar::F32, &[Factor::Rows, Factor::Hq, Factor::N]);
                b.values.row_dots.push(RowDot { left, right, buffer });
            }
            op => stack.extend(op.operands()),
        }
    }
    if !b.values.row_dots.is_empty() {
        b.launch("row_dots", [&[Factor::Blocks(16)], &[Factor::Hq], &[]], 256, 0);
    }
    Ok(())
}

fn sweeps(
    b: &mut Builder<'_>,
    problem: &Problem<'_>,
    schedule: &Schedule,
    target: &Target,
) -> Result<(), Error> {
    let s = &schedule.backward;
    let fields = Fields::of(&b.values);
    let (row_sums, key_sums) = (b.values.row_sums.len(), b.values.key_sums.len());
    if s.family == Family::Sm80 {
        let unrolled = matmul::unrolled(problem, matmul::parts(s), fields);
        b.constant("int", "UNROLLED", unrolled, "steps of 16 of the head dimension");
    }
    b.constant("int", "ROW_SUMS", row_sums, "");
    b.constant("int", "KEY_SUMS", key_sums, "");
    if s.family == Family::Sm90 {
        b.backward_warpgroups(s, fields);
        // How many tiles of each sweep have been taken: by rows, of selected keys, of windows.
        let (name, scalar) = ("taken".to_owned(), Scalar::I32);
        let len = Product::new(&[Factor::Literal(3)]);
        b.buffer(Buffer { name, scalar, len, zeroed: true, keep: Keep::Scratch });
    }
    let mut rows = None;
    let mut keys = Vec::new();
    if b.values.has_rows {
        let positions = b.values.shapes[0].positions;
        b.tiles(&TopK::of(problem, schedule), positions)?;
        let need = match s.family {
            Family::Sm80 => matmul::rows_need(problem, s, fields),
            Family::Sm90 => warpgroups::rows_need(problem, s, fields),
        };
        check_fits(problem, target, "backward by rows", s, need, fields)?;
        b.constant("int", "ROWS_SHARED", need.shared, "bytes of a block");
        let blocks = [Factor::Blocks(u64::from(positions))];
        let (width, slices) = matmul::rows_slice(problem);
        let slices = [Factor::Literal(u64::from(if b.values.has_d_q { slices } else { 1 }))];
        let grid: [&[Factor]; 3] = match s.family {
            Family::Sm80 => {
                b.constant("int", "ROWS_BLOCKS_PER_MULTIPROCESSOR", need.blocks(target), "");
                b.constant("int", "ROWS_SLICE", width, "columns of d_q that a block accumulates");
                [&blocks, &[Factor::Hkv], &slices]
            }
            Family::Sm90 => [&[Factor::Multiprocessors], &[], &[]],
        };
        rows = Some(launch("backward_rows", grid, need.threads, need.shared));
    }
    if b.values.has_keys {
        let need = match s.family {
            Family::Sm80 => {
                let need = matmul::keys_need(problem, s, fields);
                b.constant("int", "KEYS_BLOCKS_PER_MULTIPROCESSOR", need.blocks(target), "");
                need
            }
            Family::Sm90 => warpgroups::keys_need(problem, s, fields),
        };
        check_fits(problem, target, "backward by keys", s, need, fields)?;
        b.constant("int", "KEYS_SHARED", need.shared, "bytes of a block");
        keys = key_sweep(b, problem, schedule, need, fields);
    }
    // Selected keys, what they come to, windows. The sweep of selected keys has the longest pieces of work, so that
    // multiprocessors are done at different times: the rows' sweep, which does not depend on it, begins meanwhile.
    let collects = s.family == Family::Sm90 && keys.len() == 3;
    b.values.rows_wait_last = collects && rows.is_some();
    b.values.window_waits_late = collects;
    let at = usize::from(b.values.rows_wait_last);
    let (before, after) = keys.split_at(at);
    let launches = before.iter().cloned().chain(rows).chain(after.iter().cloned());
    b.interface.launches.extend(launches);
    Ok(())
}

fn launch(entry: &str, grid: [&[Factor]; 3], threads: u32, shared: u32) -> Launch {
    Launch { entry: entry.to_owned(), grid: grid.map(Product::new), threads, shared }
}

fn check_fits(
    problem: &Problem<'_>,
    target: &Target,
    pass: &str,
    s: &PassSchedule,
    need: Need,
    fields: Fields,
) -> Result<(), Error> {
    match s.family {
        Family::Sm80 => matmul::check_fits(problem, target, pass, s, need),
        Family::Sm90 => warpgroups::check_fits(problem, target, pass, s, need, fields),
    }
}

/// The launches of the key sweep: of selected keys and what collects their sums, where there are any, and of
/// windows.
fn key_sweep(
    b: &mut Builder<'_>,
    problem: &Problem<'_>,
    schedule: &Schedule,
    need: Need,
    fields: Fields,
) -> Vec<Launch> {
    let s = &schedule.backward;
    let d = problem.instance.d as u32;
    let (width, slices) = match s.family {
        Family::Sm80 => matmul::slice(problem),
        Family::Sm90 => (d, 1),
    };
    let sums = b.values.key_sums.len() as u32;
    let of_k = if b.values.has_d_k { d } else { 0 };
    let of_v = if b.values.has_d_v { d } else { 0 };
    let partial = (of_k + of_v + sums).next_multiple_of(4);
    let streamed = match s.family {
        Family::Sm80 => s.tile_kv,
        Family::Sm90 => warpgroups::keys_stream(problem, s, fields).0,
    };
    b.values.shapes.push(matmul::shape("StreamTile", streamed, problem.group));
    b.constant("int", "SLICE", width, "columns of d_k and d_v that a block accumulates");
    b.constant("int", "PARTIAL", partial, "numbers that a span leaves for a key");
    b.constant("int", "PARTIAL_V", of_k, "where those of d_v start");
    b.constant("int", "PARTIAL_SUMS", of_k + of_v, "where those of sums start");

    let topk = TopK::of(problem, schedule);
    let spans = Factor::Blocks(topk.span());
    let literal = |x: u64| Factor::Literal(x);
    let capacity = topk.span_capacity();
    b.constant("int", "SPAN", topk.span(), "queries of a span");
    b.constant("int", "SPAN_KEYS", capacity, "keys of a span's list, at most");
    let filled = u64::from(topk.k.unwrap_or(0) + topk.sinks) / u64::from(s.tile_q);
    if s.family == Family::Sm90 {
        b.constant("int", "FILLED_TILES", filled, "tiles that a span's list mostly has");
    }
    // Of the first span's keys one for each warp; later spans have few new ones, or all of their queries'.
    let collecting = u64::from(topk.k.unwrap_or(0) + topk.sinks).div_ceil(8) + 8;
    b.constant("int", "COLLECTING", collecting, "blocks of a span that collect");
    for buffer in topk.chunk_lists() {
        b.buffer(buffer);
    }
    let len = [Factor::Hkv, spans, literal(capacity), literal(u64::from(partial))];
    b.scratch("partial", Scalar::F32, &len);
    // Where a key is in the list of the first span that selects it.
    b.scratch("first_slot", Scalar::I32, &[Factor::Rows, Factor::Hkv, Factor::N]);
    if sums > 0 {
        let len = [literal(u64::from(sums)), Factor::Rows, Factor::Hkv, Factor::N];
        b.scratch("key_sums", Scalar::F32, &len);
    }
    let slices = [literal(u64::from(slices))];
    let persistent = s.family == Family::Sm90;
    let sweep = |entry: &str, tiles: &[Factor]| {
        let grid: [&[Factor]; 3] = match persistent {
            true => [&[Factor::Multiprocessors], &[], &[]],
            false => [tiles, &[Factor::Hkv], &slices],
        };
        launch(entry, grid, need.threads, need.shared)
    };
    let mut launches = Vec::new();
    // Without top-k and sinks no key is seen beyond its window.
    if topk.k.is_some() || topk.sinks > 0 {
        let tiles = [spans, literal(capacity.div_ceil(u64::from(s.tile_q)))];
        launches.push(sweep("backward_keys_selected", &tiles));
        let blocks = [Factor::Hkv, spans, literal(collecting)];
        launches.push(launch("backward_keys_collect", [&blocks, &[], &[]], 256, 0));
    }
    launches.push(sweep("backward_keys_window", &[Factor::Blocks(u64::from(s.tile_q))]));
    launches
}
