//! What can go wrong when a kernel is instantiated or run.

use sparsek_dsl::Elem;
use sparsek_dsl::ir::SpecError;
use thiserror::Error;

/// Why a kernel could not be instantiated or run. Every message names the tensor or parameter.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter is missing or outside its set.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The embedded program could not be read.
    #[error(transparent)]
    Program(#[from] sparsek_dsl::ir::LoadError),
    /// The manifest of tuned schedules that a kernel carries could not be read.
    #[error("kernel {kernel}: {source}")]
    Manifest {
        /// Kernel.
        kernel: String,
        /// What is wrong.
        source: crate::tuned::ManifestError,
    },
    /// The program breaks a rule of well-formed programs.
    #[error("kernel {kernel} is not well formed: {rule}")]
    IllFormed {
        /// Kernel.
        kernel: String,
        /// The first broken rule.
        rule: String,
    },
    /// A tensor that the kernel needs was not given.
    #[error("input tensor `{name}` is missing: kernel {kernel} needs it as {expected}")]
    MissingInput {
        /// Kernel.
        kernel: String,
        /// Tensor.
        name: String,
        /// Class and layout.
        expected: String,
    },
    /// A tensor was given that the kernel does not have.
    #[error("kernel {kernel} has no input `{name}`; it has {known}")]
    UnknownInput {
        /// Kernel.
        kernel: String,
        /// Tensor.
        name: String,
        /// The kernel's inputs.
        known: String,
    },
    /// A tensor's shape does not fit.
    #[error("tensor `{name}` has shape {found:?}; {expected}")]
    Shape {
        /// Tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What was expected, and where that comes from.
        expected: String,
    },
    /// A tensor's element type does not fit.
    #[error("tensor `{name}` holds {found}; {expected} is needed")]
    Type {
        /// Tensor.
        name: String,
        /// Its element type.
        found: &'static str,
        /// What was expected.
        expected: String,
    },
    /// A slice's length is not the product of its shape.
    #[error("a tensor of shape {shape:?} has {expected} elements and the data has {found}")]
    Length {
        /// Shape.
        shape: Vec<usize>,
        /// Product of the shape.
        expected: usize,
        /// Length of the data.
        found: usize,
    },
    /// The number of query heads is not a multiple of the number of key-value heads.
    #[error("{query_heads} query heads are not a multiple of {kv_heads} key-value heads")]
    Heads {
        /// Hq.
        query_heads: usize,
        /// Hkv.
        kv_heads: usize,
    },
    /// Sequence boundaries are not usable.
    #[error("cu_seqlens: {0}")]
    Sequences(String),
    /// A gradient was asked for that the kernel does not have.
    #[error("kernel {kernel} has no gradient `{name}`; it has {known}")]
    UnknownGradient {
        /// Kernel.
        kernel: String,
        /// Asked for.
        name: String,
        /// Its gradients.
        known: String,
    },
    /// Something is missing for a GPU, or went wrong on it.
    #[error(transparent)]
    Cuda(#[from] crate::cuda::Error),
    /// The program needs what the CPU backend does not do.
    #[error("the CPU backend cannot run kernel {kernel}: {reason}")]
    Unsupported {
        /// Kernel.
        kernel: String,
        /// What it needs.
        reason: String,
    },
}

/// The type and layout of an element type, for messages.
pub(crate) fn elem_needed(elem: Elem) -> String {
    format!("{elem} (the kernel's element type)")
}
