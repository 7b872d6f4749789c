//! Lowering, rendering and compiling one kernel.

use sparsek::Kernel;
use sparsek::cuda::nvrtc::Nvrtc;
use sparsek_codegen::{Error, Given, KernelPlan, Module, Problem, Schedule, Target};
use sparsek_dsl::ir::{Class, Program, Role, Spec};

/// A kernel instance for calls with `group` query heads of each key-value head.
pub(crate) struct Instance {
    pub(crate) label: String,
    kernel: Kernel,
    group: u32,
    per_head: bool,
}

/// How a module ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Compiled,
    Refused,
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
        let schedule = Schedule::choose(&problem, target)?;
        let plan = |module| KernelPlan::new(module, &problem, &schedule, target);
        Ok((schedule, Module::ALL.into_iter().map(plan).collect::<Result<_, _>>()?))
    }

    /// Every module as CUDA C, or `None` where the target has too little of something and the
    /// refusal says how much. Anything else is a failure.
    pub(crate) fn sources(&self, target: &Target) -> Option<Vec<(KernelPlan, String)>> {
        let plans = match self.plans(target) {
            Ok((_, plans)) => plans,
            Err(Error::Infeasible { needed, available, .. }) => {
                let number = |text: &str| text.contains(|c: char| c.is_ascii_digit());
                assert!(number(&needed) && number(&available), "{}: {needed}", self.label);
                return None;
            }
            Err(e) => panic!("{} for {target}: {e}\n{}", self.label, self.program()),
        };
        let render = |plan: KernelPlan| match plan.cuda() {
            Ok(source) => (plan, source.text),
            Err(e) => panic!("{} for {target}: {e}\n{}", self.label, self.program()),
        };
        Some(plans.into_iter().map(render).collect())
    }

    /// Compiles every module; registers may not spill, and every launch must be an entry within
    /// the target's limits.
    pub(crate) fn compile(&self, target: &Target) -> Ended {
        let Some(sources) = self.sources(target) else { return Ended::Refused };
        let nvrtc = Nvrtc::find().expect("`cargo xtask nvrtc` fetches NVRTC");
        for (plan, source) in sources {
            let label = format!("{} of {} for {target}", plan.module.name(), self.label);
            let compiled = match nvrtc.compile(&label, &source, target) {
                Ok(compiled) => compiled,
                Err(e) => panic!("{label}: {e}\n{}\n{source}", self.program()),
            };
            assert!(!compiled.cubin.is_empty(), "{label}");
            for r in &compiled.resources {
                assert!(
                    r.spill_stores == 0 && r.spill_loads == 0,
                    "{label}: {} spills with {} registers\n{r:?}",
                    r.entry,
                    r.registers
                );
            }
            for launch in &plan.interface.launches {
                let found = compiled.resources.iter().find(|r| r.entry == launch.entry);
                let r = found.unwrap_or_else(|| panic!("{label} has no entry {}", launch.entry));
                let at = format!("{label}: {}", launch.entry);
                assert!(launch.shared + r.shared <= target.shared_per_block, "{at}");
                // Registers are handed out to a warp in units of 256.
                let warps = launch.threads.div_ceil(32);
                let registers = (r.registers * 32).next_multiple_of(256) * warps;
                assert!(registers <= target.registers, "{at}: {registers} registers");
            }
        }
        Ended::Compiled
    }

    fn program(&self) -> String {
        self.kernel.instance().program.to_string()
    }
}

/// Runs `work` on every item, on all processors; a panic names its item.
pub(crate) fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    use rayon::prelude::*;
    items.par_iter().for_each(work);
}
