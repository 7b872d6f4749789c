//! `sparsek emit`: a kernel at one stage of compilation.

use crate::failure::{Failure, Outcome};
use crate::target::Target;
use crate::terminal::Channel;
use clap::{Args, ValueEnum};
use sparsek_dsl::{backward, parse};
use std::path::PathBuf;

/// Arguments of `sparsek emit`.
#[derive(Args, Debug)]
#[command(after_help = "\
The typed program of a forward kernel prints as a kernel: what it prints can be compiled again.

Examples:
  sparsek emit sparsek-value --stage backward
  sparsek emit src/attention.rs::Local --stage ir --json --output local.json")]
pub(crate) struct EmitArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL")]
    kernel: String,
    /// Which form
    #[arg(long, value_enum, default_value = "ir")]
    stage: Stage,
    /// The serialised program instead of text (stages ir and backward)
    #[arg(long)]
    json: bool,
    /// Write there instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
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
}

pub(crate) fn run(args: &EmitArgs) -> Result<Outcome, Failure> {
    if args.json && args.stage == Stage::Ast {
        return Err(Failure::new("the syntax tree has no serialised form")
            .help("use --json with --stage ir or --stage backward"));
    }
    let target = Target::find(&args.kernel)?;
    let mut text = match args.stage {
        Stage::Ast => syntax_tree(&target)?,
        Stage::Ir if args.json => target.program.to_json(),
        Stage::Ir => target.program.to_string(),
        Stage::Backward => {
            let derived = backward::derive(&target.program);
            if args.json { derived.to_json() } else { derived.to_string() }
        }
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    match &args.output {
        None => Channel::Stdout.write(&text)?,
        Some(path) => {
            target.destination(path)?.write(|out| out.write_all(text.as_bytes()))?;
        }
    }
    Ok(Outcome::Done)
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
