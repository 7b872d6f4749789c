//! float64 reference results for sparsek programs.
