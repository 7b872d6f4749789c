//! Says which schedule the kernel's calls run with: its id, and where it comes from.
//!
//! ```sh
//! cargo run -- 65536                     # runs a call of that length on this machine's GPU
//! cargo run -- 65536 "NVIDIA H200" 9.0   # what such a call would run with on that GPU; none is needed
//! ```

use downstream::{AlibiCappedInputs, D, KV_HEADS, QUERY_HEADS, attention, slopes};
use sparsek::TensorView;
use sparsek::codegen::{Schedule, Target};
use sparsek::cuda::{CallShape, Device};
use sparsek::half::bf16;
use sparsek::tuned::{Gpu, Source, Store};
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        [n] => length(n).and_then(run),
        [n, gpu, capability] => length(n).and_then(|n| would_run(n, gpu, capability)),
        _ => Err("give a sequence length, and for another GPU than this machine's its name and \
                  compute capability, as: 65536 \"NVIDIA H200\" 9.0"
            .into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

fn length(text: &str) -> Result<usize, Failure> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("a sequence length is a positive integer, not {text:?}").into()),
    }
}

fn say(gpu: &str, schedule: Schedule, source: &Source) {
    let id = match source {
        Source::Store(id) | Source::Manifest(id) | Source::Baseline(id) => id.as_str(),
        Source::Given | Source::Image | Source::Model => "none",
    };
    println!("GPU        {gpu}\nid         {id}\nsource     {source}\n{schedule}");
}

/// Runs a forward call.
fn run(n: usize) -> Result<(), Failure> {
    let device = Device::new(0)?;
    let kernel = attention()?.cuda(&device);
    let (d, q, kv) = (D as usize, QUERY_HEADS, KV_HEADS);
    // Numbers without a pattern that matters.
    let wave = |i: usize| ((i % 65_521) as f32 * 0.618).sin();
    let vectors: Vec<bf16> = (0..n * q * d).map(|i| bf16::from_f32(wave(i))).collect();
    let scores: Vec<f32> = (0..kv * n).map(wave).collect();
    let keys = &vectors[..n * kv * d];
    let inputs = AlibiCappedInputs {
        q: device.upload(&TensorView::new(&[1, n, q, d], vectors.as_slice())?)?,
        k: device.upload(&TensorView::new(&[1, n, kv, d], keys)?)?,
        v: device.upload(&TensorView::new(&[1, n, kv, d], keys)?)?,
        u: device.upload(&TensorView::new(&[1, kv, n], scores.as_slice())?)?,
        slope: device.upload(&TensorView::new(&[q], slopes(q).as_slice())?)?,
    };
    let forward = kernel.forward(&AlibiCappedInputs {
        q: inputs.q.view(),
        k: inputs.k.view(),
        v: inputs.v.view(),
        u: inputs.u.view(),
        slope: inputs.slope.view(),
    })?;
    let o = forward.o().download()?;
    if o.to_f32().iter().any(|x| !x.is_finite()) {
        return Err("the output holds NaN or infinities".into());
    }
    for warning in kernel.kernel().take_warnings() {
        eprintln!("warning: {warning}");
    }
    say(&device.info().name, forward.schedule(), forward.schedule_source());
    Ok(())
}

/// Looks up what calls of that length run with on a GPU.
fn would_run(n: usize, gpu: &str, capability: &str) -> Result<(), Failure> {
    let wrong = || format!("a compute capability is written as 9.0, not {capability:?}");
    let (major, minor) = capability.split_once('.').ok_or_else(wrong)?;
    let (major, minor) = (major.parse().map_err(|_| wrong())?, minor.parse().map_err(|_| wrong())?);
    let target = Target::for_capability(major, minor)
        .ok_or_else(|| format!("no code is generated for compute capability {capability}"))?;
    let group = (QUERY_HEADS / KV_HEADS) as u32;
    let code = attention()?.kernel().code(&CallShape::group(group), target)?;
    let store = Store::from_environment();
    let code = code.tuned(&Gpu::new(gpu, (major, minor)), n as u64, store.as_ref())?;
    for warning in code.warnings() {
        eprintln!("warning: {warning}");
    }
    say(gpu, code.schedule(), code.schedule_source());
    Ok(())
}
