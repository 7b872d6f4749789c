//! Hashes the templates: tuned schedules belong to the code that they were measured with.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let folder = root.join("templates");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = Vec::new();
    collect(&folder, &mut files)?;
    files.sort();
    // FNV-1a: a change is to be noticed, not an attack.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for path in &files {
        let text = fs::read_to_string(path)?;
        // The same on every system, whatever separates folders and ends lines. Comments and empty
        // lines change no machine code.
        for part in path.strip_prefix(&folder).unwrap_or(path).components() {
            add(part.as_os_str().to_string_lossy().as_bytes());
            add(b"/");
        }
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with("//") {
                add(line.as_bytes());
                add(b"\n");
            }
        }
    }
    println!("cargo::rustc-env=SPARSEK_TEMPLATES={hash:016x}");
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}
