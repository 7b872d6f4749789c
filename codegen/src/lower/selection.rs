//! The plan module: scores where they are an expression, then tau, expiry and the keys of every chunk.

use super::elementwise::{Domain, Expressions};
use super::module::Builder;
use super::topk::TopK;
use crate::plan::Function;
use crate::{
    Axis, Buffer, Error, Factor, KernelPlan, Launch, Module, Problem, Product, Scalar, Schedule,
    Target,
};

impl TopK {
    pub(crate) fn of(problem: &Problem<'_>, schedule: &Schedule) -> TopK {
        let instance = problem.instance;
        TopK {
            k: instance.program.gate().map(|_| instance.k as u32),
            window: instance.w as u32,
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
    let e = Expressions::new(problem, program)?;
    let mut b = Builder::new(Module::Plan, problem, schedule, target);
    b.tensor("tau", Scalar::F32, true, &[]);
    b.tensor("expiry", Scalar::I32, true, &[]);
    b.score();
    if let Some(gate) = program.gate()
        && !b.score_is_input(gate.score)
    {
        let body = e.body(&[gate.score], Domain::Column, false);
        // A score that is one leaf is computed in the struct like any other value of the key.
        let mut used = body.fields.clone();
        used.extend(body.leaves.iter().copied());
        let mut used_late = used.clone();
        used_late.insert(e.resolve(gate.score));
        b.structs(&e, &used_late)?;
        b.values.has_score_expression = true;
        let result = match e.at(gate.score).domain {
            Domain::Constant => body.results[0].clone(),
            Domain::Uniform => format!("x.{}", e.name(e.resolve(gate.score))),
            _ => format!("c.{}", e.name(e.resolve(gate.score))),
        };
        b.values.score = Function { name: "score".to_owned(), lines: Vec::new(), result };
        let grid = [
            Product::new(&[Factor::Blocks(256)]),
            Product::new(&[Factor::Hkv]),
            Product::new(&[]),
        ];
        b.launch("scores", grid, 256, 0);
    }
    let topk = TopK::of(problem, schedule);
    b.plan(&topk)?;
    let _ = Axis::Batch;
    Ok(b.finish())
}

impl Builder<'_> {
    fn plan(&mut self, topk: &TopK) -> Result<(), Error> {
        let plan = topk.plan()?;
        self.add(plan);
        Ok(())
    }
}
