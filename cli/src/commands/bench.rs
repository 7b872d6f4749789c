//! `sparsek bench`: times over sequence lengths.

use super::{Parameters, failure};
use crate::backend::{Backend, Device};
use crate::bench::{Limits, Row, Settings, chart, data, device, first_call, host, report};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::schedule::Change;
use crate::table::Table;
use crate::target::Target;
use crate::terminal::{Channel, thousands};
use clap::Args;
use serde_json::json;
use sparsek::dsl::ir::{Extent, Program, Spec};
use sparsek::{Elem, Kernel};
use std::path::PathBuf;

/// Products of bf16 or f16 matrices a second on one H200, measured with cuBLAS.
pub(crate) const H200_CEILING: f64 = 784.0;

/// Arguments of `sparsek bench`.
#[derive(Args, Debug)]
#[command(after_help = "\
k and window are 512 and the element type is bf16 where the kernel leaves them open and no flag gives
them. Inputs are random normal numbers. Times are medians; on a GPU between events on the stream, calls one
after the other without waiting, inputs taking turns so that they do not stay in its cache. Useful
operations are those of seen pairs: forward 4 D Hq Σ|seen|, backward 10 D Hq Σ|seen|. The floor of a time
is what its products take at the ceiling, or its tensors' bytes at the measured rate of a copy. Forward and
backward take turns on a GPU, as in training; --apart times each as benchmarks of attention usually do.

Examples:
  sparsek bench --device cuda --seq 4096,16384,65536 --svg times.svg
  sparsek bench sparsek-both --head-dim 64 --k 256 --window 256 --heads 8/2 --elem f32
  sparsek bench --device cuda --seq 131072 --entries --schedule '' \\
    --schedule 'forward: q 64 warps 4; backward: kv 32; chunk 1024'
  sparsek bench --device cuda --seq 16384 --first-call --json times.json")]
pub(crate) struct BenchArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL", default_value = "sparsek-value")]
    kernel: String,
    /// Sequence lengths, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = [4096, 16384, 65536])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    seq: Vec<u32>,
    /// Rows of the batch
    #[arg(long, value_name = "B", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Query heads / key-value heads
    #[arg(long, value_name = "HQ/HKV", default_value = "32/8", value_parser = parse_heads)]
    heads: (usize, usize),
    /// Head dimension
    #[arg(long, value_name = "D", default_value_t = 128)]
    head_dim: i64,
    /// sd:NUMBER (normal, of that standard deviation), trend:SLOPE:SD (the same on a slope by position) or equal; or several
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "sd:1")]
    scores: Vec<data::Scores>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = Device::parse)]
    device: Device,
    /// Calls of which the median is taken [default: 30 on a GPU, 5 on the CPU]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    iterations: Option<u32>,
    /// Calls before those, at least one [default: 3 on a GPU, 1 on the CPU]
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    warmup: Option<u32>,
    /// Time no backward
    #[arg(long)]
    forward_only: bool,
    /// Time forwards one after another and then backwards, on a GPU, instead of in turns
    #[arg(long)]
    apart: bool,
    /// Changes of the compiler's schedule, on a GPU; may be repeated, to compare
    #[arg(long, value_name = "CHANGES")]
    schedule: Vec<Change>,
    /// Tera-operations of matrix products a second that the machine reaches [default: 784 on an H200]
    #[arg(long, value_name = "TFLOPS")]
    ceiling: Option<f64>,
    /// List the time of every launch
    #[arg(long)]
    entries: bool,
    /// Time the first call of a process as well, with an empty cache and with a filled one
    #[arg(long)]
    first_call: bool,
    /// Write every number there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the times there
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[arg(long, hide = true)]
    first_call_child: bool,
    #[command(flatten)]
    parameters: Parameters,
}

/// `32/8`
pub(crate) fn parse_heads(text: &str) -> Result<(usize, usize), String> {
    let wrong = || "write it as 32/8: query heads, a multiple of the key-value heads".to_owned();
    let (hq, hkv) = text.split_once('/').ok_or_else(wrong)?;
    match (hq.trim().parse(), hkv.trim().parse()) {
        (Ok(hq), Ok(hkv)) if hkv > 0 && hq > 0 && hq % hkv == 0 && hq <= 1024 => Ok((hq, hkv)),
        _ => Err(wrong()),
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<Outcome, Failure> {
    let target = Target::find(&args.kernel)?;
    let spec = spec(args, &target.program)?;
    let kernel = Kernel::from_program(&target.program, &spec).map_err(|e| failure(e, None))?;
    let on_gpu = !matches!(args.device, Device::Cpu);
    if args.first_call_child {
        let n = args.seq.last().copied().unwrap_or(1) as usize;
        let ordinal = if let Device::Cuda(ordinal) = args.device { ordinal } else { 0 };
        let settings = settings(args, on_gpu);
        let scores = args.scores.first().copied().unwrap_or(data::Scores::Deviation(1.0));
        let value = first_call::child(ordinal, &kernel, &settings.sizes(n), scores)?;
        Channel::Stdout.write(&format!("{value}\n"))?;
        return Ok(Outcome::Done);
    }
    let destination =
        |path: &Option<PathBuf>| path.as_deref().map(|path| target.destination(path)).transpose();
    let (svg, json) = (destination(&args.svg)?, destination(&args.json)?);
    let backend = Backend::open(args.device)?;
    if matches!(backend, Backend::Cpu) {
        let only = [
            ("--first-call", args.first_call),
            ("--schedule", !args.schedule.is_empty()),
            ("--apart", args.apart),
        ];
        if let Some((flag, _)) = only.iter().find(|(_, given)| *given) {
            return Err(Failure::new(format_args!("{flag} is for GPUs alone"))
                .help("leave it out, or run with --device cuda"));
        }
    }
    let settings = settings(args, matches!(backend, Backend::Cuda(_)));
    let limits = limits(args, &backend, spec.elem)?;
    let firsts = if args.first_call { first_call::measure()? } else { Vec::new() };
    let rows = rows(args, &settings, &backend, &kernel)?;
    let heading = heading(args, &target, &kernel, &backend, &limits);
    let mut out = heading.clone();
    if let Some(row) = rows.first().filter(|row| !row.schedule.is_empty()) {
        out.push_str(&format!("  {}\n", row.schedule));
    }
    out.push_str(&report::table(&rows, &limits));
    if args.entries {
        out.push_str(&report::entries(&rows));
    }
    out.push_str(&first_calls(&firsts));
    Channel::Stdout.write(&out)?;
    if let Some(json) = json {
        let value = json!({
            "kernel": target.name,
            "device": backend.describe(),
            "elem": spec.elem.to_string(),
            "head_dim": kernel.instance().d,
            "k": kernel.instance().k,
            "window": kernel.instance().w,
            "batch": args.batch,
            "heads": [args.heads.0, args.heads.1],
            "apart": args.apart,
            "copy_gb_per_s": limits.copy.map(|rate| rate / 1e9),
            "ceiling_tflops": limits.products.map(|rate| rate / 1e12),
            "first_calls": firsts.iter().map(first_call::FirstCall::json).collect::<Vec<_>>(),
            "rows": report::rows(&rows, &limits),
        });
        let text = format!("{value:#}\n");
        json.write(|out| out.write_all(text.as_bytes()))?;
    }
    if let Some(svg) = svg {
        let title = heading.lines().next().unwrap_or_default().to_owned();
        // One line for each pass: of the first kind of scores and the first schedule.
        let first = |row: &&Row| rows[0].scores == row.scores && rows[0].change == row.change;
        let rows: Vec<Row> = rows.iter().filter(first).cloned().collect();
        let text = chart::svg(&title, &rows)
            .map_err(|_| Failure::new("the picture could not be written as text"))?;
        svg.write(|out| out.write_all(text.as_bytes()))?;
    }
    Ok(Outcome::Done)
}

fn settings(args: &BenchArgs, on_gpu: bool) -> Settings {
    let or = |flag: Option<u32>, gpu: u32, cpu: u32| {
        flag.unwrap_or(if on_gpu { gpu } else { cpu }) as usize
    };
    Settings {
        batch: args.batch as usize,
        hq: args.heads.0,
        hkv: args.heads.1,
        scores: args.scores.clone(),
        changes: args.schedule.clone(),
        warmup: or(args.warmup, 3, 1),
        iterations: or(args.iterations, 30, 5),
        backward: !args.forward_only,
        apart: args.apart,
    }
}

/// The flags where the kernel leaves a value open: k and window 512, bf16 where the kernel takes it.
fn spec(args: &BenchArgs, program: &Program) -> Result<Spec, Failure> {
    let flags = args.parameters.flags()?;
    let set = &program.elem.set;
    let usual = set.iter().copied().find(|e| *e == Elem::Bf16).or(set.first().copied());
    let d = program.head_dim.literal().map_or(args.head_dim, i64::from);
    let mut spec = Spec::new(flags.elem.or(usual).unwrap_or(Elem::F32), d);
    let open = |extent: Option<Extent>, flag: Option<i64>| match extent {
        Some(Extent::Param(id)) => {
            let name = program.params.get(id.0 as usize).map_or("", |p| p.name.as_str());
            flag.or((!flags.set.contains_key(name)).then_some(512))
        }
        _ => flag,
    };
    spec.k = open(program.gate().map(|g| g.k), flags.k);
    spec.w = open(program.seen_set().window, flags.window);
    spec.set = flags.set.clone();
    Ok(spec)
}

fn limits(args: &BenchArgs, backend: &Backend, elem: Elem) -> Result<Limits, Failure> {
    let known = match backend {
        Backend::Cuda(cuda) => cuda.device.info().name.contains("H200") && elem != Elem::F32,
        Backend::Cpu => false,
    };
    let ceiling = args.ceiling.or(known.then_some(H200_CEILING));
    if ceiling.is_some_and(|c| !(c.is_finite() && c > 0.0)) {
        return Err(Failure::new("--ceiling is no rate").help("give tera-operations a second"));
    }
    let copy = match backend {
        Backend::Cuda(cuda) => Some(device::copy_rate(&cuda.device)?),
        Backend::Cpu => None,
    };
    Ok(Limits { products: ceiling.map(|c| c * 1e12), copy })
}

fn rows(
    args: &BenchArgs,
    settings: &Settings,
    backend: &Backend,
    kernel: &Kernel,
) -> Result<Vec<Row>, Failure> {
    let on_gpu = match backend {
        Backend::Cpu => None,
        Backend::Cuda(cuda) => Some(device::Bench::new(&cuda.device, kernel, settings)?),
    };
    let bar = Progress::new("bench");
    let mut rows = Vec::with_capacity(args.seq.len());
    for (at, n) in args.seq.iter().enumerate() {
        rows.extend(match &on_gpu {
            None => host::rows(kernel, settings, *n as usize)?,
            Some(bench) => bench.rows(*n as usize)?,
        });
        bar.update(at + 1, args.seq.len());
    }
    Ok(rows)
}

fn heading(
    args: &BenchArgs,
    target: &Target,
    kernel: &Kernel,
    backend: &Backend,
    limits: &Limits,
) -> String {
    let instance = kernel.instance();
    let mut out = format!(
        "{} on {}\n  batch {}, heads {}/{}, D {}, k {}, window {}, {}, {} scores\n",
        target.name,
        backend.describe(),
        thousands(args.batch as usize),
        args.heads.0,
        args.heads.1,
        instance.d,
        instance.k,
        instance.w,
        instance.elem,
        args.scores.iter().map(data::Scores::to_string).collect::<Vec<_>>().join(", ")
    );
    if let Some(copy) = limits.copy {
        out.push_str(&format!("  copies move {:.2} TB/s", copy / 1e12));
        if let Some(products) = limits.products {
            out.push_str(&format!("; ceiling of products {:.0} TFLOP/s", products / 1e12));
        }
        out.push('\n');
    }
    out
}

fn first_calls(firsts: &[first_call::FirstCall]) -> String {
    if firsts.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&["<cache", "context ms", "forward ms", "backward ms", "second call ms"]);
    for first in firsts {
        let cells = [first.context, first.forward, first.backward, first.second];
        let name = if first.warm { "warm" } else { "cold" };
        table.row(std::iter::once(name.to_owned()).chain(cells.map(|ms| format!("{ms:.1}"))));
    }
    format!("first call of a process:\n{}", table.render(2))
}
