//! Schedules: which there are, what the cost model expects of them, and the search that measures them.
//!
//! * [`Space`] lists the schedules that a kernel's schedule block allows and that fit the target,
//!   ranked by the cost model (`model.rs` says what it counts);
//! * [`search`] has candidates compiled, checked and timed by a [`Measure`], and says which is best;
//! * a [`Measurement`] is what is kept of each.
//!
//! Nothing here knows of a GPU: the model reads a [`Machine`], and measuring is the caller's.

mod measurement;

#[cfg(feature = "emit")]
mod model;
#[cfg(feature = "emit")]
mod search;
#[cfg(feature = "emit")]
mod space;

pub use measurement::{Axis, Measurement, Outcome, Spread};

#[cfg(feature = "emit")]
pub use model::{Machine, Workload};
#[cfg(feature = "emit")]
pub use search::{
    BEHIND, Ended, FINALISTS, Found, Level, Measure, Observer, Options, Trouble, WrongResult,
    search,
};
#[cfg(feature = "emit")]
pub use space::{Candidate, Space};

#[cfg(all(test, feature = "emit"))]
mod tests;
