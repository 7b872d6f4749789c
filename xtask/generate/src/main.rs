//! `cargo xtask generate`: the CUDA C of the built-in kernels, kept in `kernels-generated`.
//!
//! Every point of the [`grid`] is generated with its own schedule ([`schedules`]); sources that differ by
//! [`constants`] alone are one of the [`variants`], which one file shows; the [`manifest`] says for every
//! point which files it has, with which constants, and a hash of its own source, so that no change of
//! any point goes unseen. [`lowering`] refuses other code under the same version of the code generator.

mod constants;
mod grid;
mod lowering;
mod manifest;
mod schedules;
mod variants;

use schedules::Tuned;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What rewrites the files, for messages.
const COMMAND: &str = "cargo xtask generate";

/// The package, below the root.
const PACKAGE: &str = "kernels-generated";

/// The tuned schedules that the built-in kernels carry, below the package.
const TUNED: &str = "tuned.json";

/// What says for every instance which files it has, below the package.
const MANIFEST: &str = "manifest.json";

/// Folder of the CUDA C, below the package.
const FOLDER: &str = "cuda";

/// More would not be read.
const MOST_FILES: usize = 60;

/// Bytes of CUDA C.
const MOST_BYTES: usize = 2 << 20;

/// Files by their paths below the package.
type Files = BTreeMap<String, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        [] => write(&root()),
        ["--check"] => check(&root()),
        _ => {
            eprintln!("error: {COMMAND} takes --check or nothing");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Rewrites the files that differ from what is generated now.
fn write(root: &Path) -> Result<(), String> {
    let package = root.join(PACKAGE);
    let (wanted, differing) = compare(root)?;
    // Without a manifest, or with one that cannot be read, there is nothing to compare with.
    let old = fs::read_to_string(package.join(MANIFEST)).unwrap_or_default();
    let old = serde_json::from_str(&old).unwrap_or_default();
    let new = wanted.get(MANIFEST).and_then(|text| serde_json::from_str(text).ok());
    lowering::check(&old, &new.unwrap_or_default())?;
    for name in &differing {
        let path = package.join(name);
        let failed = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
        match wanted.get(name) {
            Some(text) => {
                fs::create_dir_all(path.parent().unwrap_or(&package)).map_err(failed)?;
                fs::write(&path, text).map_err(failed)?;
                println!("wrote {PACKAGE}/{name}");
            }
            None => {
                fs::remove_file(&path).map_err(failed)?;
                println!("removed {PACKAGE}/{name}");
            }
        }
    }
    let bytes: usize = wanted.values().map(String::len).sum();
    let (files, written) = (wanted.len(), differing.len());
    println!("{files} files, {} KiB; {written} of them changed", bytes / 1024);
    Ok(())
}

/// Fails when a file differs from what is generated now.
fn check(root: &Path) -> Result<(), String> {
    let (wanted, differing) = compare(root)?;
    if differing.is_empty() {
        return Ok(());
    }
    let what = |name: &String| {
        let there = root.join(PACKAGE).join(name).is_file();
        let why = match (wanted.contains_key(name), there) {
            (true, true) => "differs from what is generated",
            (true, false) => "is missing",
            (false, _) => "is generated no longer",
        };
        format!("\n  {PACKAGE}/{name} {why}")
    };
    let list: String = differing.iter().map(what).collect();
    Err(format!(
        "generated files are stale:{list}\nrun `{COMMAND}`, look at the difference, commit it"
    ))
}

/// Every file as it should be, and the names of those that differ from it or should not be there.
fn compare(root: &Path) -> Result<(Files, Vec<String>), String> {
    let package = root.join(PACKAGE);
    let wanted = files(&package)?;
    let mut differing: Vec<String> = Vec::new();
    for (name, text) in &wanted {
        // Line ends as git checks them out.
        let found = fs::read_to_string(package.join(name)).map(|found| found.replace("\r\n", "\n"));
        if found.ok().as_ref() != Some(text) {
            differing.push(name.clone());
        }
    }
    for path in below(&package.join(FOLDER))? {
        let Ok(name) = path.strip_prefix(&package) else { continue };
        let name = name.to_string_lossy().replace('\\', "/");
        if !wanted.contains_key(&name) {
            differing.push(name);
        }
    }
    Ok((wanted, differing))
}

/// Every generated file.
fn files(package: &Path) -> Result<Files, String> {
    let kernels = grid::kernels(&package.join("src"))?;
    let path = package.join(TUNED);
    let text =
        fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let tuned = Tuned::read(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if tuned.outdated() > 0 {
        eprintln!(
            "note: {} schedules of {PACKAGE}/{TUNED} were measured with other code; the model chooses \
             in their place",
            tuned.outdated()
        );
    }
    let points = grid::points(&kernels)?;
    let emit = |point: &grid::Point| point.emit(&kernels[point.kernel], &tuned);
    let emitted = points.iter().map(emit).collect::<Result<Vec<_>, _>>()?;
    let found = variants::find(&kernels, &emitted);
    let mut files = Files::new();
    for variant in &found.variants {
        let sources = &emitted[variant.shown].sources;
        let source = sources.iter().find(|s| s.module == variant.module);
        let text = source.map(|s| s.text.clone()).unwrap_or_default();
        if files.insert(variant.file.clone(), text).is_some() {
            return Err(format!("two variants would be {}", variant.file));
        }
    }
    let bytes: usize = files.values().map(String::len).sum();
    if found.variants.len() > MOST_FILES || bytes > MOST_BYTES {
        return Err(format!(
            "{} variants, {bytes} bytes: at most {MOST_FILES} and {MOST_BYTES} are to be kept. What \
             makes sources differ beside constants is in xtask/generate/src/constants.rs",
            found.variants.len()
        ));
    }
    files.insert("src/generated/files.rs".to_owned(), list(files.keys()));
    files.insert(MANIFEST.to_owned(), manifest::text(&kernels, &emitted, &found));
    Ok(files)
}

/// The list of files that the package includes.
fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut out = format!("// Written by `{COMMAND}`.\n\ngenerated![\n");
    for name in names.filter_map(|name| name.strip_prefix("cuda/")) {
        out.push_str(&format!("    \"{name}\",\n"));
    }
    out.push_str("];\n");
    out
}

fn below(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    let mut all = Vec::new();
    if !folder.is_dir() {
        return Ok(all);
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match path.is_dir() {
            true => all.extend(below(&path)?),
            false => all.push(path),
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    /// The same as `cargo xtask generate --check`, for those who run the tests alone.
    #[test]
    fn generated_files_are_what_is_generated() {
        if let Err(message) = super::check(&super::root()) {
            panic!("{message}");
        }
    }
}
