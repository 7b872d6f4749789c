//! Properties of every kernel on the CPU, by proptest, and shapes at the edges.
