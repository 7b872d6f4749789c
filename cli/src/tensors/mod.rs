//! Tensors in safetensors files: reading inputs, comparing with expectations, writing results.

pub(crate) mod file;
pub(crate) mod inputs;
pub(crate) mod output;
