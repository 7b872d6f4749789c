//! What the tuner and the processes that use the GPU or compile say to each other: one line of JSON each
//! way, an answer for every request.

use serde::{Deserialize, Serialize};
use sparsek::{Elem, Spec};
use sparsek_codegen::Schedule;
use sparsek_codegen::tune::Axis;
use std::collections::BTreeMap;

/// A kernel instance, its calls and the GPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The forward program, serialised.
    pub(crate) program: String,
    /// Element type.
    pub(crate) elem: Elem,
    /// Head dimension.
    pub(crate) d: i64,
    /// As [`Spec::k`].
    pub(crate) k: Option<i64>,
    /// As [`Spec::w`].
    pub(crate) w: Option<i64>,
    /// As [`Spec::set`].
    pub(crate) set: BTreeMap<String, i64>,
    /// Sequences.
    pub(crate) batch: usize,
    /// Positions of each.
    pub(crate) n: usize,
    /// Query heads.
    pub(crate) hq: usize,
    /// Key-value heads.
    pub(crate) hkv: usize,
    /// What scores are like, as on the command line.
    pub(crate) scores: String,
    /// The GPU's number.
    pub(crate) ordinal: usize,
    /// Inputs with a default that calls give.
    pub(crate) with: Vec<String>,
}

impl Setup {
    /// The instance's parameters.
    pub(crate) fn spec(&self) -> Spec {
        Spec { elem: self.elem, d: self.d, k: self.k, w: self.w, set: self.set.clone() }
    }
}

/// CUDA C to be compiled into the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// What messages call it.
    pub(crate) name: String,
    /// The text.
    pub(crate) text: String,
    /// What for, as `sm_90a`.
    pub(crate) target: String,
}

/// What the tuner asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// The first request: open the GPU and make the inputs. Later ones say another kernel: the GPU stays open,
    /// and inputs stay there where they are the same.
    Setup(Box<Setup>),
    /// Compute on the CPU what results on so many positions are compared with.
    Expect(usize),
    /// Compare a schedule's results on so many positions.
    Check {
        /// With the backward where it is not the forward.
        axis: Axis,
        /// Schedule.
        schedule: Schedule,
        /// Positions.
        n: usize,
    },
    /// Time calls.
    Time {
        /// What is timed.
        axis: Axis,
        /// Schedule.
        schedule: Schedule,
        /// How many.
        calls: usize,
        /// Milliseconds after which one call is enough.
        cutoff: Option<f64>,
    },
    /// Time schedules in turns: plan, forward and backward of each.
    Figures(Vec<Schedule>),
    /// Compile; needs no GPU and no setting up.
    Compile(Source),
}

/// What the process answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The inputs are there.
    Ready {
        /// Bytes a second of a copy on the device.
        copy: f64,
    },
    /// Done, or right.
    Right,
    /// The result is wrong.
    Wrong {
        /// Tensor.
        tensor: String,
        /// Its error; nothing where that is no number.
        error: Option<f64>,
        /// The largest that is accepted.
        limit: f64,
    },
    /// Milliseconds of each call.
    Times(Vec<f64>),
    /// Milliseconds of plan, forward with the plan, and backward, of each schedule.
    Figures(Vec<[f64; 3]>),
    /// The call could not be made; others can.
    Failed(String),
    /// The GPU reported a fault: this process cannot use it any more, and ends.
    Fault(String),
}
