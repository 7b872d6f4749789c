//! Builds a program node by node, sharing equal operations.

use super::{Binary, Class, Input, InputId, Kind, Node, Op, Real, Type, Unary, ValueId};
use crate::Span;
use std::collections::HashMap;

/// An arena of nodes under construction. Equal operations get the same id.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    known: HashMap<Op, ValueId>,
}

/// How many factors leave one sum: enough for any formula, and a chain of n products stays O(n).
const MOST_FACTORS: usize = 16;

impl Builder {
    /// An empty arena.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Declares an input and returns its id; [`Op::Input`] makes a value of it.
    pub fn input(&mut self, input: Input) -> InputId {
        self.inputs.push(input);
        InputId(self.inputs.len() as u32 - 1)
    }

    /// The declared inputs.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The declared inputs, to set a default that is built after the declaration.
    pub fn inputs_mut(&mut self) -> &mut [Input] {
        &mut self.inputs
    }

    /// The value of an operation, or the typing rule that it breaks.
    pub fn try_push(&mut self, op: Op, span: Span) -> Result<ValueId, &'static str> {
        if let Some(id) = self.known.get(&op) {
            return Ok(*id);
        }
        let ty = op.infer(|i| self.inputs.get(i.index()).map(|i| i.ty), |v| self.ty(v))?;
        let id = ValueId(self.nodes.len() as u32);
        self.known.insert(op.clone(), id);
        self.nodes.push(Node { op, ty, name: None, span });
        Ok(id)
    }

    /// Names a value for printing, unless it has a name already or is a leaf.
    pub fn name(&mut self, v: ValueId, name: &str) {
        let node = &mut self.nodes[v.index()];
        let leaf = node.op.operands().is_empty() && !matches!(node.op, Op::Seen(_));
        if node.name.is_none() && !leaf {
            node.name = Some(name.to_owned());
        }
    }

    /// How many nodes there are: the next new one's index.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node of `v`.
    pub fn node(&self, v: ValueId) -> &Node {
        &self.nodes[v.index()]
    }

    /// The type of `v`.
    pub fn ty(&self, v: ValueId) -> Type {
        self.nodes[v.index()].ty
    }

    /// Inputs and nodes, to make a [`super::Program`] of.
    pub fn finish(self) -> (Vec<Input>, Vec<Node>) {
        (self.inputs, self.nodes)
    }

    /// The constant that `v` is, if it is one.
    pub fn constant(&self, v: ValueId) -> Option<f32> {
        match self.node(v).op {
            Op::Const(x) => Some(x.get()),
            _ => None,
        }
    }

    /// A constant.
    pub fn real(&mut self, x: f32) -> ValueId {
        self.push_typed(Op::Const(Real::new(x)), Type::f32(Class::Scalar))
    }

    /// An operation on operands that are known to fit: used where programs are derived from checked
    /// ones. Simplifies on the way.
    pub fn derive(&mut self, op: Op) -> ValueId {
        if let Some(v) = self.simplified(&op) {
            return v;
        }
        let ty = op
            .infer(|i| self.inputs.get(i.index()).map(|i| i.ty), |v| self.ty(v))
            .unwrap_or(Type::new(Class::Pair, Kind::F32));
        self.push_typed(op, ty)
    }

    fn push_typed(&mut self, op: Op, ty: Type) -> ValueId {
        if let Some(id) = self.known.get(&op) {
            return *id;
        }
        let id = ValueId(self.nodes.len() as u32);
        self.known.insert(op.clone(), id);
        self.nodes.push(Node { op, ty, name: None, span: Span::NONE });
        id
    }

    /// Rewrites that hold for every finite operand: constants folded in f32, neutral and absorbing
    /// elements removed, signs gathered, constant factors moved outward and merged.
    fn simplified(&mut self, op: &Op) -> Option<ValueId> {
        match *op {
            Op::Unary(f, x) => {
                if let Some(c) = self.constant(x) {
                    return Some(self.real(f.apply(f64::from(c)) as f32));
                }
                match (f, self.node(x).op.clone()) {
                    (Unary::Neg, Op::Unary(Unary::Neg, inner)) => Some(inner),
                    _ => None,
                }
            }
            Op::Binary(f, a, b) => self.simplified_binary(f, a, b),
            Op::Select(_, a, b) if a == b => Some(a),
            Op::Sum { value, .. } if self.constant(value) == Some(0.0) => Some(value),
            Op::Sum { value, to } => self.sum_without_factor(value, to),
            Op::MaskVjp { d_gate, .. } if self.constant(d_gate) == Some(0.0) => Some(d_gate),
            Op::WeightedSum { weight, .. } if self.constant(weight) == Some(0.0) => Some(weight),
            _ => None,
        }
    }

    fn simplified_binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> Option<ValueId> {
        let (ca, cb) = (self.constant(a), self.constant(b));
        if let (Some(x), Some(y)) = (ca, cb) {
            return Some(self.real(f.apply(f64::from(x), f64::from(y)) as f32));
        }
        match f {
            Binary::Add if ca == Some(0.0) => Some(b),
            Binary::Add | Binary::Sub if cb == Some(0.0) => Some(a),
            Binary::Add => match self.node(b).op {
                Op::Unary(Unary::Neg, y) => Some(self.derive(Op::Binary(Binary::Sub, a, y))),
                _ => None,
            },
            Binary::Sub if ca == Some(0.0) => Some(self.derive(Op::Unary(Unary::Neg, b))),
            Binary::Sub => match self.node(b).op {
                Op::Unary(Unary::Neg, y) => Some(self.derive(Op::Binary(Binary::Add, a, y))),
                _ => None,
            },
            Binary::Mul if ca == Some(0.0) => Some(a),
            Binary::Mul if cb == Some(0.0) => Some(b),
            Binary::Mul if ca == Some(1.0) => Some(b),
            Binary::Mul | Binary::Div if cb == Some(1.0) => Some(a),
            Binary::Mul if ca == Some(-1.0) => Some(self.derive(Op::Unary(Unary::Neg, b))),
            Binary::Mul if cb == Some(-1.0) => Some(self.derive(Op::Unary(Unary::Neg, a))),
            // Signs move out of products, where the sum around them absorbs them.
            Binary::Mul | Binary::Div => {
                let neg = |b: &Builder, v| match b.node(v).op {
                    Op::Unary(Unary::Neg, x) => Some(x),
                    _ => None,
                };
                let (x, y, negative) = match (neg(self, a), neg(self, b)) {
                    (Some(x), Some(y)) => (x, y, false),
                    (Some(x), None) => (x, b, true),
                    (None, Some(y)) => (a, y, true),
                    (None, None) => return None,
                };
                let product = self.derive(Op::Binary(f, x, y));
                Some(if negative { self.derive(Op::Unary(Unary::Neg, product)) } else { product })
            }
            Binary::Min | Binary::Max if a == b => Some(a),
            Binary::Min | Binary::Max => None,
        }
    }

    /// Factors that do not vary over the summed indices leave the sum. Without recursion: there may
    /// be as many as a kernel has `let`s.
    fn sum_without_factor(&mut self, value: ValueId, to: Class) -> Option<ValueId> {
        let mut inner = value;
        let mut factors = Vec::new();
        while factors.len() < MOST_FACTORS
            && let Some((rest, factor)) = self.constant_factor(inner, to)
        {
            factors.push(factor);
            inner = rest;
        }
        if factors.is_empty() {
            return None;
        }
        let sum = self.derive(Op::Sum { value: inner, to });
        let times = |sum, factor: Option<ValueId>| match factor {
            Some(factor) => self.derive(Op::Binary(Binary::Mul, sum, factor)),
            None => self.derive(Op::Unary(Unary::Neg, sum)),
        };
        Some(factors.into_iter().rev().fold(sum, times))
    }

    /// The outermost factor that may leave a sum to `to`, `None` for a sign, behind the rest.
    fn constant_factor(&self, value: ValueId, to: Class) -> Option<(ValueId, Option<ValueId>)> {
        let (inner, factor) = match self.node(value).op {
            Op::Unary(Unary::Neg, x) => (x, None),
            Op::Binary(Binary::Mul, a, b) if self.ty(b).class.broadcasts_to(to) => (a, Some(b)),
            Op::Binary(Binary::Mul, a, b) if self.ty(a).class.broadcasts_to(to) => (b, Some(a)),
            _ => return None,
        };
        let class = self.ty(inner).class;
        // Moving a factor out must not change which indices are summed.
        let same = to.broadcasts_to(class) && class != to && class == self.ty(value).class;
        same.then_some((inner, factor))
    }
}
