//! Project tasks: `cargo xtask --help`.

mod nvrtc;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
Project tasks.

Usage: cargo xtask <TASK>

Tasks:
  test    formatting, lints, documentation, then every test and doc test of every package
  lint    formatting, lints and documentation only
  nvrtc   fetches NVRTC and its headers into target/nvrtc, for machines without CUDA
  generate
          rewrites the CUDA C of the built-in kernels and its manifest in kernels-generated
  generate --check
          fails when they are not what is generated now, as `test` does too
  update  `generate`, then accepts the snapshots of generated code as they are now: for a deliberate
          change of the compiler, to be looked at with git diff
  help    this text

Examples:
  cargo xtask test
  cargo xtask generate
";

/// What programs depend on that ship compiled modules.
const WITHOUT_COMPILER: &[&str] =
    &["--package", "sparsek", "--package", "sparsek-kernels", "--no-default-features"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["test"] => lint().and_then(|()| test()),
        ["lint"] => lint(),
        ["nvrtc"] => nvrtc::fetch(&target()).map(|at| println!("{}", at.display())),
        ["generate"] => generate(&[]),
        ["generate", "--check"] => generate(&["--check"]),
        ["update"] => update(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => {
            eprintln!("error: unknown task `{}`\n\n{HELP}", other.join(" "));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn lint() -> Result<(), String> {
    if has("rustfmt") {
        cargo(&["fmt", "--all", "--check"])?;
        cargo(&["fmt", "--manifest-path", "examples/downstream/Cargo.toml", "--check"])?;
    } else {
        eprintln!("note: rustfmt is not installed; formatting was not checked");
    }
    if has("clippy") {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
        // Programs that ship compiled modules leave the compiler out.
        cargo(
            &[&["clippy"], WITHOUT_COMPILER, &["--all-targets", "--", "-D", "warnings"]].concat(),
        )?;
    } else {
        eprintln!("note: clippy is not installed; lints were not checked");
        cargo(&[&["check"], WITHOUT_COMPILER, &["--all-targets"]].concat())?;
    }
    cargo(&["doc", "--workspace", "--no-deps"])
}

fn test() -> Result<(), String> {
    // Generated code is compiled by the tests; without NVRTC they would have nothing to say.
    nvrtc::fetch(&target())?;
    // The command-line tests run the binary; it is built before they start, with the features that the tests
    // have, so that nothing is built twice.
    cargo(&["build", "--workspace", "--bins", "--tests"])?;
    cargo(&["test", "--workspace"])
}

/// A program of its own, so that this one is built in a second: it needs the compiler.
fn generate(args: &[&str]) -> Result<(), String> {
    let all = [&["run", "--quiet", "--package", "sparsek-generate", "--"], args].concat();
    let status = command(&all).status().map_err(|e| format!("cargo did not start: {e}"))?;
    // The program itself says what is wrong.
    if status.success() { Ok(()) } else { Err(format!("the generator ended with {status}")) }
}

/// Generated files and snapshots of generated code as they are now. Everything else has snapshots that a
/// change of the compiler's back half does not touch: `cargo insta review` is for those.
fn update() -> Result<(), String> {
    generate(&[])?;
    let tests = ["--package", "sparsek-tests", "--test"];
    for test in [&["stages"][..], &["cuda", "snapshots"], &["downstream", "example"]] {
        let all = [&["test", "--quiet"], &tests[..], test].concat();
        let shown = format!("cargo {}", all.join(" "));
        eprintln!("running {shown}");
        let mut command = command(&all);
        command.env("INSTA_UPDATE", "always").env("SPARSEK_UPDATE_SNAPSHOTS", "1");
        let status = command.status().map_err(|e| format!("{shown} did not start: {e}"))?;
        if !status.success() {
            return Err(format!("{shown} failed ({status})"));
        }
    }
    Ok(())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where NVRTC goes: in the workspace's own `target`, wherever cargo builds, since the runtime looks for it
/// there.
fn target() -> PathBuf {
    root().join("target")
}

/// Whether a component of the toolchain is there; a minimal installation has neither.
fn has(component: &str) -> bool {
    let tool = if component == "clippy" { "clippy" } else { "fmt" };
    command(&[tool, "--version"]).output().is_ok_and(|o| o.status.success())
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root()).env("RUSTDOCFLAGS", "-D warnings");
    command
}

fn cargo(args: &[&str]) -> Result<(), String> {
    let shown = format!("cargo {}", args.join(" "));
    eprintln!("running {shown}");
    let status = command(args).status().map_err(|e| format!("{shown} did not start: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} failed ({status})")) }
}
