//! One tile under way: its buffers, and how inputs get into them.

use super::compile::{Segments, Source};
use super::elementwise::{
    self, COL_EXPIRY, COL_FROM, COL_POS, COL_SCORE, Domain, Frame, Loc, PAIR_SEEN, ROW_POS,
    ROW_TAU, STRIDE, Scope,
};
use super::matmul::{self, Matrix};
use super::softmax;
use super::tiles::{COLS, Key};
use super::topk::Selection;
use crate::bind::{HostBound, Sequence, Sizes};
use sparsek_dsl::ir::{Class, Coord, InputId, Program, Role};

/// What all tiles of a call share.
pub(crate) struct Call<'a> {
    pub(crate) program: &'a Program,
    pub(crate) segments: &'a Segments,
    pub(crate) bound: &'a HostBound<'a>,
    pub(crate) selection: Selection,
    /// Scores \[B, Hkv, N\]; empty for a kernel without a gate.
    pub(crate) scores: &'a [f32],
    pub(crate) tau: &'a [f32],
    pub(crate) expiry: &'a [i32],
}

impl Call<'_> {
    pub(crate) fn sizes(&self) -> &Sizes {
        &self.bound.sizes
    }
}

/// Buffers of one worker: frames, gathered vectors, product tiles.
pub(crate) struct Tile {
    pub(crate) uniform: Frame,
    pub(crate) row: Frame,
    pub(crate) col: Frame,
    pub(crate) pair: Frame,
    /// Rows × D of every query vector.
    pub(crate) queries: Vec<Vec<f32>>,
    /// Columns × D of every key vector.
    pub(crate) keys: Vec<Vec<f32>>,
    /// Rows × columns: products on the way in, stored weights on the way out.
    pub(crate) tiles: Vec<Vec<f32>>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Position of the first row, and the sequence and key-value head at hand.
    pub(crate) from: usize,
    pub(crate) sequence: Sequence,
    pub(crate) g: usize,
}

impl Tile {
    pub(crate) fn new(call: &Call<'_>, rows: usize) -> Tile {
        let s = call.segments;
        let d = call.sizes().d;
        let frame = |n: usize, len| Frame::new(s.floats[n], s.ints[n], len);
        let tiles = s.products.len().max(s.stores.len());
        Tile {
            uniform: frame(0, 1),
            row: frame(1, rows),
            col: frame(2, COLS),
            pair: frame(3, COLS),
            queries: vec![vec![0.0; rows * d]; s.query_vectors.len()],
            keys: vec![vec![0.0; COLS * d]; s.key_vectors.len()],
            tiles: vec![vec![0.0; rows * STRIDE]; tiles],
            rows,
            cols: 0,
            from: 0,
            sequence: Sequence { index: 0, row: 0, start: 0, len: 0 },
            g: 0,
        }
    }

    /// Uniform values of a sequence and key-value head.
    pub(crate) fn start_head(&mut self, call: &Call<'_>, sequence: Sequence, g: usize) {
        (self.sequence, self.g) = (sequence, g);
        for (loc, source) in &call.segments.loads {
            if loc.domain == Domain::Uniform {
                self.load_uniform(call, *loc, *source);
            }
        }
        let scope = Scope { uniform: None, row: None, col: None, products: &[] };
        let s = call.segments;
        elementwise::run(&s.uniform, Domain::Uniform, &mut self.uniform, 1, &scope);
        // Constants of inputs that were not given are copied once they are known.
        for (loc, source) in &s.loads {
            if let (Domain::Uniform, Source::Input(id, Some(default))) = (loc.domain, source)
                && call.bound.get(*id).is_none()
            {
                copy_default(&mut self.uniform, *loc, *default);
            }
        }
        elementwise::run(&s.uniform, Domain::Uniform, &mut self.uniform, 1, &scope);
    }

    fn load_uniform(&mut self, call: &Call<'_>, loc: Loc, source: Source) {
        match source {
            Source::Const(x) => self.uniform.f[loc.slot][0] = x,
            Source::Int(x) => self.uniform.i[loc.slot][0] = x,
            Source::Coord(Coord::Batch) => self.uniform.i[loc.slot][0] = self.sequence.index as i32,
            Source::Coord(_) => self.uniform.i[loc.slot][0] = self.g as i32,
            Source::Input(id, _) => {
                if let Some(input) = call.bound.get(id) {
                    match input.data() {
                        crate::Data::I32(x) => self.uniform.i[loc.slot][0] = x[0],
                        other => self.uniform.f[loc.slot][0] = other.at(0),
                    }
                }
            }
            Source::RowDot(_) | Source::KeySum(_) | Source::RowSum(_) => {}
        }
    }

    /// Row values and query vectors of queries `[from, from + positions)`.
    pub(crate) fn start_rows(&mut self, call: &Call<'_>, from: usize, positions: usize) {
        let sizes = *call.sizes();
        let group = sizes.group();
        self.rows = positions * group;
        self.from = from;
        for r in 0..self.rows {
            self.row.i[ROW_POS.slot][r] = (from + r / group) as i32;
        }
        let at = super::tiles::key_offset(&sizes, &self.sequence, self.g) + from;
        for r in 0..self.rows {
            self.row.f[ROW_TAU.slot][r] = call.tau[at + r / group];
        }
        for n in 0..call.segments.query_vectors.len() {
            self.gather_queries(call, n);
        }
        let s = call.segments;
        for (loc, source) in s.loads.iter().filter(|(loc, _)| loc.domain == Domain::Row) {
            self.load_row(call, *loc, *source);
        }
        let scope = Scope::of_uniform(&self.uniform);
        elementwise::run(&s.row, Domain::Row, &mut self.row, self.rows, &scope);
    }

    /// Offset of a position's heads of this group in a \[B, N, Hq\] tensor.
    fn query_offset(&self, sizes: &Sizes, position: usize) -> usize {
        let row = self.sequence.row * sizes.n + self.sequence.start + position;
        row * sizes.hq + self.g * sizes.group()
    }

    fn gather_queries(&mut self, call: &Call<'_>, n: usize) {
        let sizes = *call.sizes();
        let Some(input) = call.bound.get(call.segments.query_vectors[n]) else { return };
        let width = sizes.group() * sizes.d;
        for t in 0..self.rows / sizes.group() {
            let start = self.query_offset(&sizes, self.from + t) * sizes.d;
            input.data().read(start, &mut self.queries[n][t * width..(t + 1) * width]);
        }
    }

    fn load_row(&mut self, call: &Call<'_>, loc: Loc, source: Source) {
        let group = call.sizes().group();
        match source {
            Source::Coord(Coord::QueryHead) => {
                for r in 0..self.rows {
                    self.row.i[loc.slot][r] = (self.g * group + r % group) as i32;
                }
            }
            Source::Coord(_) => {
                for r in 0..self.rows {
                    self.row.i[loc.slot][r] = (self.from + r / group) as i32;
                }
            }
            Source::RowDot(n) => {
                let (a, b) = call.segments.row_dots[n];
                let d = call.sizes().d;
                for r in 0..self.rows {
                    let range = r * d..(r + 1) * d;
                    let (x, y) = (&self.queries[a][range.clone()], &self.queries[b][range]);
                    self.row.f[loc.slot][r] = softmax::inner(x, y);
                }
            }
            Source::RowSum(_) => self.row.f[loc.slot][..self.rows].fill(0.0),
            Source::Input(id, default) => self.load_row_input(call, loc, id, default),
            Source::Const(_) | Source::Int(_) | Source::KeySum(_) => {}
        }
    }

    fn load_row_input(&mut self, call: &Call<'_>, loc: Loc, id: InputId, default: Option<Loc>) {
        let sizes = *call.sizes();
        let group = sizes.group();
        let Some(input) = call.bound.get(id) else {
            fill_default(&mut self.row, loc, &self.uniform, default);
            return;
        };
        let declared = call.program.input(id);
        let index = |r: usize| {
            let (position, head) = (self.from + r / group, self.g * group + r % group);
            let stored = self.sequence.row * sizes.n + self.sequence.start + position;
            match (declared.role, declared.ty.class, input.per_head) {
                (_, Class::PerHead, _) => head,
                (Role::Lse, _, _) => {
                    (self.sequence.row * sizes.hq + head) * sizes.n + self.sequence.start + position
                }
                (_, _, true) => stored * sizes.hq + head,
                (_, _, false) => stored,
            }
        };
        match input.data() {
            crate::Data::I32(x) => {
                for r in 0..self.rows {
                    self.row.i[loc.slot][r] = x[index(r)];
                }
            }
            other => {
                for r in 0..self.rows {
                    self.row.f[loc.slot][r] = other.at(index(r));
                }
            }
        }
    }

    /// Column values and key vectors of a block of keys.
    pub(crate) fn start_cols(&mut self, call: &Call<'_>, keys: &[Key]) {
        let sizes = *call.sizes();
        self.cols = keys.len();
        let at = super::tiles::key_offset(&sizes, &self.sequence, self.g);
        for (c, key) in keys.iter().enumerate() {
            let j = key.pos as usize;
            self.col.i[COL_POS.slot][c] = j as i32;
            self.col.i[COL_EXPIRY.slot][c] = call.expiry[at + j];
            self.col.i[COL_FROM.slot][c] = if j < call.selection.sinks {
                i32::MAX
            } else {
                j.saturating_add(call.selection.w).min(i32::MAX as usize) as i32
            };
        }
        if !call.scores.is_empty() {
            for (c, key) in keys.iter().enumerate() {
                self.col.f[COL_SCORE.slot][c] = call.scores[at + key.pos as usize];
            }
        }
        for n in 0..call.segments.key_vectors.len() {
            self.gather_keys(call, keys, n);
        }
        self.load_cols(call, |c| keys[c].pos as usize);
    }

    fn gather_keys(&mut self, call: &Call<'_>, keys: &[Key], n: usize) {
        let sizes = *call.sizes();
        let Some(input) = call.bound.get(call.segments.key_vectors[n]) else { return };
        let first = self.sequence.row * sizes.n + self.sequence.start;
        for (c, key) in keys.iter().enumerate() {
            let start = ((first + key.pos as usize) * sizes.hkv + self.g) * sizes.d;
            input.data().read(start, &mut self.keys[n][c * sizes.d..(c + 1) * sizes.d]);
        }
    }

    /// Inputs and early values of `self.cols` columns, whose positions `position` gives.
    pub(crate) fn load_cols(&mut self, call: &Call<'_>, position: impl Fn(usize) -> usize) {
        let sizes = *call.sizes();
        let s = call.segments;
        for (loc, source) in s.loads.iter().filter(|(loc, _)| loc.domain == Domain::Col) {
            match source {
                Source::Coord(_) => {
                    for c in 0..self.cols {
                        self.col.i[loc.slot][c] = position(c) as i32;
                    }
                }
                Source::Input(id, default) => {
                    let Some(input) = call.bound.get(*id) else {
                        fill_default(&mut self.col, *loc, &self.uniform, *default);
                        continue;
                    };
                    let role = call.program.input(*id).role;
                    let index = |c: usize| {
                        let stored =
                            self.sequence.row * sizes.n + self.sequence.start + position(c);
                        match (role, input.per_head) {
                            (Role::Score, _) => {
                                super::tiles::key_offset(&sizes, &self.sequence, self.g)
                                    + position(c)
                            }
                            (_, true) => stored * sizes.hkv + self.g,
                            (_, false) => stored,
                        }
                    };
                    match input.data() {
                        crate::Data::I32(x) => {
                            for c in 0..self.cols {
                                self.col.i[loc.slot][c] = x[index(c)];
                            }
                        }
                        other => {
                            for c in 0..self.cols {
                                self.col.f[loc.slot][c] = other.at(index(c));
                            }
                        }
                    }
                }
                Source::Const(_)
                | Source::Int(_)
                | Source::RowDot(_)
                | Source::KeySum(_)
                | Source::RowSum(_) => {}
            }
        }
        let scope = Scope::of_uniform(&self.uniform);
        elementwise::run(&s.col, Domain::Col, &mut self.col, self.cols, &scope);
    }

    /// Every product of the program for the rows and columns at hand.
    pub(crate) fn products(&mut self, call: &Call<'_>) {
        let d = call.sizes().d;
        for (n, (q, k)) in call.segments.products.iter().enumerate() {
            let a = Matrix::row_major(&self.queries[*q], d);
            let b = Matrix::row_major(&self.keys[*k], d).transposed();
            matmul::product((self.rows, self.cols, d), &mut self.tiles[n], STRIDE, a, b, false);
        }
    }

    /// Pair values of row r, before the softmax; the seen mask unless the block is `full`.
    pub(crate) fn pair_row(&mut self, call: &Call<'_>, r: usize, full: bool) {
        let s = call.segments;
        let scope = Scope {
            uniform: Some(&self.uniform),
            row: Some((&self.row, r)),
            col: Some(&self.col),
            products: &self.tiles,
        };
        let n = self.cols;
        elementwise::run(&s.pair, Domain::Pair, &mut self.pair, n, &scope);
        if !full {
            elementwise::seen_mask(&s.predicates, &mut self.pair, n, &scope);
        }
    }

    /// Pair values of row r, after the softmax.
    pub(crate) fn pair_row_after(&mut self, call: &Call<'_>, r: usize) {
        let scope = Scope {
            uniform: Some(&self.uniform),
            row: Some((&self.row, r)),
            col: Some(&self.col),
            products: &self.tiles,
        };
        let (s, n) = (call.segments, self.cols);
        elementwise::run(&s.after_softmax, Domain::Pair, &mut self.pair, n, &scope);
    }

    /// Row values that depend on the tile's row sums.
    pub(crate) fn row_late(&mut self, call: &Call<'_>) {
        let scope = Scope::of_uniform(&self.uniform);
        let n = self.rows;
        elementwise::run(&call.segments.row_late, Domain::Row, &mut self.row, n, &scope);
    }

    /// Replaces what is not seen in a pair value.
    pub(crate) fn mask(&mut self, loc: Loc, value: f32) {
        let n = self.cols;
        let mask = &self.pair.i[PAIR_SEEN.slot][..n];
        elementwise::mask_off(&mut self.pair.f[loc.slot][..n], mask, value);
    }

    /// Stores row r of every weight for the products that follow.
    pub(crate) fn store_row(&mut self, call: &Call<'_>, r: usize) {
        for (n, loc) in call.segments.stores.iter().enumerate() {
            let row = &mut self.tiles[n][r * STRIDE..r * STRIDE + self.cols];
            row.copy_from_slice(&self.pair.f[loc.slot][..self.cols]);
        }
    }
}

/// An input that was not given has its default everywhere.
fn fill_default(frame: &mut Frame, loc: Loc, uniform: &Frame, default: Option<Loc>) {
    let Some(default) = default else { return };
    if loc.int {
        frame.i[loc.slot].fill(uniform.i[default.slot][0]);
    } else {
        frame.f[loc.slot].fill(uniform.f[default.slot][0]);
    }
}

/// The same within the uniform frame.
fn copy_default(uniform: &mut Frame, loc: Loc, default: Loc) {
    if loc.int {
        uniform.i[loc.slot][0] = uniform.i[default.slot][0];
    } else {
        uniform.f[loc.slot][0] = uniform.f[default.slot][0];
    }
}
