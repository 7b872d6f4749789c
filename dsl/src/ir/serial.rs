//! Programs as text that other processes and later versions can read.

use super::{Program, check};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the serialised form. It changes whenever an older reader would misread a program.
pub const FORMAT_VERSION: u32 = 1;

/// Why a serialised program was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Not the serialised form of a program.
    #[error("not a serialised sparsek program: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the program has format version {found} and this build reads version {FORMAT_VERSION}; \
         build the kernel and the runtime from the same release"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// Well-formedness rules do not hold.
    #[error("the serialised program is not well formed: {0}")]
    IllFormed(String),
}

#[derive(Serialize)]
struct Out<'a> {
    version: u32,
    program: &'a Program,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct In {
    program: Program,
}

impl Program {
    /// The serialised form, one line of JSON.
    pub fn to_json(&self) -> String {
        // A program holds nothing that JSON cannot: no maps with odd keys, no non-finite floats
        // (constants are stored by their bits).
        serde_json::to_string(&Out { version: FORMAT_VERSION, program: self }).unwrap_or_default()
    }

    /// Reads what [`Program::to_json`] wrote; the result is well formed.
    pub fn from_json(text: &str) -> Result<Program, LoadError> {
        let Version { version } = serde_json::from_str(text)?;
        if version != FORMAT_VERSION {
            return Err(LoadError::Version { found: version });
        }
        let In { program } = serde_json::from_str(text)?;
        let broken = check::well_formed(&program);
        match broken.first() {
            None => Ok(program),
            Some(rule) => Err(LoadError::IllFormed(rule.to_string())),
        }
    }
}
