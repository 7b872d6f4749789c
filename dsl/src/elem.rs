//! Element types that tensors of queries, keys, values and outputs are stored in.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Storage element type of `q`, `k`, `v`, `o` and their gradients. Arithmetic is always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Elem {
    /// bfloat16: 8 bits of significand.
    Bf16,
    /// IEEE binary16: 11 bits of significand.
    F16,
    /// IEEE binary32.
    F32,
}

impl Elem {
    /// Every element type, in the order in which they are listed to people.
    pub const ALL: [Elem; 3] = [Elem::Bf16, Elem::F16, Elem::F32];

    /// The name used in kernels, metadata and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Elem::Bf16 => "bf16",
            Elem::F16 => "f16",
            Elem::F32 => "f32",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Elem::Bf16 | Elem::F16 => 2,
            Elem::F32 => 4,
        }
    }

    /// The element type of that name.
    pub fn from_name(name: &str) -> Option<Elem> {
        Elem::ALL.into_iter().find(|e| e.name() == name)
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
