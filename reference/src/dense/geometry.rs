//! Index sets of the classes.

use super::Options;
use crate::{Array, Arrays, Error, Sequence};
use sparsek_dsl::ir::{Class, Program, Role};

/// One sequence and where its entries start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) place: Sequence,
    /// Tokens of the sequences before it.
    tokens: usize,
    /// Σ len² of the sequences before it.
    pairs: usize,
}

/// An index: of the parts that a class lacks, any value will do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    /// Sequence.
    pub(super) s: usize,
    /// Query head.
    pub(super) h: usize,
    /// Key-value head.
    pub(super) g: usize,
    /// Query position.
    pub(super) i: usize,
    /// Key position.
    pub(super) j: usize,
}

/// Sizes of the problem.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) n: usize,
    pub(super) hq: usize,
    pub(super) hkv: usize,
    pub(super) d: usize,
    pub(super) sequences: Vec<Piece>,
}

impl Geometry {
    pub(super) fn new(
        program: &Program,
        inputs: &Arrays,
        options: &Options,
    ) -> Result<Geometry, Error> {
        let shape = |role: Role| -> Result<[usize; 4], Error> {
            let Some(input) = program.inputs.iter().find(|i| i.role == role) else {
                let reason = format!("has no input in the role of {role:?}");
                return Err(Error::Program { name: program.name.clone(), reason });
            };
            let heads = if role == Role::Query { "Hq" } else { "Hkv" };
            let wanted = format!("[B, N, {heads}, D]");
            let name = input.name.clone();
            let Some(array) = inputs.get(&name) else {
                return Err(Error::Missing { name, wanted });
            };
            <[usize; 4]>::try_from(array.shape()).map_err(|_| Error::Shape {
                name,
                found: array.shape().to_vec(),
                wanted,
            })
        };
        let [batch, n, hq, d] = shape(Role::Query)?;
        let [_, _, hkv, _] = shape(Role::Key)?;
        if hkv == 0 || hq % hkv != 0 {
            return Err(Error::Heads { hq, hkv });
        }
        match program.head_dim.literal() {
            Some(fixed) if fixed as usize == d => {}
            fixed => {
                let reason = match fixed {
                    Some(fixed) => format!("has head dimension {fixed} and q has {d}"),
                    None => "has a parameter left; instantiate it first".to_owned(),
                };
                return Err(Error::Program { name: program.name.clone(), reason });
            }
        }
        let (mut tokens, mut pairs) = (0, 0);
        let mut sequences = Vec::new();
        for place in Sequence::all(batch, n, options.cu_seqlens)? {
            sequences.push(Piece { place, tokens, pairs });
            tokens += place.len;
            pairs += place.len * place.len;
        }
        Ok(Geometry { batch, n, hq, hkv, d, sequences })
    }

    /// Query heads of each key-value head.
    pub(super) fn group(&self) -> usize {
        self.hq / self.hkv
    }

    /// Tokens of sequence `s`.
    pub(super) fn len(&self, s: usize) -> usize {
        self.sequences[s].place.len
    }

    /// Number of entries of a class.
    pub(super) fn size(&self, class: Class) -> usize {
        let tokens: usize = self.sequences.iter().map(|s| s.place.len).sum();
        let pairs: usize = self.sequences.iter().map(|s| s.place.len * s.place.len).sum();
        match class {
            Class::Scalar => 1,
            Class::PerBatch => self.sequences.len(),
            Class::PerHead => self.hq,
            Class::PerQuery => self.hq * tokens,
            Class::PerKey => self.hkv * tokens,
            Class::Pair => self.hq * pairs,
        }
    }

    /// Where the entry of an index is, reading from `at` the parts that the class has.
    pub(super) fn offset(&self, class: Class, at: At) -> usize {
        let piece = &self.sequences[at.s];
        let len = piece.place.len;
        match class {
            Class::Scalar => 0,
            Class::PerBatch => at.s,
            Class::PerHead => at.h,
            Class::PerQuery => self.hq * piece.tokens + at.h * len + at.i,
            Class::PerKey => self.hkv * piece.tokens + at.g * len + at.j,
            Class::Pair => self.hq * piece.pairs + (at.h * len + at.i) * len + at.j,
        }
    }

    /// Calls `f` on every index of a class; of pairs, the causal ones. Nothing for a batch of no
    /// sequences.
    pub(super) fn each(&self, class: Class, mut f: impl FnMut(At)) {
        let sequences = 0..self.sequences.len();
        let group = self.group();
        match class {
            Class::Scalar => sequences.take(1).for_each(|_| f(At::default())),
            Class::PerBatch => sequences.for_each(|s| f(At { s, ..At::default() })),
            Class::PerHead => {
                if !sequences.is_empty() {
                    (0..self.hq).for_each(|h| f(At { h, g: h / group, ..At::default() }));
                }
            }
            Class::PerQuery => sequences.for_each(|s| {
                for h in 0..self.hq {
                    (0..self.len(s)).for_each(|i| f(At { s, h, g: h / group, i, j: 0 }));
                }
            }),
            Class::PerKey => sequences.for_each(|s| {
                for g in 0..self.hkv {
                    (0..self.len(s)).for_each(|j| f(At { s, h: g * group, g, i: 0, j }));
                }
            }),
            Class::Pair => sequences.for_each(|s| {
                for h in 0..self.hq {
                    for i in 0..self.len(s) {
                        (0..=i).for_each(|j| f(At { s, h, g: h / group, i, j }));
                    }
                }
            }),
        }
    }

    /// The same from the last index to the first if `reversed`.
    pub(super) fn each_in_order(&self, class: Class, reversed: bool, mut f: impl FnMut(At)) {
        if !reversed {
            return self.each(class, f);
        }
        let mut all = Vec::new();
        self.each(class, |at| all.push(at));
        all.into_iter().rev().for_each(&mut f);
    }

    /// Where token `i` of sequence `s` is in \[B, N\].
    pub(super) fn token(&self, s: usize, i: usize) -> usize {
        let place = self.sequences[s].place;
        place.row * self.n + place.start + i
    }

    /// PerKey entries as \[B, Hkv, N\].
    pub(super) fn by_key_head(&self, data: &[f64]) -> Array {
        let mut array = Array::zeros(&[self.batch, self.hkv, self.n]);
        let to = array.data_mut();
        self.each(Class::PerKey, |at| {
            let place = self.sequences[at.s].place;
            let index = (place.row * self.hkv + at.g) * self.n + place.start + at.j;
            if let Some(x) = data.get(self.offset(Class::PerKey, at)) {
                to[index] = *x;
            }
        });
        array
    }
}
