//! The compiler's own choice of a schedule.

use super::matmul::{self, Fields, Need};
use super::warpgroups;
use crate::{Error, Family, KernelPlan, Module, PassSchedule, Problem, Schedule, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{KnobName, Op, Pass};

/// Queries of a chunk: long enough that its list is little more than k keys, short enough that there
/// are several chunks for each multiprocessor.
const CHUNK: u32 = 512;

/// Values of a knob where the kernel's schedule block does not say.
fn usual(family: Family, knob: KnobName) -> &'static [i64] {
    match (family, knob) {
        (Family::Sm80, KnobName::TileQ) => &[128, 64, 32, 16, 256],
        (Family::Sm80, KnobName::TileKv) => &[64, 32, 16, 128],
        (Family::Sm80, KnobName::Warps) => &[4, 8, 2, 1],
        (Family::Sm80, KnobName::Stages) => &[2, 1, 3],
        (Family::Sm90, KnobName::TileQ) => &[128, 64],
        (Family::Sm90, KnobName::TileKv) => &[128, 64, 32],
        (Family::Sm90, KnobName::Warps) => &[12, 8],
        (Family::Sm90, KnobName::Stages) => &[2, 3, 4],
    }
}

impl Schedule {
    /// The compiler's own choice within the kernel's schedule block.
    ///
    /// # Errors
    /// No schedule of the block fits the target: what one needs and what there is.
    pub fn choose(problem: &Problem<'_>, target: &Target) -> Result<Schedule, Error> {
        let forward = best(problem, target, Pass::Forward)?;
        let backward = best(problem, target, Pass::Backward)?;
        Ok(Schedule { chunk: CHUNK, forward, backward })
    }
}

fn best(problem: &Problem<'_>, target: &Target, pass: Pass) -> Result<PassSchedule, Error> {
    let mut found: Option<(f64, PassSchedule)> = None;
    let mut refused: Option<Error> = None;
    let fields = fields(problem, target, pass);
    for s in candidates(problem, target, pass) {
        match need(problem, target, pass, &s, fields) {
            Ok(need) => {
                let cost = cost(problem, target, pass, &s, need);
                if found.is_none_or(|(least, _)| cost < least) {
                    found = Some((cost, s));
                }
            }
            // The reason given is that of a schedule that some target could run, where there is one.
            Err(e) if refused.is_none() || matches!(e, Error::Infeasible { .. }) => {
                refused = Some(e);
            }
            Err(_) => {}
        }
    }
    let none = || Error::Schedule(format!("the {} section allows nothing", pass.name()));
    found.map(|(_, s)| s).ok_or_else(|| refused.unwrap_or_else(none))
}

/// Every combination that the schedule block allows.
fn candidates(problem: &Problem<'_>, target: &Target, pass: Pass) -> Vec<PassSchedule> {
    let block = &problem.instance.program.schedule;
    let mut all = Vec::new();
    for &family in families(problem, target, pass) {
        let values = |knob: KnobName| -> Vec<u32> {
            let values = block.values(pass, knob).unwrap_or(usual(family, knob));
            values.iter().filter_map(|x| u32::try_from(*x).ok()).collect()
        };
        let [tiles_q, tiles_kv, warps, stages] =
            [KnobName::TileQ, KnobName::TileKv, KnobName::Warps, KnobName::Stages].map(values);
        for &tile_q in &tiles_q {
            for &tile_kv in &tiles_kv {
                for &warps in &warps {
                    let of = |&stages| PassSchedule { family, tile_q, tile_kv, warps, stages };
                    all.extend(stages.iter().map(of));
                }
            }
        }
    }
    all
}

/// Instructions that a pass may use: those of sm90 for 16-bit elements alone.
fn families(problem: &Problem<'_>, target: &Target, pass: Pass) -> &'static [Family] {
    match pass {
        Pass::Forward | Pass::Backward if problem.instance.elem != Elem::F32 => target.families(),
        Pass::Forward | Pass::Backward => &[Family::Sm80],
    }
}

/// Fields of rows and columns, which are known once the program is lowered: with a schedule so small that
/// it fits if any does. They depend on none.
fn fields(problem: &Problem<'_>, target: &Target, pass: Pass) -> Fields {
    let tile_q = problem.group.max(1).next_multiple_of(16);
    let family = Family::Sm80;
    let s = PassSchedule { family, tile_q, tile_kv: 16, warps: tile_q / 16, stages: 1 };
    let schedule = Schedule { chunk: CHUNK, forward: s, backward: s };
    let module = match pass {
        Pass::Forward => Module::Forward,
        Pass::Backward => Module::Backward,
    };
    match KernelPlan::new(module, problem, &schedule, target) {
        Ok(plan) => Fields::of(&plan.values),
        Err(_) => Fields { row: 8 + problem.given.len(), column: 8 + problem.given.len() },
    }
}

/// What the pass needs, the larger of its sweeps; an error when it does not fit.
fn need(
    problem: &Problem<'_>,
    target: &Target,
    pass: Pass,
    s: &PassSchedule,
    fields: Fields,
) -> Result<Need, Error> {
    let schedule = Schedule { chunk: CHUNK, forward: *s, backward: *s };
    matmul::check_shape(problem, &schedule, pass.name(), s)?;
    match pass {
        Pass::Forward if s.family == Family::Sm90 => {
            let products = weight_reads_product(problem);
            let need = warpgroups::forward_need(problem, s, fields, products);
            warpgroups::check_fits(problem, target, pass.name(), s, need)?;
            Ok(need)
        }
        Pass::Forward => {
            let need = matmul::forward_need(problem, s, fields);
            matmul::check_fits(problem, target, pass.name(), s, need)?;
            Ok(need)
        }
        Pass::Backward if s.family == Family::Sm90 => {
            let rows = warpgroups::rows_need(problem, s, fields);
            let keys = warpgroups::keys_need(problem, s, fields);
            warpgroups::check_fits(problem, target, "backward by rows", s, rows)?;
            warpgroups::check_fits(problem, target, "backward by keys", s, keys)?;
            Ok(keys)
        }
        Pass::Backward => {
            let rows = matmul::rows_need(problem, s, fields);
            let keys = matmul::keys_need(problem, s, fields);
            matmul::check_fits(problem, target, "backward by rows", s, rows)?;
            matmul::check_fits(problem, target, "backward by keys", s, keys)?;
            Ok(if rows.blocks(target) < keys.blocks(target) { rows } else { keys })
        }
    }
}

/// Whether the weight of a value may read the dot product: a gate in the logit alone does not tell,
/// so every program that is not known to be free of it counts.
fn weight_reads_product(problem: &Problem<'_>) -> bool {
    let program = &problem.instance.program;
    let Some(Op::WeightedSum { weight, .. }) =
        program.output_named("o").map(|o| &program.node(o.value).op)
    else {
        return false;
    };
    let mut stack = vec![*weight];
    while let Some(v) = stack.pop() {
        match &program.node(v).op {
            Op::Dot(..) => return true,
            // The softmax is a leaf of the weight.
            Op::Softmax { .. } => {}
            op => stack.extend(op.operands()),
        }
    }
    false
}

/// A rough relative cost: work on columns that nobody sees, traffic of right operands (shared by the
/// 16-row parts of a warp), warps to hide latency, tiles in flight, registers that spill.
fn cost(problem: &Problem<'_>, target: &Target, pass: Pass, s: &PassSchedule, need: Need) -> f64 {
    if s.family == Family::Sm90 {
        return warpgroup_cost(problem, s);
    }
    let instance = problem.instance;
    let seen = (instance.k + instance.w + instance.sinks).max(1) as f64;
    let shape = matmul::shape("", s.tile_q, problem.group);
    let used = f64::from(shape.positions * problem.group) / f64::from(s.tile_q);
    let edges = 1.0 + (f64::from(shape.positions) + f64::from(s.tile_kv) / 2.0) / seen;
    let traffic = 1.0 + 0.25 * f64::from(16 * s.warps) / f64::from(s.tile_q);
    let resident = f64::from(need.blocks(target) * s.warps);
    // A second block computes while the first one waits at a barrier.
    let alone = if need.blocks(target) == 1 { 0.1 } else { 0.0 };
    let idle = 1.0 + alone + 0.5 * (1.0 - resident / 8.0).max(0.0);
    let waiting = match s.stages {
        1 => 1.15,
        2 => 1.0,
        _ => 1.01,
    };
    let spilled = need.registers.saturating_sub(need.most_registers(target));
    let spilling = 1.0 + 0.02 * f64::from(spilled);
    let overhead = match pass {
        Pass::Forward => 8.0,
        Pass::Backward => 4.0,
    };
    let steps = 1.0 + overhead / f64::from(s.tile_kv);
    let reuse = 1.0 + 8.0 / f64::from(s.tile_q);
    edges / used * traffic * idle * waiting * spilling * steps * reuse
}

/// The same for warpgroups, whose instructions are always worth it: rows of a tile that stand for
/// queries, columns that nobody sees, and tiles large enough to keep the tensor cores busy.
fn warpgroup_cost(problem: &Problem<'_>, s: &PassSchedule) -> f64 {
    let instance = problem.instance;
    let seen = (instance.k + instance.w + instance.sinks).max(1) as f64;
    let shape = matmul::shape("", s.tile_q, problem.group);
    let used = f64::from(shape.positions * problem.group) / f64::from(s.tile_q);
    let edges = 1.0 + (f64::from(shape.positions) + f64::from(s.tile_kv) / 2.0) / seen;
    // Keys are gathered once for a tile of rows, and two warpgroups work while others wait.
    let gathering = 1.0 + 24.0 / f64::from(s.tile_q);
    let steps = if s.tile_kv == 64 { 1.0 } else { 1.1 };
    // Keys in flight behind those that are worked on.
    let waiting = 1.0 + 8.0 / f64::from((s.stages - 1) * s.tile_kv);
    0.3 * edges / used * gathering * steps * waiting
}
