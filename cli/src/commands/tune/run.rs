//! The search itself: keys, one after another, and what came of them.

use super::kept::store;
use super::{LevelName, SearchArgs};
use crate::backend::Device;
use crate::commands::bench::H200_CEILING;
use crate::commands::failure;
use crate::failure::{Failure, Outcome};
use crate::table::Table;
use crate::target::Target;
use crate::terminal::{Channel, note};
use crate::tune::{
    self, Case, Settings, Tuned, Tuning, Workers, lists::Numbers, report, show::part,
};
use serde_json::json;
use sparsek::dsl::ir::{Extent, Program, Spec};
use sparsek::tuned::{How, Winner};
use sparsek::{Elem, Kernel};
use sparsek_codegen::tune::{Axis, Ended, Level, Machine, Outcome as Tried};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Most keys of one call.
const MOST: usize = 1024;

/// Seconds that a key of the level `quick` may take.
const QUICK: u64 = 30;

/// Every combination of the lists, checked against the kernel's sets.
pub(crate) fn cases(program: &Program, sizes: &Sizes<'_>) -> Result<Vec<Case>, Failure> {
    let set: BTreeMap<String, i64> = sizes.set.iter().cloned().collect();
    let role = |extent: Option<Extent>, list: Option<&Numbers>, usual: i64| match (extent, list) {
        (_, Some(list)) => list.0.iter().copied().map(Some).collect(),
        (Some(Extent::Param(id)), None) => {
            let Some(param) = program.params.get(id.0 as usize) else { return vec![Some(usual)] };
            let usual = param.set.nearest(usual).unwrap_or(usual);
            vec![(!set.contains_key(&param.name)).then_some(usual)]
        }
        (Some(Extent::Literal(_)) | None, None) => vec![None],
    };
    let literal = program.head_dim.literal().map_or(128, i64::from);
    let dims =
        role(Some(Extent::Param(sparsek::dsl::ir::ParamId(u32::MAX))), sizes.head_dim, literal);
    let ks = role(program.gate().map(|g| g.k), sizes.k, 512);
    let windows = role(program.seen_set().window, sizes.window, 512);
    let elems = &program.elem.set;
    let usual = elems.iter().copied().find(|e| *e == Elem::Bf16).or(elems.first().copied());
    let elem = sizes.elem.or(usual).unwrap_or(Elem::F32);
    for name in sizes.with {
        let optional = program.inputs.iter().filter(|input| input.default.is_some());
        let names: Vec<&str> = optional.map(|input| input.name.as_str()).collect();
        if !names.contains(&name.as_str()) {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Failure::new(format_args!(
                "{} has no input `{name}` with a default",
                program.name
            ))
            .help(format_args!("inputs with a default: {known}")));
        }
    }
    let mut all = Vec::new();
    // Inputs depend on D and the length, and are made anew where those change.
    for (d, n) in dims.iter().flat_map(|d| sizes.seq.0.iter().map(move |n| (d, n))) {
        let n = usize::try_from(*n).ok().filter(|n| (1..=1 << 24).contains(n));
        let n = n.ok_or_else(|| {
            Failure::new("--seq is outside 1 to 16777216").help("give another length")
        })?;
        for k in &ks {
            for w in &windows {
                let spec = Spec { elem, d: d.unwrap_or(literal), k: *k, w: *w, set: set.clone() };
                let kernel = Kernel::from_program(program, &spec).map_err(|e| failure(e, None))?;
                let ((hq, hkv), batch, with) = (sizes.heads, sizes.batch, sizes.with.to_vec());
                all.push(Case { kernel, spec, batch, n, hq, hkv, with });
                if all.len() > MOST {
                    return Err(Failure::new(format_args!("more than {MOST} keys"))
                        .help("give shorter lists"));
                }
            }
        }
    }
    Ok(all)
}

/// Lists of what is open in a kernel and its calls.
pub(crate) struct Sizes<'a> {
    pub(crate) head_dim: Option<&'a Numbers>,
    pub(crate) k: Option<&'a Numbers>,
    pub(crate) window: Option<&'a Numbers>,
    pub(crate) seq: &'a Numbers,
    pub(crate) heads: (usize, usize),
    pub(crate) batch: usize,
    pub(crate) elem: Option<Elem>,
    pub(crate) set: &'a [(String, i64)],
    /// Inputs with a default that calls give.
    pub(crate) with: &'a [String],
}

pub(super) fn run(args: &SearchArgs) -> Result<Outcome, Failure> {
    let name = args.kernel.as_deref().unwrap_or_default();
    let target = Target::find(name)?;
    let destination =
        |path: &Option<PathBuf>| path.as_deref().map(|path| target.destination(path)).transpose();
    let (report, json) = (destination(&args.report)?, destination(&args.json)?);
    let sizes = Sizes {
        head_dim: args.head_dim.as_ref(),
        k: args.k.as_ref(),
        window: args.window.as_ref(),
        seq: &args.seq,
        heads: args.heads,
        batch: args.batch as usize,
        elem: args.elem,
        set: &args.set,
        with: &args.with,
    };
    let cases = cases(&target.program, &sizes)?;
    let ordinal = match args.device {
        Device::Cuda(ordinal) => ordinal,
        Device::Auto => 0,
        Device::Cpu => {
            return Err(Failure::new("schedules are tuned on a GPU")
                .help("run with --device cuda, or with --dry-run for the model's ranking"));
        }
    };
    if args.dry_run {
        if report.is_some() || json.is_some() {
            return Err(Failure::new("--dry-run measures nothing, so there is nothing to write")
                .help("leave --report and --json out"));
        }
        return dry_run(args, &cases, ordinal);
    }
    let gpu = Tuned::open(ordinal)?;
    let manifest = target.manifest()?;
    let store = store()?;
    // Before anything is measured that could not be kept.
    store.probe().map_err(|e| {
        let folder = store.folder().display();
        Failure::new(format_args!("what is measured could not be kept in {folder}: {e}"))
            .help("set SPARSEK_TUNED_DIR to a folder that can be written")
    })?;
    let stop = stopping()?;
    let start = Instant::now();
    let level = args.level.level();
    let left = || args.budget.map(|budget| budget.saturating_sub(start.elapsed()));
    let go_on = || !stop.load(Ordering::Relaxed) && left().is_none_or(|left| !left.is_zero());
    let settings = |budget| Settings {
        level,
        budget,
        stop: &stop,
        resume: args.resume,
        scores: args.scores.to_string(),
        store: &store,
        manifest: &manifest,
    };
    let mut workers = Workers::new();
    workers.compile_ahead(&cases, &gpu, &settings(None), &go_on);
    let machine = gpu.machine();
    let mut done: Vec<Tuning> = Vec::new();
    let (mut failed, mut refused) = (None, Vec::new());
    for case in &cases {
        if !go_on() {
            break;
        }
        let quick = (level == Level::Quick).then_some(std::time::Duration::from_secs(QUICK));
        let budget = match (left(), quick) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let space = match case.space(&gpu.target, &machine) {
            Ok(space) => space,
            // It costs no other key anything.
            Err(failure) => {
                if cases.len() > 1 {
                    note(format_args!("{}: {failure}", case.title()));
                }
                refused.push(failure);
                continue;
            }
        };
        match tune::tune(case, &space, &target.program, &gpu, &mut workers, &settings(budget)) {
            Ok(tuned) => {
                Channel::Stdout.write(&summary(&tuned))?;
                done.push(tuned);
            }
            // What the keys before gave is still written.
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        }
    }
    drop(workers);
    if let Some(report) = report {
        let elem = cases.first().map_or(Elem::Bf16, |c| c.spec.elem);
        let measured = gpu.info.name.contains("H200") && elem != Elem::F32;
        let peak = match measured {
            true => H200_CEILING * 1e12,
            false => machine.peak(&gpu.target, elem),
        };
        let text = report::svg(&done, peak, machine.memory * 1e9)
            .map_err(|_| Failure::new("the picture could not be written as text"))?;
        report.write(|out| out.write_all(text.as_bytes()))?;
    }
    if let Some(json) = json {
        let text = format!("{:#}\n", numbers(&done, &gpu));
        json.write(|out| out.write_all(text.as_bytes()))?;
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    let reached = done.len() + refused.len();
    if reached < cases.len() {
        note(format_args!("{} of {} keys were not reached", cases.len() - reached, cases.len()));
    }
    if stop.load(Ordering::Relaxed) {
        note("interrupted; what was measured is kept, and --resume goes on");
        return Ok(Outcome::Interrupted);
    }
    for tuning in done.iter().filter(|t| t.measurements.is_empty() && !t.was_settled) {
        note(format_args!("{}: the budget left time for no candidate", tuning.title));
    }
    match (refused.len(), cases.len()) {
        (0, _) => {}
        (1, 1) => return Err(refused.remove(0)),
        (n, all) => {
            return Err(Failure::new(format_args!("{n} of {all} keys have no schedule"))
                .help("the notes say why; leave them out of the lists"));
        }
    }
    match done.iter().any(Tuning::nothing_is_right) {
        true => Ok(Outcome::DoesNotHold),
        false => Ok(Outcome::Done),
    }
}

/// Set by the interrupt key; pressed again, it ends this process.
fn stopping() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("stopping behind the running candidate; press again to end at once");
    };
    ctrlc::set_handler(handler)
        .map_err(|e| Failure::new(format_args!("the interrupt key cannot be watched: {e}")))?;
    Ok(stop)
}

fn dry_run(args: &SearchArgs, cases: &[Case], ordinal: usize) -> Result<Outcome, Failure> {
    // The GPU's own architecture where there is one.
    let gpu = args.target.is_none().then(|| Tuned::open(ordinal).ok()).flatten();
    let usual = || sparsek_codegen::Target::named("sm_90a");
    let target = args.target.or(gpu.as_ref().map(|gpu| gpu.target)).or_else(usual);
    let target = target.ok_or_else(|| Failure::new("no target"))?;
    let machine = gpu.map_or_else(|| Machine::of(&target), |gpu| gpu.machine());
    let baseline = args.level == LevelName::Baseline;
    let most = match args.top {
        _ if baseline => 1,
        0 => usize::MAX,
        top => top,
    };
    for case in cases {
        let space = case.space(&target, &machine)?;
        let mut out = format!("{}\n", case.title());
        out.push_str(&format!(
            "for {target}, {} multiprocessors; predicted by the cost model, nothing was measured\n",
            machine.multiprocessors
        ));
        let first = space.first();
        for axis in Axis::ALL {
            let mut table = Table::new(&["ms", "<schedule"]);
            let all: Vec<(f64, String)> = match axis {
                Axis::Forward => rows(&space.forward, |s| s.to_string()),
                Axis::Backward => rows(&space.backward, |s| s.to_string()),
                Axis::Chunk => rows(&space.chunks, |s| s.to_string()),
            };
            for (ms, text) in all.iter().take(most) {
                table.row([format!("{ms:.3}"), text.clone()]);
            }
            let of = if baseline { "the first of " } else { "" };
            out.push_str(&format!(
                "{}, {of}{} candidates:\n{}",
                axis.name(),
                all.len(),
                table.render(2)
            ));
        }
        let chosen = first.to_string().replace('\n', "; ");
        out.push_str(&format!(
            "{}: {}\n\n",
            if baseline { "without tuning, and all that would be timed" } else { "without tuning" },
            chosen.split_whitespace().collect::<Vec<_>>().join(" ")
        ));
        Channel::Stdout.write(&out)?;
    }
    Ok(Outcome::Done)
}

fn rows<T: Copy>(
    all: &[sparsek_codegen::tune::Candidate<T>],
    text: impl Fn(T) -> String,
) -> Vec<(f64, String)> {
    all.iter().map(|c| (c.predicted_ms, text(c.schedule))).collect()
}

/// What was found and gained.
fn summary(t: &Tuning) -> String {
    let mut out = format!("{}\n", t.title);
    if t.was_settled {
        out.push_str("  nothing was measured: figures of these sizes and this driver are known\n");
        return out + &kept(t);
    }
    let ended = match t.ended {
        Ended::Complete => "complete",
        Ended::Budget => "ended by its budget",
        Ended::Stopped => "interrupted",
    };
    let failed = t.measurements.iter().filter(|m| m.outcome.spread().is_none()).count();
    out.push_str(&format!(
        "  {} candidates tried ({ended}), {failed} of them without a right result",
        t.measurements.len()
    ));
    if t.restarts > 0 {
        let times =
            if t.restarts == 1 { "once".to_owned() } else { format!("{} times", t.restarts) };
        out.push_str(&format!("; the process that uses the GPU was started again {times}"));
    }
    out.push('\n');
    // The baseline is alone on each axis.
    let axes = if t.level == Level::Baseline { &[][..] } else { &Axis::ALL };
    for &axis in axes {
        let of_axis = t.measurements.iter().filter(|m| m.axis == axis);
        let times: Vec<f64> =
            of_axis.filter_map(|m| m.outcome.spread()).map(|s| s.median).collect();
        let (best, worst) = (
            times.iter().copied().fold(f64::INFINITY, f64::min),
            times.iter().copied().fold(0.0, f64::max),
        );
        if worst > 0.0 {
            out.push_str(&format!(
                "  {:9} {} timed, best {best:.3} ms, worst {worst:.3} ms: {:.2} times\n",
                axis.name(),
                times.len(),
                worst / best
            ));
        }
    }
    let mut table =
        Table::new(&["<", "plan", "forward", "backward", "total", "best is", "<schedule"]);
    let total = |w: &Winner| w.figures.total_ms();
    let best = t.winner.as_ref().map(total);
    let first = if t.level == Level::Baseline { "baseline" } else { "winner" };
    for (name, winner) in [(first, &t.winner), ("cost model", &t.model), ("manifest", &t.shipped)] {
        let Some(w) = winner else { continue };
        let best = best.filter(|_| t.level != Level::Baseline);
        let gain = best.map_or("-".to_owned(), |best| format!("{:.3} x", total(w) / best));
        let schedule = Axis::ALL.map(|axis| part(axis, &w.schedule)).join(" | ");
        let f = &w.figures;
        table.row([
            name.to_owned(),
            format!("{:.3}", f.plan_ms),
            format!("{:.3}", f.forward_ms),
            format!("{:.3}", f.backward_ms),
            format!("{:.3}", f.total_ms()),
            gain,
            schedule,
        ]);
    }
    match &t.winner {
        Some(_) => out.push_str(&table.render(2)),
        None => {
            out.push_str("  no schedule: no candidate was tried to the end with a right result\n")
        }
    }
    out + &kept(t)
}

/// What the store has now.
fn kept(t: &Tuning) -> String {
    let Some(kept) = &t.entry.winner else { return String::new() };
    let how = match kept.how {
        How::Baseline => {
            ", baseline: what the cost model chooses, compared with nothing".to_owned()
        }
        how if t.level == Level::Baseline => {
            format!(", found by {}: a baseline does not take its place", how.name())
        }
        _ => String::new(),
    };
    format!("  kept: {} ({:.3} ms){how}\n", kept.id, kept.figures.total_ms())
}

/// Every number.
fn numbers(done: &[Tuning], gpu: &Tuned) -> serde_json::Value {
    let one = |t: &Tuning| {
        let wrong = t.measurements.iter().filter(|m| matches!(m.outcome, Tried::Wrong { .. }));
        json!({
            "case": t.title,
            "key": t.entry.key,
            "ended": format!("{:?}", t.ended).to_lowercase(),
            "winner": t.winner,
            "model": t.model,
            "manifest": t.shipped,
            "kept": t.entry.winner,
            "wrong": wrong.count(),
            "level": format!("{:?}", t.level).to_lowercase(),
            "known": t.was_settled,
            "process_restarts": t.restarts,
            "copy_gb_per_s": t.copy.map(|rate| rate / 1e9),
            "pairs": t.pairs,
            "measurements": t.measurements,
        })
    };
    json!({
        "gpu": gpu.gpu(),
        "driver": gpu.driver,
        "code": sparsek_codegen::version(),
        "keys": done.iter().map(one).collect::<Vec<_>>(),
    })
}
