//! The schedules that a kernel can have, ranked.

use super::model::{self, Machine, Model, Workload};
use crate::lower::matmul::{self, Fields, Need};
use crate::lower::warpgroups;
use crate::{Error, Family, KernelPlan, Module, PassSchedule, Problem, Schedule, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{KnobName, Op, Pass};

/// The chunk while passes are compared: long enough that its list is little more than k keys, short enough
/// that there are several chunks for each multiprocessor.
const CHUNK: u32 = 512;

/// A loop over tiles, one of the forward and two of the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// The forward: over keys, for a tile of rows.
    Forward,
    /// The backward's over keys, for a tile of rows.
    Rows,
    /// The backward's over rows, for a tile of keys.
    Keys,
}

/// A schedule and the milliseconds that the cost model expects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<T> {
    /// The schedule, or the part of one.
    pub schedule: T,
    /// Milliseconds of what it decides.
    pub predicted_ms: f64,
}

/// Every schedule that a kernel's schedule block allows and that fits the target, the ones that the cost
/// model expects to be fastest first. The passes are independent of each other; the chunk changes what
/// both read.
#[derive(Clone, Debug)]
pub struct Space {
    /// Of the forward: milliseconds without the plan. Never empty.
    pub forward: Vec<Candidate<PassSchedule>>,
    /// Of the backward. Never empty.
    pub backward: Vec<Candidate<PassSchedule>>,
    /// Chunks that fit with the first of both: milliseconds of the plan and of what is collected from
    /// chunks. Never empty.
    pub chunks: Vec<Candidate<u32>>,
}

/// Values of a knob where the kernel's schedule block does not say.
fn usual(family: Family, knob: KnobName) -> &'static [i64] {
    match (family, knob) {
        (Family::Sm80, KnobName::TileQ) => &[128, 64, 32, 16, 256],
        (Family::Sm80, KnobName::TileKv) => &[64, 32, 16, 128],
        (Family::Sm80, KnobName::Warps) => &[4, 8, 2, 1],
        (Family::Sm80, KnobName::Stages) => &[2, 1, 3],
        (Family::Sm90, KnobName::TileQ) => &[128, 64, 192],
        (Family::Sm90, KnobName::TileKv) => &[128, 64, 32],
        (Family::Sm90, KnobName::Warps) => &[12, 8, 16],
        (Family::Sm90, KnobName::Stages) => &[2, 3, 4, 5],
    }
}

impl Schedule {
    /// The compiler's own choice within the kernel's schedule block: the first of the [`Space`].
    ///
    /// # Errors
    /// No schedule of the block fits the target: what one needs and what there is.
    pub fn choose(
        problem: &Problem<'_>,
        target: &Target,
        machine: &Machine,
        workload: &Workload,
    ) -> Result<Schedule, Error> {
        Ok(Space::new(problem, target, machine, workload)?.first())
    }

    /// Whether the kernel's schedule block allows the schedule and the target can run it.
    ///
    /// # Errors
    /// What the block or the target refuses.
    pub fn check(&self, problem: &Problem<'_>, target: &Target) -> Result<(), Error> {
        for (pass, s) in [(Pass::Forward, &self.forward), (Pass::Backward, &self.backward)] {
            allowed(problem, pass, s)?;
            if !families(problem, target, pass).contains(&s.family) {
                let (family, elem) = (s.family.name(), problem.instance.elem);
                return Err(Error::Schedule(format!(
                    "{}: {target} has no instructions of {family} for {elem}",
                    pass.name()
                )));
            }
        }
        for module in Module::ALL {
            KernelPlan::new(module, problem, self, target)?;
        }
        Ok(())
    }
}

/// Whether the schedule block allows a pass's schedule.
fn allowed(problem: &Problem<'_>, pass: Pass, s: &PassSchedule) -> Result<(), Error> {
    let block = &problem.instance.program.schedule;
    let of = [
        (KnobName::TileQ, s.tile_q),
        (KnobName::TileKv, s.tile_kv),
        (KnobName::Warps, s.warps),
        (KnobName::Stages, s.stages),
    ];
    for (knob, value) in of {
        if block.values(pass, knob).is_some_and(|all| !all.contains(&i64::from(value))) {
            return Err(Error::Schedule(format!(
                "{}: the kernel's schedule block does not allow {} {value}",
                pass.name(),
                knob.name()
            )));
        }
    }
    Ok(())
}

impl Space {
    /// Every schedule of a problem on a target.
    ///
    /// # Errors
    /// No schedule of the block fits the target: what one needs and what there is.
    pub fn new(
        problem: &Problem<'_>,
        target: &Target,
        machine: &Machine,
        workload: &Workload,
    ) -> Result<Space, Error> {
        let model = Model { problem, target, machine, workload };
        let forward = ranked(&model, Pass::Forward)?;
        let backward = ranked(&model, Pass::Backward)?;
        let mut chunks = Vec::new();
        let mut refused = None;
        for chunk in model::chunks() {
            let schedule = model::schedule(chunk, forward[0].schedule, backward[0].schedule);
            match chunk_fits(problem, target, &schedule) {
                Ok(()) => {
                    let predicted_ms = model.chunk(chunk);
                    chunks.push(Candidate { schedule: chunk, predicted_ms });
                }
                Err(e) => refused = Some(e),
            }
        }
        if problem.instance.k == 0 {
            // Nothing is selected: every chunk is the usual one.
            chunks.retain(|c| c.schedule == CHUNK);
        }
        sort(&mut chunks);
        match (chunks.is_empty(), refused) {
            (true, Some(e)) => Err(e),
            (true, None) => Err(Error::Schedule("no chunk fits".to_owned())),
            (false, _) => Ok(Space { forward, backward, chunks }),
        }
    }

    /// What the cost model expects to be fastest.
    pub fn first(&self) -> Schedule {
        let [forward, backward] = [&self.forward, &self.backward].map(|all| all[0].schedule);
        Schedule { chunk: self.chunks[0].schedule, forward, backward }
    }

    /// How many candidates there are on all axes.
    pub fn len(&self) -> usize {
        self.forward.len() + self.backward.len() + self.chunks.len()
    }

    /// Never: there is a candidate on every axis.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Stable: of equals, the one that was listed first.
fn sort<T>(all: &mut [Candidate<T>]) {
    all.sort_by(|a, b| a.predicted_ms.total_cmp(&b.predicted_ms));
}

/// Whether modules can be made with that chunk.
fn chunk_fits(problem: &Problem<'_>, target: &Target, schedule: &Schedule) -> Result<(), Error> {
    for module in Module::ALL {
        KernelPlan::new(module, problem, schedule, target)?;
    }
    Ok(())
}

fn ranked(model: &Model<'_>, pass: Pass) -> Result<Vec<Candidate<PassSchedule>>, Error> {
    let Model { problem, target, .. } = *model;
    let mut found = Vec::new();
    let mut refused: Option<Error> = None;
    let fields = fields(problem, target, pass);
    for s in candidates(problem, target, pass) {
        match needs(problem, target, pass, &s, fields) {
            Ok(needs) => {
                let mut predicted_ms: f64 =
                    needs.iter().map(|(sweep, need)| model.sweep(*sweep, &s, *need)).sum();
                if pass == Pass::Backward {
                    predicted_ms += model.row_products();
                }
                found.push(Candidate { schedule: s, predicted_ms });
            }
            // The reason given is that of a schedule that some target could run, where there is one.
            Err(e) if refused.is_none() || matches!(e, Error::Infeasible { .. }) => {
                refused = Some(e);
            }
            Err(_) => {}
        }
    }
    sort(&mut found);
    let none = || Error::Schedule(format!("the {} section allows nothing", pass.name()));
    if found.is_empty() { Err(refused.unwrap_or_else(none)) } else { Ok(found) }
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
    let schedule = model::schedule(CHUNK, s, s);
    let module = match pass {
        Pass::Forward => Module::Forward,
        Pass::Backward => Module::Backward,
    };
    match KernelPlan::new(module, problem, &schedule, target) {
        Ok(plan) => Fields::of(&plan.values),
        Err(_) => Fields {
            row: 8 + problem.given.len(),
            column: 8 + problem.given.len(),
            key_sums: 1 + problem.given.len(),
        },
    }
}

/// What each sweep of the pass needs; an error when one does not fit.
fn needs(
    problem: &Problem<'_>,
    target: &Target,
    pass: Pass,
    s: &PassSchedule,
    fields: Fields,
) -> Result<Vec<(Sweep, Need)>, Error> {
    let schedule = model::schedule(CHUNK, *s, *s);
    matmul::check_shape(problem, &schedule, pass.name(), s)?;
    match pass {
        Pass::Forward if s.family == Family::Sm90 => {
            let products = weight_reads_product(problem);
            let need = warpgroups::forward_need(problem, s, fields, products);
            warpgroups::check_fits(problem, target, pass.name(), s, need, fields)?;
            Ok(vec![(Sweep::Forward, need)])
        }
        Pass::Forward => {
            let need = matmul::forward_need(problem, s, fields);
            matmul::check_fits(problem, target, pass.name(), s, need)?;
            Ok(vec![(Sweep::Forward, need)])
        }
        Pass::Backward if s.family == Family::Sm90 => {
            let rows = warpgroups::rows_need(problem, s, fields);
            let keys = warpgroups::keys_need(problem, s, fields);
            warpgroups::check_fits(problem, target, "backward by rows", s, rows, fields)?;
            warpgroups::check_fits(problem, target, "backward by keys", s, keys, fields)?;
            Ok(vec![(Sweep::Rows, rows), (Sweep::Keys, keys)])
        }
        Pass::Backward => {
            let rows = matmul::rows_need(problem, s, fields);
            let keys = matmul::keys_need(problem, s, fields);
            matmul::check_fits(problem, target, "backward by rows", s, rows)?;
            matmul::check_fits(problem, target, "backward by keys", s, keys)?;
            Ok(vec![(Sweep::Rows, rows), (Sweep::Keys, keys)])
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
