//! Tuning: what is searched for one key, and what comes of it.

mod compile;
mod keeping;
pub(crate) mod lists;
mod measure;
mod process;
mod protocol;
pub(crate) mod report;
mod resume;
pub(crate) mod serve;
pub(crate) mod show;
mod workers;

use crate::bench::data;
use crate::bench::sets::least_bytes;
use crate::failure::Failure;
use crate::schedule;
use crate::terminal::note;
use keeping::Keeping;
use measure::{Compiler, Remote, gradients};
use protocol::Setup;
use sparsek::cuda::{self, DeviceInfo, cache::Cache};
use sparsek::dsl::ir::Spec;
use sparsek::tuned::{Entry, Figures, Gpu, How, Key, Manifest, Store, Winner};
use sparsek::{Kernel, Program};
use sparsek_codegen::tune::{
    Axis, Ended, Level, Machine, Measure, Measurement, Options, Outcome, Space, Trouble, Workload,
    search,
};
use sparsek_codegen::{Problem, Schedule, Target};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};
pub(crate) use workers::Workers;

/// What comparing the winner with other schedules may take of a budget.
const COMPARING: Duration = Duration::from_secs(3);

/// One kernel instance with calls of one size.
pub(crate) struct Case {
    /// The instance.
    pub(crate) kernel: Kernel,
    /// Its parameters.
    pub(crate) spec: Spec,
    /// Sequences.
    pub(crate) batch: usize,
    /// Positions of each.
    pub(crate) n: usize,
    /// Query heads.
    pub(crate) hq: usize,
    /// Key-value heads.
    pub(crate) hkv: usize,
    /// Inputs with a default that calls give.
    pub(crate) with: Vec<String>,
}

impl Case {
    /// Calls that give every input without a default, and some with one.
    pub(crate) fn problem(&self) -> Problem<'_> {
        let group = u32::try_from(self.hq / self.hkv.max(1)).unwrap_or(u32::MAX);
        schedule::problem(&self.kernel, group, |input| {
            input.default.is_none() || self.with.contains(&input.name)
        })
    }

    fn sizes(&self) -> data::Sizes {
        let &Case { batch, n, hq, hkv, .. } = self;
        data::Sizes { batch, n, hq, hkv }
    }

    /// For the cost model.
    pub(crate) fn workload(&self) -> Workload {
        Workload { n: self.n as u64, kv_heads: self.hkv as u64 }.rounded()
    }

    /// Its key on a GPU.
    pub(crate) fn key(&self, gpu: Gpu) -> Key {
        Key::new(&self.problem(), self.n as u64, gpu)
    }

    /// In words.
    pub(crate) fn title(&self) -> String {
        let i = self.kernel.instance();
        format!(
            "{}: {}, D {}, k {}, window {}, batch {}, N {}, heads {}/{}",
            i.program.name, i.elem, i.d, i.k, i.w, self.batch, self.n, self.hq, self.hkv
        )
    }

    /// Pairs of a query head and a key that it sees, in one call with finite scores.
    pub(crate) fn pairs(&self) -> f64 {
        let i = self.kernel.instance();
        let one = |q: usize| {
            let window = i.w.min(q + 1);
            let before = (q + 1).saturating_sub(i.w);
            let sinks = i.sinks.min(before);
            (window + sinks + i.k.min(before - sinks)) as f64
        };
        (0..self.n).map(one).sum::<f64>() * (self.batch * self.hq) as f64
    }

    /// What can be tried.
    pub(crate) fn space(&self, target: &Target, machine: &Machine) -> Result<Space, Failure> {
        Space::new(&self.problem(), target, machine, &self.workload()).map_err(Failure::new)
    }
}

/// A GPU as it is tuned for.
pub(crate) struct Tuned {
    /// What the driver says of it.
    pub(crate) info: DeviceInfo,
    /// What code is generated for it.
    pub(crate) target: Target,
    /// The CUDA release of the driver.
    pub(crate) driver: String,
}

impl Tuned {
    /// The GPU of that number.
    pub(crate) fn open(ordinal: usize) -> Result<Tuned, Failure> {
        let without = |e: sparsek::Error| {
            Failure::new(format_args!(
                "schedules are measured on a GPU, and there is none to use: {e}"
            ))
            .help("--dry-run shows the cost model's ranking, without a GPU; see `sparsek doctor`")
        };
        let devices = cuda::devices().map_err(without)?;
        let driver = cuda::driver_version().map_err(without)?.to_string();
        let count = devices.len();
        let info = devices.into_iter().find(|d| d.ordinal == ordinal).ok_or_else(|| {
            Failure::new(format_args!("there is no GPU cuda:{ordinal}; there are {count}"))
                .help("choose another with --device cuda:N")
        })?;
        cuda::nvrtc::Nvrtc::find().map_err(without)?;
        let target = info.target.ok_or_else(|| {
            Failure::new(format_args!("no code is generated for {}", info.name))
                .help("choose another GPU with --device cuda:N")
        })?;
        Ok(Tuned { info, target, driver })
    }

    /// As it stands in keys.
    pub(crate) fn gpu(&self) -> Gpu {
        Gpu::new(&self.info.name, self.info.capability)
    }

    /// As the cost model sees it.
    pub(crate) fn machine(&self) -> Machine {
        Machine { multiprocessors: self.info.multiprocessors, ..Machine::of(&self.target) }
    }
}

/// How a case is tuned.
pub(crate) struct Settings<'a> {
    /// How much is tried.
    pub(crate) level: Level,
    /// For this case.
    pub(crate) budget: Option<Duration>,
    /// Set by the interrupt key.
    pub(crate) stop: &'a AtomicBool,
    /// Whether what the store knows is not measured again.
    pub(crate) resume: bool,
    /// What scores are like.
    pub(crate) scores: String,
    /// Where results are kept.
    pub(crate) store: &'a Store,
    /// What the kernel carries.
    pub(crate) manifest: &'a Manifest,
}

/// What became of a case.
pub(crate) struct Tuning {
    /// In words.
    pub(crate) title: String,
    /// What is kept now.
    pub(crate) entry: Entry,
    /// What was tried in this run or known to it.
    pub(crate) measurements: Vec<Measurement>,
    /// The winner of this run and of its turns.
    pub(crate) winner: Option<Winner>,
    /// The cost model's choice.
    pub(crate) model: Option<Winner>,
    /// What the kernel's manifest says.
    pub(crate) shipped: Option<Winner>,
    /// Why the search ended.
    pub(crate) ended: Ended,
    /// How much was tried.
    pub(crate) level: Level,
    /// Whether nothing was tried, as the store knew it all.
    pub(crate) was_settled: bool,
    /// How often the process that uses the GPU had to be started again.
    pub(crate) restarts: usize,
    /// Bytes a second of a copy.
    pub(crate) copy: Option<f64>,
    /// Pairs of a call.
    pub(crate) pairs: f64,
    /// Head dimension.
    pub(crate) d: usize,
    /// Bytes that a forward and a backward move at least.
    pub(crate) least_bytes: (f64, f64),
}

impl Tuning {
    /// Whether candidates were tried, and not one gave a right result. Of a baseline every part has to be right.
    pub(crate) fn nothing_is_right(&self) -> bool {
        if self.level == Level::Baseline {
            let failed = |m: &Measurement| m.outcome.spread().is_none();
            return self.winner.is_none()
                && !self.was_settled
                && (self.ended == Ended::Complete || self.measurements.iter().any(failed));
        }
        let right =
            |m: &Measurement| matches!(m.outcome, Outcome::Measured(_) | Outcome::Stopped(_));
        self.winner.is_none()
            && !self.measurements.is_empty()
            && !self.measurements.iter().any(right)
    }

    /// Bytes that what the axis times moves at least.
    pub(crate) fn bytes(&self, axis: Axis) -> f64 {
        let (forward, backward) = self.least_bytes;
        match axis {
            Axis::Forward => forward,
            Axis::Backward => backward,
            Axis::Chunk => forward + backward,
        }
    }
}

/// Now, in RFC 3339.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Tunes one case and keeps what was measured. The space is the case's own.
pub(crate) fn tune(
    case: &Case,
    space: &Space,
    program: &Program,
    gpu: &Tuned,
    workers: &mut Workers,
    settings: &Settings<'_>,
) -> Result<Tuning, Failure> {
    let start = Instant::now();
    if let Some(entry) = resume::settled(case, gpu, settings) {
        let key = entry.key.clone();
        let mut tuning = untried(case, settings, entry);
        tuning.measurements = resume::known(case, &key, gpu, settings);
        tuning.was_settled = true;
        return Ok(tuning);
    }
    let (problem, target) = (case.problem(), gpu.target);
    let backward = gradients(&case.kernel, &problem);
    if Cache::from_environment().is_none() {
        return Err(
            Failure::new("there is no place for compiled code").help("set SPARSEK_CACHE_DIR")
        );
    }
    let key = case.key(gpu.gpu());
    let kernel = &case.kernel.instance().program.name;
    let known = resume::known(case, &key, gpu, settings);
    let Workers { compilers, process } = workers;
    let compiler = Compiler { problem, backward: &backward, target, compilers };
    let mut remote = Remote::new(compiler, process, setup(case, program, gpu, settings));
    remote.one_length = settings.level == Level::Baseline;
    remote.start()?;
    let mut show = Keeping::new(case, &key, gpu, settings);
    let Settings { level, stop, .. } = *settings;
    // Starting took a part of it, and comparing the winner takes another.
    let comparing = if level == Level::Baseline { Duration::ZERO } else { COMPARING };
    let budget = settings.budget.map(|all| all.saturating_sub(start.elapsed() + comparing));
    let options = Options { level, budget, stop, known: &known };
    let found = search(space, &mut remote, &mut show, options);
    let mut entry = Entry::new(kernel, key.clone());
    // Kept before anything else can fail.
    show.rest(&found.measurements)?;
    let compared = match found.schedule {
        Some(schedule) => {
            let of = |s: &Schedule, how, ms: &[f64; 3]| {
                figures(case, &key, (gpu, settings), (*s, how), *ms)
            };
            compare(schedule, space, settings, &key, &mut remote, of)
        }
        None => Compared::default(),
    };
    let Compared { winner, model, shipped } = compared;
    (entry.winner, entry.model) = (winner.clone(), model.clone());
    let entry = keep(settings.store, &entry)?;
    let mut measurements = found.known;
    measurements.extend(found.measurements);
    Ok(Tuning {
        measurements,
        winner,
        model,
        shipped,
        ended: found.ended,
        restarts: remote.restarts(),
        copy: remote.copy,
        ..untried(case, settings, entry)
    })
}

/// A case of which nothing was tried, and what is kept of it.
fn untried(case: &Case, settings: &Settings<'_>, entry: Entry) -> Tuning {
    Tuning {
        title: case.title(),
        entry,
        measurements: Vec::new(),
        winner: None,
        model: None,
        shipped: None,
        ended: Ended::Complete,
        level: settings.level,
        was_settled: false,
        restarts: 0,
        copy: None,
        pairs: case.pairs(),
        d: case.kernel.instance().d,
        least_bytes: least_bytes(&case.sizes(), case.kernel.instance()),
    }
}

/// What a search found, and what it took turns with.
#[derive(Default)]
struct Compared {
    winner: Option<Winner>,
    model: Option<Winner>,
    shipped: Option<Winner>,
}

/// The figures of what a search found, of the cost model's choice and of what the manifest has, which take
/// turns; a baseline is the cost model's choice, and has figures of its own alone.
fn compare(
    found: Schedule,
    space: &Space,
    settings: &Settings<'_>,
    key: &Key,
    remote: &mut Remote<'_>,
    of: impl Fn(&Schedule, How, &[f64; 3]) -> Winner,
) -> Compared {
    let how = match settings.level {
        Level::Baseline => How::Baseline,
        Level::Quick => How::Quick,
        Level::Full => How::Full,
    };
    let alone = |remote: &mut Remote<'_>| match remote.figures(&[found]) {
        Ok(all) => all.first().map(|ms| of(&found, how, ms)),
        Err(trouble) => {
            note(format_args!("the schedule has no figures: {}", words(&trouble)));
            None
        }
    };
    if how == How::Baseline {
        return Compared { winner: alone(remote), ..Compared::default() };
    }
    let mut turns = vec![(space.first(), How::Model), (found, how)];
    turns.extend(settings.manifest.get(key).map(|record| (record.schedule, how)));
    let schedules: Vec<Schedule> = turns.iter().map(|(s, _)| *s).collect();
    let times = match remote.figures(&schedules) {
        Ok(times) => times,
        // One of them alone may be at fault: the winner was right a moment ago.
        Err(trouble) => {
            note(format_args!("the schedules could not be compared in turns: {}", words(&trouble)));
            return Compared { winner: alone(remote), ..Compared::default() };
        }
    };
    let mut all = turns.iter().zip(&times).map(|((s, how), ms)| of(s, *how, ms));
    let (model, winner, shipped) = (all.next(), all.next(), all.next());
    let mut compared = Compared { winner, model, shipped };
    // In turns the model's choice may be as good as what won by a hair before, and what the kernel carries
    // may be what a quick search does not try.
    for other in [&compared.model, &compared.shipped].into_iter().flatten() {
        if let Some(best) = &compared.winner
            && other.figures.total_ms() < best.figures.total_ms()
            && remote.check(Axis::Chunk, &other.schedule).is_ok()
        {
            compared.winner = Some(Winner { how, ..other.clone() });
        }
    }
    compared
}

fn keep(store: &Store, entry: &Entry) -> Result<Entry, Failure> {
    let merged = store.merge(entry).map_err(|e| {
        let folder = store.folder().display();
        Failure::new(format_args!("what was measured cannot be kept in {folder}: {e}"))
            .help("set SPARSEK_TUNED_DIR to a folder that can be written")
    })?;
    if let Some(aside) = merged.moved {
        note(format_args!("a file that could not be read is now {}", aside.display()));
    }
    Ok(merged.entry)
}

fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Failed(reason) | Trouble::Fault(reason) => reason.clone(),
        Trouble::Wrong(wrong) => format!("{} is wrong", wrong.tensor),
        Trouble::Timeout(seconds) => format!("no end after {seconds:.0} s"),
    }
}

fn figures(
    case: &Case,
    key: &Key,
    (gpu, settings): (&Tuned, &Settings<'_>),
    (schedule, how): (Schedule, How),
    [plan_ms, forward_ms, backward_ms]: [f64; 3],
) -> Winner {
    let figures = Figures {
        batch: case.batch as u64,
        n: case.n as u64,
        heads: case.hq as u64,
        kv_heads: case.hkv as u64,
        scores: settings.scores.clone(),
        plan_ms,
        forward_ms,
        backward_ms,
        driver: gpu.driver.clone(),
        date: now(),
    };
    Winner::new(key, schedule, how, figures)
}

fn setup(case: &Case, program: &Program, gpu: &Tuned, settings: &Settings<'_>) -> Setup {
    Setup {
        program: program.to_json(),
        elem: case.spec.elem,
        d: case.spec.d,
        k: case.spec.k,
        w: case.spec.w,
        set: case.spec.set.clone(),
        batch: case.batch,
        n: case.n,
        hq: case.hq,
        hkv: case.hkv,
        scores: settings.scores.clone(),
        ordinal: gpu.info.ordinal,
        with: case.with.clone(),
    }
}

#[cfg(all(test, unix))]
#[path = "baseline_tests.rs"]
mod baseline_tests;
