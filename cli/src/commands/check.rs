//! `sparsek check`: diagnostics of every kernel in Rust files.

use crate::failure::{Failure, Outcome};
use crate::target::SourceFile;
use crate::terminal::{self, Channel};
use clap::Args;

/// Arguments of `sparsek check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Every sparsek_kernel! in the files is checked, in nested modules and functions too. Exit code 1
when a kernel has an error, 2 when a file cannot be read.

Example:
  sparsek check src/attention.rs")]
pub(crate) struct CheckArgs {
    /// Rust files
    #[arg(required = true, value_name = "FILE.rs")]
    files: Vec<String>,
}

pub(crate) fn run(args: &CheckArgs) -> Result<Outcome, Failure> {
    let (mut kernels, mut errors, mut unreadable) = (0, 0, 0);
    for path in &args.files {
        match SourceFile::read(path) {
            Ok(file) => {
                file.show_diagnostics();
                kernels += file.compiled.kernels.len();
                errors += file.compiled.diagnostics.len();
            }
            Err(failure) => {
                terminal::error(&failure);
                unreadable += 1;
            }
        }
    }
    let files = count(args.files.len(), "file");
    let found = if errors == 0 { "no errors".to_owned() } else { count(errors, "error") };
    let unread = match unreadable {
        0 => String::new(),
        n => format!(", {} not read", count(n, "file")),
    };
    let kernels = count(kernels, "kernel");
    Channel::Stdout.write(&format!("{kernels} in {files}: {found}{unread}\n"))?;
    match (unreadable > 0, errors) {
        (true, _) => Err(Failure::reported()),
        (false, 0) => Ok(Outcome::Done),
        (false, _) => Ok(Outcome::DoesNotHold),
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
