//! How the work is cut: chunks of queries, tiles of a chunk, and the keys that each tile sees.
//!
//! Cuts depend on sizes alone, never on the number of threads, so results do not either.

use super::topk::{self, Selection};
use crate::bind::{Sequence, Sequences, Sizes};
use rayon::prelude::*;

/// Rows of a tile, at least: query heads of a group times consecutive positions.
const ROWS: usize = 256;
/// Columns of a tile, at most.
pub(crate) const COLS: usize = 256;

/// Consecutive queries of one sequence: the unit of parallel work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) sequence: Sequence,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

impl Chunk {
    /// Its tiles: ranges of that many positions, the last one shorter.
    pub(crate) fn tiles(&self, positions: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let to = self.to;
        (self.from..to).step_by(positions).map(move |from| (from, (from + positions).min(to)))
    }
}

/// Positions of a tile for groups of that many heads.
pub(crate) fn tile_positions(group: usize) -> usize {
    (ROWS / group).clamp(8, 64)
}

/// All chunks in the order in which their queries are stored.
pub(crate) fn chunks(sequences: &Sequences, s: Selection) -> Vec<Chunk> {
    // A chunk starts from a list of the keys alive at its first query, at most k + sinks of them:
    // lists stay small against the chunk.
    let len = (s.k.unwrap_or(0) + s.sinks).next_power_of_two().clamp(512, 8192);
    let cut = |sequence: &Sequence| {
        let sequence = *sequence;
        (0..sequence.len).step_by(len).map(move |from| Chunk {
            sequence,
            from,
            to: (from + len).min(sequence.len),
        })
    };
    sequences.all.iter().flat_map(cut).collect()
}

/// Tau and expiry of every sequence and key-value head, \[B, Hkv, N\].
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tau: Vec<f32>,
    pub(crate) expiry: Vec<i32>,
}

/// Computes the plan, sequences and heads in parallel.
pub(crate) fn plan(scores: &[f32], sizes: &Sizes, sequences: &Sequences, s: Selection) -> Plan {
    let total = sizes.batch * sizes.hkv * sizes.n;
    let mut plan = Plan { tau: vec![0.0; total], expiry: vec![0; total] };
    if sizes.n == 0 {
        return plan;
    }
    let rows = plan.tau.par_chunks_mut(sizes.n).zip(plan.expiry.par_chunks_mut(sizes.n));
    rows.enumerate().for_each(|(at, (tau, expiry))| {
        for q in sequences.all.iter().filter(|q| q.row == at / sizes.hkv) {
            let range = q.start..q.start + q.len;
            let scores = scores.get(at * sizes.n..(at + 1) * sizes.n).unwrap_or(&[]);
            let scores = scores.get(range.clone()).unwrap_or(&[]);
            topk::plan(scores, s, &mut tau[range.clone()], &mut expiry[range]);
        }
    });
    plan
}

/// Where the values of one sequence and key-value head start in a \[B, Hkv, N\] array.
pub(crate) fn key_offset(sizes: &Sizes, sequence: &Sequence, g: usize) -> usize {
    (sequence.row * sizes.hkv + g) * sizes.n + sequence.start
}

/// A key of a chunk: its position, and its place among the keys that the chunk can see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) pos: u32,
    pub(crate) slot: u32,
}

/// The keys that one chunk can see for one key-value head: those that left the window before its
/// first query and are still alive, then every position from there to its last query.
#[derive(Clone, Debug)]
pub(crate) struct ChunkKeys {
    older: Vec<u32>,
    /// First position that had not left the window.
    band: usize,
    to: usize,
}

impl ChunkKeys {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.older.len() + self.to - self.band
    }

    /// The position of each, by slot.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.older.iter().map(|j| *j as usize).chain(self.band..self.to)
    }
}

/// The first position that has not left the window of query i.
fn band_start(i: usize, s: Selection) -> usize {
    (i + 1).saturating_sub(s.w)
}

/// The keys of every chunk of a call, for one key-value head: \[chunk\]. `offset` gives where a
/// chunk's sequence starts in `expiry`.
pub(crate) fn chunk_keys(
    chunks: &[Chunk],
    expiry: &[i32],
    offset: impl Fn(&Chunk) -> usize,
    s: Selection,
) -> Vec<ChunkKeys> {
    let mut out: Vec<ChunkKeys> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let expiry = &expiry[offset(chunk)..];
        let alive = |j: &u32| expiry[*j as usize] as usize > chunk.from;
        let band = band_start(chunk.from, s);
        // A key alive here was alive, or not yet out of the window, at the chunk before.
        let before = out.last().filter(|_| chunk.from > 0);
        let kept = before.map_or(&[][..], |b| &b.older).iter().copied();
        let left = before.map_or(0, |b| b.band) as u32..band as u32;
        let older = kept.chain(left).filter(alive).collect();
        out.push(ChunkKeys { older, band, to: chunk.to });
    }
    out
}

/// Walks the tiles of a chunk and lists the keys of each.
pub(crate) struct TileKeys<'a> {
    expiry: &'a [i32],
    s: Selection,
    older: Vec<Key>,
    band: usize,
    chunk_band: usize,
    first_slot: usize,
    /// Keys seen by all rows of the tile, then the others.
    pub(crate) keys: Vec<Key>,
    /// How many are seen by all rows, predicates aside.
    pub(crate) full: usize,
}

impl<'a> TileKeys<'a> {
    pub(crate) fn new(chunk: &ChunkKeys, expiry: &'a [i32], s: Selection) -> TileKeys<'a> {
        let key = |(slot, pos): (usize, &u32)| Key { pos: *pos, slot: slot as u32 };
        TileKeys {
            expiry,
            s,
            older: chunk.older.iter().enumerate().map(key).collect(),
            band: chunk.band,
            chunk_band: chunk.band,
            first_slot: chunk.older.len(),
            keys: Vec::new(),
            full: 0,
        }
    }

    fn key(&self, j: usize) -> Key {
        Key { pos: j as u32, slot: (self.first_slot + j - self.chunk_band) as u32 }
    }

    /// Lists the keys of queries `[from, to)`, which follow those of the call before.
    pub(crate) fn advance(&mut self, from: usize, to: usize) {
        let expiry = self.expiry;
        let ends = |j: usize| expiry[j] as usize;
        self.older.retain(|key| ends(key.pos as usize) > from);
        let band = band_start(from, self.s);
        for j in self.band..band {
            if ends(j) > from {
                self.older.push(self.key(j));
            }
        }
        self.band = self.band.max(band);
        self.keys.clear();
        let mut partial = Vec::new();
        for key in &self.older {
            if ends(key.pos as usize) >= to { self.keys.push(*key) } else { partial.push(*key) }
        }
        for j in self.band..to {
            if ends(j) <= from.max(j) {
                continue;
            }
            let all = j <= from && ends(j) >= to;
            if all { self.keys.push(self.key(j)) } else { partial.push(self.key(j)) }
        }
        self.full = self.keys.len();
        self.keys.append(&mut partial);
    }

    /// The keys in blocks of about equal size, at most [`COLS`] each, and whether every row sees
    /// every key of the block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&[Key], bool)> {
        let blocks = self.keys.len().div_ceil(COLS).max(1);
        let size = self.keys.len().div_ceil(blocks).next_multiple_of(16).max(16);
        self.keys
            .chunks(size)
            .enumerate()
            .map(move |(n, keys)| (keys, n * size + keys.len() <= self.full))
    }
}
