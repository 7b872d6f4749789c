//! NVRTC: from CUDA C to cubins, without a GPU.

mod library;
mod locate;

use super::{Error, Resources, Version, resources};
use library::{Functions, Product};
use locate::Candidate;
use sparsek_codegen::Target;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What every source is compiled with, beside its target and the folder of the headers. Kernels of a source are compiled side by
/// side: what they become does not depend on how many threads do it, from two on.
const OPTIONS: [&str; 4] =
    ["--std=c++17", "-default-device", "--ptxas-options=-v", "--split-compile=4"];

/// A loaded NVRTC. It stays loaded until the process ends.
#[derive(Debug)]
pub struct Nvrtc {
    functions: Functions,
    path: PathBuf,
    version: Version,
    headers: Result<PathBuf, Vec<PathBuf>>,
}

/// A compiled source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// Code of the GPU, an ELF file.
    pub cubin: Vec<u8>,
    /// What NVRTC and ptxas print: warnings and the resources in words.
    pub log: String,
    /// Resources of every entry.
    pub resources: Vec<Resources>,
}

impl Nvrtc {
    /// NVRTC of CUDA 13: what `SPARSEK_NVRTC` names (the library or its folder); where that is not
    /// set, the system's, that of a CUDA installation, or what `cargo xtask nvrtc` fetched into the
    /// workspace around the current folder. Loaded once in a process.
    ///
    /// # Errors
    /// [`Error::NoNvrtc`] with every place that was tried.
    pub fn find() -> Result<&'static Nvrtc, crate::Error> {
        // A failure is not kept: the library may be installed while the process runs.
        static FOUND: Mutex<Option<&'static Nvrtc>> = Mutex::new(None);
        let mut found = FOUND.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(nvrtc) = *found {
            return Ok(nvrtc);
        }
        let nvrtc: &'static Nvrtc = Box::leak(Box::new(search()?));
        *found = Some(nvrtc);
        Ok(nvrtc)
    }

    /// NVRTC at a path: the library, its folder, or the folder of a CUDA installation.
    ///
    /// # Errors
    /// No library there, or one that is not NVRTC of CUDA 13.
    pub fn load(path: &Path) -> Result<Nvrtc, crate::Error> {
        let candidate = locate::at(path)
            .ok_or_else(|| library::failed(path, "there is no NVRTC library".to_owned()))?;
        Ok(open(&candidate)?)
    }

    /// Release of CUDA that it belongs to.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The library's file, or its name where the system's loader found it and the file is unknown.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the CUDA headers.
    pub fn headers(&self) -> Option<&Path> {
        self.headers.as_deref().ok()
    }

    /// Everything that decides what a source is compiled to, beside the source and the target: for
    /// keys of a cache.
    pub(crate) fn identity(&self) -> String {
        format!("nvrtc {} {}", self.version, OPTIONS.join(" "))
    }

    /// Compiles a source to a cubin. Any number of threads may compile at the same time. `label`
    /// names the source in messages.
    ///
    /// # Errors
    /// [`Error::Compile`] with the compiler's log.
    pub fn compile(
        &self,
        label: &str,
        source: &str,
        target: &Target,
    ) -> Result<Compiled, crate::Error> {
        let (cubin, log) = self.run(label, source, target, Product::Cubin)?;
        let resources = resources::parse(&log);
        Ok(Compiled { cubin, log, resources })
    }

    /// Compiles a source to PTX.
    ///
    /// # Errors
    /// As [`Nvrtc::compile`].
    pub fn ptx(&self, label: &str, source: &str, target: &Target) -> Result<String, crate::Error> {
        let (ptx, _) = self.run(label, source, target, Product::Ptx)?;
        Ok(String::from_utf8_lossy(&ptx).trim_end_matches('\0').to_owned())
    }

    fn run(
        &self,
        label: &str,
        source: &str,
        target: &Target,
        product: Product,
    ) -> Result<(Vec<u8>, String), Error> {
        let mut options: Vec<String> = OPTIONS.map(str::to_owned).to_vec();
        options.push(format!("--gpu-architecture={target}"));
        match &self.headers {
            Ok(folder) => options.push(format!("--include-path={}", folder.display())),
            Err(tried) if source.contains("#include <cuda_") => {
                let tried: Vec<String> = tried.iter().map(|p| p.display().to_string()).collect();
                return Err(Error::NoHeaders { tried: tried.join(", ") });
            }
            Err(_) => {}
        }
        let output = self
            .functions
            .compile(&format!("{label}.cu"), source, &options, product)
            .map_err(|reason| library::failed(&self.path, reason))?;
        match output.bytes {
            Some(bytes) if !bytes.is_empty() => Ok((bytes, output.log)),
            _ => Err(Error::Compile {
                what: label.to_owned(),
                target: target.name(),
                log: output.log,
            }),
        }
    }
}

fn search() -> Result<Nvrtc, Error> {
    if let Some(path) = locate::asked() {
        let named = |reason| {
            let tried = format!("{} = {} ({reason})", locate::VARIABLE, path.display());
            Error::NoNvrtc { needed: locate::MAJOR, tried }
        };
        let candidate = locate::at(&path).ok_or_else(|| named("not there".to_owned()))?;
        return open(&candidate).map_err(|e| named(e.to_string()));
    }
    let mut refused = Vec::new();
    for candidate in locate::candidates() {
        match open(&candidate) {
            Ok(nvrtc) => return Ok(nvrtc),
            // That the loader does not know the name is no news: it is among the places.
            Err(_) if candidate.library.components().count() == 1 => {}
            Err(e) => refused.push(e.to_string()),
        }
    }
    let tried: Vec<String> = locate::places().into_iter().chain(refused).collect();
    Err(Error::NoNvrtc { needed: locate::MAJOR, tried: tried.join("; ") })
}

fn open(candidate: &Candidate) -> Result<Nvrtc, Error> {
    let failed = |reason| library::failed(&candidate.library, reason);
    let functions =
        Functions::load(&candidate.library, candidate.builtins.as_deref()).map_err(failed)?;
    let version = functions.version().map_err(failed)?;
    if version.major != locate::MAJOR {
        return Err(failed(format!("it is of CUDA {version}; CUDA {} is needed", locate::MAJOR)));
    }
    let path = match candidate.library.is_absolute() || candidate.library.is_file() {
        true => candidate.library.clone(),
        false => locate::loaded_from(&candidate.library).unwrap_or(candidate.library.clone()),
    };
    let headers = locate::headers(&path);
    Ok(Nvrtc { functions, path, version, headers })
}

#[cfg(test)]
mod tests;
