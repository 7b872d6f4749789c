//! What depends on complete sums: late values of keys, sums over heads and batch, and the tensors
//! of the gradients.

use super::backward::Swept;
use super::compile::{Segments, Source};
use super::elementwise::{self, Domain, Scope};
use super::tile::{Call, Tile};
use super::tiles::{self, COLS};
use crate::bind::{self, Sequences, Sizes};
use crate::{Error, Gradients, Storage, Tensor};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Class, Coord, Kind, Logic, Op, Output, Program, Role, ValueId};

/// Sums over queries, by column sum \[B, Hkv, N\], and sums that end in few values.
pub(crate) struct Sums {
    pub(crate) keys: Vec<Vec<f64>>,
    pub(crate) small: Vec<Vec<f64>>,
}

pub(crate) fn unsupported(program: &Program, what: &str) -> Error {
    let reason = format!("{what} needs an order of sums that it does not have");
    Error::Unsupported { kernel: program.name.clone(), reason }
}

/// Number of values of a small class.
pub(crate) fn length(class: Class, sizes: &Sizes, sequences: &Sequences) -> usize {
    match class {
        Class::PerHead => sizes.hq,
        Class::PerBatch => sequences.all.len(),
        Class::Scalar | Class::PerQuery | Class::PerKey | Class::Pair => 1,
    }
}

/// The gradients' tensors from what the sweep left.
pub(crate) fn gradients(
    call: &Call<'_>,
    sequences: &Sequences,
    elem: Elem,
    mut swept: Swept,
) -> Result<Gradients, Error> {
    let key_values = late_keys(call, sequences, &mut swept.sums)?;
    let mut small =
        Small { call, sequences, sums: &swept.sums, known: vec![None; call.program.nodes.len()] };
    let mut out = Gradients::default();
    for output in &call.program.outputs {
        let shape = shape(call, output);
        let len = shape.iter().product();
        let take_f32 = |list: &mut Vec<(ValueId, Vec<f32>)>| {
            let at = list.iter().position(|(v, _)| *v == output.value)?;
            Some(list.swap_remove(at).1)
        };
        let data = if let Op::Const(x) = call.program.node(output.value).op {
            let elem = if output.ty.kind == Kind::Vector { elem } else { Elem::F32 };
            Storage::rounded(elem, vec![x.get(); len])
        } else {
            match (output.ty.kind, output.ty.class) {
                (Kind::Vector, Class::PerQuery) => {
                    let at = swept.query_vectors.iter().position(|(v, _)| *v == output.value);
                    match at {
                        Some(at) => swept.query_vectors.swap_remove(at).1,
                        None => return Err(unsupported(call.program, &output.name)),
                    }
                }
                (Kind::Vector, _) => match take_f32(&mut swept.key_vectors) {
                    Some(x) => Storage::rounded(elem, x),
                    None => return Err(unsupported(call.program, &output.name)),
                },
                (_, Class::PerQuery) => match take_f32(&mut swept.row_values) {
                    Some(x) => Storage::F32(fold_heads(x, call.sizes().hq, len)),
                    None => return Err(unsupported(call.program, &output.name)),
                },
                (_, Class::PerKey) => match key_values.iter().find(|(v, _)| *v == output.value) {
                    Some((_, x)) => Storage::F32(key_layout(call, output, x, len)),
                    None => return Err(unsupported(call.program, &output.name)),
                },
                (_, Class::Scalar | Class::PerBatch | Class::PerHead | Class::Pair) => {
                    Storage::F32(small.value(output.value)?.iter().map(|x| *x as f32).collect())
                }
            }
        };
        out.tensors.push((output.name.clone(), Tensor::new(shape, data)));
    }
    Ok(out)
}

/// The shape of a gradient: its input's, or the one with a head axis when that was not given.
fn shape(call: &Call<'_>, output: &Output) -> Vec<usize> {
    let name = output.name.strip_prefix("d_").unwrap_or(&output.name);
    let Some(id) = call.program.input_named(name) else { return Vec::new() };
    let input = call.program.input(id);
    match call.bound.get(id) {
        Some(bound) => bound.view.shape().to_vec(),
        None => bind::shapes(input.role, input.ty.class, call.sizes()).pop().unwrap_or_default(),
    }
}

/// \[B, N, Hq\], summed over heads when the tensor has no head axis.
fn fold_heads(x: Vec<f32>, heads: usize, len: usize) -> Vec<f32> {
    if x.len() == len {
        return x;
    }
    x.chunks_exact(heads).map(|row| row.iter().map(|x| f64::from(*x)).sum::<f64>() as f32).collect()
}

/// \[B, Hkv, N\] as the input's tensor is laid out.
fn key_layout(call: &Call<'_>, output: &Output, x: &[f64], len: usize) -> Vec<f32> {
    let Sizes { n, hkv, .. } = *call.sizes();
    let name = output.name.strip_prefix("d_").unwrap_or(&output.name);
    let role = call.program.input_named(name).map(|id| call.program.input(id).role);
    if role == Some(Role::Score) {
        return x.iter().map(|x| *x as f32).collect();
    }
    let at = |b: usize, g: usize, j: usize| x[(b * hkv + g) * n + j];
    let each = |row: usize| (row / n, row % n);
    let rows = x.len() / hkv;
    if len == x.len() {
        let heads = |row| (0..hkv).map(move |g| (row, g));
        (0..rows).flat_map(heads).map(|(row, g)| at(each(row).0, g, each(row).1) as f32).collect()
    } else {
        let sum = |row: usize| (0..hkv).map(|g| at(each(row).0, g, each(row).1)).sum::<f64>();
        (0..rows).map(|row| sum(row) as f32).collect()
    }
}

/// Runs the late column segment over all keys. Returns the PerKey results, \[B, Hkv, N\], and adds
/// what is summed over keys to the small sums.
fn late_keys(
    call: &Call<'_>,
    sequences: &Sequences,
    sums: &mut Sums,
) -> Result<Vec<(ValueId, Vec<f64>)>, Error> {
    let (sizes, s) = (*call.sizes(), call.segments);
    let mut results = Vec::new();
    for output in call
        .program
        .outputs
        .iter()
        .filter(|o| o.ty.class == Class::PerKey && o.ty.kind == Kind::F32)
    {
        if matches!(call.program.node(output.value).op, Op::Const(_)) {
            continue;
        }
        // A sum that is itself the result keeps its f64.
        match s.loc(output.value) {
            Some(loc) if loc.domain == Domain::Col => {
                let direct = s.loads.iter().find_map(|(l, source)| match source {
                    Source::KeySum(n) if *l == loc => Some(*n),
                    _ => None,
                });
                let values = match direct {
                    Some(n) => sums.keys[n].clone(),
                    None => vec![0f64; sizes.batch * sizes.hkv * sizes.n],
                };
                results.push((output.value, loc, direct.is_some(), values));
            }
            _ => return Err(unsupported(call.program, &output.name)),
        }
    }
    let summed = s.small.iter().any(|x| x.of.domain == Domain::Col);
    if summed || results.iter().any(|(_, _, direct, _)| !direct) {
        let mut tile = Tile::new(call, 0);
        for sequence in &sequences.all {
            for g in 0..sizes.hkv {
                tile.start_head(call, *sequence, g);
                let at = tiles::key_offset(&sizes, sequence, g);
                for first in (0..sequence.len).step_by(COLS) {
                    let cols = COLS.min(sequence.len - first);
                    late_block(call, &mut tile, first, cols, at, sums);
                    for (_, loc, _, values) in
                        results.iter_mut().filter(|(_, _, direct, _)| !direct)
                    {
                        let block = &mut values[at + first..at + first + cols];
                        let lanes = &tile.col.f[loc.slot][..cols];
                        block.iter_mut().zip(lanes).for_each(|(v, x)| *v = f64::from(*x));
                    }
                }
            }
        }
    }
    Ok(results.into_iter().map(|(v, _, _, values)| (v, values)).collect())
}

fn late_block(
    call: &Call<'_>,
    tile: &mut Tile,
    first: usize,
    cols: usize,
    at: usize,
    sums: &mut Sums,
) {
    let s: &Segments = call.segments;
    tile.cols = cols;
    tile.load_cols(call, |c| first + c);
    for (loc, source) in &s.loads {
        if let Source::KeySum(n) = source {
            let sum = &sums.keys[*n][at + first..at + first + cols];
            let lanes = &mut tile.col.f[loc.slot][..cols];
            lanes.iter_mut().zip(sum).for_each(|(l, x)| *l = *x as f32);
        }
    }
    let scope = Scope::of_uniform(&tile.uniform);
    elementwise::run(&s.col_late, Domain::Col, &mut tile.col, cols, &scope);
    for (sum, small) in s.small.iter().zip(&mut sums.small) {
        if sum.of.domain == Domain::Col {
            let index = if sum.class == Class::PerBatch { tile.sequence.index } else { 0 };
            let lanes = &tile.col.f[sum.of.slot][..cols];
            small[index] += lanes.iter().map(|x| f64::from(*x)).sum::<f64>();
        }
    }
}

/// Values of class Scalar, PerBatch and PerHead, in f64.
struct Small<'a> {
    call: &'a Call<'a>,
    sequences: &'a Sequences,
    sums: &'a Sums,
    known: Vec<Option<Vec<f64>>>,
}

impl Small<'_> {
    fn length(&self, v: ValueId) -> usize {
        length(self.call.program.ty(v).class, self.call.sizes(), self.sequences)
    }

    /// The value of a node, one entry for each index of its class.
    fn value(&mut self, root: ValueId) -> Result<Vec<f64>, Error> {
        // Operands first; the arena is in that order.
        let mut needed = vec![false; root.index() + 1];
        needed[root.index()] = true;
        for v in (0..=root.0).rev().map(ValueId) {
            if needed[v.index()] && self.sum_of(v).is_none() {
                self.call.program.node(v).op.for_each_operand(|o| needed[o.index()] = true);
            }
        }
        for v in (0..=root.0).map(ValueId) {
            if needed[v.index()] && self.known[v.index()].is_none() {
                let value = match self.sum_of(v) {
                    Some(sum) => sum,
                    None => self.compute(v)?,
                };
                self.known[v.index()] = Some(value);
            }
        }
        self.known[root.index()].clone().ok_or_else(|| unsupported(self.call.program, "a sum"))
    }

    fn sum_of(&self, v: ValueId) -> Option<Vec<f64>> {
        let at = self.call.segments.small.iter().position(|s| s.value == v)?;
        Some(self.sums.small[at].clone())
    }

    /// Entry `index` of a node of class `class`, broadcast from its own class.
    fn at(&self, v: ValueId, index: usize) -> f64 {
        let values = self.known[v.index()].as_deref().unwrap_or(&[]);
        match values {
            [one] => *one,
            _ => values.get(index).copied().unwrap_or(f64::NAN),
        }
    }

    fn compute(&mut self, v: ValueId) -> Result<Vec<f64>, Error> {
        let program = self.call.program;
        let class = program.ty(v).class;
        if matches!(class, Class::PerQuery | Class::PerKey | Class::Pair) {
            return Err(unsupported(program, "a value of many entries"));
        }
        let truth = |x: bool| f64::from(u8::from(x));
        let n = self.length(v);
        let each = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<f64>>();
        Ok(match &program.node(v).op {
            Op::Const(x) => vec![f64::from(x.get())],
            Op::Int(x) => vec![f64::from(*x)],
            Op::Input(id) => match (self.call.bound.get(*id), program.input(*id).default) {
                (Some(input), _) => each(&|i| f64::from(input.data().at(i))),
                (None, Some(default)) => {
                    let x = self.value(default)?;
                    vec![x.first().copied().unwrap_or(f64::NAN); n]
                }
                (None, None) => return Err(unsupported(program, "an input")),
            },
            Op::Coord(Coord::QueryHead | Coord::Batch) => each(&|i| i as f64),
            Op::Unary(f, x) => each(&|i| f.apply(self.at(*x, i))),
            Op::Binary(f, a, b) => each(&|i| f.apply(self.at(*a, i), self.at(*b, i))),
            Op::Compare(f, a, b) => each(&|i| truth(f.apply(self.at(*a, i), self.at(*b, i)))),
            Op::Logic(Logic::And, a, b) => each(&|i| self.at(*a, i).min(self.at(*b, i))),
            Op::Logic(Logic::Or, a, b) => each(&|i| self.at(*a, i).max(self.at(*b, i))),
            Op::Not(x) => each(&|i| 1.0 - self.at(*x, i)),
            Op::Select(c, a, b) => each(&|i| {
                if self.at(*c, i) != 0.0 { self.at(*a, i) } else { self.at(*b, i) }
            }),
            Op::ToFloat(x) => each(&|i| self.at(*x, i)),
            Op::Sum { value, .. } => {
                let count = self.length(*value);
                vec![(0..count).map(|i| self.at(*value, i)).sum()]
            }
            Op::Param(_)
            | Op::Coord(_)
            | Op::Sparsek { .. }
            | Op::StraightThrough(_)
            | Op::Seen(_)
            | Op::MaskVjp { .. }
            | Op::Softmax { .. }
            | Op::Lse(_)
            | Op::Dot(..)
            | Op::WeightedSum { .. } => return Err(unsupported(program, "a value for pairs")),
        })
    }
}
