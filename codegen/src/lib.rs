//! From typed programs to CUDA C.
//!
//! program + [`Schedule`] + [`Target`] → [`KernelPlan`] → [`CudaSource`], one type per arrow, each
//! printable. A kernel instance becomes three modules ([`Module`]); a [`KernelPlan`] holds every value
//! that the templates of one of them print, and the [`Interface`] by which it is launched.

mod interface;
mod problem;
mod schedule;
mod target;
pub mod tune;
mod version;

#[cfg(feature = "emit")]
mod emit;
#[cfg(feature = "emit")]
mod error;
#[cfg(feature = "emit")]
mod lower;
#[cfg(feature = "emit")]
mod plan;

pub use interface::{
    Axis, Buffer, Factor, Interface, Keep, Launch, Parameter, Product, Scalar, Sizes,
};
pub use problem::{Given, Problem};
pub use schedule::{PassSchedule, Schedule};
pub use target::{Family, Target};
pub use version::version;

#[cfg(feature = "emit")]
pub use emit::CudaSource;
#[cfg(feature = "emit")]
pub use error::Error;
#[cfg(feature = "emit")]
pub use plan::{KernelPlan, Module};
