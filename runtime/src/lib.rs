//! Sparse attention kernels from programs.
