//! Which schedule a point has: one that was measured, or the model's choice.

use serde_json::{Value, json};
use sparsek::tuned::{Gpu, Key, Manifest, Record};
use sparsek_codegen::{Problem, Schedule, Target};

/// Positions of a sequence for which code is kept; others have code that differs by constants.
pub(crate) const SEQUENCE: u64 = 65_536;

/// The GPUs on which a target's schedules may have been measured, the first one wins.
fn gpus(target: &Target) -> Vec<Gpu> {
    match target.capability {
        90 => vec![Gpu::new("NVIDIA H200", (9, 0))],
        _ => Vec::new(),
    }
}

/// The schedules that the built-in kernels carry.
#[derive(Debug, Default)]
pub(crate) struct Tuned {
    manifest: Manifest,
}

/// A schedule and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) schedule: Schedule,
    /// `None`: the model's choice.
    pub(crate) record: Option<Record>,
}

impl Tuned {
    /// Reads the text of a manifest.
    pub(crate) fn read(text: &str) -> Result<Tuned, String> {
        Ok(Tuned { manifest: Manifest::from_json(text).map_err(|e| e.to_string())? })
    }

    /// What was measured for the problem on a GPU of the target: for [`SEQUENCE`], else for the longest
    /// sequences.
    pub(crate) fn record(&self, problem: &Problem<'_>, target: &Target) -> Option<&Record> {
        gpus(target).into_iter().find_map(|gpu| {
            let key = Key::new(problem, SEQUENCE, gpu);
            let alike = |r: &&Record| Key { sequence: key.sequence, ..r.key.clone() } == key;
            let measured = self.manifest.records().filter(|r| r.figures.is_some());
            measured.filter(alike).max_by_key(|r| (r.key.sequence == key.sequence, r.key.sequence))
        })
    }

    /// Records that were measured with other code than what is generated now: they are of no effect.
    pub(crate) fn outdated(&self) -> usize {
        let version = sparsek_codegen::version();
        self.manifest.records().filter(|r| r.key.code != version).count()
    }
}

impl Chosen {
    /// For the manifest.
    pub(crate) fn json(&self) -> Value {
        let Schedule { chunk, forward, backward } = self.schedule;
        let (forward, backward) = (forward.to_string(), backward.to_string());
        let mut out = json!({
            "from": "model",
            "chunk": chunk,
            "forward": forward,
            "backward": backward,
        });
        if let Some(record) = &self.record {
            out["from"] = json!("tuned");
            out["id"] = json!(record.id());
            out["how"] = json!(record.how);
            out["gpu"] = json!(record.key.gpu.name);
            out["measured"] = json!(record.figures);
        }
        out
    }
}
