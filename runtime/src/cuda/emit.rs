//! Making modules: program and schedule → CUDA C → cubin.

use super::Error;
use super::cache::{Entry, Key};
use super::image::{GivenInput, Header, Image, Module, Specialisation};
use super::nvrtc::Nvrtc;
use super::store::{Asked, Chosen, Store};
use crate::tuned::Source;
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Given, KernelPlan, Problem, Schedule};
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

/// Generates and compiles a module, unless the cache has its code. A cache that cannot be written
/// is a warning.
pub(super) fn compile(store: &Store, wanted: &Specialisation) -> Result<Image, crate::Error> {
    let target = store.device.target();
    let backward = store.backward.with_outputs(|name| wanted.wanted.iter().any(|w| w == name));
    let problem = problem(store, &backward, wanted.group, &wanted.given);
    let plan = KernelPlan::new(wanted.module.into(), &problem, &wanted.schedule, &target)
        .map_err(Error::from)?;
    let source = plan.cuda().map_err(Error::from)?;
    let nvrtc = Nvrtc::find()?;
    let key = Key::new(&[&source.text, &target.name(), &nvrtc.identity()]);
    let kept = store.cache.as_ref().and_then(|cache| cache.get(&key));
    let entry = match kept {
        Some(entry) => entry,
        None => {
            let name = format!("{} of {}", wanted.module, store.kernel());
            let compiled = nvrtc.compile(&name, &source.text, &target)?;
            let entry = Entry {
                label: format!("{name} for {target}"),
                resources: compiled.resources,
                cubin: compiled.cubin,
            };
            let kept = store.cache.as_ref().map(|cache| (cache, cache.put(&key, &entry)));
            if let Some((cache, Err(e))) = kept {
                let folder = cache.entries().display();
                store.warn(format!("compiled code cannot be kept in {folder}: {e}"));
            }
            entry
        }
    };
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
