//! Tuning: what is searched for one key, and what comes of it.

mod compile;
mod keeping;
pub(crate) mod lists;
mod measure;
mod process;
mod protocol;
pub(crate) mod report;
pub(crate) mod serve;
pub(crate) mod show;

use crate::bench::data;
use crate::bench::sets::least_bytes;
use crate::failure::Failure;
use crate::schedule;
use crate::terminal::note;
use compile::Compilers;
use keeping::Keeping;
use measure::{Compiler, Remote, gradients};
use process::Process;
use protocol::Setup;
use sparsek::cuda::{self, DeviceInfo, cache::Cache};
use sparsek::dsl::ir::Spec;
use sparsek::tuned::{Entry, Figures, Gpu, How, Kept, Key, Manifest, Store, Winner};
use sparsek::{Kernel, Program};
use sparsek_codegen::tune::{
    Axis, Ended, Level, Machine, Measure, Measurement, Options, Outcome, Space, Trouble, Workload,
    search,
};
use sparsek_codegen::{Problem, Schedule, Target};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

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
    /// How often the process that uses the GPU had to be started.
    pub(crate) starts: usize,
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
    /// Whether candidates were tried, and not one gave a right result.
    pub(crate) fn nothing_is_right(&self) -> bool {
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

/// Tunes one case and keeps what was measured.
pub(crate) fn tune(
    case: &Case,
    program: &Program,
    gpu: &Tuned,
    settings: &Settings<'_>,
) -> Result<Tuning, Failure> {
    let start = Instant::now();
    let (problem, target) = (case.problem(), gpu.target);
    let backward = gradients(&case.kernel, &problem);
    if Cache::from_environment().is_none() {
        return Err(
            Failure::new("there is no place for compiled code").help("set SPARSEK_CACHE_DIR")
        );
    }
    let key = case.key(gpu.gpu());
    let kernel = &case.kernel.instance().program.name;
    let known = known(case, &key, gpu, settings);
    let space = case.space(&target, &gpu.machine())?;
    let compilers = Compilers::new(worker);
    let compiler = Compiler { problem, backward: &backward, target, compilers };
    let process = Process::new(worker);
    let mut remote = Remote::new(compiler, process, setup(case, program, gpu, settings));
    remote.start()?;
    let mut show = Keeping::new(case, &key, gpu, settings);
    let Settings { level, stop, .. } = *settings;
    // Starting took a part of it, and comparing the winner takes another.
    let budget = settings.budget.map(|all| all.saturating_sub(start.elapsed() + COMPARING));
    let options = Options { level, budget, stop, known: &known };
    let found = search(&space, &mut remote, &mut show, options);
    let mut entry = Entry::new(kernel, key.clone());
    // Kept before anything else can fail.
    show.rest(&found.measurements)?;
    let how = if level == Level::Full { How::Full } else { How::Quick };
    let shipped = settings.manifest.get(&key).map(|record| record.schedule);
    let mut turns = vec![(space.first(), How::Model)];
    turns.extend(found.schedule.map(|s| (s, how)));
    turns.extend(shipped.map(|s| (s, how)));
    let mut winners = vec![None; turns.len()];
    if found.schedule.is_some() {
        let schedules: Vec<Schedule> = turns.iter().map(|(s, _)| *s).collect();
        match remote.figures(&schedules) {
            Ok(times) => {
                for ((winner, (schedule, how)), ms) in winners.iter_mut().zip(&turns).zip(times) {
                    *winner = Some(figures(case, &key, (gpu, settings), (*schedule, *how), ms));
                }
            }
            // One of them alone may be at fault: the winner was right a moment ago.
            Err(trouble) => {
                note(format_args!(
                    "the schedules could not be compared in turns: {}",
                    words(&trouble)
                ));
                if let (Some(schedule), Ok(ms)) = (found.schedule, remote.figures(&schedules[1..2]))
                {
                    let of =
                        |ms: &[f64; 3]| figures(case, &key, (gpu, settings), (schedule, how), *ms);
                    winners[1] = ms.first().map(of);
                }
            }
        }
    }
    let mut winners = winners.into_iter();
    let model = winners.next().flatten();
    let mut winner = if found.schedule.is_some() { winners.next().flatten() } else { None };
    let shipped = winners.next().flatten();
    // In turns the model's choice may be as good as what won by a hair before, and what the kernel carries
    // may be what a quick search does not try.
    for other in [&model, &shipped].into_iter().flatten() {
        if let Some(best) = &winner
            && other.figures.total_ms() < best.figures.total_ms()
            && remote.check(Axis::Chunk, &other.schedule).is_ok()
        {
            winner = Some(Winner { how, ..other.clone() });
        }
    }
    (entry.winner, entry.model) = (winner.clone(), model.clone());
    let entry = keep(settings.store, &entry)?;
    let mut measurements = found.known;
    measurements.extend(found.measurements);
    Ok(Tuning {
        title: case.title(),
        entry,
        measurements,
        winner,
        model,
        shipped,
        ended: found.ended,
        starts: remote.starts(),
        copy: remote.copy,
        pairs: case.pairs(),
        d: case.kernel.instance().d,
        least_bytes: least_bytes(&case.sizes(), case.kernel.instance()),
    })
}

/// What the store knows of calls of the same sizes under the same driver.
fn known(case: &Case, key: &Key, gpu: &Tuned, settings: &Settings<'_>) -> Vec<Measurement> {
    if !settings.resume {
        return Vec::new();
    }
    let sizes = (case.batch as u64, case.n as u64, case.hkv as u64);
    match settings.store.get(key) {
        Ok(None) => Vec::new(),
        Ok(Some(entry)) => {
            // What failed may have failed for want of room or by another's fault: it is tried again.
            let tells = |outcome: &Outcome| {
                matches!(
                    outcome,
                    Outcome::Measured(_) | Outcome::Stopped(_) | Outcome::Wrong { .. }
                )
            };
            let same = |kept: &&Kept| {
                (kept.batch, kept.n, kept.kv_heads) == sizes
                    && kept.driver == gpu.driver
                    && kept.scores == settings.scores
                    && tells(&kept.measurement.outcome)
            };
            entry.measurements.iter().filter(same).map(|kept| kept.measurement.clone()).collect()
        }
        Err(broken) => {
            note(broken);
            Vec::new()
        }
    }
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

/// This program again, as a process that uses the GPU or compiles. Tuned schedules play no part in it.
fn worker() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tune-worker").env("SPARSEK_TUNED", "off");
    Ok(command)
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
