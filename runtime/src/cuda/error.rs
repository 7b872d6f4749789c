//! What can go wrong with a GPU.

use std::fmt;
use std::path::PathBuf;
use thiserror::Error;

/// A version of the driver or of NVRTC: that of the CUDA release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 13 of 13.0.
    pub major: u32,
    /// 0 of 13.0.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why something could not be done on a GPU, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver's library is not there.
    #[error(
        "no CUDA driver: {library} was not found. Install an NVIDIA driver of CUDA {needed} or \
         newer, or add the folder of the library to LD_LIBRARY_PATH"
    )]
    NoDriver {
        /// File name looked for.
        library: &'static str,
        /// Oldest driver that runs the compiled code.
        needed: Version,
    },
    /// The driver is older than what compiled code needs.
    #[error(
        "the NVIDIA driver is of CUDA {found}, and {needed} or newer is needed: update the driver"
    )]
    DriverTooOld {
        /// What is there.
        found: Version,
        /// What is needed.
        needed: Version,
    },
    /// The driver sees no GPU.
    #[error("the CUDA driver sees no GPU; CUDA_VISIBLE_DEVICES, where it is set, must name one")]
    NoDevice,
    /// The driver sees fewer GPUs.
    #[error("there is no GPU {ordinal}: the driver sees {count}, numbered from 0")]
    NoSuchDevice {
        /// Asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// No code is generated for this GPU.
    #[error(
        "{name} has compute capability {}.{}, for which there is no target; supported are {supported}",
        capability.0, capability.1
    )]
    Architecture {
        /// Name of the GPU.
        name: String,
        /// Its compute capability.
        capability: (u32, u32),
        /// The targets.
        supported: String,
    },
    /// NVRTC is not there.
    #[error(
        "NVRTC (CUDA {needed}) was not found; tried {tried}. Set SPARSEK_NVRTC to libnvrtc or its \
         folder, add the folder to LD_LIBRARY_PATH, or, in the sparsek workspace, run `cargo xtask nvrtc`"
    )]
    NoNvrtc {
        /// Release that is needed.
        needed: u32,
        /// Every place looked at, and what was wrong there.
        tried: String,
    },
    /// A library is not NVRTC, or not one that can be used.
    #[error("{}: {reason}", path.display())]
    Nvrtc {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// cuda_fp16.h and cuda_bf16.h are not there.
    #[error(
        "the CUDA headers (cuda_bf16.h, cuda_fp16.h) were not found in {tried}. Keep them in the \
         folder `include` beside the folder of NVRTC, or set CUDA_HOME"
    )]
    NoHeaders {
        /// Every folder looked at.
        tried: String,
    },
    /// NVRTC refused a source.
    #[error("{what} does not compile for {target}:\n{log}")]
    Compile {
        /// Module and kernel.
        what: String,
        /// Target.
        target: String,
        /// What NVRTC says.
        log: String,
    },
    /// Device memory ran out.
    #[error("{what} needs {asked} bytes of device memory; {free} of {total} bytes are free")]
    OutOfMemory {
        /// What it was for.
        what: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// A kernel could not be launched.
    #[error("launching {entry} of the {module} module failed: {reason}")]
    Launch {
        /// Module.
        module: &'static str,
        /// Entry.
        entry: String,
        /// What the driver says.
        reason: String,
    },
    /// More blocks than a grid can have.
    #[error(
        "{entry} needs {blocks} blocks along {axis}, and a grid has at most {limit}: \
         use a smaller batch or fewer heads in one call"
    )]
    Grid {
        /// Entry.
        entry: String,
        /// x, y or z.
        axis: char,
        /// Blocks.
        blocks: u64,
        /// The limit.
        limit: u64,
    },
    /// A call whose sizes do not fit 64-bit arithmetic.
    #[error("{what} overflows: the tensors are too large for one call")]
    TooLarge {
        /// What is too large.
        what: String,
    },
    /// The driver reported an error.
    #[error("{what}: {reason}")]
    Driver {
        /// What was being done.
        what: String,
        /// What the driver says.
        reason: String,
    },
    /// A tensor's address or strides cannot be used.
    #[error("tensor `{name}`: {reason}")]
    Layout {
        /// Tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor lies on another GPU or in another context.
    #[error("tensor `{name}` is not on GPU {ordinal}, where the kernel runs")]
    OtherDevice {
        /// Tensor.
        name: String,
        /// The kernel's device.
        ordinal: usize,
    },
    /// Memory given by the caller is too small or not aligned.
    #[error("{what} needs {needed}; {found} were given")]
    Workspace {
        /// Which memory.
        what: &'static str,
        /// What is needed.
        needed: String,
        /// What was given.
        found: String,
    },
    /// A backward call does not fit its forward call.
    #[error("the backward does not fit the forward call: {0}")]
    Mismatch(String),
    /// No compiled code for this call, and none can be made.
    #[error(
        "there is no compiled {module} module of kernel {kernel} for {target} that fits this call \
         ({wanted}); make one with `sparsek emit KERNEL --image` and add it with \
         `cuda::Kernel::add_image`, or build with the feature `jit`"
    )]
    NoImage {
        /// Module.
        module: &'static str,
        /// Kernel.
        kernel: String,
        /// Target.
        target: String,
        /// What it must be specialised for.
        wanted: String,
    },
    /// Calls that a kernel does not have.
    #[error("calls of kernel {kernel}: {reason}")]
    Calls {
        /// Kernel.
        kernel: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes that are not a compiled module.
    #[error("not a compiled module: {0}")]
    Image(String),
    /// A module does not say how it is launched: a mistake in its generator.
    #[error("the {module} module cannot be launched: {reason}")]
    Interface {
        /// Module.
        module: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Code cannot be generated.
    #[cfg(feature = "jit")]
    #[error(transparent)]
    Codegen(#[from] sparsek_codegen::Error),
}
