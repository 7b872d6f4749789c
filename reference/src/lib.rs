//! float64 reference results.
//!
//! * [`brute`] computes SPARSEK attention and its gradients straight from their definitions. It knows
//!   nothing of programs and shares no code with the compiler.
//! * [`dense`] evaluates any typed program, forward or backward, one node at a time over its whole
//!   index set: no tiles, no plan, no shortcuts.
//! * [`rule`] is the rule by which a result is accepted against one of them.
//! * [`generate`] makes random inputs and random programs from a seed.
//!
//! Both references take O(N²) time and memory; they are meant for sequences of up to a few thousand
//! tokens.

mod array;
pub mod brute;
pub mod dense;
mod error;
mod expected;
pub mod generate;
mod plan;
pub mod rule;

pub use array::{Array, Arrays};
pub use error::Error;
pub use expected::Expected;
pub use plan::{Plan, Sequence};
