//! Tuned schedules that a kernel carries.

use super::Key;
use super::key::short;
use serde::{Deserialize, Serialize};
use sparsek_codegen::Schedule;
use std::collections::BTreeMap;
use thiserror::Error;

/// Version of the form of manifests.
pub const VERSION: u32 = 1;

/// How a schedule was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Measured: the best candidates of the cost model's ranking.
    Quick,
    /// Measured: every candidate that fits.
    Full,
    /// Measured alone: what the cost model chooses, compared with nothing.
    Baseline,
    /// The cost model's choice, not measured.
    Model,
}

impl How {
    /// `quick`, `full`, `baseline`, `model`
    pub fn name(self) -> &'static str {
        match self {
            How::Quick => "quick",
            How::Full => "full",
            How::Baseline => "baseline",
            How::Model => "model",
        }
    }

    /// Whether it was the best of several that were measured. One that was not never takes the place of one
    /// that was.
    pub fn is_searched(self) -> bool {
        match self {
            How::Quick | How::Full => true,
            How::Baseline | How::Model => false,
        }
    }
}

/// What was measured of a schedule, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Sequences.
    pub batch: u64,
    /// Positions of a sequence.
    pub n: u64,
    /// Query heads.
    pub heads: u64,
    /// Key-value heads.
    pub kv_heads: u64,
    /// What scores were like, as `sd:1`.
    #[serde(default = "usual_scores")]
    pub scores: String,
    /// Milliseconds of the plan.
    pub plan_ms: f64,
    /// Milliseconds of a forward call, the plan among them.
    pub forward_ms: f64,
    /// Milliseconds of a backward call with every gradient.
    pub backward_ms: f64,
    /// The CUDA release of the driver.
    pub driver: String,
    /// When, in RFC 3339.
    pub date: String,
}

/// The scores of records that do not say: normal, of standard deviation 1.
pub(super) fn usual_scores() -> String {
    "sd:1".to_owned()
}

impl Figures {
    /// Forward and backward.
    pub fn total_ms(&self) -> f64 {
        self.forward_ms + self.backward_ms
    }
}

/// A schedule for a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The kernel's name, for people: the key decides.
    pub kernel: String,
    /// What it is for.
    pub key: Key,
    /// The schedule.
    pub schedule: Schedule,
    /// How it was found.
    pub how: How,
    /// What was measured; nothing of a schedule that the model chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

impl Record {
    /// Eight digits that stand for the schedule and what it is for.
    pub fn id(&self) -> String {
        schedule_id(&self.key, &self.schedule)
    }
}

/// Eight digits that stand for a schedule and what it is for.
pub(crate) fn schedule_id(key: &Key, schedule: &Schedule) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.hash().as_bytes());
    hasher.update(schedule.to_string().as_bytes());
    short(&hasher.finalize())
}

/// Why a manifest was not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not a manifest.
    #[error("not a manifest of tuned schedules: {0}; write one with `sparsek tune export`")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the manifest of tuned schedules has version {found} and this build reads version \
         {VERSION}; write it again with `sparsek tune export`"
    )]
    Version {
        /// The version found.
        found: u64,
    },
}

/// Tuned schedules in a file: what `sparsek tune export` writes and kernels carry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    records: BTreeMap<Key, Record>,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct In {
    records: Vec<Record>,
}

impl Manifest {
    /// A manifest of those records; of two with one key the one that a search found, else the later one.
    pub fn new(records: impl IntoIterator<Item = Record>) -> Manifest {
        let mut all: BTreeMap<Key, Record> = BTreeMap::new();
        for record in records {
            let before = all.get(&record.key).is_some_and(|r| r.how.is_searched());
            if !before || record.how.is_searched() {
                all.insert(record.key.clone(), record);
            }
        }
        Manifest { records: all }
    }

    /// Reads what [`Manifest::to_json`] wrote.
    ///
    /// # Errors
    /// Text that is no manifest, or one of another version.
    pub fn from_json(text: &str) -> Result<Manifest, ManifestError> {
        let Version { version } = serde_json::from_str(text)?;
        if version != u64::from(VERSION) {
            return Err(ManifestError::Version { found: version });
        }
        let In { records } = serde_json::from_str(text)?;
        Ok(Manifest::new(records))
    }

    /// The manifest as text, a record to a line: the same for the same records, whatever their order was.
    pub fn to_json(&self) -> String {
        // Nothing in it is a map with odd keys; numbers that are not finite print as null.
        let line = |r: &Record| format!("    {}", serde_json::to_string(r).unwrap_or_default());
        let lines: Vec<String> = self.records.values().map(line).collect();
        let records = match lines.is_empty() {
            true => "[]".to_owned(),
            false => format!("[\n{}\n  ]", lines.join(",\n")),
        };
        format!("{{\n  \"version\": {VERSION},\n  \"records\": {records}\n}}\n")
    }

    /// The record of a key.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// Every record, in the order of keys.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.values()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::tuned::Gpu;
    use sparsek_codegen::{Family, PassSchedule};
    use sparsek_dsl::Elem;

    pub(crate) fn record(k: usize, chunk: u32) -> Record {
        let key = Key {
            program: "00ff".to_owned(),
            code: sparsek_codegen::version(),
            elem: Elem::Bf16,
            d: 128,
            k,
            w: 512,
            group: 4,
            given: ["k", "q", "u", "v"].map(str::to_owned).to_vec(),
            sequence: 65_536,
            gpu: Gpu::new("NVIDIA H200", (9, 0)),
        };
        let family = Family::Sm90;
        let forward = PassSchedule { family, tile_q: 128, tile_kv: 64, warps: 12, stages: 2 };
        let figures = Figures {
            batch: 1,
            n: 65_536,
            heads: 32,
            kv_heads: 8,
            scores: "sd:1".to_owned(),
            plan_ms: 0.25,
            forward_ms: 2.5,
            backward_ms: 6.5,
            driver: "13.0".to_owned(),
            date: "2026-11-24T12:00:00Z".to_owned(),
        };
        Record {
            kernel: "SparsekValue".to_owned(),
            key,
            schedule: Schedule { chunk, forward, backward: forward },
            how: How::Full,
            figures: Some(figures),
        }
    }

    #[test]
    fn a_manifest_survives_its_text() {
        let records = || [record(512, 512), record(256, 1024)];
        let manifest = Manifest::new(records());
        let read = Manifest::from_json(&manifest.to_json()).unwrap();
        assert_eq!(read, manifest);
        let mut reversed = records();
        reversed.reverse();
        assert_eq!(Manifest::new(reversed).to_json(), manifest.to_json());
        assert_eq!(read.get(&record(512, 256).key), Some(&record(512, 512)));
        assert_eq!(read.get(&record(511, 256).key), None);
        assert_ne!(record(512, 512).id(), record(512, 256).id());
        assert_ne!(record(512, 512).id(), record(256, 512).id());
    }

    #[test]
    fn what_a_search_found_stays() {
        let baseline = || Record { how: How::Baseline, ..record(512, 256) };
        for records in [[record(512, 512), baseline()], [baseline(), record(512, 512)]] {
            assert_eq!(Manifest::new(records).get(&baseline().key), Some(&record(512, 512)));
        }
        let later = || Record { how: How::Baseline, ..record(512, 1024) };
        assert_eq!(Manifest::new([baseline(), later()]).get(&later().key), Some(&later()));
        let text = Manifest::new([baseline()]).to_json();
        assert!(text.contains("\"how\":\"baseline\""), "{text}");
        assert_eq!(Manifest::from_json(&text).unwrap(), Manifest::new([baseline()]));
    }

    #[test]
    fn other_texts_are_refused_with_what_to_do() {
        let whole = Manifest::new([record(512, 512)]).to_json();
        let message = |text: &str| Manifest::from_json(text).unwrap_err().to_string();
        for text in ["", "{}", "[]", "{\"version\": 1}", &whole[..whole.len() / 2]] {
            assert!(message(text).contains("sparsek tune export"), "{text}");
        }
        let newer = whole.replacen("\"version\": 1", "\"version\": 7", 1);
        assert!(message(&newer).contains("version 7"), "{}", message(&newer));
    }
}
