//! Schedules: what the compiler chooses for each pass, and the default choice.

use crate::Family;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tile sizes and pipeline shape of one pass.
///
/// A sweep keeps a stationary tile and streams others past it. The forward and the backward's row
/// sweep keep `tile_q` rows (query heads of a group times consecutive positions) and stream tiles
/// of `tile_kv` keys; the backward's key sweep keeps `tile_q` keys and streams `tile_kv` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PassSchedule {
    /// Instructions used, and with them the shape of the code.
    pub family: Family,
    /// Rows of the stationary tile: a multiple of 16 · warps, or for [`Family::Sm90`], whose last
    /// four warps load, 16 · (warps − 4).
    pub tile_q: u32,
    /// Rows of a streamed tile, a multiple of 16.
    pub tile_kv: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Streamed tiles in flight.
    pub stages: u32,
}

/// Everything chosen for one kernel on one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schedule {
    /// Queries of one chunk of the plan, half of those of a work item of the backward's key sweep: a
    /// power of two from 128 to 2048, no shorter than a tile.
    pub chunk: u32,
    /// Forward.
    pub forward: PassSchedule,
    /// Backward.
    pub backward: PassSchedule,
}

impl fmt::Display for PassSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PassSchedule { family, tile_q, tile_kv, warps, stages } = self;
        let family = family.name();
        write!(f, "tile q {tile_q}, kv {tile_kv}; warps {warps}; stages {stages}; {family}")
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "chunk {}", self.chunk)?;
        writeln!(f, "forward   {}", self.forward)?;
        write!(f, "backward  {}", self.backward)
    }
}
