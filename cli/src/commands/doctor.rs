//! `sparsek doctor`: this machine as sparsek sees it.

use crate::failure::{Failure, Outcome};
use crate::machine;
use crate::terminal::Channel;
use clap::Args;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Arguments of `sparsek doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is loaded or changed: libraries are looked for where the system's loader would look.

Example:
  sparsek doctor")]
pub(crate) struct DoctorArgs {}

pub(crate) fn run(_: &DoctorArgs) -> Result<Outcome, Failure> {
    let mut out = String::new();
    let mut line = |name: &str, text: String| out.push_str(&format!("{name:<9}{text}\n"));
    line("sparsek", format!("{}, CPU backend", env!("CARGO_PKG_VERSION")));
    line("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line("CPU", machine::cpu_model());
    line("threads", threads());
    let simd = machine::simd();
    line("SIMD", if simd.is_empty() { "none found".to_owned() } else { simd.join(" ") });
    let gpus = gpus();
    line("GPU", if gpus.is_empty() { "not found".to_owned() } else { gpus.join("; ") });
    line("driver", driver());
    line("NVRTC", nvrtc());
    line(
        "",
        "this build runs kernels on the CPU; it uses neither GPU, driver nor NVRTC".to_owned(),
    );
    line("cache", cache());
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

/// Names of NVIDIA GPUs that the kernel driver knows.
fn gpus() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|e| fs::read_to_string(e.path().join("information")).ok())
        .filter_map(|text| {
            let line = text.lines().find(|l| l.starts_with("Model:"))?;
            Some(line.trim_start_matches("Model:").trim().to_owned())
        })
        .collect();
    names.sort();
    names
}

fn driver() -> String {
    let version = fs::read_to_string("/proc/driver/nvidia/version").ok().and_then(|text| {
        let words: Vec<&str> = text.lines().next()?.split_whitespace().collect();
        let number = words.iter().find(|w| w.contains('.') && w.starts_with(char::is_numeric))?;
        Some((*number).to_owned())
    });
    let library = find_library("libcuda.so");
    match (version, library) {
        (Some(v), Some(at)) => format!("NVIDIA {v}, {}", at.display()),
        (Some(v), None) => format!("NVIDIA {v}, but libcuda.so was not found"),
        (None, Some(at)) => format!("{}, but the NVIDIA kernel driver is not loaded", at.display()),
        (None, None) => "libcuda.so not found: no CUDA program can run here".to_owned(),
    }
}

fn nvrtc() -> String {
    match find_library("libnvrtc.so") {
        Some(at) => at.display().to_string(),
        None => "libnvrtc.so not found: CUDA C cannot be compiled here".to_owned(),
    }
}

/// The first file whose name starts with `stem` where the loader looks for libraries.
fn find_library(stem: &str) -> Option<PathBuf> {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/local/cuda/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
        "/usr/lib/wsl/lib",
    ];
    let folders = std::env::split_paths(&named).chain(usual.iter().map(PathBuf::from));
    folders.into_iter().find_map(|folder| library_in(&folder, stem))
}

fn library_in(folder: &Path, stem: &str) -> Option<PathBuf> {
    let starts = |name: &OsStr| name.as_encoded_bytes().starts_with(stem.as_bytes());
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|e| starts(&e.file_name()))
        .map(|e| e.path())
        .collect();
    found.sort();
    found.into_iter().next()
}

fn cache() -> String {
    let Some((folder, chosen_by)) = machine::cache_folder() else {
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
