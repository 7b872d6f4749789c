//! Scores of all keys, from whatever expression the kernel gives for them.

use super::compile::Segments;
use super::elementwise::{Domain, Loc};
use super::tile::{Call, Tile};
use super::tiles::{self, COLS};
use crate::bind::{HostBound, Sequences};
use crate::{Data, Error};
use sparsek_dsl::ir::{InputId, Op, Program, Role};
use std::borrow::Cow;

/// How scores are had.
#[derive(Clone, Debug)]
pub(crate) enum Scores {
    /// The kernel has no gate.
    None,
    /// The input u as it is.
    Input(InputId),
    /// An expression.
    Expression(Box<Expression>),
}

/// A score that is computed.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    program: Program,
    segments: Segments,
    at: Loc,
}

impl Scores {
    pub(crate) fn compile(program: &Program) -> Result<Scores, Error> {
        let Some(gate) = program.gate() else { return Ok(Scores::None) };
        if let Op::Input(id) = program.node(gate.score).op
            && program.input(id).role == Role::Score
        {
            return Ok(Scores::Input(id));
        }
        let segments = Segments::compile(program, &[gate.score])?;
        match segments.loc(gate.score) {
            Some(at) if at.domain == Domain::Col || at.domain == Domain::Uniform => {
                let program = program.clone();
                Ok(Scores::Expression(Box::new(Expression { program, segments, at })))
            }
            _ => Err(Error::Unsupported {
                kernel: program.name.clone(),
                reason: "the score is not a number for each key".to_owned(),
            }),
        }
    }

    /// Scores \[B, Hkv, N\]; empty without a gate.
    pub(crate) fn evaluate<'a>(
        &self,
        bound: &HostBound<'a>,
        sequences: &Sequences,
    ) -> Cow<'a, [f32]> {
        match self {
            Scores::None => Cow::Borrowed(&[]),
            Scores::Input(id) => match bound.get(*id).map(|i| i.data()) {
                Some(Data::F32(u)) => Cow::Borrowed(u),
                _ => Cow::Borrowed(&[]),
            },
            Scores::Expression(e) => Cow::Owned(e.evaluate(bound, sequences)),
        }
    }
}

impl Expression {
    fn evaluate(&self, bound: &HostBound<'_>, sequences: &Sequences) -> Vec<f32> {
        let sizes = bound.sizes;
        let call = Call {
            program: &self.program,
            segments: &self.segments,
            bound,
            selection: super::topk::Selection { k: None, w: 0, sinks: 0 },
            scores: &[],
            tau: &[],
            expiry: &[],
        };
        let mut out = vec![0f32; sizes.batch * sizes.hkv * sizes.n];
        let mut tile = Tile::new(&call, 0);
        for sequence in &sequences.all {
            for g in 0..sizes.hkv {
                tile.start_head(&call, *sequence, g);
                let at = tiles::key_offset(&sizes, sequence, g);
                let scores = &mut out[at..at + sequence.len];
                for (n, block) in scores.chunks_mut(COLS).enumerate() {
                    tile.cols = block.len();
                    tile.load_cols(&call, |c| n * COLS + c);
                    match self.at.domain {
                        Domain::Col => {
                            block.copy_from_slice(&tile.col.f[self.at.slot][..block.len()]);
                        }
                        _ => block.fill(tile.uniform.f[self.at.slot][0]),
                    }
                }
            }
        }
        out
    }
}
