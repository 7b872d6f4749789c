//! Everything that is known of one key.

use super::manifest::schedule_id;
use super::{Figures, How, Key, Record};
use serde::{Deserialize, Serialize};
use sparsek_codegen::Schedule;
use sparsek_codegen::tune::Measurement;

/// A schedule, how it was found and what it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// Eight digits that stand for the key and the schedule.
    pub id: String,
    /// The schedule.
    pub schedule: Schedule,
    /// How it was found.
    pub how: How,
    /// What it takes.
    pub figures: Figures,
}

impl Winner {
    /// A schedule of a key.
    pub fn new(key: &Key, schedule: Schedule, how: How, figures: Figures) -> Winner {
        Winner { id: schedule_id(key, &schedule), schedule, how, figures }
    }
}

/// A measurement with where and when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What was measured.
    #[serde(flatten)]
    pub measurement: Measurement,
    /// Sequences.
    pub batch: u64,
    /// Positions of each.
    pub n: u64,
    /// Key-value heads.
    pub kv_heads: u64,
    /// What scores were like, as `sd:1`.
    #[serde(default = "super::manifest::usual_scores")]
    pub scores: String,
    /// The CUDA release of the driver.
    pub driver: String,
    /// When, in RFC 3339.
    pub date: String,
}

/// What a file of the store holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel's name, for people.
    pub kernel: String,
    /// What it is about.
    pub key: Key,
    /// The best schedule; `None` until a search has found one.
    pub winner: Option<Winner>,
    /// The cost model's choice as it was measured beside the winner.
    pub model: Option<Winner>,
    /// Everything that was tried.
    pub measurements: Vec<Kept>,
}

impl Entry {
    /// Nothing known yet.
    pub fn new(kernel: &str, key: Key) -> Entry {
        Entry {
            kernel: kernel.to_owned(),
            key,
            winner: None,
            model: None,
            measurements: Vec::new(),
        }
    }

    /// The winner as a record.
    pub fn record(&self) -> Option<Record> {
        let winner = self.winner.as_ref()?;
        Some(Record {
            kernel: self.kernel.clone(),
            key: self.key.clone(),
            schedule: winner.schedule,
            how: winner.how,
            figures: Some(winner.figures.clone()),
        })
    }

    /// What is known once `newer` is added: every measurement of both. Of two winners the one that a search
    /// found. Of two such ones that were measured with one driver on calls of the same sizes and kind of scores
    /// the faster one, else the later one; so too of two that no search found, the later of which is what the
    /// cost model chooses now.
    pub fn merge(mut self, newer: &Entry) -> Entry {
        for kept in &newer.measurements {
            if !self.measurements.contains(kept) {
                self.measurements.push(kept.clone());
            }
        }
        self.winner = better(self.winner, newer.winner.clone());
        self.model = newer.model.clone().or(self.model);
        if !newer.kernel.is_empty() {
            self.kernel = newer.kernel.clone();
        }
        self
    }
}

fn better(a: Option<Winner>, b: Option<Winner>) -> Option<Winner> {
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (a, b) => return b.or(a),
    };
    if a.how.is_searched() != b.how.is_searched() {
        return Some(if a.how.is_searched() { a } else { b });
    }
    let conditions =
        |f: &Figures| (f.batch, f.n, f.heads, f.kv_heads, f.scores.clone(), f.driver.clone());
    let alike = a.how.is_searched() && conditions(&a.figures) == conditions(&b.figures);
    let first = match alike {
        true => a.figures.total_ms() < b.figures.total_ms(),
        // Dates of one form: the text's order is that of time.
        false => a.figures.date > b.figures.date,
    };
    Some(if first { a } else { b })
}
