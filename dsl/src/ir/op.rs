//! Operations of the program, their operands and the typing rules.

use super::{Binary, Class, Compare, Coord, Extent, Kind, Logic, ParamId, Type, Unary};
use serde::{Deserialize, Serialize};

/// Index of a node in [`super::Program::nodes`]. Operands always have smaller indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ValueId(pub u32);

impl ValueId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of an input in [`super::Program::inputs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputId(pub u32);

impl InputId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An f32 constant compared and hashed by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Real(u32);

impl Real {
    /// The constant `x`.
    pub fn new(x: f32) -> Real {
        Real(x.to_bits())
    }

    /// Its value.
    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

/// The set of keys each query sees: causal, and in the union, and under every predicate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Seen {
    /// `topk(gate)`: the k best-scored candidates; the gate is a [`Op::Sparsek`].
    pub topk: Option<ValueId>,
    /// `window(w)`: i − w < j <= i.
    pub window: Option<Extent>,
    /// `sinks(s)`: j < s.
    pub sinks: Option<Extent>,
    /// Masks that remove pairs. They never change candidates, tau, selection or expiry.
    pub predicates: Vec<ValueId>,
}

/// One operation. The essay in [`crate::ir`] gives each one's meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    // Leaves.
    /// An f32 constant.
    Const(Real),
    /// An integer constant.
    Int(i32),
    /// An integer parameter, constant once instantiated.
    Param(ParamId),
    /// An input tensor.
    Input(InputId),
    /// A coordinate of the pair at hand.
    Coord(Coord),

    // elementwise.rs
    /// f(x)
    Unary(Unary, ValueId),
    /// f(a, b)
    Binary(Binary, ValueId, ValueId),
    /// a ? b
    Compare(Compare, ValueId, ValueId),
    /// Connective of two masks.
    Logic(Logic, ValueId, ValueId),
    /// Negation of a mask.
    Not(ValueId),
    /// `select(cond, a, b)`: a where the mask holds, else b.
    Select(ValueId, ValueId, ValueId),
    /// An integer as f32.
    ToFloat(ValueId),

    // topk.rs
    /// The gate m of SPARSEK over the candidates.
    Sparsek {
        /// Score u, PerKey.
        score: ValueId,
        /// Keys kept for each query.
        k: Extent,
    },
    /// Value 1, derivative 1 by the gate.
    StraightThrough(ValueId),
    /// The seen set.
    Seen(Seen),
    /// Vector-Jacobian product of the gate by its score. Backward programs only.
    MaskVjp {
        /// The [`Op::Sparsek`].
        gate: ValueId,
        /// Adjoint of the gate, Pair.
        d_gate: ValueId,
    },

    // softmax.rs
    /// Row softmax over the seen keys.
    Softmax {
        /// Logits, Pair.
        logit: ValueId,
        /// The seen set.
        seen: ValueId,
        /// An extra logit in the denominator, at most PerQuery.
        sink: Option<ValueId>,
    },
    /// Log-sum-exp of a softmax's row, its sink among them.
    Lse(ValueId),

    // matmul.rs
    /// Contraction over the head dimension.
    Dot(ValueId, ValueId),
    /// Sum of vectors under pair weights: over seen keys when `tile` is a Key vector (one result
    /// for each query), over seeing queries and the heads of the group when it is a Query vector.
    WeightedSum {
        /// Weights, Pair.
        weight: ValueId,
        /// Vectors.
        tile: ValueId,
    },

    // reduce.rs
    /// Sum over every index that `to` does not have; pairs count only where seen.
    Sum {
        /// Summand.
        value: ValueId,
        /// Class of the result.
        to: Class,
    },
}

impl Op {
    /// Calls `f` on every operand in order.
    pub fn for_each_operand(&self, mut f: impl FnMut(ValueId)) {
        match self {
            Op::Const(_) | Op::Int(_) | Op::Param(_) | Op::Input(_) | Op::Coord(_) => {}
            Op::Unary(_, x)
            | Op::Not(x)
            | Op::ToFloat(x)
            | Op::StraightThrough(x)
            | Op::Lse(x)
            | Op::Sparsek { score: x, .. }
            | Op::Sum { value: x, .. } => f(*x),
            Op::Binary(_, a, b)
            | Op::Compare(_, a, b)
            | Op::Logic(_, a, b)
            | Op::Dot(a, b)
            | Op::MaskVjp { gate: a, d_gate: b }
            | Op::WeightedSum { weight: a, tile: b } => {
                f(*a);
                f(*b);
            }
            Op::Select(c, a, b) => {
                f(*c);
                f(*a);
                f(*b);
            }
            Op::Seen(Seen { topk, predicates, .. }) => {
                topk.iter().for_each(|v| f(*v));
                predicates.iter().for_each(|v| f(*v));
            }
            Op::Softmax { logit, seen, sink } => {
                f(*logit);
                f(*seen);
                sink.iter().for_each(|v| f(*v));
            }
        }
    }

    /// The operands in order.
    pub fn operands(&self) -> Vec<ValueId> {
        let mut all = Vec::new();
        self.for_each_operand(|v| all.push(v));
        all
    }

    /// The same operation with every operand replaced by `f` of it.
    pub fn map_operands(&self, mut f: impl FnMut(ValueId) -> ValueId) -> Op {
        match self {
            Op::Const(_) | Op::Int(_) | Op::Param(_) | Op::Input(_) | Op::Coord(_) => self.clone(),
            Op::Unary(op, x) => Op::Unary(*op, f(*x)),
            Op::Not(x) => Op::Not(f(*x)),
            Op::ToFloat(x) => Op::ToFloat(f(*x)),
            Op::StraightThrough(x) => Op::StraightThrough(f(*x)),
            Op::Lse(x) => Op::Lse(f(*x)),
            Op::Sparsek { score, k } => Op::Sparsek { score: f(*score), k: *k },
            Op::Sum { value, to } => Op::Sum { value: f(*value), to: *to },
            Op::Binary(op, a, b) => Op::Binary(*op, f(*a), f(*b)),
            Op::Compare(op, a, b) => Op::Compare(*op, f(*a), f(*b)),
            Op::Logic(op, a, b) => Op::Logic(*op, f(*a), f(*b)),
            Op::Dot(a, b) => Op::Dot(f(*a), f(*b)),
            Op::MaskVjp { gate, d_gate } => Op::MaskVjp { gate: f(*gate), d_gate: f(*d_gate) },
            Op::WeightedSum { weight, tile } => {
                Op::WeightedSum { weight: f(*weight), tile: f(*tile) }
            }
            Op::Select(c, a, b) => Op::Select(f(*c), f(*a), f(*b)),
            Op::Seen(seen) => Op::Seen(Seen {
                topk: seen.topk.map(&mut f),
                window: seen.window,
                sinks: seen.sinks,
                predicates: seen.predicates.iter().map(|v| f(*v)).collect(),
            }),
            Op::Softmax { logit, seen, sink } => {
                Op::Softmax { logit: f(*logit), seen: f(*seen), sink: sink.map(f) }
            }
        }
    }

    /// The result type given the operands' types, or the rule that is broken.
    pub fn infer(
        &self,
        input: impl Fn(super::InputId) -> Option<Type>,
        ty: impl Fn(ValueId) -> Type,
    ) -> Result<Type, &'static str> {
        let number = |v: ValueId| match ty(v).kind {
            Kind::F32 => Ok(ty(v).class),
            Kind::I32 => Err("an integer must be turned into f32 before arithmetic"),
            Kind::Bool => Err("a mask is not a number"),
            Kind::Vector => Err("a vector is not a number"),
        };
        let mask = |v: ValueId| match ty(v).kind {
            Kind::Bool => Ok(ty(v).class),
            Kind::F32 | Kind::I32 | Kind::Vector => Err("a mask is needed"),
        };
        let at_most_pair = |v: ValueId| number(v).map(|_| ());
        match self {
            Op::Const(_) => Ok(Type::f32(Class::Scalar)),
            Op::Int(_) | Op::Param(_) => Ok(Type::new(Class::Scalar, Kind::I32)),
            Op::Input(id) => input(*id).ok_or("the input does not exist"),
            Op::Coord(c) => Ok(Type::new(c.class(), Kind::I32)),
            Op::Unary(_, x) => Ok(Type::f32(number(*x)?)),
            Op::Binary(_, a, b) => Ok(Type::f32(number(*a)?.join(number(*b)?))),
            Op::Compare(_, a, b) => match (ty(*a).kind, ty(*b).kind) {
                (Kind::I32, Kind::I32) | (Kind::F32, Kind::F32) => {
                    Ok(Type::new(ty(*a).class.join(ty(*b).class), Kind::Bool))
                }
                _ => Err("a comparison needs two integers or two numbers"),
            },
            Op::Logic(_, a, b) => Ok(Type::new(mask(*a)?.join(mask(*b)?), Kind::Bool)),
            Op::Not(x) => Ok(Type::new(mask(*x)?, Kind::Bool)),
            Op::Select(c, a, b) => Ok(Type::f32(mask(*c)?.join(number(*a)?).join(number(*b)?))),
            Op::ToFloat(x) => match ty(*x).kind {
                Kind::I32 => Ok(Type::f32(ty(*x).class)),
                Kind::F32 | Kind::Bool | Kind::Vector => Err("only an integer is turned into f32"),
            },
            Op::Sparsek { score, .. } => {
                if number(*score)?.broadcasts_to(Class::PerKey) {
                    Ok(Type::f32(Class::Pair))
                } else {
                    Err("a score varies by key and never by query")
                }
            }
            Op::StraightThrough(gate) => Ok(Type::f32(number(*gate)?)),
            Op::Seen(seen) => {
                for p in &seen.predicates {
                    mask(*p)?;
                }
                Ok(Type::new(Class::Pair, Kind::Bool))
            }
            Op::MaskVjp { d_gate, .. } => {
                at_most_pair(*d_gate)?;
                Ok(Type::f32(Class::PerKey))
            }
            Op::Softmax { logit, seen, sink } => {
                at_most_pair(*logit)?;
                mask(*seen)?;
                match sink {
                    Some(s) if !number(*s)?.broadcasts_to(Class::PerQuery) => {
                        Err("a sink logit varies by query and never by key")
                    }
                    Some(_) | None => Ok(Type::f32(Class::Pair)),
                }
            }
            Op::Lse(_) => Ok(Type::f32(Class::PerQuery)),
            Op::Dot(a, b) => match (ty(*a).kind, ty(*b).kind) {
                (Kind::Vector, Kind::Vector) => Ok(Type::f32(ty(*a).class.join(ty(*b).class))),
                _ => Err("a dot product over the head dimension needs two vectors"),
            },
            Op::WeightedSum { weight, tile } => {
                at_most_pair(*weight)?;
                match (ty(*tile).kind, ty(*tile).class) {
                    (Kind::Vector, Class::PerKey) => Ok(Type::new(Class::PerQuery, Kind::Vector)),
                    (Kind::Vector, _) => Ok(Type::new(Class::PerKey, Kind::Vector)),
                    _ => Err("a weighted sum needs vectors"),
                }
            }
            Op::Sum { value, to } => {
                if number(*value)? != *to && to.broadcasts_to(number(*value)?) {
                    Ok(Type::f32(*to))
                } else {
                    Err("a sum goes to a smaller class")
                }
            }
        }
    }
}
