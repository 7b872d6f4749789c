//! Names of checks: what a failure prints and `--only` takes.

use std::fmt;
use std::str::FromStr;

/// One check of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// A golden file, by its name.
    Golden(String),
    /// A random case against the reference; even seeds make programs of the grammar.
    Random(u64),
    /// A long built-in case against the CPU backend.
    Long(u64),
    /// A million positions against the CPU backend.
    Million(u64),
    /// A case whose results must not change from run to run.
    Repeat(u64),
    /// A batch whose rows must not depend on each other.
    Rows(u64),
}

impl Id {
    /// Its kind: what stands before the colon.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Id::Golden(_) => "golden",
            Id::Random(_) => "random",
            Id::Long(_) => "long",
            Id::Million(_) => "million",
            Id::Repeat(_) => "repeat",
            Id::Rows(_) => "rows",
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Id::Golden(name) => write!(f, "{}:{name}", self.kind()),
            Id::Random(seed)
            | Id::Long(seed)
            | Id::Million(seed)
            | Id::Repeat(seed)
            | Id::Rows(seed) => write!(f, "{}:{seed}", self.kind()),
        }
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Id, String> {
        let wrong = || "write it as golden:NAME, random:SEED, long:SEED, million:SEED, repeat:SEED or rows:SEED";
        let (kind, which) = text.split_once(':').ok_or_else(wrong)?;
        let seed = || which.parse::<u64>().map_err(|_| format!("`{which}` is not a seed"));
        match kind {
            "golden" => Ok(Id::Golden(which.to_owned())),
            "random" => seed().map(Id::Random),
            "long" => seed().map(Id::Long),
            "million" => seed().map(Id::Million),
            "repeat" => seed().map(Id::Repeat),
            "rows" => seed().map(Id::Rows),
            _ => Err(wrong().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn names_are_read_back() {
        for text in ["golden:ties", "random:7", "long:0", "repeat:12", "rows:18446744073709551615"]
        {
            assert_eq!(text.parse::<Id>().map(|id| id.to_string()), Ok(text.to_owned()));
        }
        for text in ["ties", "random:x", "other:1", ""] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
