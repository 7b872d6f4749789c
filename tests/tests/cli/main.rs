//! The `sparsek` binary from end to end.

mod bad_input;
mod binary;
mod broken_files;
mod case;
mod commands;
mod cuda;
mod golden;
mod output;
mod tune;
