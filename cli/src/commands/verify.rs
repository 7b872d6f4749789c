//! `sparsek verify`: results of a backend next to float64 references.

use super::{Parameters, failure};
use crate::backend::{Backend, Device};
use crate::cases::{self, Case};
use crate::expect::{self, compare};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::suite::{self, Id};
use crate::table::Table;
use crate::target::Target;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::{self, Loaded};
use crate::tensors::output::Destination;
use crate::terminal::{self, Channel, note};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use sparsek::{Kernel, Tensor};
use sparsek_reference::rule::Measurement;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Arguments of `sparsek verify`.
#[derive(Args, Debug)]
#[command(after_help = "\
With --input, results are compared with the file's expect.* tensors, or where it has none for this
kernel, with the reference. Without, the kernel runs on random inputs; with --programs, random
programs of the language do. A result is accepted when its relative error is at most twice that of
a plain implementation that rounds at the same places, plus 2e-5; the selection must be exact. Exit
code 1 when a result is not accepted.

With --suite, everything at once: golden cases, random programs and built-in kernels, long
sequences against the CPU backend, calls that are repeated, rows of a batch alone. Each failure
comes with the command that runs it again. After a fault of the GPU the rest runs in a new process.

Examples:
  sparsek verify sparsek-both --cases 20 --seed 7
  sparsek verify src/attention.rs::Local --input in.safetensors
  sparsek verify --programs 50
  sparsek verify --suite --device cuda
  sparsek verify --suite --device cuda --only random:17 --limit 60 --json suite.json")]
pub(crate) struct VerifyArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL", required_unless_present_any = ["programs", "suite"])]
    kernel: Option<String>,
    /// Tensors to run on, as for `run`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cases", "programs"])]
    input: Option<PathBuf>,
    /// How many random inputs [default: 8, or 300 with --suite]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    cases: Option<u64>,
    /// Verify this many random programs instead of a kernel
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    #[arg(conflicts_with_all = ["kernel", "cases", "k", "window", "elem", "set"])]
    programs: Option<u64>,
    /// Where random cases start from [default: the clock]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = Device::parse)]
    device: Device,
    /// The whole test of the device
    #[arg(long, conflicts_with_all = ["kernel", "input", "programs", "k", "window", "elem", "set"])]
    suite: bool,
    /// Tiny shapes in the suite, for tools that watch every memory access
    #[arg(long)]
    small: bool,
    /// Folder of the suite's golden cases [default: tests/data where it is there]
    #[arg(long, value_name = "DIR")]
    golden: Option<PathBuf>,
    /// One check of the suite, by its name; may be repeated
    #[arg(long, value_name = "CHECK")]
    only: Vec<Id>,
    /// Start no check of the suite after this many seconds, and wait a minute at most for the others
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one())]
    limit: Option<u64>,
    /// Write every number of the suite there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[arg(long, hide = true)]
    resumed: bool,
    #[command(flatten)]
    parameters: Parameters,
}

/// Nothing verified would be reported as accepted.
fn at_least_one() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..)
}

/// Clap does not ask for --suite beside a kernel, with which it is in conflict.
fn without_suite(args: &VerifyArgs) -> Result<(), Failure> {
    let of_the_suite = [
        ("--small", args.small),
        ("--golden", args.golden.is_some()),
        ("--only", !args.only.is_empty()),
        ("--limit", args.limit.is_some()),
        ("--json", args.json.is_some()),
        ("--resumed", args.resumed),
    ];
    match of_the_suite.iter().find(|(_, given)| *given && !args.suite) {
        None => Ok(()),
        Some((flag, _)) => Err(Failure::new(format_args!("{flag} is of the suite"))
            .help("give --suite, and no kernel")),
    }
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    without_suite(args)?;
    let flags = args.parameters.flags()?;
    let seed = args.seed.unwrap_or_else(|| {
        // A seed that is short enough to type again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |d| u64::from(d.subsec_nanos()) ^ (d.as_secs() & 0xffff))
    });
    let json = args.json.as_deref().map(Destination::new).transpose()?;
    let backend = Backend::open(args.device)?;
    if args.suite {
        let settings = suite::Settings {
            cases: args.cases.unwrap_or(if args.small { 40 } else { 300 }),
            seed,
            small: args.small,
            golden: args.golden.clone(),
            only: args.only.clone(),
            device: match &backend {
                Backend::Cpu => "cpu".to_owned(),
                Backend::Cuda(cuda) => format!("cuda:{}", cuda.device.info().ordinal),
            },
            limit: args.limit.map(Duration::from_secs),
            resumed: args.resumed,
        };
        return suite::run(&backend, &settings, json.as_ref());
    }
    let on = backend.describe();
    if let Some(count) = args.programs {
        let heading = format!("{count} random programs, seed {seed}, on {on}");
        return verify_all(&backend, &heading, count, |n| {
            cases::of_random_program(seed.wrapping_add(n))
        });
    }
    let target = Target::find(args.kernel.as_deref().unwrap_or_default())?;
    if let Some(path) = &args.input {
        return verify_file(&backend, &target, &TensorFile::open(path)?, &flags, seed);
    }
    let cases = args.cases.unwrap_or(8);
    let heading = format!("{}: {cases} random cases, seed {seed}, on {on}", target.name);
    verify_all(&backend, &heading, cases, |n| {
        cases::of_program(&target.program, &flags, seed.wrapping_add(n))
    })
}

/// A file's expectations, or the reference on the file's inputs.
fn verify_file(
    backend: &Backend,
    target: &Target,
    file: &TensorFile,
    flags: &inputs::Flags,
    seed: u64,
) -> Result<Outcome, Failure> {
    let spec = inputs::spec(&target.program, file, flags)?;
    let kernel = Kernel::from_program(&target.program, &spec).map_err(|e| failure(e, None))?;
    let mut loaded = Loaded::read(&target.program, spec.elem, file, file.has("d_o"))?;
    let expected = file.names().iter().any(|n| n.starts_with("expect."));
    let applies = expect::applies(kernel.instance(), file);
    if let (true, Err(reason)) = (expected, &applies) {
        note(format_args!("the file's expected tensors are not used: {reason}"));
    }
    let at = file.path().display();
    if expected && applies.is_ok() {
        let done = backend.runner(&kernel, false).run(&loaded, true);
        let tensors = done.map_err(|e| e.failure(Some(file)))?.into_tensors();
        let named: Vec<(String, &Tensor)> = tensors.iter().map(|(n, t)| (n.clone(), t)).collect();
        let rows = compare::rows(&kernel, file, &loaded, &named)?;
        let on = backend.describe();
        let heading = format!("{} on {on} against the expected tensors of {at}\n", target.name);
        Channel::Stdout.write(&(heading + &compare::table(&rows, 2)))?;
        return Ok(compare::verdict(&rows, "check that the expectations are of this kernel"));
    }
    if loaded.d_o.is_none() {
        loaded.d_o = Some(cases::random_adjoint(&loaded, spec.elem, seed)?);
    }
    let case = Case { label: format!("{} on {at}", target.name), kernel, loaded, strided: false };
    let on = backend.describe();
    let heading = format!("{} on {on} against the reference on {at}", target.name);
    let mut case = Some(case);
    verify_all(backend, &heading, 1, |_| {
        case.take().ok_or_else(|| Failure::new("one case was verified"))
    })
}

/// Runs every case and prints the worst error of each quantity.
fn verify_all(
    backend: &Backend,
    heading: &str,
    count: u64,
    mut make: impl FnMut(u64) -> Result<Case, Failure>,
) -> Result<Outcome, Failure> {
    let bar = Progress::new("verify");
    let mut worst: Vec<(Measurement, String)> = Vec::new();
    let mut refused = Vec::new();
    for n in 0..count {
        let mut case = make(n)?;
        for m in case.measure(backend)? {
            if !m.ok {
                refused.push((m.clone(), case.label.clone()));
            }
            match worst.iter_mut().find(|(w, _)| w.name == m.name) {
                None => worst.push((m, case.label.clone())),
                Some(slot) if burden(&m) > burden(&slot.0) => *slot = (m, case.label.clone()),
                Some(_) => {}
            }
        }
        bar.update(n as usize + 1, count as usize);
    }
    drop(bar);
    let mut out = format!("{heading}\nlargest error of each result, relative to its limit:\n");
    out.push_str(&table(&worst));
    if refused.is_empty() {
        Channel::Stdout.write(&(out + "every result is accepted\n"))?;
        return Ok(Outcome::Done);
    }
    Channel::Stdout.write(&format!("{out}\nnot accepted:\n{}", table(&refused)))?;
    terminal::error(
        &Failure::new(format_args!("{} results are not accepted", refused.len()))
            .help("`--seed` with a case's seed and `--cases 1` or `--programs 1` runs it alone"),
    );
    Ok(Outcome::DoesNotHold)
}

/// How much of its limit an error takes.
pub(crate) fn burden(m: &Measurement) -> f64 {
    match (m.ok, m.limit > 0.0) {
        (false, _) if m.error.is_nan() => f64::INFINITY,
        (false, false) => f64::INFINITY,
        (true, false) => 0.0,
        (_, true) => m.error / m.limit,
    }
}

/// Measurements and their cases.
pub(crate) fn table(rows: &[(Measurement, String)]) -> String {
    let mut table = Table::new(&["<result", "error", "limit", "<", "<case"]);
    for (m, case) in rows {
        table.row([
            m.name.clone(),
            number(m.error),
            number(m.limit),
            if m.ok { "ok" } else { "too large" }.to_owned(),
            case.clone(),
        ]);
    }
    table.render(2)
}

fn number(x: f64) -> String {
    if x == 0.0 { "0".to_owned() } else { format!("{x:.2e}") }
}
