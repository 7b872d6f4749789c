//! `sparsek tune`: schedules measured on a GPU, and those that are kept.

pub(crate) mod kept;
pub(crate) mod run;

use super::parse_elem;
use crate::backend::Device;
use crate::bench::data::Scores;
use crate::failure::{Failure, Outcome};
use crate::tune::lists::Numbers;
use clap::{Args, Subcommand};
use sparsek::Elem;
use sparsek_codegen::tune::Level;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `sparsek tune`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Every combination of the lists is a key: a kernel, its element type, D, k, window and group, the length
rounded up to a power of two, and the GPU. A list is `64,128`; `128..1024` is 128, 256, 512 and 1024.

Candidates are ranked by a cost model and compiled on every core. A process of its own runs them: each is
first compared with the CPU backend on a small problem, then timed. One that crashes or hangs costs
only itself. The interrupt key ends the search behind the running candidate and keeps what was measured;
--resume then goes on. What wins is kept in the store (SPARSEK_TUNED_DIR, else the platform's folder for data)
and used by every later call of that key; SPARSEK_TUNED=off ignores it. A baseline takes the place of nothing
that a search found.

Exit codes: 0 done, 1 no candidate gave a right result, 2 bad usage or no GPU, 130 interrupted.

Examples:
  sparsek tune sparsek-value --head-dim 64,128 --k 512 --window 512 --dry-run
  sparsek tune src/attention.rs::Local --head-dim 128 --k 128..1024 --window 0,512 --seq 65536
  sparsek tune sparsek-value --head-dim 128 --k 512 --window 512 --level full --report tuned.svg
  sparsek tune sparsek-value --head-dim 64,128 --k 128..1024 --window 0,512 --level baseline
  sparsek tune list
  sparsek tune export sparsek-value --output src/tuned.json")]
pub(crate) struct TuneArgs {
    #[command(subcommand)]
    kept: Option<Kept>,
    #[command(flatten)]
    search: SearchArgs,
}

#[derive(Args, Debug)]
struct SearchArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL", required = true)]
    kernel: Option<String>,
    /// Head dimensions [default: what the kernel fixes, else 128]
    #[arg(long, value_name = "LIST")]
    head_dim: Option<Numbers>,
    /// Keys that the top-k mask keeps [default: what the kernel fixes, else 512]
    #[arg(long, value_name = "LIST")]
    k: Option<Numbers>,
    /// Lengths of the sliding window [default: what the kernel fixes, else 512]
    #[arg(long, value_name = "LIST")]
    window: Option<Numbers>,
    /// Sequence lengths
    #[arg(long, value_name = "LIST", default_value = "65536")]
    seq: Numbers,
    /// Query heads / key-value heads
    #[arg(long, value_name = "HQ/HKV", default_value = "32/8", value_parser = super::bench::parse_heads)]
    heads: (usize, usize),
    /// Rows of the batch
    #[arg(long, value_name = "B", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Element type: bf16, f16 or f32 [default: bf16 where the kernel takes it]
    #[arg(long, value_name = "TYPE", value_parser = parse_elem)]
    elem: Option<Elem>,
    /// Another integer parameter of the kernel; may be repeated
    #[arg(long, value_name = "NAME=INT", value_parser = super::parse_setting)]
    set: Vec<(String, i64)>,
    /// An input with a default that calls give; may be repeated
    #[arg(long, value_name = "INPUT")]
    with: Vec<String>,
    /// What scores are like: sd:NUMBER, trend:SLOPE:SD or equal
    #[arg(long, value_name = "KIND", default_value = "sd:1")]
    scores: Scores,
    /// baseline: what calls take anyway, to have its figures; quick: the best of the ranking, starting none after
    /// half a minute; full: every candidate
    #[arg(long, value_enum, default_value = "quick")]
    level: LevelName,
    /// Start nothing after that time, as 90s, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    budget: Option<Duration>,
    /// Do not measure again what the store knows of the same sizes and driver
    #[arg(long)]
    resume: bool,
    /// Draw times of candidates and the roofline there
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write every number there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// cuda or cuda:N
    #[arg(long, default_value = "cuda", value_name = "DEVICE", value_parser = Device::parse)]
    device: Device,
    /// Show the cost model's ranking; needs no GPU
    #[arg(long)]
    dry_run: bool,
    /// GPU architecture of --dry-run [default: the GPU's, else sm_90a]
    #[arg(long, value_name = "ARCH", value_parser = super::emit::parse_target, requires = "dry_run")]
    target: Option<sparsek_codegen::Target>,
    /// Candidates of an axis that --dry-run shows; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 10, requires = "dry_run")]
    top: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LevelName {
    /// What the cost model chooses alone
    Baseline,
    /// The best of the ranking
    Quick,
    /// Every candidate
    Full,
}

impl LevelName {
    fn level(self) -> Level {
        match self {
            LevelName::Baseline => Level::Baseline,
            LevelName::Quick => Level::Quick,
            LevelName::Full => Level::Full,
        }
    }
}

/// What is kept.
#[derive(Debug, Subcommand)]
enum Kept {
    /// List what the store holds
    List,
    /// Show everything that is known of one key
    Show {
        /// Of `list`; its first digits are enough
        id: String,
    },
    /// Write winners as a manifest, for kernels to carry
    Export {
        /// Only kernels, GPUs or ids that contain this text
        filter: Option<String>,
        /// Where to
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Take the records of a manifest into the store
    Import {
        /// What `export` wrote
        file: PathBuf,
    },
    /// Remove keys from the store
    Rm {
        /// Of `list`; first digits are enough
        #[arg(required = true)]
        id: Vec<String>,
    },
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write it as 90s, 10m or 2h"))
}

pub(crate) fn run(args: &TuneArgs) -> Result<Outcome, Failure> {
    match &args.kept {
        None => run::run(&args.search),
        Some(Kept::List) => kept::list(),
        Some(Kept::Show { id }) => kept::show(id),
        Some(Kept::Export { filter, output }) => kept::export(filter.as_deref(), output),
        Some(Kept::Import { file }) => kept::import(file),
        Some(Kept::Rm { id }) => kept::remove(id),
    }
}
