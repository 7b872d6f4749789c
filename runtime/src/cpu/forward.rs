//! The forward pass: plan, then a row sweep over every tile's keys with an online softmax.

use super::compile::{Segments, Vector};
use super::elementwise::Domain;
use super::elementwise::STRIDE;
use super::matmul::{self, Matrix};
use super::scores::Scores;
use super::softmax::{RowState, absorb};
use super::tile::{Call, Tile};
use super::tiles::{self, Chunk, ChunkKeys, TileKeys};
use super::topk::Selection;
use super::{Progress, selection};
use crate::bind::{HostBound, Sequences};
use crate::tensor::{StorageMut, split_mut};
use crate::{Error, Forward, Storage, Tensor};
use rayon::prelude::*;
use sparsek_dsl::ir::{Instance, Program};

/// A compiled forward program.
#[derive(Clone, Debug)]
pub(crate) struct ForwardPass {
    program: Program,
    selection: Selection,
    elem: sparsek_dsl::Elem,
    segments: Segments,
    scores: Scores,
}

/// What one chunk writes: its rows of o \[positions, Hq, D\] and of lse \[positions, Hq\].
struct Part<'a> {
    o: StorageMut<'a>,
    lse: &'a mut [f32],
}

impl ForwardPass {
    pub(crate) fn compile(instance: &Instance) -> Result<ForwardPass, Error> {
        let program = instance.program.clone();
        // Of the softmax too: a weight that is 0 folds away and leaves lse.
        let roots: Vec<_> = program.outputs.iter().map(|o| o.value).collect();
        let segments = Segments::compile(&program, &roots)?;
        let scores = Scores::compile(&program)?;
        Ok(ForwardPass {
            selection: selection(instance),
            elem: instance.elem,
            program,
            segments,
            scores,
        })
    }

    pub(crate) fn run(
        &self,
        bound: &HostBound<'_>,
        sequences: &Sequences,
        progress: Option<&(dyn Fn(usize, usize) + Sync)>,
    ) -> Result<Forward, Error> {
        let sizes = bound.sizes;
        let scores = self.scores.evaluate(bound, sequences);
        let plan = tiles::plan(&scores, &sizes, sequences, self.selection);
        let call = Call {
            program: &self.program,
            segments: &self.segments,
            bound,
            selection: self.selection,
            scores: &scores,
            tau: &plan.tau,
            expiry: &plan.expiry,
        };
        let chunks = tiles::chunks(sequences, self.selection);
        let keys = all_chunk_keys(&call, &chunks);
        let rows: Vec<usize> = chunks.iter().map(|c| (c.to - c.from) * sizes.hq).collect();
        let mut o = Storage::zeros(self.elem, sizes.batch * sizes.n * sizes.hq * sizes.d);
        let mut lse = vec![0f32; sizes.batch * sizes.n * sizes.hq];
        let progress = Progress::new(progress, chunks.len());
        {
            let lens: Vec<usize> = rows.iter().map(|r| r * sizes.d).collect();
            let parts = o.split_mut(&lens).into_iter().zip(split_mut(&mut lse, &rows));
            let parts: Vec<Part<'_>> = parts.map(|(o, lse)| Part { o, lse }).collect();
            let work = parts.into_par_iter().zip(&chunks).enumerate();
            let new_worker = || Worker::new(&call);
            work.for_each_init(new_worker, |worker, (n, (mut part, chunk))| {
                for (g, keys) in keys.iter().enumerate() {
                    worker.chunk(&call, chunk, &keys[n], g, &mut part);
                }
                progress.advance();
            });
        }
        let lse = transpose_heads(&lse, &sizes);
        let heads = vec![sizes.batch, sizes.hkv, sizes.n];
        Ok(Forward {
            o: Tensor::new(vec![sizes.batch, sizes.n, sizes.hq, sizes.d], o),
            lse: Tensor::new(vec![sizes.batch, sizes.hq, sizes.n], Storage::F32(lse)),
            tau: Tensor::new(heads.clone(), Storage::F32(plan.tau)),
            expiry: Tensor::new(heads, Storage::I32(plan.expiry)),
        })
    }
}

/// The keys of every chunk by key-value head: \[g\]\[chunk\].
pub(crate) fn all_chunk_keys(call: &Call<'_>, chunks: &[Chunk]) -> Vec<Vec<ChunkKeys>> {
    let sizes = call.sizes();
    let of_head = |g: usize| {
        let offset = |c: &Chunk| tiles::key_offset(sizes, &c.sequence, g);
        tiles::chunk_keys(chunks, call.expiry, offset, call.selection)
    };
    (0..sizes.hkv).into_par_iter().map(of_head).collect()
}

/// \[B, N, Hq\] to \[B, Hq, N\].
fn transpose_heads(x: &[f32], sizes: &crate::bind::Sizes) -> Vec<f32> {
    let (n, hq) = (sizes.n, sizes.hq);
    let mut out = vec![0f32; x.len()];
    if n == 0 {
        return out;
    }
    for (row, heads) in out.chunks_mut(n).enumerate() {
        let (b, h) = (row / hq, row % hq);
        for (i, y) in heads.iter_mut().enumerate() {
            *y = x[(b * n + i) * hq + h];
        }
    }
    out
}

/// One thread's buffers for the row sweep.
struct Worker {
    tile: Tile,
    states: Vec<RowState>,
    o: Vec<f32>,
    positions: usize,
}

impl Worker {
    fn new(call: &Call<'_>) -> Worker {
        let sizes = call.sizes();
        let positions = tiles::tile_positions(sizes.group());
        let rows = positions * sizes.group();
        Worker {
            tile: Tile::new(call, rows),
            states: Vec::with_capacity(rows),
            o: vec![0.0; rows * sizes.d],
            positions,
        }
    }

    fn chunk(
        &mut self,
        call: &Call<'_>,
        chunk: &Chunk,
        keys: &ChunkKeys,
        g: usize,
        part: &mut Part<'_>,
    ) {
        let at = tiles::key_offset(call.sizes(), &chunk.sequence, g);
        let expiry = &call.expiry[at..at + chunk.sequence.len];
        let mut list = TileKeys::new(keys, expiry, call.selection);
        self.tile.start_head(call, chunk.sequence, g);
        for (from, to) in chunk.tiles(self.positions) {
            list.advance(from, to);
            self.rows(call, from, to);
            for (keys, full) in list.blocks() {
                self.block(call, keys, full && call.segments.predicates.is_empty());
            }
            self.write(call, from - chunk.from, part);
        }
    }

    fn rows(&mut self, call: &Call<'_>, from: usize, to: usize) {
        self.tile.start_rows(call, from, to - from);
        let rows = self.tile.rows;
        self.o[..rows * call.sizes().d].fill(0.0);
        self.states.clear();
        for r in 0..rows {
            let sink = match call.segments.sink {
                None => f32::NEG_INFINITY,
                Some(loc) if loc.domain == Domain::Row => self.tile.row.f[loc.slot][r],
                Some(loc) => self.tile.uniform.f[loc.slot][0],
            };
            self.states.push(RowState::new(sink));
        }
    }

    fn block(&mut self, call: &Call<'_>, keys: &[tiles::Key], full: bool) {
        let d = call.sizes().d;
        let Some((logit, p)) = call.segments.softmax else { return };
        self.tile.start_cols(call, keys);
        self.tile.products(call);
        let cols = self.tile.cols;
        for r in 0..self.tile.rows {
            self.tile.pair_row(call, r, full);
            if p != logit {
                let mut x = std::mem::take(&mut self.tile.pair.f[p.slot]);
                x[..cols].copy_from_slice(&self.tile.pair.f[logit.slot][..cols]);
                self.tile.pair.f[p.slot] = x;
            }
            if !full {
                self.tile.mask(p, f32::NEG_INFINITY);
            }
            let factor = absorb(&mut self.states[r], &mut self.tile.pair.f[p.slot][..cols]);
            if factor != 1.0 {
                self.o[r * d..(r + 1) * d].iter_mut().for_each(|o| *o *= factor);
            }
            self.tile.pair_row_after(call, r);
            if !full {
                for store in &call.segments.stores {
                    self.tile.mask(*store, 0.0);
                }
            }
            self.tile.store_row(call, r);
        }
        for weighted in &call.segments.weighted {
            if let Vector::Key(v) = weighted.vector {
                let a = Matrix::row_major(&self.tile.tiles[weighted.store], STRIDE);
                let b = Matrix::row_major(&self.tile.keys[v], d);
                matmul::product((self.tile.rows, d, cols), &mut self.o, d, a, b, true);
            }
        }
    }

    /// Divides by the softmax's denominators and writes the tile's rows.
    fn write(&mut self, call: &Call<'_>, position: usize, part: &mut Part<'_>) {
        let sizes = call.sizes();
        let (d, group) = (sizes.d, sizes.group());
        for (r, state) in self.states.iter().enumerate() {
            let scale = state.scale();
            // A row that saw nothing keeps its zeros, whatever its sums would have been.
            let row = &mut self.o[r * d..(r + 1) * d];
            row.iter_mut().for_each(|o| *o = if scale == 0.0 { 0.0 } else { *o * scale });
        }
        for t in 0..self.tile.rows / group {
            let at = (position + t) * sizes.hq + self.tile.g * group;
            part.o.write(at * d, &self.o[t * group * d..(t + 1) * group * d]);
            for h in 0..group {
                part.lse[at + h] = self.states[t * group + h].lse();
            }
        }
    }
}
