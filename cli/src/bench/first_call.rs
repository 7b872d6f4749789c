//! What the first call of a process costs: a process of its own with an empty cache of compiled
//! kernels, and one more with the cache that it left.

use crate::bench::data;
use crate::commands::failure;
use crate::failure::Failure;
use serde_json::{Value, json};
use sparsek::{Kernel, cuda};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Names the argument that makes the binary measure itself.
pub(crate) const FLAG: &str = "--first-call-child";

/// Milliseconds of one process.
#[derive(Clone, Debug)]
pub(crate) struct FirstCall {
    /// Whether the kernels were in the cache.
    pub(crate) warm: bool,
    /// Driver, context, stream.
    pub(crate) context: f64,
    /// First forward, with what it compiles or loads.
    pub(crate) forward: f64,
    /// First backward.
    pub(crate) backward: f64,
    /// Second forward and backward.
    pub(crate) second: f64,
}

impl FirstCall {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "cache": if self.warm { "warm" } else { "cold" },
            "context_ms": self.context,
            "forward_ms": self.forward,
            "backward_ms": self.backward,
            "second_call_ms": self.second,
        })
    }
}

/// Times the first calls of this process, which has done nothing on the GPU yet; printed as JSON.
pub(crate) fn child(
    ordinal: usize,
    kernel: &Kernel,
    sizes: &data::Sizes,
    scores: data::Scores,
) -> Result<Value, Failure> {
    let failed = |e: sparsek::Error| failure(e, None);
    let loaded = data::inputs(kernel.instance(), sizes, scores, 1);
    let ms = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let device = cuda::Device::new(ordinal).map_err(failed)?;
    device.synchronize().map_err(failed)?;
    let context = ms(start);
    let up = |tensor: &crate::tensors::file::HostTensor| device.upload(&tensor.view()?);
    let mut tensors = Vec::new();
    for (name, tensor) in loaded.tensors() {
        tensors.push((name, up(tensor).map_err(failed)?));
    }
    let Some(d_o) = &loaded.d_o else { return Err(Failure::new("inputs come with d_o")) };
    let d_o = up(d_o).map_err(failed)?;
    let empty = cuda::Inputs::new();
    let inputs = tensors.iter().fold(empty, |inputs, (name, t)| inputs.with(name, t.view()));
    device.synchronize().map_err(failed)?;

    let on_gpu = kernel.cuda(&device);
    let options = cuda::Options::default();
    let start = Instant::now();
    let forward = on_gpu.forward(&inputs, &options).map_err(failed)?;
    device.synchronize().map_err(failed)?;
    let first = ms(start);
    let start = Instant::now();
    on_gpu.backward(&inputs, &forward, &d_o.view(), &options).map_err(failed)?;
    device.synchronize().map_err(failed)?;
    let backward = ms(start);
    let start = Instant::now();
    let forward = on_gpu.forward(&inputs, &options).map_err(failed)?;
    on_gpu.backward(&inputs, &forward, &d_o.view(), &options).map_err(failed)?;
    device.synchronize().map_err(failed)?;
    let second = ms(start);
    Ok(FirstCall { warm: false, context, forward: first, backward, second }.json())
}

/// Runs this binary twice with the arguments that it was called with.
pub(crate) fn measure() -> Result<Vec<FirstCall>, Failure> {
    let binary = std::env::current_exe()
        .map_err(|e| Failure::new(format_args!("this program's own path is unknown: {e}")))?;
    let cache = tempfile::tempdir()
        .map_err(|e| Failure::new(format_args!("no temporary folder could be made: {e}")))?;
    let mut all = Vec::new();
    for warm in [false, true] {
        let mut command = Command::new(&binary);
        command.args(std::env::args_os().skip(1)).arg(FLAG);
        command.env("SPARSEK_CACHE_DIR", cache.path()).stdin(Stdio::null());
        let ran = command
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Failure::new(format_args!("{} did not start: {e}", binary.display())))?;
        let value: Option<Value> = serde_json::from_slice(&ran.stdout).ok();
        let Some(value) = value.filter(|_| ran.status.success()) else {
            return Err(Failure::new("the process whose first call was timed failed"));
        };
        let number = |name: &str| value[name].as_f64().unwrap_or(f64::NAN);
        all.push(FirstCall {
            warm,
            context: number("context_ms"),
            forward: number("forward_ms"),
            backward: number("backward_ms"),
            second: number("second_call_ms"),
        });
    }
    Ok(all)
}
