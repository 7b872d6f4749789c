//! Specialisation parameters: what a kernel is generic over, and their sets.

use crate::Elem;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Index of an integer parameter in [`super::Program::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ParamId(pub u32);

/// A set of integers that a parameter is checked against when a kernel is instantiated.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IntSet {
    /// `lo..=hi`
    Range {
        /// Smallest member.
        lo: i64,
        /// Largest member.
        hi: i64,
    },
    /// `[a, b, …]`
    List(Vec<i64>),
    /// `multiples_of(m) up to hi`: m, 2m, … up to and with `hi`.
    Multiples {
        /// The divisor, and the smallest member.
        of: i64,
        /// Largest value allowed.
        up_to: i64,
    },
}

impl IntSet {
    /// Whether `x` is a member.
    pub fn contains(&self, x: i64) -> bool {
        match self {
            IntSet::Range { lo, hi } => (*lo..=*hi).contains(&x),
            IntSet::List(list) => list.contains(&x),
            IntSet::Multiples { of, up_to } => x >= *of && x <= *up_to && x % *of == 0,
        }
    }

    /// Smallest and largest member; `None` when the set is empty.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        match self {
            IntSet::Range { lo, hi } => (lo <= hi).then_some((*lo, *hi)),
            IntSet::List(list) => Some((*list.iter().min()?, *list.iter().max()?)),
            IntSet::Multiples { of, up_to } => {
                (*of > 0 && of <= up_to).then(|| (*of, up_to - up_to % of))
            }
        }
    }

    /// The member closest to `x`, the smaller of two.
    pub fn nearest(&self, x: i64) -> Option<i64> {
        let (lo, hi) = self.bounds()?;
        Some(match self {
            IntSet::Range { .. } => x.clamp(lo, hi),
            IntSet::List(list) => *list.iter().min_by_key(|m| (m.abs_diff(x), **m))?,
            IntSet::Multiples { of, .. } => {
                let below = (x.clamp(lo, hi) / of) * of;
                let above = (below + of).min(hi);
                if above.abs_diff(x) < below.abs_diff(x) { above } else { below }
            }
        })
    }
}

impl fmt::Display for IntSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntSet::Range { lo, hi } => write!(f, "{lo}..={hi}"),
            IntSet::List(list) => {
                f.write_str("[")?;
                for (i, x) in list.iter().enumerate() {
                    write!(f, "{}{x}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            IntSet::Multiples { of, up_to } => write!(f, "multiples_of({of}) up to {up_to}"),
        }
    }
}

/// An integer parameter: a constant once the kernel is instantiated.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Param {
    /// Its name in the kernel.
    pub name: String,
    /// The values it may take.
    pub set: IntSet,
}

/// The element type a kernel is generic over, or its only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ElemParam {
    /// The parameter's name; `None` when the kernel names one element type directly.
    pub name: Option<String>,
    /// The element types it may take.
    pub set: Vec<Elem>,
}

/// A size known when the kernel is instantiated: an integer literal or an integer parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Extent {
    /// A literal.
    Literal(u32),
    /// A parameter.
    Param(ParamId),
}

impl Extent {
    /// The value, once instantiated.
    pub fn literal(self) -> Option<u32> {
        match self {
            Extent::Literal(n) => Some(n),
            Extent::Param(_) => None,
        }
    }
}
