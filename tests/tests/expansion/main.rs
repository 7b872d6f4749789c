//! Invocations of the macro that compile, and what they expand to.

mod tuned;
pub mod visibility_and_names;
