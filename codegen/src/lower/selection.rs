//! The plan module: scores where they are an expression, then tau, expiry and the keys of every chunk.

use super::elementwise::{Domain, Expressions};
use super::module::Builder;
use super::topk::{TopK, has_lists};
use crate::{Buffer, Error, Factor, KernelPlan, Launch, Module, Problem, Scalar, Schedule, Target};
use sparsek_dsl::ir::ValueId;
use std::collections::BTreeSet;

impl TopK {
    pub(crate) fn of(problem: &Problem<'_>, schedule: &Schedule) -> TopK {
        let instance = problem.instance;
        TopK {
            k: instance.program.gate().map(|_| instance.k as u32),
            sinks: instance.sinks as u32,
            chunk: schedule.chunk,
        }
    }
}

impl Builder<'_> {
    fn add(&mut self, (buffers, launches): (Vec<Buffer>, Vec<Launch>)) {
        for buffer in buffers {
            self.buffer(buffer);
        }
        self.interface.launches.extend(launches);
    }

    /// The launch that lists the keys of every tile of that many positions, and its buffers.
    pub(crate) fn tiles(&mut self, topk: &TopK, positions: u32) -> Result<(), Error> {
        let tiles = topk.tiles(positions)?;
        let capacity = topk.tile_capacity(positions);
        self.constant("int", "TILE_KEYS", capacity, "keys of a tile's list, at most");
        self.add(tiles);
        Ok(())
    }

    /// Launches and buffers of the threshold's share of the score gradient.
    pub(crate) fn threshold(&mut self) -> Result<(), Error> {
        self.tensor("tau", Scalar::F32, false, &[]);
        let topk = TopK::of(self.problem, self.schedule);
        self.add(topk.threshold()?);
        Ok(())
    }
}

pub(crate) fn lower(
    problem: &Problem<'_>,
    schedule: &Schedule,
    target: &Target,
) -> Result<KernelPlan, Error> {
    let program = &problem.instance.program;
    // Scores order keys: they are the numbers that any backend computes in f32.
    let e = Expressions::exact(problem, program)?;
    let mut b = Builder::new(Module::Plan, problem, schedule, target);
    b.tensor("tau", Scalar::F32, true, &[]);
    b.tensor("expiry", Scalar::I32, true, &[]);
    b.score();
    if let Some(gate) = program.gate()
        && !b.score_is_input(gate.score)
    {
        scores(&mut b, &e, gate.score)?;
    }
    let topk = TopK::of(problem, schedule);
    b.values.plan_by_lists = has_lists(topk.chunk);
    if topk.k.is_some() {
        b.constant("int", "EXPIRY_THREADS", topk.expiry_threads(), "of a block of plan_expiry");
        if !b.values.plan_by_lists {
            b.constant(
                "int",
                "LISTED",
                topk.listed(),
                "scores of a list that plan_bounds makes, at most",
            );
        }
    }
    b.add(topk.plan()?);
    Ok(b.finish())
}

/// The kernel that computes a score that is an expression.
fn scores(b: &mut Builder<'_>, e: &Expressions<'_>, score: ValueId) -> Result<(), Error> {
    let score = e.resolve(score);
    b.structs(e, &BTreeSet::from([score]))?;
    let result = match e.at(score).domain {
        Domain::Constant => e.body(&[score], Domain::Column, false).results[0].clone(),
        Domain::Uniform => format!("x.{}", e.name(score)),
        Domain::Column => format!("c.{}", e.name(score)),
        Domain::Row | Domain::Pair | Domain::Small => {
            return Err(e.unsupported("a score that is not a number for each key"));
        }
    };
    b.values.has_score_expression = true;
    b.values.score = result;
    b.launch("scores", [&[Factor::Blocks(256)], &[Factor::Hkv], &[]], 256, 0);
    Ok(())
}
