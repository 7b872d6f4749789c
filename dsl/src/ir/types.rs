//! Types of values: which indices a value varies over, and what it holds.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The indices a value varies over. Smaller classes broadcast to larger ones:
/// `Scalar < PerBatch < {PerQuery, PerKey} < Pair` and `Scalar < PerHead < PerQuery`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// One value.
    Scalar,
    /// One value for each sequence `b`. Inputs cannot have this class; `batch` does.
    PerBatch,
    /// One value for each query head `h`.
    PerHead,
    /// One value for each `(b, h, i)`.
    PerQuery,
    /// One value for each `(b, g, j)`, `g` a key-value head.
    PerKey,
    /// One value for each `(b, h, i, j)` with `j` seen by `i`. Never stored.
    Pair,
}

impl Class {
    /// The smallest class that both broadcast to.
    pub fn join(self, other: Class) -> Class {
        use Class::{Pair, PerBatch, PerHead, PerKey, PerQuery, Scalar};
        match (self, other) {
            (a, b) if a == b => a,
            (Scalar, x) | (x, Scalar) => x,
            (Pair, _) | (_, Pair) => Pair,
            (PerBatch, PerHead) | (PerHead, PerBatch) => PerQuery,
            (PerBatch, x) | (x, PerBatch) => x,
            (PerHead, PerQuery) | (PerQuery, PerHead) => PerQuery,
            // What varies by key and by query or query head exists for pairs.
            (PerKey, _) | (_, PerKey) => Pair,
            (PerHead, PerHead) | (PerQuery, PerQuery) => self,
        }
    }

    /// Whether a value of this class can stand where `to` is needed.
    pub fn broadcasts_to(self, to: Class) -> bool {
        self.join(to) == to
    }

    /// The name used in the language.
    pub fn name(self) -> &'static str {
        match self {
            Class::Scalar => "Scalar",
            Class::PerBatch => "PerBatch",
            Class::PerHead => "PerHead",
            Class::PerQuery => "PerQuery",
            Class::PerKey => "PerKey",
            Class::Pair => "Pair",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one entry of a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A number computed in f32.
    F32,
    /// A 32-bit integer: a coordinate, an identifier, an integer parameter. Only compared;
    /// arithmetic turns it into f32 first (exact below 2^24).
    I32,
    /// A truth value.
    Bool,
    /// A vector over the head dimension, stored in the kernel's element type.
    Vector,
}

/// Class and kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Type {
    /// Indices the value varies over.
    pub class: Class,
    /// What an entry is.
    pub kind: Kind,
}

impl Type {
    /// A type from its parts.
    pub const fn new(class: Class, kind: Kind) -> Type {
        Type { class, kind }
    }

    /// A number of that class.
    pub const fn f32(class: Class) -> Type {
        Type::new(class, Kind::F32)
    }

    /// Whether a gradient can flow through a value of this type.
    pub fn differentiable(self) -> bool {
        match self.kind {
            Kind::F32 | Kind::Vector => true,
            Kind::I32 | Kind::Bool => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.class) {
            (Kind::F32, c) => write!(f, "{c}"),
            (Kind::I32, c) => write!(f, "{c}<i32>"),
            (Kind::Bool, Class::Pair) => f.write_str("Mask"),
            (Kind::Bool, c) => write!(f, "{c} mask"),
            (Kind::Vector, Class::PerQuery) => f.write_str("Query vector"),
            (Kind::Vector, _) => f.write_str("Key vector"),
        }
    }
}
