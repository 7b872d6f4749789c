//! Which keys of a kernel run on a tuned schedule.

use super::parse_elem;
use super::tune::kept::store;
use super::tune::run::{Sizes, cases};
use crate::failure::{Failure, Outcome};
use crate::target::Target;
use crate::terminal::{Channel, note};
use crate::tune::{Case, lists::Numbers};
use clap::Args;
use sparsek::dsl::ir::Spec;
use sparsek::tuned::{self, Gpu, Key, Manifest, Record, Source, Store};
use sparsek::{Elem, Kernel, cuda};
use sparsek_codegen::Schedule;
use sparsek_codegen::tune::Machine;
use std::collections::BTreeMap;

/// Kernels, and the keys to look at.
#[derive(Args, Debug)]
pub(super) struct KernelArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL")]
    pub(super) kernel: Option<String>,
    /// Head dimensions, as `64,128` or `64..256` (doubling)
    #[arg(long, value_name = "LIST", requires = "kernel")]
    head_dim: Option<Numbers>,
    /// Keys that the top-k mask keeps
    #[arg(long, value_name = "LIST", requires = "kernel")]
    k: Option<Numbers>,
    /// Lengths of the sliding window
    #[arg(long, value_name = "LIST", requires = "kernel")]
    window: Option<Numbers>,
    /// Sequence lengths
    #[arg(long, value_name = "LIST", requires = "kernel")]
    seq: Option<Numbers>,
    /// Query heads / key-value heads [default: 32/8]
    #[arg(long, value_name = "HQ/HKV", requires = "kernel", value_parser = super::bench::parse_heads)]
    heads: Option<(usize, usize)>,
    /// Element type: bf16, f16 or f32
    #[arg(long, value_name = "TYPE", value_parser = parse_elem, requires = "kernel")]
    elem: Option<Elem>,
    /// Another integer parameter of the kernel; may be repeated
    #[arg(long, value_name = "NAME=INT", value_parser = super::parse_setting, requires = "kernel")]
    set: Vec<(String, i64)>,
    /// An input with a default that calls give; may be repeated
    #[arg(long, value_name = "INPUT", requires = "kernel")]
    with: Vec<String>,
    /// Name of a GPU that is not here, as drivers give it
    #[arg(long, value_name = "NAME", requires = "kernel")]
    gpu: Option<String>,
    /// Its architecture
    #[arg(long, value_name = "ARCH", value_parser = super::emit::parse_target, requires = "gpu")]
    #[arg(default_value = "sm_90a")]
    target: sparsek_codegen::Target,
}

/// A GPU that keys are of.
struct Machines {
    gpu: Gpu,
    target: sparsek_codegen::Target,
    machine: Machine,
}

pub(super) fn run(kernel: &str, args: &KernelArgs) -> Result<Outcome, Failure> {
    let targets = Target::all(kernel)?;
    let machines = machines(args)?;
    let store = store()?;
    let mut out = String::new();
    for target in &targets {
        out.push_str(&one(target, args, &machines, &store)?);
    }
    Channel::Stdout.write(&out)?;
    Ok(Outcome::Done)
}

fn machines(args: &KernelArgs) -> Result<Machines, Failure> {
    if let Some(name) = &args.gpu {
        let target = args.target;
        let gpu = Gpu::new(name, (target.capability / 10, target.capability % 10));
        return Ok(Machines { gpu, target, machine: Machine::of(&target) });
    }
    let devices = cuda::devices().map_err(|e| {
        Failure::new(format_args!("schedules are tuned for a GPU, and there is none here: {e}"))
            .help("name the one that is meant: --gpu 'NVIDIA H200' --target sm_90a")
    })?;
    let usable = devices.into_iter().find_map(|info| Some((info.target?, info)));
    let (target, info) = usable.ok_or_else(|| {
        Failure::new("no code is generated for the GPU of this machine")
            .help("see `sparsek doctor`")
    })?;
    let machine = Machine { multiprocessors: info.multiprocessors, ..Machine::of(&target) };
    Ok(Machines { gpu: Gpu::new(&info.name, info.capability), target, machine })
}

fn one(
    target: &Target,
    args: &KernelArgs,
    machines: &Machines,
    store: &Store,
) -> Result<String, Failure> {
    let manifest = target.manifest()?;
    let listed =
        args.head_dim.is_some() || args.k.is_some() || args.window.is_some() || args.seq.is_some();
    let usual = Numbers(vec![65_536]);
    let sizes = Sizes {
        head_dim: args.head_dim.as_ref(),
        k: args.k.as_ref(),
        window: args.window.as_ref(),
        seq: args.seq.as_ref().unwrap_or(&usual),
        heads: args.heads.unwrap_or((32, 8)),
        batch: 1,
        elem: args.elem,
        set: &args.set,
        with: &args.with,
    };
    let cases = if listed {
        cases(&target.program, &sizes)?
    } else {
        tuned_cases(target, args, machines, store, &manifest)
    };
    let mut lines = String::new();
    let (mut tuned, mut measured) = (0, 0);
    for case in &cases {
        let (source, text) = state(case, machines, store, &manifest)?;
        match source {
            Source::Model => {}
            Source::Baseline(_) => measured += 1,
            Source::Store(_) | Source::Manifest(_) | Source::Given | Source::Image => tuned += 1,
        }
        let key = case.key(machines.gpu.clone());
        let Key { elem, d, k, w, group, sequence, .. } = key;
        lines.push_str(&format!(
            "  {elem}, D {d}, k {k}, window {w}, group {group}, N to {sequence}: {source}{text}\n"
        ));
    }
    let (name, gpu) = (&target.program.name, &machines.gpu);
    let head = match cases.len() {
        0 => format!(
            "{name}: no key is tuned for {gpu}: every call runs on the cost model's guess; see `sparsek tune`\n"
        ),
        n => {
            let measured = match measured {
                0 => String::new(),
                m => format!(", {m} on the cost model's guess, measured"),
            };
            format!("{name}: {tuned} of {n} keys run on a tuned schedule on {gpu}{measured}\n")
        }
    };
    Ok(format!("{head}{lines}"))
}

/// Where the schedule of a key comes from, and what is known of it.
fn state(
    case: &Case,
    machines: &Machines,
    store: &Store,
    manifest: &Manifest,
) -> Result<(Source, String), Failure> {
    let (problem, target) = (case.problem(), &machines.target);
    let key = case.key(machines.gpu.clone());
    let fits = |s: &Schedule| s.check(&problem, target).map_err(|e| e.to_string());
    let tuned = || tuned::find(&key, Some(store), manifest, fits, note);
    if let Some((record, source)) = tuned::is_on().then(tuned).flatten() {
        let figures = record.figures.map_or(String::new(), |f| {
            format!(
                ", forward {:.3} ms, backward {:.3} ms (N {}), {}",
                f.forward_ms, f.backward_ms, f.n, f.date
            )
        });
        return Ok((source, format!("{figures}; {}", in_a_line(&record.schedule))));
    }
    let chosen = Schedule::choose(&problem, target, &machines.machine, &case.workload());
    let chosen = chosen.map_err(Failure::new)?;
    Ok((Source::Model, format!("; {}", in_a_line(&chosen))))
}

fn in_a_line(schedule: &Schedule) -> String {
    let text = schedule.to_string().replace('\n', "; ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The keys of a kernel that are tuned: records of its name whose program is the kernel's with the record's
/// parameters put in.
fn tuned_cases(
    target: &Target,
    args: &KernelArgs,
    machines: &Machines,
    store: &Store,
    manifest: &Manifest,
) -> Vec<Case> {
    let mut records: BTreeMap<Key, Record> =
        manifest.records().map(|r| (r.key.clone(), r.clone())).collect();
    match store.list() {
        Ok(all) => {
            for (_, entry) in all {
                match entry.map(|entry| entry.record()) {
                    Ok(Some(record)) => drop(records.insert(record.key.clone(), record)),
                    Ok(None) => {}
                    Err(broken) => note(broken),
                }
            }
        }
        Err(e) => note(format_args!("{} cannot be read: {e}", store.folder().display())),
    }
    let (gate, window) = (target.program.gate(), target.program.seen_set().window);
    let case = |record: &Record| {
        let key = &record.key;
        let number = |x: usize| i64::try_from(x).ok();
        let spec = Spec {
            elem: key.elem,
            d: number(key.d)?,
            k: gate.and(number(key.k)),
            w: window.and(number(key.w)),
            set: args.set.iter().cloned().collect(),
        };
        // Another kernel's sets may not hold the record's parameters.
        let kernel = Kernel::from_program(&target.program, &spec).ok()?;
        let n = usize::try_from(key.sequence).ok()?;
        let (hkv, hq) = (1, key.group as usize);
        let with = key.given.iter().map(|name| name.trim_end_matches(" of heads").to_owned());
        let case = Case { kernel, spec, batch: 1, n, hq, hkv, with: with.collect() };
        (case.key(machines.gpu.clone()) == *key).then_some(case)
    };
    records.values().filter_map(case).collect()
}
