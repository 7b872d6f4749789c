//! The sparsek command line.
fn main() {}
