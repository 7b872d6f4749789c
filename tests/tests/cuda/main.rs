//! Generated code, without a GPU: it compiles for every target, or is refused with numbers.

mod compile;
mod emulated;
mod generated;
mod grid;
mod programs;
mod readme;
mod snapshots;
