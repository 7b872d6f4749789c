//! Where NVRTC and the CUDA headers may be.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Names a library of the user's own, or its folder.
pub(super) const VARIABLE: &str = "SPARSEK_NVRTC";

/// Release of CUDA whose NVRTC is used.
pub(super) const MAJOR: u32 = 13;

/// Folders below a given one in which the library may lie: of a CUDA installation, of the wheels.
const BELOW: [&str; 5] = ["", "lib", "lib64", "bin/x64", "nvidia/cu13/lib"];

/// Where `cargo xtask nvrtc` puts the wheels, below the root of a cargo workspace.
const FETCHED: &str = "target/nvrtc/nvidia/cu13/lib";

const HEADER: &str = "cuda_bf16.h";

/// A library to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// A path, or a name that the system's loader looks up.
    pub(super) library: PathBuf,
    /// The builtins beside it.
    pub(super) builtins: Option<PathBuf>,
}

/// File names of the library, the likeliest first.
fn names() -> [&'static str; 2] {
    if cfg!(windows) {
        ["nvrtc64_130_0.dll", "nvrtc64_13.dll"]
    } else {
        ["libnvrtc.so.13", "libnvrtc.so"]
    }
}

/// What the environment asks for.
pub(super) fn asked() -> Option<PathBuf> {
    variable(VARIABLE)
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Places to look at where the environment says nothing: the loader's, CUDA installations, what
/// `cargo xtask nvrtc` fetched.
pub(super) fn candidates() -> Vec<Candidate> {
    let by_name = Candidate { library: PathBuf::from(names()[0]), builtins: None };
    let folders = installations().into_iter().chain(fetched());
    let at_paths = folders.filter_map(|folder| in_folder(&folder));
    std::iter::once(by_name).chain(at_paths).collect()
}

/// Every place that [`candidates`] looks at, for messages.
pub(super) fn places() -> Vec<String> {
    let mut places = vec![format!("{} of the system's loader", names()[0])];
    places.extend(installations().iter().map(|p| p.display().to_string()));
    match workspace() {
        Some(root) => places.push(root.join(FETCHED).display().to_string()),
        None => places.push(format!("{FETCHED} of a cargo workspace")),
    }
    places
}

/// The library at a path: a file, or a folder that holds it.
pub(super) fn at(path: &Path) -> Option<Candidate> {
    if path.is_file() {
        let builtins = path.parent().and_then(builtins);
        return Some(Candidate { library: path.to_owned(), builtins });
    }
    in_folder(path)
}

fn in_folder(folder: &Path) -> Option<Candidate> {
    BELOW.iter().map(|below| folder.join(below)).find_map(|folder| {
        let library = names().iter().map(|n| folder.join(n)).find(|p| p.is_file())?;
        Some(Candidate { library, builtins: builtins(&folder) })
    })
}

/// The builtins of a folder; the `alt` ones are another build of the same.
fn builtins(folder: &Path) -> Option<PathBuf> {
    let start = if cfg!(windows) { "nvrtc-builtins64_13" } else { "libnvrtc-builtins.so.13" };
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with(start)))
        .collect();
    found.sort();
    found.into_iter().next()
}

fn installations() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| variable(name)).collect();
    if cfg!(unix) {
        all.push(PathBuf::from("/usr/local/cuda"));
    }
    all.dedup();
    all
}

fn fetched() -> Option<PathBuf> {
    Some(workspace()?.join(FETCHED)).filter(|p| p.is_dir())
}

/// The nearest folder, from the current one upwards, whose manifest is a workspace's.
fn workspace() -> Option<PathBuf> {
    let current = env::current_dir().ok()?;
    let is_root = |folder: &&Path| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml"));
        manifest.is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
    };
    current.ancestors().find(is_root).map(Path::to_owned)
}

/// The folder of the CUDA headers for a library, or every folder without them.
pub(super) fn headers(library: &Path) -> Result<PathBuf, Vec<PathBuf>> {
    let folder = match library.is_absolute() {
        true => library.parent().map(Path::to_owned),
        false => fs::canonicalize(library).ok().and_then(|p| p.parent().map(Path::to_owned)),
    };
    let mut tried = Vec::new();
    for above in folder.iter().flat_map(|f| f.ancestors().skip(1).take(3)) {
        tried.push(above.join("include"));
    }
    tried.extend(installations().iter().map(|p| p.join("include")));
    tried.extend(fetched().and_then(|lib| Some(lib.parent()?.join("include"))));
    if cfg!(unix) {
        tried.push(PathBuf::from("/usr/include"));
    }
    match tried.iter().find(|folder| folder.join(HEADER).is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(tried),
    }
}

/// The file that a library found by name was loaded from.
pub(super) fn loaded_from(name: &Path) -> Option<PathBuf> {
    let name = name.file_name()?.to_str()?;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = |line: &str| Some(line[line.find('/')?..].to_owned());
    let found = maps.lines().filter_map(path).find(|p| {
        let file = Path::new(p).file_name().and_then(OsStr::to_str);
        file.is_some_and(|file| file.starts_with(name))
    })?;
    Some(PathBuf::from(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_of_wheels_or_an_installation_is_enough() {
        let root = tempfile::tempdir().unwrap();
        for lib in ["a/nvidia/cu13/lib", "b/lib64"] {
            touch(&root.path().join(lib).join("libnvrtc.so.13"));
            touch(&root.path().join(lib).join("libnvrtc-builtins.so.13.0"));
            touch(&root.path().join(lib).join("libnvrtc-builtins.alt.so.13.0"));
        }
        for (given, lib) in [
            ("a", "a/nvidia/cu13/lib"),
            ("a/nvidia/cu13", "a/nvidia/cu13/lib"),
            ("a/nvidia/cu13/lib", "a/nvidia/cu13/lib"),
            ("a/nvidia/cu13/lib/libnvrtc.so.13", "a/nvidia/cu13/lib"),
            ("b", "b/lib64"),
        ] {
            let found = at(&root.path().join(given)).unwrap();
            let lib = root.path().join(lib);
            assert_eq!(found.library, lib.join("libnvrtc.so.13"), "{given}");
            assert_eq!(found.builtins, Some(lib.join("libnvrtc-builtins.so.13.0")), "{given}");
        }
        assert_eq!(at(&root.path().join("c")), None);
    }

    #[test]
    fn headers_lie_beside_the_library() {
        let root = tempfile::tempdir().unwrap();
        touch(&root.path().join("include").join(HEADER));
        let library = root.path().join("lib").join("libnvrtc.so.13");
        assert_eq!(headers(&library), Ok(root.path().join("include")));
    }
}
