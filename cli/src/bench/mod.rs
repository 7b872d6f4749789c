//! Timing a kernel: inputs, clocks, tables, charts.

pub(crate) mod chart;
pub(crate) mod data;
pub(crate) mod device;
pub(crate) mod first_call;
pub(crate) mod host;
pub(crate) mod report;
pub(crate) mod sets;

use crate::schedule::Change;
use crate::work::Work;

/// What is timed, beside kernel and lengths.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Rows.
    pub(crate) batch: usize,
    /// Query heads.
    pub(crate) hq: usize,
    /// Key-value heads.
    pub(crate) hkv: usize,
    /// Kinds of scores, one row of the table each.
    pub(crate) scores: Vec<data::Scores>,
    /// Changes of the compiler's schedule, one row of the table each.
    pub(crate) changes: Vec<Change>,
    /// Calls before those that count.
    pub(crate) warmup: usize,
    /// Calls that count.
    pub(crate) iterations: usize,
    /// Whether the backward is timed too.
    pub(crate) backward: bool,
    /// Whether forwards follow one another, and backwards, instead of taking turns.
    pub(crate) apart: bool,
}

impl Settings {
    /// Sizes of a call of that length.
    pub(crate) fn sizes(&self, n: usize) -> data::Sizes {
        let &Settings { batch, hq, hkv, .. } = self;
        data::Sizes { batch, n, hq, hkv }
    }
}

/// Times of one sequence length.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Positions.
    pub(crate) n: usize,
    /// Kind of scores.
    pub(crate) scores: String,
    /// Changes of the compiler's schedule; empty where there are none.
    pub(crate) change: String,
    /// Schedule in words; empty on the CPU.
    pub(crate) schedule: String,
    /// Keys that a query sees, on average.
    pub(crate) seen: f64,
    /// Useful operations.
    pub(crate) work: Work,
    /// Bytes that a forward and a backward must read and write at least.
    pub(crate) bytes: (f64, f64),
    /// The plan alone; not known on the CPU.
    pub(crate) plan: Option<Spread>,
    /// Forward, plan included.
    pub(crate) forward: Spread,
    /// Backward, where it was timed.
    pub(crate) backward: Option<Spread>,
    /// Each launch of a call: module, entry, milliseconds.
    pub(crate) launches: Vec<(String, String, f64)>,
}

/// Milliseconds of repeated calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Median.
    pub(crate) median: f64,
    /// Shortest.
    pub(crate) least: f64,
    /// Longest.
    pub(crate) most: f64,
}

impl Spread {
    /// Of times in milliseconds; `None` without any.
    pub(crate) fn of(mut times: Vec<f64>) -> Option<Spread> {
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let (least, most) = (*times.first()?, *times.last()?);
        let median = match times.len().is_multiple_of(2) {
            true => (times[middle - 1] + times[middle]) / 2.0,
            false => times[middle],
        };
        Some(Spread { median, least, most })
    }
}

/// What a machine could do: the floor of a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Operations of matrix products a second, for the element type; `None` when unknown.
    pub(crate) products: Option<f64>,
    /// Bytes a second that a device copy moves, reads and writes counted; `None` when unknown.
    pub(crate) copy: Option<f64>,
}

impl Limits {
    /// The least milliseconds that `operations` on `bytes` take; `None` without a limit of products.
    pub(crate) fn floor(&self, operations: f64, bytes: f64) -> Option<f64> {
        let products = operations / self.products?;
        let copies = self.copy.map_or(0.0, |rate| bytes / rate);
        Some(products.max(copies) * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(vec![]), None);
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn the_floor_is_what_takes_longer() {
        let limits = Limits { products: Some(1e12), copy: Some(1e12) };
        assert_eq!(limits.floor(2e9, 1e9), Some(2.0));
        assert_eq!(limits.floor(1e9, 3e9), Some(3.0));
        assert_eq!(Limits { products: None, copy: Some(1.0) }.floor(1.0, 1.0), None);
    }
}
