//! The backward pass: one sweep over rows, in waves of chunks. What a chunk adds to keys is merged
//! in the order of the chunks, so results do not depend on the number of threads.

use super::compile::{Segments, Vector};
use super::elementwise::Domain;
use super::finish::{self, Sums};
use super::forward::all_chunk_keys;
use super::scores::Scores;
use super::sweep::{KeyPart, Layout, RowPart, Sweep};
use super::tile::Call;
use super::tiles::{self, Chunk, ChunkKeys};
use super::topk::{self, Selection};
use super::{Progress, selection};
use crate::bind::{HostBound, Sequences, Sizes};
use crate::tensor::split_mut;
use crate::{Error, Forward, Gradients, Storage};
use rayon::prelude::*;
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Class, Instance, Kind, Op, Program, ValueId};

/// A compiled backward program.
pub(crate) struct Backward {
    program: Program,
    selection: Selection,
    elem: Elem,
    segments: Segments,
    scores: Scores,
    layout: Layout,
    /// The program's values that [`Layout`]'s vectors and row values are.
    query_vectors: Vec<ValueId>,
    key_vectors: Vec<ValueId>,
    row_values: Vec<ValueId>,
}

/// Everything the sweep leaves behind.
pub(crate) struct Swept {
    /// \[B, N, Hq, D\] for each sum over keys.
    pub(crate) query_vectors: Vec<(ValueId, Storage)>,
    /// \[B, N, Hkv, D\] for each sum over queries.
    pub(crate) key_vectors: Vec<(ValueId, Vec<f32>)>,
    /// \[B, N, Hq\] for each PerQuery result.
    pub(crate) row_values: Vec<(ValueId, Vec<f32>)>,
    pub(crate) sums: Sums,
}

impl Backward {
    pub(crate) fn compile(instance: &Instance, program: &Program) -> Result<Backward, Error> {
        let roots: Vec<ValueId> = program.outputs.iter().map(|o| o.value).collect();
        let segments = Segments::compile(program, &roots)?;
        let scores = if segments.gate.is_some() { Scores::compile(program)? } else { Scores::None };
        let mut out = Backward {
            selection: selection(instance),
            elem: instance.elem,
            program: program.clone(),
            layout: Layout::default(),
            query_vectors: Vec::new(),
            key_vectors: Vec::new(),
            row_values: Vec::new(),
            segments,
            scores,
        };
        for weighted in &out.segments.weighted {
            match weighted.vector {
                Vector::Key(v) => {
                    out.layout.query_vectors.push((weighted.store, v));
                    out.query_vectors.push(weighted.value);
                }
                Vector::Query(v) => {
                    out.layout.key_vectors.push((weighted.store, v));
                    out.key_vectors.push(weighted.value);
                }
            }
        }
        for output in &program.outputs {
            let constant = matches!(program.node(output.value).op, Op::Const(_));
            if output.ty.class != Class::PerQuery || output.ty.kind != Kind::F32 || constant {
                continue;
            }
            match out.segments.loc(output.value) {
                Some(loc) if loc.domain == Domain::Row => {
                    out.layout.row_values.push(loc);
                    out.row_values.push(output.value);
                }
                _ => return Err(finish::unsupported(program, &output.name)),
            }
        }
        Ok(out)
    }

    pub(crate) fn run(
        &self,
        bound: &HostBound<'_>,
        sequences: &Sequences,
        forward: &Forward,
        progress: Option<&(dyn Fn(usize, usize) + Sync)>,
    ) -> Result<Gradients, Error> {
        let sizes = bound.sizes;
        let (tau, expiry) = plan_of(forward, &sizes)?;
        let scores = self.scores.evaluate(bound, sequences);
        let call = Call {
            program: &self.program,
            segments: &self.segments,
            bound,
            selection: self.selection,
            scores: &scores,
            tau,
            expiry,
        };
        let mut layout = self.layout.clone();
        layout.small = self
            .segments
            .small
            .iter()
            .map(|s| finish::length(s.class, &sizes, sequences))
            .collect();
        let swept = self.sweep(&call, &layout, sequences, progress);
        finish::gradients(&call, sequences, self.elem, swept)
    }

    fn sweep(
        &self,
        call: &Call<'_>,
        layout: &Layout,
        sequences: &Sequences,
        progress: Option<&(dyn Fn(usize, usize) + Sync)>,
    ) -> Swept {
        let sizes = *call.sizes();
        let chunks = tiles::chunks(sequences, self.selection);
        let keys = all_chunk_keys(call, &chunks);
        let rows = sizes.batch * sizes.n * sizes.hq;
        let stored = sizes.batch * sizes.n * sizes.hkv;
        let mut query_vectors: Vec<Storage> =
            self.query_vectors.iter().map(|_| Storage::zeros(self.elem, rows * sizes.d)).collect();
        let mut row_values = vec![vec![0f32; rows]; self.row_values.len()];
        let mut merged = Merged {
            sizes,
            vectors: vec![vec![0f32; stored * sizes.d]; self.key_vectors.len()],
            sums: Sums {
                keys: vec![vec![0f64; stored]; self.segments.col_sums.len()],
                small: layout.small.iter().map(|n| vec![0f64; *n]).collect(),
            },
        };
        let progress = Progress::new(progress, chunks.len() * sizes.hkv);
        // Enough chunks at once for the threads to even out, few enough to hold.
        let wave = rayon::current_num_threads() * 4;
        for (g, keys) in keys.iter().enumerate() {
            let mut threshold = vec![0f64; sizes.batch * sizes.n];
            let mut parts =
                row_parts(&chunks, &sizes, &mut query_vectors, &mut row_values, &mut threshold);
            let work = parts.chunks_mut(wave).zip(chunks.chunks(wave).zip(keys.chunks(wave)));
            for (parts, (chunks, keys)) in work {
                let each = parts.par_iter_mut().zip(chunks.par_iter().zip(keys));
                let added: Vec<KeyPart> = each
                    .map_init(
                        || Sweep::new(call, layout),
                        |sweep, (part, (chunk, keys))| {
                            let added = sweep.chunk(call, layout, (chunk, keys, g), part);
                            progress.advance();
                            added
                        },
                    )
                    .collect();
                for ((added, chunk), keys) in added.into_iter().zip(chunks).zip(keys) {
                    merged.add(chunk, keys, g, added);
                }
            }
            drop(parts);
            self.share_threshold(call, sequences, g, &threshold, &mut merged.sums);
        }
        Swept {
            query_vectors: self.query_vectors.iter().copied().zip(query_vectors).collect(),
            key_vectors: self.key_vectors.iter().copied().zip(merged.vectors).collect(),
            row_values: self.row_values.iter().copied().zip(row_values).collect(),
            sums: merged.sums,
        }
    }

    /// Completes the score gradient of one key-value head.
    fn share_threshold(
        &self,
        call: &Call<'_>,
        sequences: &Sequences,
        g: usize,
        rows: &[f64],
        sums: &mut Sums,
    ) {
        let Some((_, n)) = self.segments.mask_vjp else { return };
        let sizes = call.sizes();
        for sequence in &sequences.all {
            let at = tiles::key_offset(sizes, sequence, g);
            let range = at..at + sequence.len;
            let first = sequence.row * sizes.n + sequence.start;
            topk::threshold_share(
                &call.scores[range.clone()],
                self.selection,
                &call.tau[range.clone()],
                &rows[first..first + sequence.len],
                &mut sums.keys[n][range],
            );
        }
    }
}

/// Tau and expiry of the forward call, if they are of this call's sizes.
fn plan_of<'a>(forward: &'a Forward, sizes: &Sizes) -> Result<(&'a [f32], &'a [i32]), Error> {
    let shape = [sizes.batch, sizes.hkv, sizes.n];
    let fits = |t: &crate::Tensor| t.shape() == shape;
    match (forward.tau.as_f32(), forward.expiry.as_i32()) {
        (Some(tau), Some(expiry)) if fits(&forward.tau) && fits(&forward.expiry) => {
            Ok((tau, expiry))
        }
        _ => Err(Error::Shape {
            name: "tau".to_owned(),
            found: forward.tau.shape().to_vec(),
            expected: format!("[B, Hkv, N] = {shape:?} is needed: the forward of these inputs"),
        }),
    }
}

/// Every chunk's own part of the results for queries.
fn row_parts<'a>(
    chunks: &[Chunk],
    sizes: &Sizes,
    vectors: &'a mut [Storage],
    values: &'a mut [Vec<f32>],
    threshold: &'a mut [f64],
) -> Vec<RowPart<'a>> {
    let positions: Vec<usize> = chunks.iter().map(|c| c.to - c.from).collect();
    let rows: Vec<usize> = positions.iter().map(|p| p * sizes.hq).collect();
    let elements: Vec<usize> = rows.iter().map(|r| r * sizes.d).collect();
    let mut parts: Vec<RowPart<'a>> = split_mut(threshold, &positions)
        .into_iter()
        .map(|threshold| RowPart { vectors: Vec::new(), values: Vec::new(), threshold })
        .collect();
    for storage in vectors {
        let split = parts.iter_mut().zip(storage.split_mut(&elements));
        split.for_each(|(part, x)| part.vectors.push(x));
    }
    for values in values {
        let split = parts.iter_mut().zip(split_mut(values, &rows));
        split.for_each(|(part, x)| part.values.push(x));
    }
    parts
}

/// Results for keys, under accumulation.
struct Merged {
    sizes: Sizes,
    /// \[B, N, Hkv, D\]
    vectors: Vec<Vec<f32>>,
    sums: Sums,
}

impl Merged {
    fn add(&mut self, chunk: &Chunk, keys: &ChunkKeys, g: usize, added: KeyPart) {
        let Sizes { n, hkv, d, .. } = self.sizes;
        let first = chunk.sequence.row * n + chunk.sequence.start;
        for (all, part) in self.vectors.iter_mut().zip(&added.vectors) {
            for (j, x) in keys.positions().zip(part.chunks_exact(d)) {
                let at = ((first + j) * hkv + g) * d;
                all[at..at + d].iter_mut().zip(x).for_each(|(s, x)| *s += x);
            }
        }
        let at = tiles::key_offset(&self.sizes, &chunk.sequence, g);
        for (all, part) in self.sums.keys.iter_mut().zip(&added.sums) {
            for (j, x) in keys.positions().zip(part) {
                all[at + j] += x;
            }
        }
        for (all, part) in self.sums.small.iter_mut().zip(&added.small) {
            all.iter_mut().zip(part).for_each(|(s, x)| *s += x);
        }
    }
}
