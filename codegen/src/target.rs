//! What a GPU offers a kernel: the limits that feasibility checks and the instructions that
//! templates may use.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A generation of matrix instructions: the folder of `templates/arch` that a target uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// cp.async, ldmatrix, mma.sync: compute capability 8.0 and everything after it.
    Sm80,
    /// wgmma, mbarrier, setmaxnreg: compute capability 9.0 alone, for 16-bit elements.
    Sm90,
}

impl Family {
    /// Name of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Family::Sm80 => "sm80",
            Family::Sm90 => "sm90",
        }
    }

    /// The family of that name.
    pub fn named(name: &str) -> Option<Family> {
        [Family::Sm80, Family::Sm90].into_iter().find(|f| f.name() == name)
    }
}

/// A compilation target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Compute capability times ten: 90 for 9.0.
    pub capability: u32,
    /// Whether instructions that only this capability has are allowed (`sm_90a`).
    pub specific: bool,
    /// Shared memory that a block can ask for, in bytes.
    pub shared_per_block: u32,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_multiprocessor: u32,
    /// Registers of a multiprocessor.
    pub registers: u32,
    /// Threads of a multiprocessor.
    pub threads: u32,
}

const fn target(capability: u32, specific: bool, block: u32, sm: u32, threads: u32) -> Target {
    Target {
        capability,
        specific,
        shared_per_block: block * 1024,
        shared_per_multiprocessor: sm * 1024,
        registers: 65536,
        threads,
    }
}

impl Target {
    /// Every supported target: A100, RTX 30, RTX 40, H100 and H200, B200, RTX 50.
    pub const ALL: [Target; 6] = [
        target(80, false, 163, 164, 2048),
        target(86, false, 99, 100, 1536),
        target(89, false, 99, 100, 1536),
        target(90, true, 227, 228, 2048),
        target(100, true, 227, 228, 2048),
        target(120, true, 99, 100, 1536),
    ];

    /// The target of that name, as `sm_90a`.
    pub fn named(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The target whose code a GPU of that compute capability runs: its own, or the last one before
    /// it of the same major version that is not specific to its capability.
    pub fn for_capability(major: u32, minor: u32) -> Option<Target> {
        let capability = major * 10 + minor;
        let runs = |t: &&Target| {
            t.capability == capability
                || (!t.specific && t.capability / 10 == major && t.capability < capability)
        };
        Target::ALL.iter().rfind(runs).copied()
    }

    /// Instructions that it has, the oldest first.
    pub fn families(&self) -> &'static [Family] {
        match self.capability {
            90 => &[Family::Sm80, Family::Sm90],
            _ => &[Family::Sm80],
        }
    }

    /// Whether the entries of generated code wait for the launches before them themselves, and may be
    /// launched while those still run.
    pub fn overlaps_launches(&self) -> bool {
        self.capability >= 90
    }

    /// Its name: `sm_80`, `sm_90a`.
    pub fn name(&self) -> String {
        format!("sm_{}{}", self.capability, if self.specific { "a" } else { "" })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
