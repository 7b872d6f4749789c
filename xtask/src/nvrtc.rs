//! NVRTC without a CUDA installation: the wheels of `nvrtc.txt`, unpacked into `target/nvrtc`.
//!
//! pip fetches them: it knows the user's index, proxy and certificates, and checks the hashes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = include_str!("../nvrtc.txt");

/// What a usable folder holds.
const NEEDED: [&str; 3] =
    ["lib/libnvrtc.so.13", "lib/libnvrtc-builtins.so.13.0", "include/cuda_bf16.h"];

/// Names the library of the user's own, or its folder; it is used as it is.
pub(crate) const VARIABLE: &str = "SPARSEK_NVRTC";

/// The folder with `lib` and `include`, fetched unless it is there.
pub(crate) fn fetch(target: &Path) -> Result<PathBuf, String> {
    if let Some(own) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
        let own = PathBuf::from(own);
        return match own.exists() {
            true => Ok(own),
            false => Err(format!("{VARIABLE} is {}, which is not there", own.display())),
        };
    }
    let place = target.join("nvrtc");
    let inner = place.join("nvidia/cu13");
    if is_whole(&place) {
        return Ok(inner);
    }
    if !cfg!(target_os = "linux") {
        return Err(format!("NVRTC is fetched for Linux only: install CUDA 13 and set {VARIABLE}"));
    }
    fs::create_dir_all(target).map_err(|e| format!("cannot create {}: {e}", target.display()))?;
    let part = target.join(format!("nvrtc.{}.part", std::process::id()));
    let done = install(&part).and_then(|()| replace(&part, &place));
    // What is left of a failed attempt helps nobody.
    let _ = fs::remove_dir_all(&part);
    done?;
    Ok(inner)
}

/// Whether the folder came from these requirements and holds every file.
fn is_whole(place: &Path) -> bool {
    let stamp = fs::read_to_string(place.join("requirements.txt"));
    stamp.is_ok_and(|text| text == REQUIREMENTS)
        && NEEDED.iter().all(|file| place.join("nvidia/cu13").join(file).is_file())
}

fn install(part: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot write {}: {e}", part.display());
    fs::create_dir_all(part).map_err(failed)?;
    let list = part.join("requirements.txt");
    fs::write(&list, REQUIREMENTS).map_err(failed)?;
    let (program, first) = pip()?;
    let mut command = Command::new(&program);
    command.args(first).args(["install", "--no-deps", "--require-hashes", "--target"]);
    command.arg(part).arg("--requirement").arg(&list);
    let shown = format!("{} … install of xtask/nvrtc.txt", program.to_string_lossy());
    eprintln!("running {shown} (95 MB)");
    command.env("PIP_ROOT_USER_ACTION", "ignore");
    let status = command.status().map_err(|e| format!("{shown} did not start: {e}"))?;
    if !status.success() {
        return Err(format!("{shown} failed ({status}); with {VARIABLE} set nothing is fetched"));
    }
    match NEEDED.iter().find(|file| !part.join("nvidia/cu13").join(file).is_file()) {
        Some(file) => Err(format!("the wheels of xtask/nvrtc.txt hold no {file}")),
        None => Ok(()),
    }
}

/// A pip, and its first arguments.
fn pip() -> Result<(OsString, &'static [&'static str]), String> {
    let known: [(&str, &[&str]); 4] =
        [("python3", &["-m", "pip"]), ("python", &["-m", "pip"]), ("pip3", &[]), ("uv", &["pip"])];
    let works = |(program, first): &(&str, &[&str])| {
        let ran = Command::new(program).args(*first).arg("--help").output();
        ran.is_ok_and(|o| o.status.success())
    };
    let found = known.into_iter().find(works);
    found.map(|(program, first)| (program.into(), first)).ok_or_else(|| {
        format!(
            "NVRTC is fetched with pip, and there is none (python3 -m pip, uv pip): install one, \
             or set {VARIABLE} to the folder with lib and include of CUDA 13"
        )
    })
}

/// Renames the whole folder into place; a concurrent call that was quicker is as good.
fn replace(part: &Path, place: &Path) -> Result<(), String> {
    if place.exists() && !is_whole(place) {
        fs::remove_dir_all(place).map_err(|e| format!("cannot remove {}: {e}", place.display()))?;
    }
    match fs::rename(part, place) {
        Err(e) if !is_whole(place) => Err(format!("cannot rename to {}: {e}", place.display())),
        _ => Ok(()),
    }
}
