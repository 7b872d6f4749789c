//! Where a kernel runs: the CPU or one CUDA device, chosen once and never changed silently.

use crate::cases::Case;
use crate::commands::failure;
use crate::cuda_inputs;
use crate::failure::Failure;
use crate::machine;
use crate::progress::Progress;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::Loaded;
use crate::terminal::note;
use sparsek::{Kernel, Options, Tensor, cuda};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The value of `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// A CUDA device where there is a usable one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device.
    Cuda(usize),
}

impl Device {
    /// Reads the value of `--device`.
    pub(crate) fn parse(text: &str) -> Result<Device, String> {
        let number = |n: &str| n.parse().map_err(|_| format!("`{n}` is not a device number"));
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            _ => match text.strip_prefix("cuda:") {
                Some(n) => Ok(Device::Cuda(number(n)?)),
                None => Err("a device is auto, cpu, cuda or cuda:N".to_owned()),
            },
        }
    }
}

/// An open backend.
pub(crate) enum Backend {
    /// The CPU.
    Cpu,
    /// A CUDA device.
    Cuda(Cuda),
}

/// An open CUDA device.
pub(crate) struct Cuda {
    /// The device.
    pub(crate) device: cuda::Device,
    /// Held while kernels run: a fault then belongs to one call, and times are of one call.
    turn: Mutex<()>,
    /// Whether a call ended in a fault.
    lost: AtomicBool,
}

/// Why a call has no results.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The call failed; others need not.
    Call(sparsek::Error),
    /// A fault of this call, after which this process cannot use the GPU.
    Fault(sparsek::Error),
    /// Not run, after a fault of another call.
    Lost,
}

impl From<sparsek::Error> for Stopped {
    fn from(error: sparsek::Error) -> Stopped {
        Stopped::Call(error)
    }
}

impl Stopped {
    /// What it means to whoever wrote the command line.
    pub(crate) fn failure(self, file: Option<&TensorFile>) -> Failure {
        match self {
            Stopped::Call(error) => failure(error, file),
            Stopped::Fault(error) => Failure::new(format_args!("a fault on the GPU: {error}"))
                .help("it is a mistake of the generated code: please report the command line"),
            Stopped::Lost => Failure::new("the GPU cannot be used after a fault"),
        }
    }
}

/// One kernel on one backend; what it compiles is kept.
pub(crate) enum Runner<'a> {
    /// On the CPU.
    Cpu(&'a Kernel),
    /// On a CUDA device.
    Cuda {
        /// The device.
        cuda: &'a Cuda,
        /// The kernel there.
        kernel: cuda::Kernel,
        /// Whether vectors lie head by head in memory, [B, H, N, D].
        strided: bool,
    },
}

/// Results of one call.
#[derive(Debug)]
pub(crate) struct Done {
    /// [B, N, Hq, D]
    pub(crate) o: Tensor,
    /// [B, Hq, N]
    pub(crate) lse: Tensor,
    /// [B, Hkv, N]
    pub(crate) tau: Tensor,
    /// [B, Hkv, N]
    pub(crate) expiry: Tensor,
    /// `d_q`, …; none without a backward.
    pub(crate) gradients: Vec<(String, Tensor)>,
    /// How long it took.
    pub(crate) times: Times,
}

/// How long a call took: on the CPU by the clock, on a GPU the sum of its kernels.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// Where it is known apart from the forward.
    pub(crate) plan: Option<Duration>,
    /// With the plan.
    pub(crate) forward: Duration,
    /// When there was a backward.
    pub(crate) backward: Option<Duration>,
}

impl Done {
    /// Every tensor by name, in the order in which they are written.
    pub(crate) fn tensors(&self) -> Vec<(String, &Tensor)> {
        let own =
            [("o", &self.o), ("lse", &self.lse), ("tau", &self.tau), ("expiry", &self.expiry)];
        let own = own.into_iter().map(|(name, t)| (name.to_owned(), t));
        own.chain(self.gradients.iter().map(|(name, t)| (name.clone(), t))).collect()
    }
}

impl Done {
    /// Every tensor by name.
    pub(crate) fn into_tensors(self) -> Vec<(String, Tensor)> {
        let own = [("o", self.o), ("lse", self.lse), ("tau", self.tau), ("expiry", self.expiry)];
        own.map(|(name, t)| (name.to_owned(), t)).into_iter().chain(self.gradients).collect()
    }
}

impl Backend {
    /// Opens what was asked for. `Auto` that ends on the CPU of a machine with a GPU says why.
    pub(crate) fn open(device: Device) -> Result<Backend, Failure> {
        let cuda = |ordinal| -> Result<Backend, sparsek::Error> {
            let device = cuda::Device::new(ordinal)?;
            Ok(Backend::Cuda(Cuda { device, turn: Mutex::new(()), lost: AtomicBool::new(false) }))
        };
        match device {
            Device::Cpu => Ok(Backend::Cpu),
            Device::Cuda(ordinal) => cuda(ordinal).map_err(|e| {
                Failure::new(format_args!("cuda:{ordinal} cannot be used: {e}"))
                    .help("run with --device cpu, or leave --device out; see `sparsek doctor`")
            }),
            Device::Auto => match cuda::devices() {
                Err(_) => Ok(Backend::Cpu),
                Ok(_) => {
                    let opened = cuda::nvrtc::Nvrtc::find().map(|_| ()).and_then(|()| cuda(0));
                    opened.or_else(|e| {
                        note(format_args!("the GPU is not used: {e}"));
                        Ok(Backend::Cpu)
                    })
                }
            },
        }
    }

    /// Which machine it is, in words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Backend::Cpu => {
                format!("the CPU: {}, {} threads", machine::cpu_model(), machine::threads())
            }
            Backend::Cuda(Cuda { device, .. }) => {
                let info = device.info();
                format!("cuda:{}: {}, {}", info.ordinal, info.name, device.target())
            }
        }
    }

    /// Every result of a case by name.
    pub(crate) fn results(&self, case: &Case) -> Result<Vec<(String, Tensor)>, Stopped> {
        Ok(self.runner(&case.kernel, case.strided).run(&case.loaded, false)?.into_tensors())
    }

    /// A kernel there.
    pub(crate) fn runner<'a>(&'a self, kernel: &'a Kernel, strided: bool) -> Runner<'a> {
        match self {
            Backend::Cpu => Runner::Cpu(kernel),
            Backend::Cuda(cuda) => {
                Runner::Cuda { cuda, kernel: kernel.cuda(&cuda.device), strided }
            }
        }
    }
}

impl Runner<'_> {
    /// Runs forward and, where the input has `d_o`, backward; bars show how far the CPU is.
    pub(crate) fn run(&self, loaded: &Loaded, bars: bool) -> Result<Done, Stopped> {
        match self {
            Runner::Cpu(kernel) => Ok(on_cpu(kernel, loaded, bars)?),
            Runner::Cuda { cuda, kernel, strided } => {
                // Compiled before the device is taken.
                let ready = compile(kernel, loaded);
                // The lock guards no data.
                let _turn = cuda.turn.lock().unwrap_or_else(PoisonError::into_inner);
                if cuda.lost.load(Ordering::Relaxed) {
                    return Err(Stopped::Lost);
                }
                ready?;
                let done = match strided {
                    true => cuda_inputs::run_strided(&cuda.device, kernel, loaded),
                    false => on_cuda(kernel, loaded),
                };
                for warning in kernel.take_warnings() {
                    note(warning);
                }
                done.map_err(|e| {
                    // After a fault the driver answers everything with it.
                    if cuda.device.synchronize().is_ok() {
                        return Stopped::Call(e);
                    }
                    cuda.lost.store(true, Ordering::Relaxed);
                    Stopped::Fault(e)
                })
            }
        }
    }
}

/// Compiles what a call needs.
fn compile(kernel: &cuda::Kernel, loaded: &Loaded) -> Result<(), sparsek::Error> {
    let sequences = loaded.cu_seqlens.as_ref().map(|c| c.len().saturating_sub(1));
    let prepared = kernel.prepare(&cuda_inputs::shapes(loaded), sequences, None)?;
    if loaded.d_o.is_some() {
        prepared.backward(None, None)?;
    }
    Ok(())
}

fn on_cpu(kernel: &Kernel, loaded: &Loaded, bars: bool) -> Result<Done, sparsek::Error> {
    let inputs = loaded.inputs()?;
    let cu_seqlens = loaded.cu_seqlens.as_deref();
    let d_o = loaded.d_o.as_ref().map(|t| t.view()).transpose()?;
    let timed = |what: &'static str| (Instant::now(), bars.then(|| Progress::new(what)));
    let (start, bar) = timed("forward");
    let update = |done, total| bar.iter().for_each(|bar| bar.update(done, total));
    let options = Options { cu_seqlens, wanted: None, progress: Some(&update) };
    let forward = kernel.forward(&inputs, &options)?;
    let mut times = Times { forward: start.elapsed(), ..Times::default() };
    drop(bar);
    let mut gradients = Vec::new();
    if let Some(d_o) = d_o {
        let (start, bar) = timed("backward");
        let update = |done, total| bar.iter().for_each(|bar| bar.update(done, total));
        let options = Options { cu_seqlens, wanted: None, progress: Some(&update) };
        let found = kernel.backward(&inputs, &forward, &d_o, &options)?;
        times.backward = Some(start.elapsed());
        gradients = found.iter().map(|(name, t)| (name.to_owned(), t.clone())).collect();
    }
    let sparsek::Forward { o, lse, tau, expiry } = forward;
    Ok(Done { o, lse, tau, expiry, gradients, times })
}

fn on_cuda(kernel: &cuda::Kernel, loaded: &Loaded) -> Result<Done, sparsek::Error> {
    let inputs = loaded.inputs()?;
    let d_o = loaded.d_o.as_ref().map(|t| t.view()).transpose()?;
    let profile = cuda::Profile::new();
    let options = cuda::HostOptions {
        cu_seqlens: loaded.cu_seqlens.as_deref(),
        profile: Some(&profile),
        ..cuda::HostOptions::default()
    };
    let (forward, found) = kernel.run_host(&inputs, d_o.as_ref(), &options)?;
    let gradients = found.iter().flat_map(|g| g.iter());
    let gradients = gradients.map(|(name, t)| (name.to_owned(), t.clone())).collect();
    let times = times(&profile.take()?, d_o.is_some());
    let sparsek::Forward { o, lse, tau, expiry } = forward;
    Ok(Done { o, lse, tau, expiry, gradients, times })
}

/// The times of a profiled call.
pub(crate) fn times(timings: &[cuda::Timing], backward: bool) -> Times {
    let sum = |module: cuda::Module| {
        let ms = timings.iter().filter(|t| t.module == module).map(|t| f64::from(t.ms));
        Duration::from_secs_f64((ms.sum::<f64>() / 1e3).max(0.0))
    };
    let plan = sum(cuda::Module::Plan);
    let forward = plan + sum(cuda::Module::Forward);
    Times { plan: Some(plan), forward, backward: backward.then(|| sum(cuda::Module::Backward)) }
}
