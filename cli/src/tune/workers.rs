//! The processes that serve every key of a command: one that uses the GPU, others that compile. What is
//! compiled ahead goes through them before the first key is measured.

use super::compile::Compilers;
use super::measure::{gradients, sources};
use super::process::Process;
use super::protocol::Source;
use super::resume::settled;
use super::{Case, Settings, Tuned};
use crate::progress::Progress;
use crate::terminal::note;
use rayon::prelude::*;
use sparsek_codegen::tune::Level;
use sparsek_codegen::{Module, Problem};
use std::process::Command;

/// Processes that live from key to key. Each is started when it is first needed, and again when it ended.
pub(crate) struct Workers {
    pub(super) compilers: Compilers,
    pub(super) process: Process,
}

impl Workers {
    /// This program again: tuned schedules play no part in it.
    pub(crate) fn new() -> Workers {
        Workers::of(|| {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("tune-worker").env("SPARSEK_TUNED", "off");
            Ok(command)
        })
    }

    /// Processes of a command that answers as `sparsek tune-worker` does.
    pub(super) fn of(
        command: impl Fn() -> std::io::Result<Command> + Clone + Send + 'static,
    ) -> Workers {
        Workers { compilers: Compilers::new(command.clone()), process: Process::new(command) }
    }

    /// Compiles what the keys of a baseline run, so that no key waits for one processor while the GPU and the
    /// other processors idle. What fails is told at its key. `go_on` is asked before each text.
    pub(crate) fn compile_ahead(
        &mut self,
        cases: &[Case],
        gpu: &Tuned,
        settings: &Settings<'_>,
        go_on: &(dyn Fn() -> bool + Sync),
    ) {
        // The other levels choose what to compile next by what was measured before.
        if settings.level != Level::Baseline || cases.len() < 2 {
            return;
        }
        let wanted: Vec<&Case> =
            cases.iter().filter(|case| settled(case, gpu, settings).is_none()).collect();
        let texts = wanted.par_iter().flat_map_iter(|case| baseline(case, gpu));
        let texts: Vec<Source> = texts.collect();
        if texts.is_empty() {
            return;
        }
        note(format_args!(
            "{} keys: {} modules are compiled by {} processes before the first key is measured",
            wanted.len(),
            texts.len(),
            self.compilers.count().min(texts.len())
        ));
        let progress = Progress::new("compiling");
        let done = |n: usize| progress.update(n, texts.len());
        self.compilers.ahead(&texts, go_on, &done);
    }
}

/// The texts of what the cost model chooses; none where there is no schedule or no code, which its key tells.
fn baseline(case: &Case, gpu: &Tuned) -> Vec<Source> {
    let problem = case.problem();
    let backward = gradients(&case.kernel, &problem);
    let problem = Problem { backward: &backward, ..problem };
    let Ok(space) = case.space(&gpu.target, &gpu.machine()) else { return Vec::new() };
    sources(&problem, &Module::ALL, &space.first(), &gpu.target).unwrap_or_default()
}
