//! The whole test of a backend on the machine at hand: golden cases, random programs and kernels
//! against the references, long sequences against the CPU, and what must not change a bit.

mod golden;
mod id;
mod long;
mod random;
mod repeat;
mod report;

pub(crate) use id::Id;

use crate::backend::Backend;
use crate::cases;
use crate::commands::failure;
use crate::failure::{Failure, Outcome};
use crate::machine;
use crate::progress::Progress;
use crate::terminal::note;
use report::Report;
use sparsek::cuda;
use sparsek_codegen::Error as Refusal;
use sparsek_reference::rule::Measurement;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Where golden cases lie in the repository.
const GOLDEN: &str = "tests/data";

/// Failures after which the rest is not run: after a fault on a GPU, every later call fails too.
const MOST_FAILURES: usize = 25;

/// Checks of the kinds that are few and slow.
const FEW: u64 = 8;

/// What is to be checked.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Random cases.
    pub(crate) cases: u64,
    /// Where seeds start.
    pub(crate) seed: u64,
    /// Tiny shapes, for tools that watch every memory access.
    pub(crate) small: bool,
    /// Folder of the golden cases; the repository's own where it is there.
    pub(crate) golden: Option<PathBuf>,
    /// These checks and no others.
    pub(crate) only: Vec<Id>,
    /// The value of `--device`, for command lines.
    pub(crate) device: &'static str,
}

/// Why a check gave no measurements.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The kernel does not fit the target, and the compiler said so with numbers.
    Refused(String),
    /// Anything else.
    Failed(String),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        Problem::Failed(failure.to_string())
    }
}

impl From<sparsek::Error> for Problem {
    fn from(error: sparsek::Error) -> Problem {
        match error {
            sparsek::Error::Cuda(cuda::Error::Codegen(Refusal::Infeasible { .. })) => {
                Problem::Refused(error.to_string())
            }
            error => Problem::Failed(failure(error, None).to_string()),
        }
    }
}

/// Label and errors of a check.
type Checked = Result<(String, Vec<Measurement>), Problem>;

/// Runs every check on all processors and reports.
pub(crate) fn run(backend: &Backend, settings: &Settings) -> Result<Outcome, Failure> {
    let golden = golden_files(settings)?;
    let ids = ids(settings, &golden);
    let start = Instant::now();
    let report = Mutex::new(Report::new());
    let locked = || report.lock().unwrap_or_else(PoisonError::into_inner);
    let (next, failures, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let bar = Progress::new("suite");
    let work = || {
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failures.load(Ordering::Relaxed) >= MOST_FAILURES {
                break;
            }
            let accepted = {
                let checked = check(backend, settings, &golden, id);
                locked().add(id, checked)
            };
            failures.fetch_add(usize::from(!accepted), Ordering::Relaxed);
            bar.update(done.fetch_add(1, Ordering::Relaxed) + 1, ids.len());
        }
    };
    // Not rayon's threads: one that waits for the device would be given other checks to start.
    std::thread::scope(|scope| {
        for _ in 0..machine::available_threads() {
            scope.spawn(work);
        }
    });
    drop(bar);
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.end(settings, &ids, &backend.describe(), start.elapsed())
}

fn golden_files(settings: &Settings) -> Result<BTreeMap<String, PathBuf>, Failure> {
    match &settings.golden {
        Some(folder) => golden::files(folder),
        None if Path::new(GOLDEN).is_dir() => golden::files(Path::new(GOLDEN)),
        None => {
            note(format_args!(
                "no golden cases: there is no folder {GOLDEN} here; --golden names one"
            ));
            Ok(BTreeMap::new())
        }
    }
}

/// Every check, slow kinds first, so that no thread is left with one at the end.
fn ids(settings: &Settings, golden: &BTreeMap<String, PathBuf>) -> Vec<Id> {
    if !settings.only.is_empty() {
        return settings.only.clone();
    }
    let few = if settings.small { 2 } else { FEW };
    let seeds = |n: u64| (0..n).map(|i| settings.seed.wrapping_add(i));
    let mut ids: Vec<Id> = Vec::new();
    if !settings.small {
        ids.extend(seeds(few).map(Id::Long));
        ids.extend(golden.keys().cloned().map(Id::Golden));
    }
    ids.extend(seeds(few).map(Id::Repeat));
    ids.extend(seeds(few).map(Id::Rows));
    ids.extend(seeds(settings.cases).map(Id::Random));
    ids
}

fn check(
    backend: &Backend,
    settings: &Settings,
    golden: &BTreeMap<String, PathBuf>,
    id: &Id,
) -> Checked {
    let small = settings.small;
    match id {
        Id::Golden(name) => match golden.get(name) {
            Some(path) => golden::check(backend, path),
            None => Err(Problem::Failed(format!("there is no golden case {name}"))),
        },
        Id::Random(seed) => {
            let mut case = random::case(*seed, small)?;
            let expected = case.expected()?;
            let results = backend.results(&case)?;
            Ok((case.label, cases::judge(&expected, &results)?))
        }
        Id::Long(seed) => long::compare(backend, *seed),
        Id::Repeat(seed) => repeat::again(backend, *seed, small),
        Id::Rows(seed) => repeat::rows(backend, *seed, small),
    }
}
