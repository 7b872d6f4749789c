//! Golden cases: files with inputs and float64 results, one form of attention each.

use crate::backend::Backend;
use crate::expect::compare;
use crate::failure::Failure;
use crate::suite::Measured;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::Loaded;
use sparsek::dsl::ir::{Program, Spec};
use sparsek::{Elem, Kernel, Tensor};
use sparsek_reference::brute::{Attention, Gate};
use sparsek_reference::generate;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The golden files of a folder and of `golden` below it, by name.
pub(super) fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let read = |folder: &Path| -> Result<Vec<PathBuf>, Failure> {
        let entries = std::fs::read_dir(folder).map_err(|e| {
            Failure::new(format_args!("cannot read the golden cases in {}: {e}", folder.display()))
                .help("--golden names the folder tests/data of the repository")
        })?;
        Ok(entries.flatten().map(|e| e.path()).collect())
    };
    let mut paths = read(folder)?;
    let below = folder.join("golden");
    if below.is_dir() {
        paths.extend(read(&below)?);
    }
    let golden = paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "safetensors"));
    Ok(golden.map(|p| (name(&p), p)).collect())
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file's results against its expectations.
pub(super) fn check(backend: &Backend, path: &Path) -> Measured {
    let file = TensorFile::open(path)?;
    let (program, spec) = kernel_of(&file)?;
    let kernel = Kernel::from_program(&program, &spec)?;
    let loaded = Loaded::read(&program, spec.elem, &file, true)?;
    let results = backend.runner(&kernel, false).run(&loaded, false)?.into_tensors();
    let named: Vec<(String, &Tensor)> = results.iter().map(|(n, t)| (n.clone(), t)).collect();
    let rows = compare::rows(&kernel, &file, &loaded, &named)?;
    Ok(rows.iter().map(compare::Row::measurement).collect())
}

/// The program that a file's metadata describe.
fn kernel_of(file: &TensorFile) -> Result<(Program, Spec), Failure> {
    let at = file.path().display();
    let missing = |name: &str| {
        Failure::new(format_args!("metadata `{name}` of {at} is missing or unknown"))
            .help("a golden case says its gate, k, window, sinks, softcap and elem")
    };
    let number = |name: &str| -> Result<usize, Failure> {
        let value = file.integer(name)?.and_then(|x| usize::try_from(x).ok());
        value.ok_or_else(|| missing(name))
    };
    let softcap: f64 = file
        .text("softcap")
        .and_then(|t| t.trim().parse().ok())
        .ok_or_else(|| missing("softcap"))?;
    let form = Attention {
        k: number("k")?,
        window: number("window")?,
        sinks: number("sinks")?,
        gate: file.text("gate").and_then(Gate::from_name).ok_or_else(|| missing("gate"))?,
        scale: None,
        softcap: (softcap != 0.0).then_some(softcap),
    };
    let elem = file.text("elem").and_then(Elem::from_name).ok_or_else(|| missing("elem"))?;
    let Some(&[_, _, _, d]) = file.shape("q") else { return Err(missing("q")) };
    let program = generate::program(&form, elem, d, file.has("slope"));
    Ok((program, Spec::new(elem, d as i64)))
}
