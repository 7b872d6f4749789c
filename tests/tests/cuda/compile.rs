//! Lowering, rendering and compiling one kernel.

use sparsek::Kernel;
use sparsek::cuda::nvrtc::{Compiled, Nvrtc};
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Error, Given, KernelPlan, Module, Problem, Schedule, Target};
use sparsek_dsl::ir::{Class, Program, Role, Spec};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;

/// A kernel instance for calls with `group` query heads of each key-value head.
pub(crate) struct Instance {
    pub(crate) label: String,
    kernel: Kernel,
    group: u32,
    per_head: bool,
}

/// How a kernel ended on a target, with everything that is wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Whether the target has too little of something.
    pub(crate) refused: bool,
    /// One text for each mistake.
    pub(crate) problems: Vec<String>,
}

impl Instance {
    /// `per_head`: whether PerQuery and PerKey inputs have a head axis.
    pub(crate) fn new(program: &Program, spec: &Spec, group: u32, per_head: bool) -> Instance {
        let kernel = Kernel::from_program(program, spec).expect("the spec is of the sets");
        let i = kernel.instance();
        let label = format!(
            "{} {} D {} k {} window {} group {group}",
            i.program.name, i.elem, i.d, i.k, i.w
        );
        Instance { label, kernel, group, per_head }
    }

    /// Every module lowered for a target, with the compiler's own schedule.
    pub(crate) fn plans(&self, target: &Target) -> Result<(Schedule, Vec<KernelPlan>), Error> {
        self.lower(target, None, &Module::ALL)
    }

    /// Modules lowered with the compiler's own schedule, or one of another chunk.
    fn lower(
        &self,
        target: &Target,
        chunk: Option<u32>,
        modules: &[Module],
    ) -> Result<(Schedule, Vec<KernelPlan>), Error> {
        let instance = self.kernel.instance();
        let given = instance.program.inputs.iter().map(|input| Given {
            name: input.name.clone(),
            per_head: self.per_head
                && input.role == Role::Extra
                && matches!(input.ty.class, Class::PerQuery | Class::PerKey),
        });
        let problem = Problem {
            instance,
            backward: self.kernel.backward_program(),
            group: self.group,
            given: given.collect(),
        };
        let chosen =
            Schedule::choose(&problem, target, &Machine::of(target), &Workload::default())?;
        let schedule = Schedule { chunk: chunk.unwrap_or(chosen.chunk), ..chosen };
        let plan = |module: &Module| KernelPlan::new(*module, &problem, &schedule, target);
        Ok((schedule, modules.iter().map(plan).collect::<Result<_, _>>()?))
    }

    /// Every module as CUDA C, or `None` where the target has too little of something and the
    /// refusal says how much. Anything else is a problem.
    pub(crate) fn sources(
        &self,
        target: &Target,
    ) -> Result<Option<Vec<(KernelPlan, String)>>, String> {
        let failed = |e: Error| format!("{} for {target}: {e}\n{}", self.label, self.program());
        let plans = match self.plans(target) {
            Ok((_, plans)) => plans,
            Err(Error::Infeasible { needed, available, .. }) => {
                let number = |text: &str| text.contains(|c: char| c.is_ascii_digit());
                if number(&needed) && number(&available) {
                    return Ok(None);
                }
                return Err(format!("{} for {target}: {needed}, {available}", self.label));
            }
            Err(e) => return Err(failed(e)),
        };
        let render = |plan: KernelPlan| match plan.cuda() {
            Ok(source) => Ok((plan, source.text)),
            Err(e) => Err(failed(e)),
        };
        plans.into_iter().map(render).collect::<Result<_, _>>().map(Some)
    }

    /// Compiles every module; no register may spill, and every launch must be an entry within the
    /// target's limits.
    pub(crate) fn compile(&self, target: &Target) -> Ended {
        let sources = match self.sources(target) {
            Ok(Some(sources)) => sources,
            Ok(None) => return Ended { refused: true, problems: Vec::new() },
            Err(problem) => return Ended { refused: false, problems: vec![problem] },
        };
        Ended { refused: false, problems: self.problems_of(sources, target) }
    }

    /// The plan module of such chunks, and its CUDA C.
    pub(crate) fn plan_of_chunk(
        &self,
        target: &Target,
        chunk: u32,
    ) -> Result<(KernelPlan, String), String> {
        let failed = |e: Error| format!("{} for {target}, chunk {chunk}: {e}", self.label);
        let (_, mut plans) = self.lower(target, Some(chunk), &[Module::Plan]).map_err(failed)?;
        let plan = plans.remove(0);
        let source = plan.cuda().map_err(failed)?;
        Ok((plan, source.text))
    }

    /// Compiles it.
    pub(crate) fn compile_plan(&self, target: &Target, chunk: u32) -> Vec<String> {
        match self.plan_of_chunk(target, chunk) {
            Ok(source) => self.problems_of(vec![source], target),
            Err(problem) => vec![problem],
        }
    }

    fn problems_of(&self, sources: Vec<(KernelPlan, String)>, target: &Target) -> Vec<String> {
        let nvrtc = Nvrtc::find().expect("`cargo xtask nvrtc` fetches NVRTC");
        let mut problems = Vec::new();
        for (plan, source) in sources {
            // Kernels that select alike have the same plan module.
            if !is_new(target, &source) {
                continue;
            }
            let label = format!("{} of {} for {target}", plan.module.name(), self.label);
            match nvrtc.compile(&label, &source, target) {
                Ok(compiled) => problems.extend(
                    check(&plan, &compiled, target)
                        .into_iter()
                        .map(|why| format!("{label}: {why}")),
                ),
                Err(e) => problems.push(format!("{label}: {e}\n{}", self.program())),
            }
        }
        problems
    }

    /// Compiles every module to PTX alone, which takes a third of the time and finds what is no
    /// valid CUDA C.
    pub(crate) fn ptx(&self, target: &Target) -> Vec<String> {
        let sources = match self.sources(target) {
            Ok(sources) => sources.unwrap_or_default(),
            Err(problem) => return vec![problem],
        };
        let nvrtc = Nvrtc::find().expect("`cargo xtask nvrtc` fetches NVRTC");
        let problem = |(plan, source): (KernelPlan, String)| {
            let label = format!("{} of {} for {target}", plan.module.name(), self.label);
            let failed = nvrtc.ptx(&label, &source, target).err()?;
            Some(format!("{label}: {failed}\n{}", self.program()))
        };
        sources
            .into_iter()
            .filter(|(_, source)| is_new(target, source))
            .filter_map(problem)
            .collect()
    }

    fn program(&self) -> String {
        self.kernel.instance().program.to_string()
    }
}

/// Whether this process has not compiled the source yet.
fn is_new(target: &Target, source: &str) -> bool {
    static SEEN: Mutex<BTreeSet<(String, u64)>> = Mutex::new(BTreeSet::new());
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    SEEN.lock().expect("nothing panics while it is held").insert((target.name(), hasher.finish()))
}

/// What is wrong with a compiled module. At a default schedule nothing is spilled: where something is, a
/// template keeps too much, or an estimate of what a schedule needs is too low.
fn check(plan: &KernelPlan, compiled: &Compiled, target: &Target) -> Vec<String> {
    let mut problems = Vec::new();
    if compiled.cubin.is_empty() {
        problems.push("no machine code".to_owned());
    }
    for r in &compiled.resources {
        let (entry, registers, stores, loads) =
            (&r.entry, r.registers, r.spill_stores, r.spill_loads);
        if stores > 0 || loads > 0 {
            problems.push(format!(
                "{entry} spills {stores} bytes and loads {loads} with {registers} registers; \
                 schedule {}",
                plan.to_string().lines().nth(1).unwrap_or_default()
            ));
        }
    }
    for launch in &plan.interface.launches {
        let Some(r) = compiled.resources.iter().find(|r| r.entry == launch.entry) else {
            problems.push(format!("there is no entry {}", launch.entry));
            continue;
        };
        let shared = launch.shared + r.shared;
        // Registers are handed out to a warp in units of 256.
        let warps = launch.threads.div_ceil(32);
        let registers = (r.registers * 32).next_multiple_of(256) * warps;
        if shared > target.shared_per_block || registers > target.registers {
            problems.push(format!(
                "{} needs {shared} bytes of shared memory and {registers} registers",
                launch.entry
            ));
        }
    }
    problems
}

/// Runs `work` on every item, on all processors, and fails with every problem.
pub(crate) fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> Vec<String> + Sync + Send) {
    use rayon::prelude::*;
    let problems: Vec<String> = items.par_iter().flat_map_iter(work).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
