//! What can be wrong with a problem.

use thiserror::Error;

/// Why no reference result could be computed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// An array's elements do not fill its shape.
    #[error("an array of shape {shape:?} cannot hold {found} elements")]
    Length {
        /// Shape.
        shape: Vec<usize>,
        /// Number of elements.
        found: usize,
    },
    /// An input without a default is not there.
    #[error("input {name} is missing; give it with shape {wanted}")]
    Missing {
        /// Input.
        name: String,
        /// Its layout.
        wanted: String,
    },
    /// An input has another shape than the program and the other inputs ask for.
    #[error("input {name} has shape {found:?} and needs {wanted}")]
    Shape {
        /// Input.
        name: String,
        /// Shape found.
        found: Vec<usize>,
        /// Its layout.
        wanted: String,
    },
    /// Query heads are not a multiple of key-value heads.
    #[error("{hq} query heads cannot share {hkv} key-value heads; give a multiple of {hkv}")]
    Heads {
        /// Query heads.
        hq: usize,
        /// Key-value heads.
        hkv: usize,
    },
    /// Boundaries of packed sequences are not usable.
    #[error("cu_seqlens {0}")]
    Sequences(String),
    /// The program cannot be evaluated.
    #[error("program {name}: {reason}")]
    Program {
        /// Program.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}
