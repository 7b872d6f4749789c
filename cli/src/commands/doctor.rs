//! `sparsek doctor`: this machine as sparsek sees it.

use crate::failure::{Failure, Outcome};
use crate::machine;
use crate::terminal::{Channel, bytes};
use clap::Args;
use sparsek::cuda;
use sparsek::cuda::nvrtc::Nvrtc;
use std::fs;

/// Arguments of `sparsek doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is changed: the driver and NVRTC are loaded and asked what they are, as a run would.

With kernels it says which of their keys (an element type, D, k, window, group, length and GPU) run on a
tuned schedule, of the store or of the manifest that the kernel carries, and which on the cost model's
guess: every tuned key of the kernel, or every combination of the lists.

Examples:
  sparsek doctor
  sparsek doctor src/attention.rs
  sparsek doctor sparsek-value --head-dim 64,128 --k 128..1024 --window 512 --gpu 'NVIDIA H200'")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    kernels: super::doctor_kernels::KernelArgs,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<Outcome, Failure> {
    if let Some(kernel) = &args.kernels.kernel {
        return super::doctor_kernels::run(kernel, &args.kernels);
    }
    let mut out = String::new();
    let mut line = |name: &str, text: String| out.push_str(&format!("{name:<9}{text}\n"));
    line("sparsek", format!("{}, CPU and CUDA backends", env!("CARGO_PKG_VERSION")));
    line("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line("CPU", machine::cpu_model());
    line("threads", threads());
    let simd = machine::simd();
    line("SIMD", if simd.is_empty() { "none found".to_owned() } else { simd.join(" ") });
    line("driver", driver());
    match cuda::devices() {
        Ok(devices) => devices.iter().for_each(|d| line("GPU", gpu(d))),
        Err(reason) => line("GPU", format!("none that can be used: {reason}")),
    }
    line("NVRTC", nvrtc());
    line("cache", cache());
    line("tuned", tuned());
    Channel::Stdout.write(&out)?;
    Ok(Outcome::Done)
}

fn threads() -> String {
    let (used, available) = (machine::threads(), machine::available_threads());
    match std::env::var_os("RAYON_NUM_THREADS") {
        Some(_) => format!("{used} (RAYON_NUM_THREADS) of {available} available"),
        None => format!("{used} of {available} available"),
    }
}

/// Release of CUDA of the driver's library, and the kernel driver's own version.
fn driver() -> String {
    let kernel = fs::read_to_string("/proc/driver/nvidia/version").ok().and_then(|text| {
        let words: Vec<&str> = text.lines().next()?.split_whitespace().collect();
        let number = words.iter().find(|w| w.contains('.') && w.starts_with(char::is_numeric))?;
        Some(format!(", NVIDIA {number}"))
    });
    match cuda::driver_version() {
        Ok(version) => format!("CUDA {version}{}", kernel.unwrap_or_default()),
        Err(reason) => reason.to_string(),
    }
}

fn gpu(device: &cuda::DeviceInfo) -> String {
    let (major, minor) = device.capability;
    let target = match device.target {
        Some(target) => format!("code for {target}"),
        None => "no code for it".to_owned(),
    };
    format!(
        "cuda:{}: {}, compute capability {major}.{minor}, {}, {target}",
        device.ordinal,
        device.name,
        bytes(device.memory as u64)
    )
}

fn nvrtc() -> String {
    match Nvrtc::find() {
        Ok(nvrtc) => {
            let headers = match nvrtc.headers() {
                Some(folder) => format!("headers in {}", folder.display()),
                None => "but the CUDA headers were not found".to_owned(),
            };
            format!("{}, {}, {headers}", nvrtc.version(), nvrtc.path().display())
        }
        Err(reason) => reason.to_string(),
    }
}

/// Where tuned schedules are kept, and how many there are.
fn tuned() -> String {
    let Some((folder, chosen_by)) = sparsek::tuned::folder() else {
        return "no place for schedules: set SPARSEK_TUNED_DIR".to_owned();
    };
    let at = format!("{} (from {chosen_by})", folder.display());
    if !sparsek::tuned::is_on() {
        return format!("{at}, not used: SPARSEK_TUNED is off");
    }
    match sparsek::tuned::Store::new(&folder).list() {
        Err(e) => format!("{at}, cannot be read: {e}"),
        Ok(all) => {
            let broken = all.iter().filter(|(_, entry)| entry.is_err()).count();
            let broken =
                if broken > 0 { format!(", {broken} cannot be read") } else { String::new() };
            format!("{at}: {} keys{broken}", all.len())
        }
    }
}

fn cache() -> String {
    let Some((folder, chosen_by)) = cuda::cache::folder() else {
        return "no place for it: set SPARSEK_CACHE_DIR".to_owned();
    };
    let state = match fs::metadata(&folder) {
        Ok(kind) if !kind.is_dir() => "not a folder: set SPARSEK_CACHE_DIR to one",
        Ok(kind) if kind.permissions().readonly() => "read-only",
        Ok(_) => "exists",
        Err(_) => "not there yet",
    };
    format!("{} (from {chosen_by}; {state})", folder.display())
}
