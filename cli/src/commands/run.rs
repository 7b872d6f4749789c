//! `sparsek run`: a kernel on tensors from a file.

use super::{Device, Parameters, failure};
use crate::expect::{self, compare};
use crate::failure::{Failure, Outcome};
use crate::machine;
use crate::progress::Progress;
use crate::target::Target;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::{self, Loaded};
use crate::tensors::output::write_tensors;
use crate::terminal::{self, Channel, duration, note, thousands};
use clap::Args;
use sparsek::dsl::ir::Instance;
use sparsek::{Forward, Gradients, Kernel, Options, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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

/// Results and how long they took.
struct Done {
    forward: Forward,
    forward_time: Duration,
    backward: Option<(Gradients, Duration)>,
}

impl Done {
    /// Every output tensor, in the order in which they are written.
    fn tensors(&self) -> Vec<(String, &Tensor)> {
        let f = &self.forward;
        let mut all = vec![
            ("o".to_owned(), &f.o),
            ("lse".to_owned(), &f.lse),
            ("tau".to_owned(), &f.tau),
            ("expiry".to_owned(), &f.expiry),
        ];
        if let Some((gradients, _)) = &self.backward {
            all.extend(gradients.iter().map(|(name, tensor)| (name.to_owned(), tensor)));
        }
        all
    }
}

pub(crate) fn run(args: &RunArgs) -> Result<Outcome, Failure> {
    args.device.usable()?;
    let target = Target::find(&args.kernel)?;
    let file = TensorFile::open(&args.input)?;
    let destination = target.destination(&args.output)?.apart_from(&args.input, "input")?;
    let spec = inputs::spec(&target.program, &file, &args.parameters.flags()?)?;
    let kernel = Kernel::from_program(&target.program, &spec).map_err(|e| failure(e, None))?;
    let loaded = Loaded::read(&target.program, spec.elem, &file, args.backward)?;
    let done = compute(&kernel, &loaded).map_err(|e| failure(e, Some(&file)))?;

    let tensors = done.tensors();
    let metadata = metadata(&target, kernel.instance());
    // Unusable expectations are bad input, and bad input leaves no output.
    let rows = expectations(&kernel, &file, &loaded, &tensors)?;
    let written = destination.write(|out| write_tensors(out, &metadata, &tensors))?;

    // Standard output may be where the tensors went.
    let channel = if destination.is_direct() { Channel::Stderr } else { Channel::Stdout };
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    let mut report = describe(&target, kernel.instance(), &loaded, &done);
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

fn compute(kernel: &Kernel, loaded: &Loaded) -> Result<Done, sparsek::Error> {
    let inputs = loaded.inputs()?;
    let cu_seqlens = loaded.cu_seqlens.as_deref();
    let d_o = loaded.d_o.as_ref().map(|t| t.view()).transpose()?;
    let timed = |what: &'static str| {
        let progress = Progress::new(what);
        (Instant::now(), progress)
    };
    let (start, bar) = timed("forward");
    let update = |done, total| bar.update(done, total);
    let options = Options { cu_seqlens, wanted: None, progress: Some(&update) };
    let forward = kernel.forward(&inputs, &options)?;
    let forward_time = start.elapsed();
    drop(bar);

    let backward = match d_o {
        None => None,
        Some(d_o) => {
            let (start, bar) = timed("backward");
            let update = |done, total| bar.update(done, total);
            let options = Options { cu_seqlens, wanted: None, progress: Some(&update) };
            let gradients = kernel.backward(&inputs, &forward, &d_o, &options)?;
            Some((gradients, start.elapsed()))
        }
    };
    Ok(Done { forward, forward_time, backward })
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
fn describe(target: &Target, instance: &Instance, loaded: &Loaded, done: &Done) -> String {
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
    let pairs = seen_pairs(instance, &done.forward, loaded.cu_seqlens.as_deref());
    let useful = pairs as f64 * (query_heads / kv_heads.max(1)) as f64 * instance.d as f64;
    let rate = |factor: f64, time: Duration| {
        format!("{:>9.1} GFLOP/s", factor * useful / time.as_secs_f64().max(1e-9) / 1e9)
    };
    let mut out = format!(
        "{} on the CPU: {}, {} threads\n  {sequences}, {} positions, {query_heads} query heads, \
         {kv_heads} key-value heads, head dimension {}\n  k {}, window {}{}, {}\n",
        target.name,
        machine::cpu_model(),
        machine::threads(),
        thousands(n),
        instance.d,
        instance.k,
        instance.w,
        if instance.sinks > 0 { format!(", {} sinks", instance.sinks) } else { String::new() },
        instance.elem
    );
    out.push_str(&format!(
        "  forward  {:>10}  {}  (plan included)\n",
        duration(done.forward_time),
        rate(4.0, done.forward_time)
    ));
    if let Some((_, time)) = &done.backward {
        out.push_str(&format!("  backward {:>10}  {}\n", duration(*time), rate(10.0, *time)));
    }
    out
}

/// Pairs of a query position and a key that it sees before predicates, over batch and key-value
/// heads: a key is seen from its own position to its expiry.
fn seen_pairs(instance: &Instance, forward: &Forward, cu_seqlens: Option<&[i32]>) -> u64 {
    let (Some(expiry), &[_, _, n]) = (forward.expiry.as_i32(), forward.expiry.shape()) else {
        return 0;
    };
    let whole = [0, i32::try_from(n).unwrap_or(i32::MAX)];
    let bounds = cu_seqlens.unwrap_or(&whole);
    let mut pairs = 0;
    for row in expiry.chunks_exact(n.max(1)) {
        for sequence in bounds.windows(2) {
            let length = sequence[1] - sequence[0];
            let keys = &row[sequence[0] as usize..sequence[1] as usize];
            for (j, expiry) in keys.iter().enumerate() {
                let end = if j < instance.sinks { length } else { *expiry };
                pairs += u64::try_from(i64::from(end) - j as i64).unwrap_or(0);
            }
        }
    }
    pairs
}
