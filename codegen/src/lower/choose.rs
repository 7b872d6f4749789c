//! The compiler's own choice of a schedule.

use super::matmul::{self, Fields, Need};
use crate::{Error, KernelPlan, Module, PassSchedule, Problem, Schedule, Target};
use sparsek_dsl::ir::{KnobName, Pass};

/// Queries of a chunk: long enough that its list is little more than k keys, short enough that there
/// are several chunks for each multiprocessor.
const CHUNK: u32 = 512;

/// Values of a knob where the kernel's schedule block does not say.
fn usual(knob: KnobName) -> &'static [i64] {
    match knob {
        KnobName::TileQ => &[128, 64, 32, 16, 256],
        KnobName::TileKv => &[64, 32, 16, 128],
        KnobName::Warps => &[4, 8, 2, 1],
        KnobName::Stages => &[2, 1, 3],
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
    for s in candidates(problem, pass) {
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
fn candidates(problem: &Problem<'_>, pass: Pass) -> Vec<PassSchedule> {
    let block = &problem.instance.program.schedule;
    let values = |knob: KnobName| -> Vec<u32> {
        let values = block.values(pass, knob).unwrap_or(usual(knob));
        values.iter().filter_map(|x| u32::try_from(*x).ok()).collect()
    };
    let [tiles_q, tiles_kv, warps, stages] =
        [KnobName::TileQ, KnobName::TileKv, KnobName::Warps, KnobName::Stages].map(values);
    let mut all = Vec::new();
    for &tile_q in &tiles_q {
        for &tile_kv in &tiles_kv {
            for &warps in &warps {
                let of = |&stages| PassSchedule { tile_q, tile_kv, warps, stages };
                all.extend(stages.iter().map(of));
            }
        }
    }
    all
}

/// Fields of rows and columns, which are known once the program is lowered: with a schedule so small that
/// it fits if any does. They depend on none.
fn fields(problem: &Problem<'_>, target: &Target, pass: Pass) -> Fields {
    let tile_q = problem.group.max(1).next_multiple_of(16);
    let s = PassSchedule { tile_q, tile_kv: 16, warps: tile_q / 16, stages: 1 };
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
        Pass::Forward => {
            let need = matmul::forward_need(problem, s, fields);
            matmul::check_fits(problem, target, pass.name(), s, need)?;
            Ok(need)
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

/// A rough relative cost: work on columns that nobody sees, traffic of right operands (shared by the
/// 16-row parts of a warp), warps to hide latency, tiles in flight, registers that spill.
fn cost(problem: &Problem<'_>, target: &Target, pass: Pass, s: &PassSchedule, need: Need) -> f64 {
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
