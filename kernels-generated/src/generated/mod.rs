//! The CUDA C that the built-in kernels run as on a GPU, as text.
//!
//! It is here to be read, and to be compared with what another release generates; what a call runs is
//! generated for its own shapes. `README.md` beside `Cargo.toml` says which file shows what.

/// Instances of the kernels: files, constants and schedules of each, as JSON.
pub const MANIFEST: &str = include_str!("../../manifest.json");

/// One variant of one module: sources that differ by constants alone have one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in this package: `cuda/FAMILY/MODULE_KERNEL.cu`.
    pub path: &'static str,
    /// CUDA C of the instance that its first line names, whole: NVRTC compiles it as it is.
    pub text: &'static str,
}

macro_rules! generated {
    ($($path:literal),* $(,)?) => {
        static FILES: &[File] = &[$(File {
            path: concat!("cuda/", $path),
            text: include_str!(concat!("../../cuda/", $path)),
        }),*];
    };
}

include!("files.rs");

/// Every file, in the order of their paths.
pub fn files() -> &'static [File] {
    FILES
}
