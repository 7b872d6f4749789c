//! `sparsek emit`: a kernel at one stage of compilation.

mod generated;
mod instructions;

use super::Parameters;
use crate::failure::{Failure, Outcome};
use crate::schedule::Change;
use crate::target::Target;
use crate::terminal::Channel;
use clap::{Args, ValueEnum};
use sparsek_dsl::{backward, parse};
use std::path::PathBuf;

/// Arguments of `sparsek emit`.
#[derive(Args, Debug)]
#[command(after_help = "\
The typed program of a forward kernel prints as a kernel: what it prints can be compiled again.

A kernel becomes three modules of CUDA C: plan (scores to thresholds and key lists), forward and
backward; what the kernel leaves open (--head-dim, --k, --window) is given by flags, and the element type
is bf16 where none is. The stages plan and cuda need no GPU and no CUDA; ptx, cubin and image need NVRTC and no GPU. What
the compiler says of registers, spills, shared memory and tensor instructions goes to standard
error.

An image is a compiled module with all that is needed to launch it, to be shipped with a program:
`Image::all_from_bytes` reads the file and `cuda::Kernel::add_image` takes each image, without NVRTC and also
without the feature `jit`. Without --module the file holds all three modules. Code is specialised for its
calls: the heads of a group (--group), the inputs that they give (--without, --shared) and the gradients that they want
(--wanted). With --tuned the schedule is the one that calls on that GPU would take, of `sparsek tune` or of the
kernel's manifest; it is an error when there is none.

Examples:
  sparsek emit sparsek-value --stage backward
  sparsek emit src/attention.rs::Local --stage ir --json --output local.json
  sparsek emit sparsek-value --stage cuda --head-dim 128 --k 512 --window 512 --group 4
  sparsek emit sparsek-value --cubin --module backward --target sm_80 --head-dim 64 --k 64 \\
    --window 64 --output backward.cubin
  sparsek emit sparsek-value --image --head-dim 128 --k 512 --window 512 --group 4 \\
    --tuned 'NVIDIA H200' --output value-128.image")]
pub(crate) struct EmitArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL")]
    kernel: String,
    /// Which form
    #[arg(long, value_enum, default_value = "ir")]
    stage: Stage,
    /// Short for --stage cubin
    #[arg(long, conflicts_with_all = ["stage", "image"])]
    cubin: bool,
    /// Short for --stage image
    #[arg(long, conflicts_with = "stage")]
    image: bool,
    /// Serialised instead of text (stages ir, backward and plan)
    #[arg(long)]
    json: bool,
    /// Write there instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Module of stages plan, cuda, ptx, cubin and image [default: all for plan and image, else
    /// forward]
    #[arg(long, value_enum)]
    module: Option<ModuleName>,
    /// GPU architecture: sm_80, sm_86, sm_89, sm_90a, sm_100a or sm_120a
    #[arg(long, value_name = "ARCH", default_value = "sm_90a", value_parser = parse_target)]
    target: sparsek_codegen::Target,
    /// Head dimension, for a kernel that leaves it open
    #[arg(long, value_name = "D")]
    head_dim: Option<i64>,
    /// Query heads of one key-value head
    #[arg(long, value_name = "G", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    group: u32,
    /// Inputs with a default that calls do not give
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    without: Vec<String>,
    /// PerQuery and PerKey inputs that have no head axis
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    shared: Vec<String>,
    /// Gradients that the backward computes, as d_q,d_u [default: of every input that is given]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    wanted: Option<Vec<String>>,
    /// Use the schedule that was tuned for that GPU (its name as `sparsek doctor` gives it) and calls of
    /// --seq positions [default: the cost model's choice]
    #[arg(long, value_name = "GPU")]
    tuned: Option<String>,
    /// Positions of the longest sequence, for --tuned
    #[arg(long, value_name = "N", default_value_t = 65536, requires = "tuned")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seq: u64,
    /// Changes of the schedule: `forward: q 128 kv 64 warps 4 stages 2; chunk 512`
    #[arg(long, value_name = "CHANGES")]
    schedule: Option<Change>,
    #[command(flatten)]
    parameters: Parameters,
}

/// A form of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The syntax tree
    Ast,
    /// The typed program
    Ir,
    /// The derived backward program
    Backward,
    /// Schedule, buffers and launches of the generated code
    Plan,
    /// CUDA C
    Cuda,
    /// PTX, by NVRTC
    Ptx,
    /// Machine code, by NVRTC
    Cubin,
    /// Machine code with all that is needed to launch it
    Image,
}

/// A module of a compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModuleName {
    /// Scores to thresholds and key lists
    Plan,
    /// Output
    Forward,
    /// Gradients
    Backward,
}

impl EmitArgs {
    fn stage(&self) -> Stage {
        match (self.cubin, self.image) {
            (true, _) => Stage::Cubin,
            (_, true) => Stage::Image,
            (false, false) => self.stage,
        }
    }
}

/// `sm_90a`
pub(crate) fn parse_target(text: &str) -> Result<sparsek_codegen::Target, String> {
    use sparsek_codegen::Target;
    let known = || Target::ALL.map(|t| t.name()).join(", ");
    Target::named(text).ok_or_else(|| format!("a target is one of {}", known()))
}

pub(crate) fn run(args: &EmitArgs) -> Result<Outcome, Failure> {
    let target = Target::find(&args.kernel)?;
    let destination = args.output.as_ref().map(|path| target.destination(path)).transpose()?;
    let bytes = match args.stage() {
        Stage::Ast | Stage::Ir | Stage::Backward => program(args, &target)?.into_bytes(),
        Stage::Plan | Stage::Cuda | Stage::Ptx | Stage::Cubin | Stage::Image => {
            generated::emit(args, &target)?
        }
    };
    match destination {
        None => Channel::Stdout.write_bytes(&bytes)?,
        Some(destination) => {
            destination.write(|out| out.write_all(&bytes))?;
        }
    }
    Ok(Outcome::Done)
}

/// The forms that know no GPU.
fn program(args: &EmitArgs, target: &Target) -> Result<String, Failure> {
    let mut text = match (args.stage(), args.json) {
        (Stage::Ir, true) => target.program.to_json(),
        (Stage::Ir, false) => target.program.to_string(),
        (Stage::Backward, json) => {
            let derived = backward::derive(&target.program);
            if json { derived.to_json() } else { derived.to_string() }
        }
        (_, true) => {
            return Err(Failure::new("the syntax tree has no serialised form")
                .help("use --json with --stage ir, backward or plan"));
        }
        (_, false) => syntax_tree(target)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The syntax tree; a built-in kernel's is that of its printed program.
fn syntax_tree(target: &Target) -> Result<String, Failure> {
    if let Some(ast) = &target.ast {
        return Ok(ast.dump());
    }
    let compiled = parse::compile_file(&target.program.to_string());
    match compiled.kernels.first() {
        Some(kernel) => Ok(kernel.ast.dump()),
        None => Err(Failure::new(format_args!("{} has no source text", target.name))),
    }
}
