//! The backward sweep over one chunk: recompute the pair values of every tile, and hand them to
//! rows, columns and products.

use super::elementwise::STRIDE;
use super::elementwise::{Domain, Loc};
use super::matmul::{self, Matrix};
use super::softmax;
use super::tile::{Call, Tile};
use super::tiles::{self, COLS, Chunk, ChunkKeys, Key, TileKeys};
use crate::tensor::StorageMut;
use multiversion::multiversion;
use sparsek_dsl::ir::Class;

/// What one chunk writes for its own queries.
pub(crate) struct RowPart<'a> {
    /// Sums over keys, \[positions, Hq, D\], by [`super::backward::Layout::query_vectors`].
    pub(crate) vectors: Vec<StorageMut<'a>>,
    /// PerQuery results, \[positions, Hq\].
    pub(crate) values: Vec<&'a mut [f32]>,
    /// Σ_{l in I_i} dm_il, \[positions\], of the key-value head at hand.
    pub(crate) threshold: &'a mut [f64],
}

/// What one chunk adds for one key-value head, by the chunk's key slots.
pub(crate) struct KeyPart {
    /// Sums over queries, slots × D.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Column sums.
    pub(crate) sums: Vec<Vec<f64>>,
    /// Sums over rows that end as Scalar, PerBatch or PerHead values: one for each index.
    pub(crate) small: Vec<Vec<f64>>,
}

/// Which products go where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Stored weight and key vector of every sum over keys.
    pub(crate) query_vectors: Vec<(usize, usize)>,
    /// Stored weight and query vector of every sum over queries.
    pub(crate) key_vectors: Vec<(usize, usize)>,
    /// Row values that are results.
    pub(crate) row_values: Vec<Loc>,
    /// Lengths of the small sums.
    pub(crate) small: Vec<usize>,
}

/// One thread's buffers.
pub(crate) struct Sweep {
    tile: Tile,
    /// Rows × D of every sum over keys.
    rows: Vec<Vec<f32>>,
    /// Columns × D of one sum over queries.
    columns: Vec<f32>,
    /// Column sums of a block.
    sums: Vec<Vec<f32>>,
    fractional: Vec<f32>,
    threshold: Vec<f64>,
    positions: usize,
}

impl Sweep {
    pub(crate) fn new(call: &Call<'_>, layout: &Layout) -> Sweep {
        let sizes = call.sizes();
        let positions = tiles::tile_positions(sizes.group());
        let rows = positions * sizes.group();
        Sweep {
            tile: Tile::new(call, rows),
            rows: vec![vec![0.0; rows * sizes.d]; layout.query_vectors.len()],
            columns: vec![0.0; COLS * sizes.d],
            sums: vec![vec![0.0; COLS]; call.segments.col_sums.len()],
            fractional: vec![0.0; COLS],
            threshold: vec![0.0; positions],
            positions,
        }
    }

    pub(crate) fn chunk(
        &mut self,
        call: &Call<'_>,
        layout: &Layout,
        (chunk, keys, g): (&Chunk, &ChunkKeys, usize),
        part: &mut RowPart<'_>,
    ) -> KeyPart {
        let d = call.sizes().d;
        let mut out = KeyPart {
            vectors: vec![vec![0.0; keys.len() * d]; layout.key_vectors.len()],
            sums: vec![vec![0.0; keys.len()]; call.segments.col_sums.len()],
            small: layout.small.iter().map(|n| vec![0.0; *n]).collect(),
        };
        let at = tiles::key_offset(call.sizes(), &chunk.sequence, g);
        let expiry = &call.expiry[at..at + chunk.sequence.len];
        let mut list = TileKeys::new(keys, expiry, call.selection);
        self.tile.start_head(call, chunk.sequence, g);
        for (from, to) in chunk.tiles(self.positions) {
            list.advance(from, to);
            self.tile.start_rows(call, from, to - from);
            self.rows.iter_mut().for_each(|rows| rows.fill(0.0));
            self.threshold.fill(0.0);
            for (keys, full) in list.blocks() {
                self.block(
                    call,
                    layout,
                    keys,
                    full && call.segments.predicates.is_empty(),
                    &mut out,
                );
            }
            self.finish_rows(call, layout, from - chunk.from, part, &mut out);
        }
        out
    }

    fn block(
        &mut self,
        call: &Call<'_>,
        layout: &Layout,
        keys: &[Key],
        full: bool,
        out: &mut KeyPart,
    ) {
        let d = call.sizes().d;
        self.tile.start_cols(call, keys);
        self.tile.products(call);
        self.sums.iter_mut().for_each(|s| s.fill(0.0));
        for r in 0..self.tile.rows {
            self.tile.pair_row(call, r, full);
            if !full {
                self.mask_results(call);
            }
            self.tile.store_row(call, r);
            self.sum_row(call, r);
        }
        let (rows, cols) = (self.tile.rows, self.tile.cols);
        for ((store, v), sum) in layout.query_vectors.iter().zip(&mut self.rows) {
            let a = Matrix::row_major(&self.tile.tiles[*store], STRIDE);
            let b = Matrix::row_major(&self.tile.keys[*v], d);
            matmul::product((rows, d, cols), sum, d, a, b, true);
        }
        for ((store, v), sum) in layout.key_vectors.iter().zip(&mut out.vectors) {
            let a = Matrix::row_major(&self.tile.tiles[*store], STRIDE).transposed();
            let b = Matrix::row_major(&self.tile.queries[*v], d);
            matmul::product((cols, d, rows), &mut self.columns, d, a, b, false);
            for (key, column) in keys.iter().zip(self.columns.chunks_exact(d)) {
                let at = key.slot as usize * d;
                sum[at..at + d].iter_mut().zip(column).for_each(|(s, x)| *s += x);
            }
        }
        for (sum, block) in out.sums.iter_mut().zip(&self.sums) {
            for (key, x) in keys.iter().zip(block) {
                sum[key.slot as usize] += f64::from(*x);
            }
        }
    }

    /// Zero on unseen pairs, for everything that is added up.
    fn mask_results(&mut self, call: &Call<'_>) {
        let s = call.segments;
        let sums = s.row_sums.iter().map(|(loc, _)| loc).chain(&s.col_sums);
        for loc in s.stores.iter().chain(sums) {
            self.tile.mask(*loc, 0.0);
        }
    }

    fn sum_row(&mut self, call: &Call<'_>, r: usize) {
        let (s, cols) = (call.segments, self.tile.cols);
        for (value, sum) in &s.row_sums {
            let x = softmax::sum(&self.tile.pair.f[value.slot][..cols]);
            self.tile.row.f[sum.slot][r] += x;
        }
        for (n, value) in s.col_sums.iter().enumerate() {
            let x = &self.tile.pair.f[value.slot][..cols];
            let sum = &mut self.sums[n][..cols];
            match (s.mask_vjp, s.gate) {
                (Some((_, vjp)), Some(gate)) if vjp == n => {
                    let m = &self.tile.pair.f[gate.slot][..cols];
                    let kept = &mut self.fractional[..cols];
                    let total = add_fractional(x, m, kept, sum);
                    self.threshold[r / call.sizes().group()] += f64::from(total);
                }
                _ => add(x, sum),
            }
        }
    }

    fn finish_rows(
        &mut self,
        call: &Call<'_>,
        layout: &Layout,
        position: usize,
        part: &mut RowPart<'_>,
        out: &mut KeyPart,
    ) {
        let (sizes, s) = (call.sizes(), call.segments);
        let (d, group, g) = (sizes.d, sizes.group(), self.tile.g);
        self.tile.row_late(call);
        let positions = self.tile.rows / group;
        for t in 0..positions {
            let at = (position + t) * sizes.hq + g * group;
            for (vectors, rows) in part.vectors.iter_mut().zip(&self.rows) {
                vectors.write(at * d, &rows[t * group * d..(t + 1) * group * d]);
            }
            for (values, loc) in part.values.iter_mut().zip(&layout.row_values) {
                let rows = &self.tile.row.f[loc.slot][t * group..(t + 1) * group];
                values[at..at + group].copy_from_slice(rows);
            }
        }
        let threshold = part.threshold[position..].iter_mut().zip(&self.threshold[..positions]);
        threshold.for_each(|(sum, x)| *sum = *x);
        for (sum, small) in s.small.iter().zip(&mut out.small) {
            if sum.of.domain != Domain::Row {
                continue;
            }
            for r in 0..self.tile.rows {
                let index = match sum.class {
                    Class::PerHead => g * group + r % group,
                    Class::PerBatch => self.tile.sequence.index,
                    Class::Scalar | Class::PerQuery | Class::PerKey | Class::Pair => 0,
                };
                small[index] += f64::from(self.tile.row.f[sum.of.slot][r]);
            }
        }
    }
}

#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
fn add(x: &[f32], sum: &mut [f32]) {
    sum.iter_mut().zip(x).for_each(|(s, x)| *s += x);
}

/// Adds x where 0 < m < 1 and returns the total of what was added.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
fn add_fractional(x: &[f32], m: &[f32], kept: &mut [f32], sum: &mut [f32]) -> f32 {
    for ((kept, x), m) in kept.iter_mut().zip(x).zip(m) {
        *kept = if (*m > 0.0) & (*m < 1.0) { *x } else { 0.0 };
    }
    sum.iter_mut().zip(&*kept).for_each(|(s, x)| *s += x);
    softmax::sum(kept)
}
