//! Random inputs and programs from a seed.

mod standard;

pub use standard::program;
