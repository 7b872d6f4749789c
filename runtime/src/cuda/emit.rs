//! Making modules: program and schedule → CUDA C → cubin.

use super::Error;
use super::cache::{Cache, Entry, Key};
use super::image::{GivenInput, Header, Image, Module, Specialisation};
use super::nvrtc::Nvrtc;
use super::store::{Asked, Chosen, Store};
use crate::tuned::Source;
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Given, KernelPlan, Problem, Schedule, Target};
use sparsek_dsl::ir::{Instance, Program};

impl From<Module> for sparsek_codegen::Module {
    fn from(module: Module) -> Self {
        match module {
            Module::Plan => sparsek_codegen::Module::Plan,
            Module::Forward => sparsek_codegen::Module::Forward,
            Module::Backward => sparsek_codegen::Module::Backward,
        }
    }
}

/// What modules are made from. No GPU is needed.
#[derive(Clone, Copy)]
pub(super) struct Maker<'a> {
    pub(super) instance: &'a Instance,
    /// Every gradient.
    pub(super) backward: &'a Program,
    /// Hash of the instance.
    pub(super) hash: &'a str,
    pub(super) target: Target,
}

/// Why a schedule is not one of a kernel for a target.
pub(super) type Fits<'a> = dyn Fn(&Schedule) -> Result<(), String> + 'a;

pub(super) fn problem<'a>(
    instance: &'a Instance,
    backward: &'a Program,
    group: u32,
    given: &[GivenInput],
) -> Problem<'a> {
    let given = given.iter().map(|g| Given { name: g.name.clone(), per_head: g.per_head });
    Problem { instance, backward, group, given: given.collect() }
}

/// A tuned schedule, or what the cost model chooses for a backward of every input that is given.
pub(super) fn choose(store: &Store, call: &Asked) -> Result<Chosen, crate::Error> {
    let maker = store.maker();
    let multiprocessors = store.device.info().multiprocessors;
    let machine = Machine { multiprocessors, ..Machine::of(&maker.target) };
    let workload = Workload { n: call.sequence, kv_heads: call.kv_heads }.rounded();
    let tuned = |fits: &Fits<'_>| store.tuned(call, fits, |warning| store.warn(warning));
    maker.choose(call.group, &call.given, tuned, (&machine, &workload))
}

/// A module's code: what the cache has, else what NVRTC makes of it, which the cache then keeps. A cache that
/// cannot be written is a warning.
///
/// # Errors
/// A template that cannot be rendered; no NVRTC; what NVRTC has to say of the code.
fn compiled(
    plan: &KernelPlan,
    target: &Target,
    cache: Option<&Cache>,
) -> Result<(Entry, Option<String>), crate::Error> {
    let source = plan.cuda().map_err(Error::from)?;
    let name = format!("{} of {}", plan.module.name(), plan.kernel);
    compiled_text(&name, &source.text, target, cache)
}

/// The same of the CUDA C of a module. `name` is what messages call it.
///
/// NVRTC compiles one text at a time in a process: whoever has many to compile starts processes, which share the
/// cache.
///
/// # Errors
/// No NVRTC; what NVRTC has to say of the code.
pub fn compiled_text(
    name: &str,
    text: &str,
    target: &Target,
    cache: Option<&Cache>,
) -> Result<(Entry, Option<String>), crate::Error> {
    let nvrtc = Nvrtc::find()?;
    let key = Key::new(&[text, &target.name(), &nvrtc.identity()]);
    if let Some(entry) = cache.and_then(|cache| cache.get(&key)) {
        return Ok((entry, None));
    }
    let compiled = nvrtc.compile(name, text, target)?;
    let label = format!("{name} for {target}");
    let entry = Entry { label, resources: compiled.resources, cubin: compiled.cubin };
    let kept = cache.map(|cache| (cache, cache.put(&key, &entry)));
    let warning = match kept {
        Some((cache, Err(e))) => {
            let folder = cache.entries().display();
            Some(format!("compiled code cannot be kept in {folder}: {e}"))
        }
        Some((_, Ok(()))) | None => None,
    };
    Ok((entry, warning))
}

/// Generates and compiles a module of calls.
pub(super) fn compile(store: &Store, wanted: &Specialisation) -> Result<Image, crate::Error> {
    store.maker().compile(wanted, store.cache.as_ref(), |warning| store.warn(warning))
}

impl Maker<'_> {
    /// A tuned schedule that fits, or what the cost model chooses for a backward of every input that
    /// is given. `tuned` looks one up.
    pub(super) fn choose(
        &self,
        group: u32,
        given: &[GivenInput],
        tuned: impl FnOnce(&Fits<'_>) -> Option<(Schedule, Source)>,
        (machine, workload): (&Machine, &Workload),
    ) -> Result<Chosen, crate::Error> {
        let is_given = |gradient: &str| {
            let name = gradient.strip_prefix("d_").unwrap_or(gradient);
            given.iter().any(|g| g.name == name)
        };
        let backward = self.backward.with_outputs(is_given);
        let problem = problem(self.instance, &backward, group, given);
        let target = self.target;
        let fits = |s: &Schedule| s.check(&problem, &target).map_err(|e| e.to_string());
        if let Some((schedule, source)) = tuned(&fits) {
            return Ok(Chosen { schedule, source });
        }
        let schedule =
            Schedule::choose(&problem, &target, machine, workload).map_err(Error::from)?;
        Ok(Chosen { schedule, source: Source::Model })
    }

    /// A module, lowered.
    pub(super) fn plan(&self, wanted: &Specialisation) -> Result<KernelPlan, crate::Error> {
        let backward = self.backward.with_outputs(|name| wanted.wanted.iter().any(|w| w == name));
        let problem = problem(self.instance, &backward, wanted.group, &wanted.given);
        Ok(KernelPlan::new(wanted.module.into(), &problem, &wanted.schedule, &self.target)
            .map_err(Error::from)?)
    }

    /// A module, compiled by NVRTC unless the cache has its code. A cache that cannot be written is a
    /// warning.
    pub(super) fn compile(
        &self,
        wanted: &Specialisation,
        cache: Option<&Cache>,
        warn: impl Fn(String),
    ) -> Result<Image, crate::Error> {
        let target = self.target;
        let plan = self.plan(wanted)?;
        let (entry, warning) = compiled(&plan, &target, cache)?;
        warning.into_iter().for_each(warn);
        Ok(Image {
            header: Header {
                instance: self.hash.to_owned(),
                kernel: plan.kernel,
                target: target.name(),
                specialisation: wanted.clone(),
                interface: plan.interface,
                resources: entry.resources,
            },
            cubin: entry.cubin,
        })
    }
}
