//! Building and running the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// The binary, built once in the profile of these tests.
pub(crate) fn sparsek() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        // target/PROFILE/deps/cli-HASH
        let profile = test.ancestors().nth(2).expect("tests lie in a profile's folder");
        let mut build = Command::new(env!("CARGO"));
        // With a test beside it features are those of `cargo test --workspace`, so that nothing is built anew.
        build.args(["build", "--quiet", "--workspace", "--bin", "sparsek", "--test", "pages"]);
        build.current_dir(root());
        build.arg("--target-dir").arg(profile.parent().expect("a profile lies in a target folder"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the binary does not build");
        profile.join(format!("sparsek{}", std::env::consts::EXE_SUFFIX))
    })
}

/// What a run of the binary said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Ended well.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Ran {
        assert_eq!(self.code, Some(0), "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Ended with that code and said every one of `words` on standard error, in plain text.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "stdout:\n{}stderr:\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert!(!self.stderr.contains('\x1b'), "colour in a pipe: {}", self.stderr);
        self
    }
}

/// A command of the binary, its arguments split at spaces; `{}` stands for `folder`.
pub(crate) fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(sparsek());
    let folder = folder.to_str().expect("temporary folders have plain names");
    command.args(line.split_whitespace().map(|word| word.replace("{}", folder)));
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a command line; `{}` stands for `folder`.
pub(crate) fn run(folder: &Path, line: &str) -> Ran {
    Ran::of(&command(folder, line).output().expect("the binary starts"))
}

/// The names of the files in a folder.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|e| e.expect("its entries can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
