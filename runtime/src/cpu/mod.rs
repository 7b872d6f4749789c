//! The CPU backend: the program as it is, by tiles, in f32.
//!
//! * [`topk`] computes the plan, tau and expiry;
//! * [`compile`] sorts a program's values into segments by what they vary over;
//! * [`tiles`] cuts queries into chunks and tiles and lists each tile's keys, [`tile`] gathers
//!   inputs into buffers, [`elementwise`] runs segments, [`matmul`] multiplies;
//! * [`forward`] sweeps rows with the online [`softmax`]; [`backward`] sweeps them once more and adds
//!   to keys through accumulators that are merged in a fixed order; [`finish`] does what depends on
//!   complete sums.

mod backward;
mod compile;
mod elementwise;
mod finish;
mod forward;
mod matmul;
mod scores;
mod softmax;
mod sweep;
mod tile;
mod tiles;
mod topk;
mod vector;

pub(crate) use backward::Backward;
pub(crate) use forward::ForwardPass;

use sparsek_dsl::ir::Instance;
use std::sync::atomic::{AtomicUsize, Ordering};

fn selection(instance: &Instance) -> topk::Selection {
    topk::Selection {
        k: instance.program.gate().map(|_| instance.k),
        w: instance.w,
        sinks: instance.sinks,
    }
}

/// Counts finished chunks.
struct Progress<'a> {
    report: Option<&'a (dyn Fn(usize, usize) + Sync)>,
    done: AtomicUsize,
    total: usize,
}

impl<'a> Progress<'a> {
    fn new(report: Option<&'a (dyn Fn(usize, usize) + Sync)>, total: usize) -> Progress<'a> {
        Progress { report, done: AtomicUsize::new(0), total }
    }

    fn advance(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(report) = self.report {
            report(done, self.total);
        }
    }
}
