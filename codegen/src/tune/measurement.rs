//! What is kept of a candidate that was tried.

use crate::Schedule;
use serde::{Deserialize, Serialize};

/// Which part of a schedule a candidate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// The forward pass.
    Forward,
    /// The backward pass.
    Backward,
    /// The chunk, with both passes.
    Chunk,
}

impl Axis {
    /// Every axis, in the order in which they are searched.
    pub const ALL: [Axis; 3] = [Axis::Forward, Axis::Backward, Axis::Chunk];

    /// `forward`, `backward`, `chunk`
    pub fn name(self) -> &'static str {
        match self {
            Axis::Forward => "forward",
            Axis::Backward => "backward",
            Axis::Chunk => "chunk",
        }
    }

    /// Whether two schedules are the same candidate of the axis.
    pub fn same(self, a: &Schedule, b: &Schedule) -> bool {
        match self {
            Axis::Forward => a.forward == b.forward,
            Axis::Backward => a.backward == b.backward,
            Axis::Chunk => a == b,
        }
    }
}

/// Milliseconds of repeated calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Their number.
    pub count: usize,
    /// Median.
    pub median: f64,
    /// Shortest.
    pub least: f64,
    /// Longest.
    pub most: f64,
}

impl Spread {
    /// Of times in milliseconds; `None` without any, and where one is no time.
    pub fn of(times: &[f64]) -> Option<Spread> {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        let (least, most) = (*times.first()?, *times.last()?);
        if !(least.is_finite() && most.is_finite()) {
            return None;
        }
        let middle = times.len() / 2;
        let median = match times.len().is_multiple_of(2) {
            true => (times[middle - 1] + times[middle]) / 2.0,
            false => times[middle],
        };
        Some(Spread { count: times.len(), median, least, most })
    }
}

/// How a candidate ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its result is right, and this is how long it takes.
    Measured(Spread),
    /// Its result is right, and its first times were too far behind the best.
    Stopped(Spread),
    /// It does not compile, or does not load.
    Failed(String),
    /// Its result is wrong: which tensor, its error and the largest that is accepted.
    Wrong {
        /// Tensor.
        tensor: String,
        /// Its error; `None` where that is no number.
        error: Option<f64>,
        /// The limit.
        limit: f64,
    },
    /// The GPU reported a fault, or the process that used it died.
    Fault(String),
    /// It did not end in that many seconds.
    Timeout(f64),
}

impl Outcome {
    /// What was timed, if anything was.
    pub fn spread(&self) -> Option<&Spread> {
        match self {
            Outcome::Measured(spread) | Outcome::Stopped(spread) => Some(spread),
            Outcome::Failed(_)
            | Outcome::Wrong { .. }
            | Outcome::Fault(_)
            | Outcome::Timeout(_) => None,
        }
    }

    /// In a word or two.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Measured(_) => "measured",
            Outcome::Stopped(_) => "stopped early",
            Outcome::Failed(_) => "failed to compile",
            Outcome::Wrong { .. } => "wrong",
            Outcome::Fault(_) => "fault",
            Outcome::Timeout(_) => "timeout",
        }
    }
}

/// A candidate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What was timed: the forward alone, the backward alone, or both with a chunk.
    pub axis: Axis,
    /// The schedule that was run.
    pub schedule: Schedule,
    /// Milliseconds that the cost model expected.
    pub predicted_ms: f64,
    /// How it ended.
    pub outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most, spread.count), (2.0, 1.0, 3.0, 3));
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
    }
}
