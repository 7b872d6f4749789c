//! Tests across the sparsek crates: what several test files share.

pub mod golden;
