//! Which numbers are rounded.

use half::{bf16, f16};
use sparsek_dsl::Elem;

/// The arithmetic of an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Everything in f64.
    #[default]
    Exact,
    /// Everything in f64 but the score: its operations are rounded to f32, as everywhere a score is
    /// computed, so that keys are ranked and thresholds taken from the same numbers.
    F32Scores,
    /// A plain implementation: every operation's result and every step of a sum rounded to f32, and inputs, weights of weighted
    /// sums and outputs rounded to the element type. Its error against the others is what any
    /// implementation in that precision may be expected to have.
    Plain(Elem),
}

/// A rounding of one number.
pub(super) type Round = fn(f64) -> f64;

fn same(x: f64) -> f64 {
    x
}

fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

/// `x` rounded to an element type.
pub(crate) fn to_elem(elem: Elem, x: f64) -> f64 {
    // Through f32 first, as a value computed in f32 is.
    match elem {
        Elem::F32 => to_f32(x),
        Elem::F16 => f16::from_f32(x as f32).to_f64(),
        Elem::Bf16 => bf16::from_f32(x as f32).to_f64(),
    }
}

impl Arithmetic {
    /// Rounding of an operation's result.
    pub(super) fn result(self, in_score: bool) -> Round {
        match self {
            Arithmetic::Exact => same,
            Arithmetic::F32Scores if in_score => to_f32,
            Arithmetic::F32Scores => same,
            Arithmetic::Plain(_) => to_f32,
        }
    }

    /// Rounding of stored vectors and of weights.
    pub(super) fn stored(self) -> Round {
        match self {
            Arithmetic::Exact | Arithmetic::F32Scores | Arithmetic::Plain(Elem::F32) => {
                self.result(false)
            }
            Arithmetic::Plain(Elem::F16) => |x| to_elem(Elem::F16, x),
            Arithmetic::Plain(Elem::Bf16) => |x| to_elem(Elem::Bf16, x),
        }
    }

    /// Rounding of thresholds.
    pub(super) fn tau(self) -> Round {
        self.result(false)
    }
}
