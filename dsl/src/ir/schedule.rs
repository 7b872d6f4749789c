//! The schedule space that a kernel declares: which tile sizes and pipeline shapes may be tried.

use serde::{Deserialize, Serialize};

/// A pass of the kernel with a schedule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pass {
    /// Forward.
    Forward,
    /// Backward.
    Backward,
}

impl Pass {
    /// Every pass.
    pub const ALL: [Pass; 2] = [Pass::Forward, Pass::Backward];

    /// Its name in a schedule block.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
        }
    }
}

/// A quantity that a schedule chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KnobName {
    /// `tile q`: rows of a tile, query heads of a group times consecutive positions.
    TileQ,
    /// `tile kv`: keys of a tile.
    TileKv,
    /// `warps`: warps of a block.
    Warps,
    /// `stages`: tiles of keys in flight.
    Stages,
}

impl KnobName {
    /// Every knob.
    pub const ALL: [KnobName; 4] =
        [KnobName::TileQ, KnobName::TileKv, KnobName::Warps, KnobName::Stages];

    /// Its name in a schedule block.
    pub fn name(self) -> &'static str {
        match self {
            KnobName::TileQ => "tile q",
            KnobName::TileKv => "tile kv",
            KnobName::Warps => "warps",
            KnobName::Stages => "stages",
        }
    }

    /// The rule that a value must keep, and whether `x` does.
    pub fn allows(self, x: i64) -> (bool, &'static str) {
        match self {
            KnobName::TileQ => {
                (x % 16 == 0 && (16..=512).contains(&x), "a multiple of 16 from 16 to 512")
            }
            KnobName::TileKv => {
                (x % 16 == 0 && (16..=512).contains(&x), "a multiple of 16 from 16 to 512")
            }
            KnobName::Warps => ((1..=32).contains(&x), "from 1 to 32"),
            KnobName::Stages => ((1..=8).contains(&x), "from 1 to 8"),
        }
    }
}

/// The values one knob may take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Knob {
    /// Which.
    pub name: KnobName,
    /// Its values, in the order in which they were written.
    pub values: Vec<i64>,
}

/// The knobs of one pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Section {
    /// Which pass.
    pub pass: Pass,
    /// Its knobs; one that is absent keeps the compiler's own values.
    pub knobs: Vec<Knob>,
}

/// A kernel's `schedule { … }` block; empty when it has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ScheduleBlock {
    /// One section for each pass that was named.
    pub sections: Vec<Section>,
}

impl ScheduleBlock {
    /// The values that the block allows for a knob of a pass; `None` when it does not say.
    pub fn values(&self, pass: Pass, knob: KnobName) -> Option<&[i64]> {
        let section = self.sections.iter().find(|s| s.pass == pass)?;
        section.knobs.iter().find(|k| k.name == knob).map(|k| k.values.as_slice())
    }
}
