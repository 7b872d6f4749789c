//! Elementwise operations: names, meaning on one number, and how they print.
//!
//! `apply` is the definition every backend is held against; it is generic over the float type so
//! that the f64 reference and constant folding share it.

use serde::{Deserialize, Serialize};

/// Functions of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unary {
    /// −x
    Neg,
    /// e^x
    Exp,
    /// Natural logarithm.
    Log,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^−x)
    Sigmoid,
    /// |x|
    Abs,
    /// Square root; NaN below 0.
    Sqrt,
    /// x^(−1/2)
    Rsqrt,
}

impl Unary {
    /// Every unary function, for tables and generators.
    pub const ALL: [Unary; 8] = [
        Unary::Neg,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Abs,
        Unary::Sqrt,
        Unary::Rsqrt,
    ];

    /// Its name in the language (`-` for negation).
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "-",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Tanh => "tanh",
            Unary::Sigmoid => "sigmoid",
            Unary::Abs => "abs",
            Unary::Sqrt => "sqrt",
            Unary::Rsqrt => "rsqrt",
        }
    }

    /// Its value in f64.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Tanh => x.tanh(),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Abs => x.abs(),
            Unary::Sqrt => x.sqrt(),
            Unary::Rsqrt => 1.0 / x.sqrt(),
        }
    }
}

/// Functions of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// The smaller; `a` where they are equal.
    Min,
    /// The larger; `a` where they are equal.
    Max,
}

impl Binary {
    /// Every binary function, for tables and generators.
    pub const ALL: [Binary; 6] =
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Min, Binary::Max];

    /// The operator or function name in the language.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::Min => "min",
            Binary::Max => "max",
        }
    }

    /// Its value in f64.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Binary::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

/// Comparisons; two integers compare exactly, anything else as f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compare {
    /// a == b
    Eq,
    /// a != b
    Ne,
    /// a < b
    Lt,
    /// a <= b
    Le,
    /// a > b
    Gt,
    /// a >= b
    Ge,
}

impl Compare {
    /// Every comparison, for tables and generators.
    pub const ALL: [Compare; 6] =
        [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];

    /// The operator in the language.
    pub fn name(self) -> &'static str {
        match self {
            Compare::Eq => "==",
            Compare::Ne => "!=",
            Compare::Lt => "<",
            Compare::Le => "<=",
            Compare::Gt => ">",
            Compare::Ge => ">=",
        }
    }

    /// Its value for two comparable things.
    pub fn apply<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Compare::Eq => a == b,
            Compare::Ne => a != b,
            Compare::Lt => a < b,
            Compare::Le => a <= b,
            Compare::Gt => a > b,
            Compare::Ge => a >= b,
        }
    }
}

/// Connectives of truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Logic {
    /// Both.
    And,
    /// At least one.
    Or,
}

impl Logic {
    /// The operator in the language.
    pub fn name(self) -> &'static str {
        match self {
            Logic::And => "&",
            Logic::Or => "|",
        }
    }

    /// Its value.
    pub fn apply(self, a: bool, b: bool) -> bool {
        match self {
            Logic::And => a & b,
            Logic::Or => a | b,
        }
    }
}

/// Positions and indices of the pair at hand, counted within its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Coord {
    /// `q.pos`: i.
    QueryPos,
    /// `k.pos`: j.
    KeyPos,
    /// `q.head`: h.
    QueryHead,
    /// `k.head`: h / (Hq / Hkv).
    KeyHead,
    /// `batch`: b, the sequence's index when sequences are packed.
    Batch,
}

impl Coord {
    /// Every coordinate, for tables and generators.
    pub const ALL: [Coord; 5] =
        [Coord::QueryPos, Coord::KeyPos, Coord::QueryHead, Coord::KeyHead, Coord::Batch];

    /// Its spelling in the language.
    pub fn name(self) -> &'static str {
        match self {
            Coord::QueryPos => "q.pos",
            Coord::KeyPos => "k.pos",
            Coord::QueryHead => "q.head",
            Coord::KeyHead => "k.head",
            Coord::Batch => "batch",
        }
    }

    /// The class it varies over.
    pub fn class(self) -> super::Class {
        match self {
            Coord::QueryPos => super::Class::PerQuery,
            Coord::KeyPos | Coord::KeyHead => super::Class::PerKey,
            Coord::QueryHead => super::Class::PerHead,
            Coord::Batch => super::Class::PerBatch,
        }
    }
}
