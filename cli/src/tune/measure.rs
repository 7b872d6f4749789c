//! Candidates compiled by processes on every core, and run by another one.

use super::compile::{Compilers, short};
use super::process::{Lost, Process};
use super::protocol::{Reply, Request, Setup, Source};
use crate::failure::Failure;
use rayon::prelude::*;
use sparsek::Kernel;
use sparsek::dsl::ir::Program;
use sparsek_codegen::tune::{Axis, Measure, Trouble, WrongResult};
use sparsek_codegen::{KernelPlan, Module, Problem, Schedule, Target};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How long a process may take to open the GPU and make inputs, and to compute on the CPU.
const SETUP: Duration = Duration::from_secs(300);

/// How long a check or a row of timed calls may take: calls take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most positions of a check, unless selecting anything takes more: they take the CPU long.
const MOST_CHECKED: usize = 8192;

/// What generates and compiles candidates.
pub(crate) struct Compiler<'a> {
    /// The kernel's calls.
    pub(crate) problem: Problem<'a>,
    /// The gradients that calls compute.
    pub(crate) backward: &'a Program,
    /// What code is generated for.
    pub(crate) target: Target,
    /// What compiles it, to where the process that uses the GPU finds it.
    pub(crate) compilers: &'a mut Compilers,
}

impl Compiler<'_> {
    /// Candidates share modules: a text is compiled once.
    fn compile(&mut self, modules: &[Module], schedules: &[Schedule]) -> Vec<Result<(), Trouble>> {
        let Compiler { problem, backward, target, compilers } = self;
        let problem = Problem { backward, ..problem.clone() };
        let of = |schedule: &Schedule| sources(&problem, modules, schedule, target);
        let wanted: Vec<Result<Vec<Source>, Trouble>> = schedules.par_iter().map(of).collect();
        let mut places = HashMap::new();
        let mut texts: Vec<Source> = Vec::new();
        for source in wanted.iter().flatten().flatten() {
            if !places.contains_key(&source.text) {
                places.insert(source.text.clone(), texts.len());
                texts.push(source.clone());
            }
        }
        let results = compilers.compile(&texts);
        let of = |s: &Source| places.get(&s.text).map_or(Ok(()), |at| results[*at].clone());
        wanted.into_iter().map(|sources| sources?.iter().try_for_each(of)).collect()
    }
}

/// The texts of modules of a schedule.
pub(crate) fn sources(
    problem: &Problem<'_>,
    modules: &[Module],
    schedule: &Schedule,
    target: &Target,
) -> Result<Vec<Source>, Trouble> {
    modules.iter().map(|module| source(problem, *module, schedule, target)).collect()
}

fn source(
    problem: &Problem<'_>,
    module: Module,
    schedule: &Schedule,
    target: &Target,
) -> Result<Source, Trouble> {
    let failed = |e: sparsek_codegen::Error| Trouble::Failed(short(&e.to_string()));
    let plan = KernelPlan::new(module, problem, schedule, target).map_err(failed)?;
    let text = plan.cuda().map_err(failed)?.text;
    let name = format!("{} of {}", module.name(), plan.kernel);
    Ok(Source { name, text, target: target.name() })
}

/// Measures a kernel on a GPU, by a process of its own, which may have served another kernel before.
pub(crate) struct Remote<'a> {
    compiler: Compiler<'a>,
    process: &'a mut Process,
    setup: Setup,
    /// Whether the process was set up for this kernel; another one may run by now.
    is_set_up: bool,
    /// Starts of the process that are none of this kernel's doing.
    starts_before: usize,
    /// Whether a check of any axis has as many positions as one of the chunk: results on the CPU are
    /// then computed once for a schedule.
    pub(crate) one_length: bool,
    /// Lengths whose results are known to the process that runs.
    expected: BTreeSet<usize>,
    /// Bytes a second of a copy on the device, when it is known.
    pub(crate) copy: Option<f64>,
    /// How long a candidate is waited for.
    pub(crate) patience: Duration,
}

impl<'a> Remote<'a> {
    /// `process` answers as `sparsek tune-worker` does.
    pub(crate) fn new(
        compiler: Compiler<'a>,
        process: &'a mut Process,
        setup: Setup,
    ) -> Remote<'a> {
        let starts_before = process.starts + usize::from(!process.is_running());
        Remote {
            compiler,
            process,
            setup,
            is_set_up: false,
            starts_before,
            one_length: false,
            expected: BTreeSet::new(),
            copy: None,
            patience: PATIENCE,
        }
    }

    /// Positions of a check: a bit over what the first queries see, and several chunks where only whole ones
    /// would not tell.
    fn checked(&self, axis: Axis, schedule: &Schedule) -> usize {
        let instance = self.compiler.problem.instance;
        let seen = instance.k + instance.w + instance.sinks;
        let chunk = schedule.chunk as usize;
        let more = if axis == Axis::Chunk || self.one_length { chunk + chunk / 2 } else { 0 };
        (seen + 229).max((more + 37).min(MOST_CHECKED)).max(300)
    }

    /// The process with the GPU open, set up for this kernel.
    ///
    /// # Errors
    /// It does not start, or cannot use the GPU: nothing can be measured.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        match self.ready() {
            Ok(()) => Ok(()),
            Err(Trouble::Failed(reason) | Trouble::Fault(reason)) => {
                Err(Failure::new(format_args!("nothing can be measured: {reason}"))
                    .help("see `sparsek doctor`; --dry-run shows what would be tried"))
            }
            Err(Trouble::Timeout(seconds)) => Err(Failure::new(format_args!(
                "the process that uses the GPU did not answer in {seconds:.0} s"
            ))
            .help("is the GPU in use by something else? see nvidia-smi")),
            Err(Trouble::Wrong(_)) => Err(Failure::new("setting up gave an answer to a check")),
        }
    }

    fn ready(&mut self) -> Result<(), Trouble> {
        if self.is_set_up && self.process.is_running() {
            return Ok(());
        }
        let served_another = self.process.is_running();
        match self.set_up() {
            // What the kernel before left there may be at fault; a new process has nothing of it.
            Err(_) if served_another => {
                self.process.end();
                self.set_up()
            }
            other => other,
        }
    }

    fn set_up(&mut self) -> Result<(), Trouble> {
        self.is_set_up = false;
        self.expected.clear();
        let request = Request::Setup(Box::new(self.setup.clone()));
        match self.send(&request, SETUP)? {
            Reply::Ready { copy } => {
                self.copy = Some(copy);
                self.is_set_up = true;
                Ok(())
            }
            other => {
                self.process.end();
                Err(self.unexpected(other))
            }
        }
    }

    /// An answer to something else means that process and tuner are out of step: it is ended.
    fn unexpected(&mut self, reply: Reply) -> Trouble {
        match reply {
            Reply::Failed(reason) => Trouble::Failed(short(&reason)),
            Reply::Fault(reason) => Trouble::Fault(short(&reason)),
            other => {
                self.process.end();
                Trouble::Fault(format!("an answer to another question: {other:?}"))
            }
        }
    }

    fn send(&mut self, request: &Request, patience: Duration) -> Result<Reply, Trouble> {
        match self.process.ask(request, patience) {
            Ok(Reply::Fault(reason)) => Err(Trouble::Fault(short(&reason))),
            Ok(reply) => Ok(reply),
            Err(Lost::Died(reason)) => Err(Trouble::Fault(short(&reason))),
            Err(Lost::Hung(patience)) => Err(Trouble::Timeout(patience.as_secs_f64())),
        }
    }

    /// Plan, forward and backward of schedules that took turns.
    ///
    /// # Errors
    /// Why there are none.
    pub(crate) fn figures(&mut self, schedules: &[Schedule]) -> Result<Vec<[f64; 3]>, Trouble> {
        for compiled in self.compile(Axis::Chunk, schedules) {
            compiled?;
        }
        self.ready()?;
        let request = Request::Figures(schedules.to_vec());
        match self.send(&request, self.patience * schedules.len().max(1) as u32)? {
            Reply::Figures(all) if all.len() == schedules.len() => Ok(all),
            other => Err(self.unexpected(other)),
        }
    }

    /// How often the process had to be started again.
    pub(crate) fn restarts(&self) -> usize {
        self.process.starts.saturating_sub(self.starts_before)
    }
}

impl Measure for Remote<'_> {
    fn batch(&self) -> usize {
        self.compiler.compilers.count().max(8)
    }

    fn compile(&mut self, axis: Axis, schedules: &[Schedule]) -> Vec<Result<(), Trouble>> {
        let modules: &[Module] = match axis {
            Axis::Forward => &[Module::Plan, Module::Forward],
            Axis::Backward | Axis::Chunk => &[Module::Plan, Module::Forward, Module::Backward],
        };
        self.compiler.compile(modules, schedules)
    }

    fn check(&mut self, axis: Axis, schedule: &Schedule) -> Result<(), Trouble> {
        self.ready()?;
        let n = self.checked(axis, schedule);
        if !self.expected.contains(&n) {
            match self.send(&Request::Expect(n), SETUP)? {
                Reply::Right => self.expected.insert(n),
                other => return Err(self.unexpected(other)),
            };
        }
        match self.send(&Request::Check { axis, schedule: *schedule, n }, self.patience)? {
            Reply::Right => Ok(()),
            Reply::Wrong { tensor, error, limit } => {
                let error = error.unwrap_or(f64::INFINITY);
                Err(Trouble::Wrong(WrongResult { tensor, error, limit }))
            }
            other => Err(self.unexpected(other)),
        }
    }

    fn time(
        &mut self,
        axis: Axis,
        schedule: &Schedule,
        calls: usize,
        cutoff: Option<f64>,
    ) -> Result<Vec<f64>, Trouble> {
        self.ready()?;
        let request = Request::Time { axis, schedule: *schedule, calls, cutoff };
        match self.send(&request, self.patience)? {
            Reply::Times(times) => Ok(times),
            other => Err(self.unexpected(other)),
        }
    }
}

/// The gradients of calls that give what a problem gives.
pub(crate) fn gradients(kernel: &Kernel, problem: &Problem<'_>) -> Program {
    let given = |name: &str| problem.given.iter().any(|g| g.name == name);
    kernel.backward_program().with_outputs(|n| given(n.strip_prefix("d_").unwrap_or(n)))
}

#[cfg(all(test, unix))]
#[path = "measure_tests.rs"]
mod tests;
