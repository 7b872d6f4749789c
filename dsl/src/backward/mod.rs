//! The backward program, derived from the forward one.
