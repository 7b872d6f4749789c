//! The sparsek_kernel! procedural macro.
