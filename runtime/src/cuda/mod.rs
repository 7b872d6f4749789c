//! The CUDA backend.
//!
//! ```no_run
//! use sparsek::cuda::Device;
//! use sparsek::{Elem, Inputs, Kernel, Program, Spec};
//!
//! # fn run(program: &Program, inputs: &Inputs<'_>) -> Result<(), sparsek::Error> {
//! let device = Device::new(0)?;
//! let kernel = Kernel::from_program(program, &Spec::new(Elem::Bf16, 128).k(512).w(512))?.cuda(&device);
//! let (forward, _) = kernel.run_host(inputs, None, &Default::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! Tensors that are on the GPU already are given as [`TensorView`]s, and results stay there:
//! [`Kernel::forward`], [`Kernel::backward`]. Both queue their work on the device's stream and
//! return. [`Kernel::prepare`] splits off everything but the launches: what it gives can be queued
//! on any stream with memory of the caller's, and captured into a graph.
//!
//! What happens on the way:
//!
//! * `call` checks tensors, [`Prepared`] decides which modules a call of these shapes needs;
//! * `store` makes each module once: `emit` generates CUDA C and compiles it with [`nvrtc`], unless
//!   the [`cache`] has the code, or the user gave it as an [`Image`]; `code` does the same without a
//!   GPU;
//! * `loaded` holds a module's functions; `launch` queues them in the order of the module's
//!   interface, with the parameter struct that `arguments` packs and buffers where `workspace` puts
//!   them.
//!
//! Nothing of CUDA is linked: the driver and NVRTC are loaded when they are first needed, and
//! [`devices`] says what is missing. Without the feature `jit` nothing is generated or compiled, and
//! every module must be given as an [`Image`].

mod arguments;
pub mod cache;
mod call;
#[cfg(feature = "jit")]
mod code;
mod device;
#[cfg(feature = "jit")]
mod emit;
mod error;
mod host;
mod image;
mod images;
mod kernel;
mod launch;
mod loaded;
mod memory;
#[cfg(feature = "jit")]
pub mod nvrtc;
mod prepared;
mod prepared_backward;
mod profile;
mod resources;
mod sealed;
mod sequences;
mod store;
mod strides;
mod tensor;
mod workspace;

#[cfg(feature = "jit")]
pub use code::{CallShape, Code};
pub use cudarc;
pub use device::{Device, DeviceInfo, devices, driver_version};
#[cfg(feature = "jit")]
pub use emit::compiled_text;
pub use error::{Error, Version};
pub use host::HostOptions;
pub use image::{Image, Module};
pub use kernel::{Forward, Gradients, Kernel, Options, shapes};
pub use memory::{Memory, MemoryMut};
pub use prepared::{ForwardCall, Prepared};
pub use prepared_backward::{BackwardCall, PreparedBackward};
pub use profile::{Profile, Timing};
pub use resources::Resources;
pub use sequences::Sequences;
pub use tensor::{Element, Inputs, Outputs, OwnedTensor, TensorShape, TensorView, TensorViewMut};

#[cfg(all(test, feature = "jit"))]
mod tests;
