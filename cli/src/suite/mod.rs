//! The whole test of a backend on the machine at hand: golden cases, random programs and kernels
//! against the references, long sequences against the CPU, and what must not change a bit.

mod golden;
mod id;
mod long;
mod queue;
mod random;
mod record;
mod repeat;
mod report;
mod resume;

pub(crate) use id::Id;

use crate::backend::{Backend, Stopped};
use crate::cases::{self, Case};
use crate::commands::failure;
use crate::failure::{Failure, Outcome};
use crate::tensors::output::Destination;
use crate::terminal::note;
use queue::Ran;
use report::Report;
use sparsek::cuda;
use sparsek_codegen::Error as Refusal;
use sparsek_reference::rule::Measurement;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where golden cases lie in the repository.
const GOLDEN: &str = "tests/data";

/// Checks of the kinds that are few and slow.
const FEW: u64 = 8;

/// Long sequences: more, for every kind of scores.
const LONG: u64 = 16;

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
    pub(crate) device: String,
    /// After which no check is started.
    pub(crate) limit: Option<Duration>,
    /// Whether this process runs the rest of another's checks: it ends with the first fault and
    /// prints nothing.
    pub(crate) resumed: bool,
}

/// Why a check gave no measurements.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The kernel does not fit the target, and the compiler said so with numbers.
    Refused(String),
    /// Anything else.
    Failed(String),
    /// A fault, after which this process cannot use the GPU.
    Fault(String),
    /// Not run, after a fault of another check.
    NotRun,
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

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Problem {
        match stopped {
            Stopped::Call(error) => error.into(),
            Stopped::Fault(error) => Problem::Fault(error.to_string()),
            Stopped::Lost => Problem::NotRun,
        }
    }
}

/// Errors of a check.
type Measured = Result<Vec<Measurement>, Problem>;

/// A check that was run.
struct Checked {
    /// The case.
    label: String,
    /// Its program, where a seed made it.
    program: Option<String>,
    result: Measured,
}

/// Runs every check on all processors and reports; `json` gets every number.
pub(crate) fn run(
    backend: &Backend,
    settings: &Settings,
    json: Option<&Destination>,
) -> Result<Outcome, Failure> {
    let golden = golden_files(settings)?;
    let ids = ids(settings, &golden);
    let start = Instant::now();
    let deadline = settings.limit.map(|limit| start + limit);
    let machine = backend.describe();
    let finish = |ran: &Ran| -> Result<Outcome, Failure> {
        let report = Report::new(settings, &machine, ran, start.elapsed());
        if let Some(json) = json {
            let text = format!("{:#}\n", report.json());
            json.write(|out| out.write_all(text.as_bytes()))?;
        }
        if settings.resumed { Ok(Outcome::Done) } else { report.end() }
    };
    let check = |id: &Id| check(backend, settings, &golden, id);
    let given_up = |ran: Ran| {
        let code = match finish(&ran) {
            Ok(_) => 1,
            Err(failure) => {
                failure.report();
                2
            }
        };
        // A call that does not end cannot be taken back.
        std::process::exit(code);
    };
    let mut ran = queue::run(&ids, start, deadline, check, given_up);
    if settings.resumed {
        return finish(&ran);
    }
    for _ in 0..resume::MOST {
        let time_left = deadline.is_none_or(|d| Instant::now() < d);
        if ran.left.is_empty() || !ran.hanging.is_empty() || !time_left {
            break;
        }
        note(format_args!("after a fault, {} checks go on in a new process", ran.left.len()));
        let rest = resume::run(settings, &ran.left, start, deadline)?;
        ran.records.extend(rest.records);
        (ran.left, ran.hanging) = (rest.left, rest.hanging);
    }
    finish(&ran)
}

fn golden_files(settings: &Settings) -> Result<BTreeMap<String, PathBuf>, Failure> {
    match &settings.golden {
        Some(folder) => golden::files(folder),
        None if Path::new(GOLDEN).is_dir() => golden::files(Path::new(GOLDEN)),
        None => {
            if !settings.resumed {
                note(format_args!(
                    "no golden cases: there is no folder {GOLDEN} here; --golden names one"
                ));
            }
            Ok(BTreeMap::new())
        }
    }
}

/// Every check; random ones, of which there are most, last.
fn ids(settings: &Settings, golden: &BTreeMap<String, PathBuf>) -> Vec<Id> {
    if !settings.only.is_empty() {
        return settings.only.clone();
    }
    let few = if settings.small { 2 } else { FEW };
    let seeds = |n: u64| (0..n).map(|i| settings.seed.wrapping_add(i));
    let mut ids: Vec<Id> = Vec::new();
    if !settings.small {
        ids.extend(golden.keys().cloned().map(Id::Golden));
        ids.extend(seeds(1).map(Id::Million));
        ids.extend(seeds(LONG).map(Id::Long));
    }
    ids.extend(seeds(few).map(Id::Rows));
    ids.extend(seeds(few).map(Id::Repeat));
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
        Id::Golden(name) => Checked {
            label: name.clone(),
            program: None,
            result: match golden.get(name) {
                Some(path) => golden::check(backend, path),
                None => Err(Problem::Failed(format!("there is no golden case {name}"))),
            },
        },
        Id::Random(seed) => on(random::case(*seed, small), |case| against(backend, case)),
        Id::Long(seed) => on(long::case(*seed), |case| long::compare(backend, case)),
        Id::Million(seed) => on(long::million(*seed), |case| long::compare(backend, case)),
        Id::Repeat(seed) => {
            on(random::batch(*seed, 2, small), |case| repeat::again(backend, case, small))
        }
        Id::Rows(seed) => {
            on(random::batch(*seed, repeat::ROWS, small), |case| repeat::rows(backend, case))
        }
    }
}

fn on(case: Result<Case, Failure>, measure: impl FnOnce(&mut Case) -> Measured) -> Checked {
    match case {
        Ok(mut case) => {
            let result = measure(&mut case);
            let program = Some(case.kernel.instance().program.to_string());
            Checked { label: case.label, program, result }
        }
        Err(e) => Checked { label: "no case".to_owned(), program: None, result: Err(e.into()) },
    }
}

fn against(backend: &Backend, case: &mut Case) -> Measured {
    let expected = case.expected()?;
    Ok(cases::judge(&expected, &backend.results(case)?)?)
}
