//! Tests across the sparsek crates.
