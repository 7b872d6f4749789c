//! Built-in SPARSEK attention kernels.
