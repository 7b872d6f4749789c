//! Making modules: program and schedule → CUDA C → cubin.

use super::Error;
use super::cache::{Cache, Entry, Key};
use super::image::{GivenInput, Header, Image, Module, Specialisation};
use super::nvrtc::Nvrtc;
use super::store::{Asked, Chosen, Store};
use crate::tuned::Source;
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Given, KernelPlan, Problem, Schedule, Target};
use sparsek_dsl::ir::Program;

impl From<Module> for sparsek_codegen::Module {
    fn from(module: Module) -> Self {
        match module {
            Module::Plan => sparsek_codegen::Module::Plan,
            Module::Forward => sparsek_codegen::Module::Forward,
            Module::Backward => sparsek_codegen::Module::Backward,
        }
    }
}

fn problem<'a>(
    store: &'a Store,
    backward: &'a Program,
    group: u32,
    given: &[GivenInput],
) -> Problem<'a> {
    let given = given.iter().map(|g| Given { name: g.name.clone(), per_head: g.per_head });
    Problem { instance: &store.instance, backward, group, given: given.collect() }
}

/// The GPU as the cost model sees it.
fn machine(store: &Store) -> Machine {
    let multiprocessors = store.device.info().multiprocessors;
    Machine { multiprocessors, ..Machine::of(&store.device.target()) }
}

/// A tuned schedule, or what the cost model chooses for a backward of every input that is given.
pub(super) fn choose(store: &Store, call: &Asked) -> Result<Chosen, crate::Error> {
    let is_given = |gradient: &str| {
        let name = gradient.strip_prefix("d_").unwrap_or(gradient);
        call.given.iter().any(|g| g.name == name)
    };
    let backward = store.backward.with_outputs(is_given);
    let problem = problem(store, &backward, call.group, &call.given);
    let target = store.device.target();
    let fits = |s: &Schedule| s.check(&problem, &target).map_err(|e| e.to_string());
    if let Some((schedule, source)) = store.tuned(call, fits, |warning| store.warn(warning)) {
        return Ok(Chosen { schedule, source });
    }
    let workload =
        Workload { batch: call.sequences, n: call.sequence, kv_heads: call.kv_heads }.rounded();
    let machine = machine(store);
    let schedule = Schedule::choose(&problem, &target, &machine, &workload).map_err(Error::from)?;
    Ok(Chosen { schedule, source: Source::Model })
}

/// A module's code: what the cache has, else what NVRTC makes of it, which the cache then keeps. A cache that
/// cannot be written is a warning.
///
/// # Errors
/// A template that cannot be rendered; no NVRTC; what NVRTC has to say of the code.
pub fn compiled(
    plan: &KernelPlan,
    target: &Target,
    cache: Option<&Cache>,
) -> Result<(Entry, Option<String>), crate::Error> {
    let source = plan.cuda().map_err(Error::from)?;
    let nvrtc = Nvrtc::find()?;
    let key = Key::new(&[&source.text, &target.name(), &nvrtc.identity()]);
    if let Some(entry) = cache.and_then(|cache| cache.get(&key)) {
        return Ok((entry, None));
    }
    let name = format!("{} of {}", plan.module.name(), plan.kernel);
    let compiled = nvrtc.compile(&name, &source.text, target)?;
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
    let target = store.device.target();
    let backward = store.backward.with_outputs(|name| wanted.wanted.iter().any(|w| w == name));
    let problem = problem(store, &backward, wanted.group, &wanted.given);
    let plan = KernelPlan::new(wanted.module.into(), &problem, &wanted.schedule, &target)
        .map_err(Error::from)?;
    let (entry, warning) = compiled(&plan, &target, store.cache.as_ref())?;
    if let Some(warning) = warning {
        store.warn(warning);
    }
    Ok(Image {
        header: Header {
            instance: store.hash().to_owned(),
            kernel: store.kernel().to_owned(),
            target: target.name(),
            specialisation: wanted.clone(),
            interface: plan.interface,
            resources: entry.resources,
        },
        cubin: entry.cubin,
    })
}
