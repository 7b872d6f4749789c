//! The instances of the built-in kernels whose code is kept in the repository.

use crate::schedules::{Chosen, Tuned};
use sparsek::cuda::{CallShape, Module};
use sparsek::{Elem, Program, Spec};
use sparsek_codegen::{Family, Given, Problem, Target};
use sparsek_dsl::parse;
use std::fs;
use std::path::Path;

/// Query heads of a key-value head: 32 and 8, as in models of eight billion parameters.
pub(crate) const GROUP: u32 = 4;

pub(crate) const ELEM: Elem = Elem::Bf16;

/// The case that stands for the others wherever it is among them: kernel, D, k and w.
pub(crate) const HEADLINE: (&str, i64, i64, i64) = ("sparsek-value", 128, 512, 512);

const HEAD_DIMS: [i64; 2] = [64, 128];
const SELECTED: [i64; 4] = [128, 256, 512, 1024];
const WINDOWS: [i64; 4] = [0, 256, 512, 1024];
const TARGETS: [&str; 2] = ["sm_90a", "sm_80"];

/// A built-in kernel.
pub(crate) struct Kernel {
    /// Its name on the command line: `SparsekValue` is `sparsek-value`.
    pub(crate) name: String,
    pub(crate) program: Program,
}

/// One point of the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) kernel: usize,
    pub(crate) d: i64,
    pub(crate) k: i64,
    pub(crate) w: i64,
    pub(crate) target: Target,
}

/// The code of a point: its schedule, and the CUDA C of every module.
pub(crate) struct Emitted {
    pub(crate) point: Point,
    pub(crate) chosen: Chosen,
    pub(crate) sources: Vec<Source>,
}

/// The CUDA C of a module.
pub(crate) struct Source {
    pub(crate) module: Module,
    /// Family of its instructions: `sm80`, `sm90`.
    pub(crate) family: &'static str,
    pub(crate) text: String,
}

/// The kernels declared in the sources of a folder, by name.
pub(crate) fn kernels(folder: &Path) -> Result<Vec<Kernel>, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    let mut kernels = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path)
            .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let compiled = parse::compile_file(&text);
        if let Some(wrong) = compiled.diagnostics.first() {
            return Err(format!("{}: {}", path.display(), wrong.message));
        }
        for program in compiled.kernels.into_iter().filter_map(|k| k.program) {
            kernels.push(Kernel { name: kebab(&program.name), program });
        }
    }
    if kernels.is_empty() {
        return Err(format!("{} declares no kernel", folder.display()));
    }
    // The one that the others are variations of first.
    kernels.sort_by(|a, b| (a.name != HEADLINE.0, &a.name).cmp(&(b.name != HEADLINE.0, &b.name)));
    Ok(kernels)
}

/// `SparsekValueSinks` as `sparsek-value-sinks`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Every point, in the order of the manifest.
pub(crate) fn points(kernels: &[Kernel]) -> Result<Vec<Point>, String> {
    let mut points = Vec::new();
    for target in TARGETS {
        let target = Target::named(target).ok_or_else(|| format!("no target {target}"))?;
        for kernel in 0..kernels.len() {
            for d in HEAD_DIMS {
                for k in SELECTED {
                    for w in WINDOWS {
                        points.push(Point { kernel, d, k, w, target });
                    }
                }
            }
        }
    }
    Ok(points)
}

impl Point {
    /// Generates the modules, as calls have them that give every input and want every gradient.
    pub(crate) fn emit(&self, kernel: &Kernel, tuned: &Tuned) -> Result<Emitted, String> {
        let failed = |e: sparsek::Error| format!("{} {}: {e}", kernel.name, self.label());
        let spec = Spec::new(ELEM, self.d).k(self.k).w(self.w);
        let made = sparsek::Kernel::from_program(&kernel.program, &spec).map_err(failed)?;
        let code = made.code(&CallShape::group(GROUP), self.target).map_err(failed)?;
        let record = tuned.record(&problem(&made), &self.target);
        let code = match record {
            Some(record) => code.with_schedule(record.schedule),
            None => code,
        };
        let schedule = code.schedule();
        let source = |module| -> Result<Source, String> {
            let family = match module {
                // No matrix instructions: what every target has.
                Module::Plan => Family::Sm80,
                Module::Forward => schedule.forward.family,
                Module::Backward => schedule.backward.family,
            };
            let text = code.cuda(module).map_err(failed)?;
            Ok(Source { module, family: family.name(), text })
        };
        let sources = Module::ALL.into_iter().map(source).collect::<Result<_, _>>()?;
        let chosen = Chosen { schedule, record: record.cloned() };
        Ok(Emitted { point: self.clone(), chosen, sources })
    }

    /// How far it is from the headline case: the nearest stands for a variant.
    pub(crate) fn distance(&self) -> impl Ord + use<> {
        let (_, d, k, w) = HEADLINE;
        (
            self.kernel,
            self.target.capability != 90,
            self.d != d,
            (self.k - k).abs(),
            (self.w - w).abs(),
        )
    }

    pub(crate) fn label(&self) -> String {
        let Point { d, k, w, target, .. } = self;
        format!("D {d} k {k} w {w} for {target}")
    }
}

/// What tuned schedules are looked up by.
fn problem(kernel: &sparsek::Kernel) -> Problem<'_> {
    let (instance, backward) = (kernel.instance(), kernel.backward_program());
    let given = instance.program.inputs.iter();
    let given = given.map(|input| Given { name: input.name.clone(), per_head: false }).collect();
    Problem { instance, backward, group: GROUP, given }
}

#[cfg(test)]
mod tests {
    use super::kebab;

    #[test]
    fn types_have_names_on_the_command_line() {
        assert_eq!(kebab("SparsekValueSinks"), "sparsek-value-sinks");
    }
}
