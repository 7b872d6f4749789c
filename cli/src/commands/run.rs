//! `sparsek run`: a kernel on tensors from a file.

use super::{Parameters, failure};
use crate::backend::{Backend, Device, Done};
use crate::expect::{self, compare};
use crate::failure::{Failure, Outcome};
use crate::target::Target;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::{self, Loaded};
use crate::tensors::output::write_tensors;
use crate::terminal::{self, Channel, duration, note, thousands};
use crate::work::{self, Work};
use clap::Args;
use sparsek::dsl::ir::Instance;
use sparsek::{Kernel, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `sparsek run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Input tensors: q [B,N,Hq,D], k and v [B,N,Hkv,D], u [B,Hkv,N], the kernel's other inputs by their
names, d_o like q with --backward, cu_seqlens for packed sequences. Output tensors: o, lse, tau,
expiry, and with --backward d_q, d_k, d_v, d_u and d_NAME of each float input that was given; all
f32 but expiry. Where the input has expect.* tensors of the same gate, k and window, the error
against them is printed, and the exit code is 1 when it is too large.

Examples:
  sparsek run sparsek-value --input in.safetensors --output out.safetensors --backward
  sparsek run src/attention.rs::Local --input in.safetensors --output out.safetensors --k 128")]
pub(crate) struct RunArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL")]
    kernel: String,
    /// Tensors to run on
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the results go
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    parameters: Parameters,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = Device::parse)]
    device: Device,
    /// Compute the gradients too; needs d_o in the input
    #[arg(long)]
    backward: bool,
}

pub(crate) fn run(args: &RunArgs) -> Result<Outcome, Failure> {
    let backend = Backend::open(args.device)?;
    let target = Target::find(&args.kernel)?;
    let file = TensorFile::open(&args.input)?;
    let destination = target.destination(&args.output)?.apart_from(&args.input, "input")?;
    let spec = inputs::spec(&target.program, &file, &args.parameters.flags()?)?;
    let kernel = Kernel::from_program(&target.program, &spec).map_err(|e| failure(e, None))?;
    let loaded = Loaded::read(&target.program, spec.elem, &file, args.backward)?;
    let done = backend.runner(&kernel, false).run(&loaded, true);
    let done = done.map_err(|e| e.failure(Some(&file)))?;

    let tensors = done.tensors();
    let metadata = metadata(&target, kernel.instance());
    // Unusable expectations are bad input, and bad input leaves no output.
    let rows = expectations(&kernel, &file, &loaded, &tensors)?;
    let written = destination.write(|out| write_tensors(out, &metadata, &tensors))?;

    // Standard output may be where the tensors went.
    let channel = if destination.is_direct() { Channel::Stderr } else { Channel::Stdout };
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    let mut report = describe(&target, &backend, kernel.instance(), &loaded, &done);
    report.push_str(&format!(
        "  wrote {}: {} ({})\n",
        destination.path().display(),
        names.join(" "),
        terminal::bytes(written)
    ));
    channel.write(&report)?;
    let Some(rows) = rows else { return Ok(Outcome::Done) };
    channel.write(&format!("  against the expected tensors:\n{}", compare::table(&rows, 4)))?;
    Ok(compare::verdict(
        &rows,
        "the results were written; check that the expectations are of this kernel",
    ))
}

/// The results next to the file's expectations, where it has any of this kernel.
fn expectations(
    kernel: &Kernel,
    file: &TensorFile,
    loaded: &Loaded,
    tensors: &[(String, &Tensor)],
) -> Result<Option<Vec<compare::Row>>, Failure> {
    if !file.names().iter().any(|n| n.starts_with("expect.")) {
        return Ok(None);
    }
    if let Err(reason) = expect::applies(kernel.instance(), file) {
        note(format_args!("the expected tensors of the input are not compared: {reason}"));
        return Ok(None);
    }
    compare::rows(kernel, file, loaded, tensors).map(Some)
}

fn metadata(target: &Target, instance: &Instance) -> BTreeMap<String, String> {
    [
        ("kernel", target.program.name.clone()),
        ("gate", expect::gate_kind(&instance.program).to_owned()),
        ("elem", instance.elem.to_string()),
        ("k", instance.k.to_string()),
        ("window", instance.w.to_string()),
        ("sinks", instance.sinks.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What was run, where and how fast.
fn describe(
    target: &Target,
    backend: &Backend,
    instance: &Instance,
    loaded: &Loaded,
    done: &Done,
) -> String {
    let shape = |name: &str| loaded.get(name).map_or(&[][..], |t| t.shape.as_slice());
    let (batch, n, query_heads) = match shape("q") {
        &[b, n, h, _] => (b, n, h),
        _ => (0, 0, 0),
    };
    let kv_heads = shape("k").get(2).copied().unwrap_or(0);
    let sequences = match &loaded.cu_seqlens {
        Some(bounds) => format!("{} packed sequences", bounds.len().saturating_sub(1)),
        None => format!("batch {batch}"),
    };
    let pairs = work::seen_pairs(&done.expiry, instance.sinks, loaded.cu_seqlens.as_deref());
    let work = Work::new(pairs, query_heads / kv_heads.max(1), instance.d);
    let rate = |operations: f64, time: Duration| {
        format!("{:>9.1} GFLOP/s", operations / time.as_secs_f64().max(1e-9) / 1e9)
    };
    let mut out = format!(
        "{} on {}\n  {sequences}, {} positions, {query_heads} query heads, \
         {kv_heads} key-value heads, head dimension {}\n  k {}, window {}{}, {}\n",
        target.name,
        backend.describe(),
        thousands(n),
        instance.d,
        instance.k,
        instance.w,
        if instance.sinks > 0 { format!(", {} sinks", instance.sinks) } else { String::new() },
        instance.elem
    );
    let times = done.times;
    if let Some(plan) = times.plan {
        out.push_str(&format!("  plan     {:>10}\n", duration(plan)));
    }
    out.push_str(&format!(
        "  forward  {:>10}  {}  (plan included)\n",
        duration(times.forward),
        rate(work.forward, times.forward)
    ));
    if let Some(time) = times.backward {
        out.push_str(&format!(
            "  backward {:>10}  {}\n",
            duration(time),
            rate(work.backward, time)
        ));
    }
    out
}
