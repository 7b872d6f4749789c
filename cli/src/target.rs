//! What a command works on: a built-in kernel by its name, or a kernel in a Rust file.

use crate::failure::Failure;
use crate::tensors::output::Destination;
use crate::terminal::{self, Channel, nearest};
use sparsek::Program;
use sparsek::tuned::Manifest;
use sparsek_dsl::diagnostic;
use sparsek_dsl::parse::{self, Compiled};
use std::path::{Path, PathBuf};

/// A kernel and the name it was asked for by.
#[derive(Debug)]
pub(crate) struct Target {
    /// As it was written on the command line.
    pub(crate) name: String,
    /// Its forward program.
    pub(crate) program: Program,
    /// The parsed source, for kernels from a file.
    pub(crate) ast: Option<sparsek_dsl::ast::Kernel>,
    /// The file it was read from.
    file: Option<PathBuf>,
    /// The tuned schedules that a built-in kernel carries.
    carried: Option<&'static str>,
}

/// A Rust file's text and every kernel in it.
pub(crate) struct SourceFile {
    path: String,
    text: String,
    /// Kernels and diagnostics.
    pub(crate) compiled: Compiled,
}

impl SourceFile {
    /// Reads and compiles a file.
    pub(crate) fn read(path: &str) -> Result<SourceFile, Failure> {
        let bytes = std::fs::read(path).map_err(|error| {
            Failure::new(format_args!("cannot read {path}: {error}"))
                .help("give the path of a Rust file, or the name of a built-in kernel")
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::new(format_args!("{path} is not UTF-8 text (at byte {at})"))
                .help("give the path of a Rust file")
        })?;
        // Positions are counted from behind a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        let compiled = parse::compile_file(&text);
        Ok(SourceFile { path: path.to_owned(), text, compiled })
    }

    /// Shows every diagnostic on standard error.
    pub(crate) fn show_diagnostics(&self) {
        let colour = Channel::Stderr.coloured();
        for d in &self.compiled.diagnostics {
            let mut text =
                diagnostic::render(d, &self.compiled.spans, &self.path, &self.text, colour);
            text.truncate(text.trim_end().len());
            text.push_str("\n\n");
            terminal::diagnostics(&text);
        }
    }

    fn names(&self) -> Vec<String> {
        self.compiled.kernels.iter().map(|k| k.ast.name.text.clone()).collect()
    }

    /// The kernel of that name, or the only one.
    fn pick(self, wanted: Option<&str>, asked: &str) -> Result<Target, Failure> {
        let path = &self.path;
        let names = self.names();
        let index = match wanted {
            Some(name) => names.iter().position(|n| n == name),
            None if names.len() > 1 => {
                return Err(Failure::new(format_args!("{path} holds {} kernels", names.len()))
                    .help(format_args!("name one of them: {}", choices(path, &names))));
            }
            None => (!names.is_empty()).then_some(0),
        };
        let program = index.and_then(|i| self.compiled.kernels[i].program.clone());
        match (index, program) {
            (Some(i), Some(program)) => {
                let ast = Some(self.compiled.kernels[i].ast.clone());
                Ok(Target {
                    name: asked.to_owned(),
                    program,
                    ast,
                    file: Some(path.into()),
                    carried: None,
                })
            }
            _ if !self.compiled.diagnostics.is_empty() => {
                self.show_diagnostics();
                Err(Failure::reported())
            }
            (None, _) => {
                let message = match wanted {
                    Some(name) => format!("{path} holds no kernel {name}"),
                    None => format!("{path} holds no kernel"),
                };
                let help = if names.is_empty() {
                    "a kernel is written inside sparsek_kernel! { … }".to_owned()
                } else {
                    format!("it holds {}", choices(path, &names))
                };
                Err(Failure::new(message).help(help))
            }
            (Some(_), None) => Err(Failure::new(format_args!("{asked} could not be compiled"))
                .help(format_args!("see `sparsek check {path}`"))),
        }
    }
}

fn choices(path: &str, names: &[String]) -> String {
    names.iter().map(|n| format!("{path}::{n}")).collect::<Vec<_>>().join(", ")
}

impl Target {
    /// Where results go: any place but the kernel's own file.
    pub(crate) fn destination(&self, path: &Path) -> Result<Destination, Failure> {
        let destination = Destination::new(path)?;
        match &self.file {
            Some(file) => destination.apart_from(file, "kernel's"),
            None => Ok(destination),
        }
    }

    /// The tuned schedules that the kernel carries: of a kernel in a file those of the file that its `tuned`
    /// attribute names.
    pub(crate) fn manifest(&self) -> Result<Manifest, Failure> {
        let tuned = self.ast.as_ref().and_then(|ast| ast.tuned.as_ref());
        let (text, at) = match (self.carried, tuned, &self.file) {
            (Some(text), _, _) => (text.to_owned(), self.name.clone()),
            (None, Some(tuned), Some(file)) => {
                let path = file.parent().unwrap_or(Path::new("")).join(&tuned.path);
                let at = path.display().to_string();
                let text = std::fs::read_to_string(&path).map_err(|e| {
                    Failure::new(format_args!("cannot read {at}: {e}")).help(format_args!(
                        "{} says that it carries that file: write it with `sparsek tune export`",
                        self.name
                    ))
                })?;
                (text, at)
            }
            _ => return Ok(Manifest::default()),
        };
        Manifest::from_json(&text).map_err(|e| Failure::new(format_args!("{at}: {e}")))
    }

    /// Every kernel of `FILE.rs`, or the one that [`Target::find`] finds.
    pub(crate) fn all(asked: &str) -> Result<Vec<Target>, Failure> {
        if !asked.ends_with(".rs") {
            return Ok(vec![Target::find(asked)?]);
        }
        let names = SourceFile::read(asked)?.names();
        match names.as_slice() {
            [] | [_] => Ok(vec![Target::find(asked)?]),
            names => names.iter().map(|name| Target::find(&format!("{asked}::{name}"))).collect(),
        }
    }

    /// Finds `FILE.rs`, `FILE.rs::Kernel` or a built-in kernel.
    pub(crate) fn find(asked: &str) -> Result<Target, Failure> {
        if let Some(builtin) = sparsek_kernels::builtin(asked) {
            let program = builtin.program().map_err(Failure::new)?;
            return Ok(Target {
                name: asked.to_owned(),
                program,
                ast: None,
                file: None,
                carried: builtin.manifest,
            });
        }
        let (path, kernel) = match (asked.find(".rs::"), asked.rsplit_once("::")) {
            (Some(dot), _) => (&asked[..dot + 3], Some(&asked[dot + 5..])),
            (None, Some((path, kernel))) => (path, Some(kernel)),
            (None, None) => (asked, None),
        };
        let file_like = path.ends_with(".rs") || path.contains('/') || Path::new(path).is_file();
        if file_like {
            return SourceFile::read(path)?.pick(kernel, asked);
        }
        let known: Vec<&str> = sparsek_kernels::all().iter().map(|b| b.name).collect();
        let close = nearest(asked, known.iter().copied());
        let list = if close.is_empty() { known } else { close };
        Err(Failure::new(format_args!("there is no built-in kernel `{asked}`")).help(format_args!(
            "the nearest are {}; a kernel of your own is FILE.rs or FILE.rs::Kernel",
            list.join(", ")
        )))
    }
}
