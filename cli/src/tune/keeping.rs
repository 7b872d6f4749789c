//! Keeps measurements while a search runs: what ends the process does not take them along.

use super::show::Show;
use super::{Case, Settings, Tuned, keep, now};
use crate::failure::Failure;
use sparsek::tuned::{Entry, Kept, Key};
use sparsek_codegen::tune::{Axis, Measurement, Observer};

/// New measurements between two writes of the store's file.
const AT_ONCE: usize = 8;

/// Shows a search, and keeps what it measures.
pub(super) struct Keeping<'a> {
    show: Show,
    case: &'a Case,
    key: &'a Key,
    gpu: &'a Tuned,
    settings: &'a Settings<'a>,
    kept: Vec<Measurement>,
    waiting: Vec<Measurement>,
}

impl<'a> Keeping<'a> {
    pub(super) fn new(
        case: &'a Case,
        key: &'a Key,
        gpu: &'a Tuned,
        settings: &'a Settings<'a>,
    ) -> Keeping<'a> {
        let show = Show::new(&case.title());
        let (kept, waiting) = (Vec::new(), Vec::new());
        Keeping { show, case, key, gpu, settings, kept, waiting }
    }

    /// Keeps what a search gave that is not kept as it is; the display ends.
    pub(super) fn rest(mut self, all: &[Measurement]) -> Result<(), Failure> {
        let new = all.iter().filter(|m| !self.kept.contains(m));
        self.waiting = new.cloned().collect();
        self.write()
    }

    fn write(&mut self) -> Result<(), Failure> {
        let Keeping { case, key, gpu, settings, .. } = *self;
        let date = now();
        let kept = |measurement: &Measurement| Kept {
            measurement: measurement.clone(),
            batch: case.batch as u64,
            n: case.n as u64,
            kv_heads: case.hkv as u64,
            scores: settings.scores.clone(),
            driver: gpu.driver.clone(),
            date: date.clone(),
        };
        let mut entry = Entry::new(&case.kernel.instance().program.name, key.clone());
        entry.measurements = self.waiting.iter().map(kept).collect();
        keep(settings.store, &entry)?;
        self.kept.append(&mut self.waiting);
        Ok(())
    }
}

impl Observer for Keeping<'_> {
    fn begins(&mut self, axis: Axis, candidates: usize) {
        self.show.begins(axis, candidates);
    }

    fn tried(&mut self, measurement: &Measurement, known: bool) {
        self.show.tried(measurement, known);
        if known {
            return;
        }
        self.waiting.push(measurement.clone());
        if self.waiting.len() >= AT_ONCE {
            // Where that fails the search goes on: its end tries again, and says so.
            let _ = self.write();
        }
    }

    fn finals(&mut self, axis: Axis, finalists: usize) {
        self.show.finals(axis, finalists);
    }
}
