//! The sparsek command line.
//!
//! Exit codes: 0 done, 1 a check did not hold, 2 bad usage or bad input. Messages on standard
//! error say what is wrong, where, and what to do.

mod against_cpu;
mod backend;
mod bench;
mod cases;
mod commands;
mod cuda_inputs;
mod expect;
mod failure;
mod machine;
mod picture;
mod progress;
mod schedule;
mod suite;
mod table;
mod target;
mod tensors;
mod terminal;
mod tune;
mod work;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Sparse attention kernels from programs: check them, see them, run them.
#[derive(Debug, Parser)]
#[command(name = "sparsek", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = after_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report what is wrong with the kernels in Rust files
    Check(commands::check::CheckArgs),
    /// Print a kernel at one stage of compilation, from syntax tree to machine code
    Emit(commands::emit::EmitArgs),
    /// Run a kernel on tensors from a file
    Run(commands::run::RunArgs),
    /// Compare a kernel's results with float64 references
    Verify(commands::verify::VerifyArgs),
    /// Show which keys each query sees
    Plan(commands::plan::PlanArgs),
    /// Time a kernel over sequence lengths
    Bench(commands::bench::BenchArgs),
    /// Measure schedules on a GPU, and look after those that are kept
    Tune(Box<commands::tune::TuneArgs>),
    /// The process of `tune` that uses the GPU
    #[command(hide = true)]
    TuneWorker,
    /// Look after the cache of compiled kernels
    Cache(commands::cache::CacheArgs),
    /// Describe this machine as sparsek sees it
    Doctor(commands::doctor::DoctorArgs),
}

fn after_help() -> String {
    let mut text = "Built-in kernels:\n".to_owned();
    for kernel in sparsek_kernels::all() {
        text.push_str(&format!("  {:<26}{}\n", kernel.name, kernel.doc));
    }
    text.push_str(
        "\nExit codes: 0 done, 1 a check did not hold, 2 bad usage or bad input.\n\nExample:\n  \
         sparsek run sparsek-value --input in.safetensors --output out.safetensors --backward",
    );
    text
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Check(args) => commands::check::run(&args),
        Command::Emit(args) => commands::emit::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Tune(args) => commands::tune::run(&args),
        Command::TuneWorker => tune::serve::run(),
        Command::Cache(args) => commands::cache::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
    };
    match ended {
        Ok(outcome) => outcome.into(),
        Err(failure) => failure.report(),
    }
}
