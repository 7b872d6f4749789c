//! Why no code can be generated.

use thiserror::Error;

/// Why a kernel cannot be lowered or emitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// No schedule, or not this one, fits the target.
    #[error("{what} does not fit {target}: it needs {needed} and {available} are available{help}")]
    Infeasible {
        /// Kernel, pass and schedule.
        what: String,
        /// Target.
        target: String,
        /// What is needed, with unit.
        needed: String,
        /// What there is, with unit.
        available: String,
        /// What to do, with its separator; may be empty.
        help: String,
    },
    /// A schedule that no target runs.
    #[error("schedule: {0}")]
    Schedule(String),
    /// The program needs what the generated code does not do.
    #[error("no CUDA code for kernel {kernel}: {reason}")]
    Unsupported {
        /// Kernel.
        kernel: String,
        /// What it needs.
        reason: String,
    },
    /// A template failed: a mistake in this crate.
    #[error("template: {0}")]
    Template(String),
}
