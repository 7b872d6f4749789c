//! What each query selects, and where sequences lie.

use crate::{Array, Error};

/// One sequence: a batch entry, or a piece of a packed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Batch entry that holds it.
    pub row: usize,
    /// Its first token in that entry.
    pub start: usize,
    /// Its tokens.
    pub len: usize,
}

impl Sequence {
    /// The sequences of a batch of `batch` entries of `n` tokens. With `cu_seqlens` \[sequences + 1\]
    /// the one entry is a row of packed sequences.
    ///
    /// # Errors
    /// Boundaries that do not start at 0, do not rise to `n`, or come with a batch of more than one.
    pub fn all(batch: usize, n: usize, cu_seqlens: Option<&[i32]>) -> Result<Vec<Sequence>, Error> {
        let Some(bounds) = cu_seqlens else {
            return Ok((0..batch).map(|row| Sequence { row, start: 0, len: n }).collect());
        };
        let wrong = |reason: String| Err(Error::Sequences(reason));
        if batch != 1 {
            return wrong(format!("packs sequences into one batch entry, and there are {batch}"));
        }
        if bounds.first() != Some(&0) || bounds.last().map(|l| *l as usize) != Some(n) {
            return wrong(format!("must run from 0 to the number of tokens, {n}"));
        }
        let pieces = bounds.windows(2).map(|w| match w {
            [a, b] if a <= b => {
                Ok(Sequence { row: 0, start: *a as usize, len: (*b - *a) as usize })
            }
            _ => Err(Error::Sequences("must not fall".to_owned())),
        });
        pieces.collect()
    }
}

/// What selects, and what was selected.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Keys that the top-k mask keeps; `None` without one.
    pub k: Option<usize>,
    /// Window.
    pub window: usize,
    /// Sinks.
    pub sinks: usize,
    /// Where sequences lie.
    pub sequences: Vec<Sequence>,
    /// Score of every key, \[B, Hkv, N\]; `None` without a top-k mask.
    pub scores: Option<Array>,
    /// Threshold of every query, \[B, Hkv, N\]; −inf where every candidate is kept.
    pub tau: Array,
    /// First query that no longer sees a key, \[B, Hkv, N\], counted from the sequence's start; the
    /// sequence's length when the key is seen to the end.
    pub expiry: Array,
}
