//! The code of a kernel without a GPU: to be read, compared with an earlier one, or shipped.

use super::Error;
use super::emit::{Fits, Maker, problem};
use super::image::{GivenInput, Image, Module, Specialisation};
use super::store::Chosen;
use crate::kernel;
use crate::tuned::{self, Gpu, Key, Manifest, Source, Store, program_hash};
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{KernelPlan, Schedule, Target};
use sparsek_dsl::ir::{Class, Input, Instance, Program, Role};
use std::sync::Arc;

/// What code is specialised for beside the kernel instance and the target: how many query heads share a
/// key-value head, which inputs calls give, and which gradients they want. Batch, length and the
/// number of heads are free.
///
/// Calls that differ from it do not find the code; they need their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallShape {
    group: u32,
    without: Vec<String>,
    shared: Vec<String>,
    wanted: Option<Vec<String>>,
}

impl CallShape {
    /// Calls with that many query heads for each key-value head, Hq / Hkv, that give every input and
    /// want the gradient of each. PerQuery and PerKey inputs have a head axis.
    pub fn group(group: u32) -> CallShape {
        CallShape { group, without: Vec::new(), shared: Vec::new(), wanted: None }
    }

    /// Calls that leave out an input, which then has its default as a constant of the code.
    pub fn without(mut self, input: &str) -> CallShape {
        self.without.push(input.to_owned());
        self
    }

    /// Calls whose PerQuery or PerKey input has no head axis: one value for all heads.
    pub fn shared(mut self, input: &str) -> CallShape {
        self.shared.push(input.to_owned());
        self
    }

    /// Calls that want only these gradients: `d_q`, `d_slope`, ….
    pub fn wanted(mut self, gradients: &[impl AsRef<str>]) -> CallShape {
        self.wanted = Some(gradients.iter().map(|g| g.as_ref().to_owned()).collect());
        self
    }

    /// The inputs that calls give, sorted.
    fn given(&self, program: &Program) -> Result<Vec<GivenInput>, Error> {
        let refused = |reason: String| Err(Error::Calls { kernel: program.name.clone(), reason });
        if self.group == 0 {
            return refused("a key-value head has at least one query head".to_owned());
        }
        let optional: Vec<&str> = names(program, |input| input.default.is_some());
        let headed: Vec<&str> = names(program, may_have_heads);
        for (asked, allowed, what) in [
            (&self.without, &optional, "can be left out"),
            (&self.shared, &headed, "can be without a head axis"),
        ] {
            if let Some(name) = asked.iter().find(|name| !allowed.contains(&name.as_str())) {
                let those = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
                return refused(format!("no input `{name}` {what}; of its inputs {those} can"));
            }
        }
        let left = program.inputs.iter().filter(|input| !self.without.contains(&input.name));
        let mut given: Vec<GivenInput> = left
            .map(|input| GivenInput {
                name: input.name.clone(),
                per_head: may_have_heads(input) && !self.shared.contains(&input.name),
            })
            .collect();
        given.sort();
        Ok(given)
    }
}

fn names(program: &Program, is: impl Fn(&Input) -> bool) -> Vec<&str> {
    program.inputs.iter().filter(|input| is(input)).map(|input| input.name.as_str()).collect()
}

fn may_have_heads(input: &Input) -> bool {
    input.role == Role::Extra && matches!(input.ty.class, Class::PerQuery | Class::PerKey)
}

/// The code of a kernel instance for one shape of calls and one target: what
/// [`crate::Kernel::code`] gives.
#[derive(Clone, Debug)]
pub struct Code {
    instance: Arc<Instance>,
    backward: Arc<Program>,
    hash: String,
    target: Target,
    group: u32,
    given: Vec<GivenInput>,
    wanted: Vec<String>,
    manifest: Arc<Manifest>,
    chosen: Chosen,
    warnings: Vec<String>,
}

impl crate::Kernel {
    /// The code that calls of that shape run on a GPU of that target, with the cost model's choice of a
    /// schedule for the usual sizes of calls; [`Code::tuned`] and [`Code::with_schedule`] give it another.
    /// Neither a GPU nor CUDA is needed but to compile it.
    ///
    /// ```
    /// use sparsek::codegen::Target;
    /// use sparsek::cuda::{CallShape, Module};
    /// use sparsek::{Elem, Spec, sparsek_kernel};
    ///
    /// sparsek_kernel! {
    ///     /// The newest keys, faded by distance.
    ///     kernel Faded<D in multiples_of(16) up to 128, W in 1..=4096>(
    ///         q: Query<bf16, D>, k: Key<bf16, D>, v: Value<bf16, D>, slope: PerHead = 0.0,
    ///     ) -> Output<bf16, D> {
    ///         let s = dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos);
    ///         dot(softmax(s, causal & window(W)), v)
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let kernel = Faded::new(Spec::new(Elem::Bf16, 64).w(256))?;
    /// let h200 = Target::named("sm_90a").ok_or("an unknown target")?;
    /// let code = kernel.kernel().code(&CallShape::group(4), h200)?;
    /// println!("{}", code.schedule());
    /// assert!(code.cuda(Module::Forward)?.contains("__global__"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A shape that names inputs or gradients that the kernel does not have; no schedule that fits the
    /// target, with numbers.
    pub fn code(&self, calls: &CallShape, target: Target) -> Result<Code, crate::Error> {
        let given = calls.given(&self.instance.program)?;
        let is_given = |name: &str| given.iter().any(|g| g.name == name);
        let mut wanted = kernel::wanted(&self.backward, is_given, calls.wanted.as_deref())?;
        wanted.sort();
        wanted.dedup();
        let hash = program_hash(&self.instance);
        let (instance, backward) = (self.instance.clone(), self.backward.clone());
        let maker = Maker { instance: &instance, backward: &backward, hash: &hash, target };
        let model = (&Machine::of(&target), &Workload::default());
        let chosen = maker.choose(calls.group, &given, |_| None, model)?;
        let (group, manifest, warnings) = (calls.group, self.manifest.clone(), Vec::new());
        Ok(Code {
            instance,
            backward,
            hash,
            target,
            group,
            given,
            wanted,
            manifest,
            chosen,
            warnings,
        })
    }
}

impl Code {
    /// The same with the schedule that calls with sequences of up to `longest` positions run with on
    /// that GPU: a tuned one of the store, else of the manifest that the kernel carries, else as it
    /// is. Where `SPARSEK_TUNED` is `off`, tuned schedules are not used.
    ///
    /// # Errors
    /// As [`crate::Kernel::code`].
    pub fn tuned(
        mut self,
        gpu: &Gpu,
        longest: u64,
        store: Option<&Store>,
    ) -> Result<Code, crate::Error> {
        if !tuned::is_on() {
            return Ok(self);
        }
        let problem = problem(&self.instance, &self.backward, self.group, &self.given);
        let key = Key::of_hash(&self.hash, &problem, longest, gpu.clone());
        let mut warnings = Vec::new();
        let find = |fits: &Fits<'_>| {
            let warn = |warning| warnings.push(warning);
            let (record, source) = tuned::find(&key, store, &self.manifest, fits, warn)?;
            Some((record.schedule, source))
        };
        let model = (&Machine::of(&self.target), &Workload::default());
        let found = self.maker().choose(self.group, &self.given, find, model)?;
        if found.source != Source::Model {
            self.chosen = found;
        }
        self.warnings.extend(warnings);
        Ok(self)
    }

    /// The same with another schedule.
    pub fn with_schedule(self, schedule: Schedule) -> Code {
        Code { chosen: Chosen { schedule, source: Source::Given }, ..self }
    }

    /// The schedule.
    pub fn schedule(&self) -> Schedule {
        self.chosen.schedule
    }

    /// Where the schedule comes from.
    pub fn schedule_source(&self) -> &Source {
        &self.chosen.source
    }

    /// What is wrong with files of the store and with schedules that do not fit.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The target.
    pub fn target(&self) -> Target {
        self.target
    }

    /// A module as it is lowered: every value that its templates print, and how it is launched.
    ///
    /// # Errors
    /// A schedule that does not fit the target, with numbers.
    pub fn plan(&self, module: Module) -> Result<KernelPlan, crate::Error> {
        self.maker().plan(&self.specialisation(module))
    }

    /// The CUDA C of a module: the same text wherever and whenever it is made.
    ///
    /// # Errors
    /// As [`Code::plan`].
    pub fn cuda(&self, module: Module) -> Result<String, crate::Error> {
        Ok(self.plan(module)?.cuda().map_err(Error::from)?.text)
    }

    /// A module compiled by NVRTC, with all that is needed to launch it. Nothing is kept in the cubin
    /// cache: whoever compiles ahead keeps the result.
    ///
    /// # Errors
    /// As [`Code::plan`]; no NVRTC.
    pub fn compile(&self, module: Module) -> Result<Image, crate::Error> {
        self.maker().compile(&self.specialisation(module), None, |_| {})
    }

    fn maker(&self) -> Maker<'_> {
        let Code { instance, backward, hash, target, .. } = self;
        Maker { instance, backward, hash, target: *target }
    }

    pub(super) fn specialisation(&self, module: Module) -> Specialisation {
        let wanted = if module == Module::Backward { self.wanted.clone() } else { Vec::new() };
        let (group, given, schedule) = (self.group, self.given.clone(), self.chosen.schedule);
        Specialisation { module, group, given, wanted, schedule }
    }
}
