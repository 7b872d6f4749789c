//! The backward program, derived from the forward one by symbolic differentiation.
//!
//! Reverse mode over the arena: nodes are visited from the last to the first, each hands its
//! adjoint to its operands through the rule of its op family (`elementwise`, `topk`,
//! `softmax`, `matmul`), and contributions add up. The adjoint of a node has the class of the
//! node: a contribution of a larger class (the pair-wise adjoint of a PerHead slope) is summed down
//! as soon as it arrives, so the program that comes out says where its row, column and head sums
//! are. Everything is simplified while it is built.
//!
//! The backward program takes the forward's inputs, and `o`, `lse` and `d_o`. It recomputes what
//! the forward did not keep: `p = exp(logit − lse)`. It reads the same plan (tau and expiry).

mod elementwise;
mod matmul;
mod softmax;
mod topk;

use crate::Span;
use crate::ir::{
    Binary, Builder, Class, Direction, Input, Kind, Op, Output, Program, Role, Type, ValueId,
};

/// A derivation under way.
struct Derivation<'a> {
    forward: &'a Program,
    builder: Builder,
    /// Where each node of the forward program is in the backward program.
    map: Vec<ValueId>,
    /// The adjoint of each node of the forward program, as far as it is known; `None` is zero.
    adjoint: Vec<Option<ValueId>>,
    /// The inputs `o`, `lse` and `d_o`.
    o: ValueId,
    lse: ValueId,
    d_o: ValueId,
}

/// The backward program of a forward one: an output `d_<name>` for every differentiable input.
///
/// A program that is already a backward program is returned as it is.
pub fn derive(forward: &Program) -> Program {
    if forward.direction == Direction::Backward {
        return forward.clone();
    }
    let mut d = Derivation::new(forward);
    d.recompute();
    if let Some(o) = forward.output_named("o") {
        // The adjoint of the kernel's result is the input d_o.
        d.adjoint[o.value.index()] = Some(d.d_o);
    }
    for v in forward.ids().rev() {
        if let Some(adjoint) = d.adjoint[v.index()] {
            d.differentiate(v, adjoint);
        }
    }
    d.finish()
}

impl<'a> Derivation<'a> {
    fn new(forward: &'a Program) -> Derivation<'a> {
        let mut builder = Builder::new();
        for input in &forward.inputs {
            builder.input(Input { default: None, ..input.clone() });
        }
        let mut saved = |name: &str, role, ty| {
            let id = builder.input(Input {
                name: name.to_owned(),
                role,
                ty,
                default: None,
                span: Span::NONE,
            });
            builder.derive(Op::Input(id))
        };
        let vector = Type::new(Class::PerQuery, Kind::Vector);
        let o = saved("o", Role::Output, vector);
        let lse = saved("lse", Role::Lse, Type::f32(Class::PerQuery));
        let d_o = saved("d_o", Role::OutputGrad, vector);
        Derivation {
            forward,
            builder,
            map: Vec::with_capacity(forward.nodes.len()),
            adjoint: vec![None; forward.nodes.len()],
            o,
            lse,
            d_o,
        }
    }

    /// Copies the forward program, its softmax replaced by what lse gives.
    fn recompute(&mut self) {
        for v in self.forward.ids() {
            let node = self.forward.node(v);
            let op = node.op.map_operands(|o| self.map[o.index()]);
            let copy = match op {
                Op::Softmax { logit, .. } => self.probability(logit),
                Op::Lse(_) => self.lse,
                Op::WeightedSum { .. } => self.o,
                other => self.builder.derive(other),
            };
            if let Some(name) = &node.name {
                self.builder.name(copy, name);
            }
            self.map.push(copy);
        }
        for (n, input) in self.forward.inputs.iter().enumerate() {
            self.builder.inputs_mut()[n].default = input.default.map(|d| self.map[d.index()]);
        }
    }

    /// Hands the adjoint of one forward node to its operands.
    fn differentiate(&mut self, v: ValueId, adjoint: ValueId) {
        if let Some(name) = &self.forward.node(v).name {
            self.builder.name(adjoint, &format!("d_{name}"));
        }
        let here = self.map[v.index()];
        match &self.forward.node(v).op {
            // Nothing flows into constants, coordinates, comparisons and masks; inputs keep theirs.
            Op::Const(_) | Op::Int(_) | Op::Param(_) | Op::Coord(_) | Op::Input(_) => {}
            Op::Compare(..) | Op::Logic(..) | Op::Not(_) | Op::ToFloat(_) | Op::Seen(_) => {}
            Op::Unary(f, x) => self.unary(*f, *x, here, adjoint),
            Op::Binary(f, a, b) => self.binary(*f, *a, *b, here, adjoint),
            Op::Select(c, a, b) => self.select(*c, *a, *b, adjoint),
            Op::Sparsek { score, .. } => self.sparsek(*score, here, adjoint),
            Op::StraightThrough(gate) => self.straight_through(*gate, adjoint),
            Op::Softmax { logit, sink, .. } => self.softmax(*logit, *sink, here, adjoint),
            Op::Dot(a, b) => self.dot(*a, *b, adjoint),
            Op::WeightedSum { weight, tile } => self.weighted_sum(*weight, *tile),
            // lse is returned for the backward's own use and takes no adjoint; the others do not
            // occur in forward programs (rule 5).
            Op::Lse(_) | Op::MaskVjp { .. } | Op::Sum { .. } => {}
        }
    }

    /// Adds `term` to the adjoint of a forward node, summed down to the node's class.
    fn give(&mut self, to: ValueId, term: ValueId) {
        let ty = self.forward.ty(to);
        if !ty.differentiable() || self.builder.constant(term) == Some(0.0) {
            return;
        }
        let term = match ty.kind {
            Kind::F32 if self.builder.ty(term).class != ty.class => {
                self.builder.derive(Op::Sum { value: term, to: ty.class })
            }
            _ => term,
        };
        let sum = match self.adjoint[to.index()] {
            Some(before) => self.builder.derive(Op::Binary(Binary::Add, before, term)),
            None => term,
        };
        self.adjoint[to.index()] = Some(sum);
    }

    /// The backward program's value of a forward node.
    fn at(&self, v: ValueId) -> ValueId {
        self.map[v.index()]
    }

    fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.builder.derive(Op::Binary(Binary::Mul, a, b))
    }

    fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.builder.derive(Op::Binary(Binary::Sub, a, b))
    }

    fn finish(mut self) -> Program {
        let forward = self.forward;
        let mut outputs = Vec::new();
        for (n, input) in forward.inputs.iter().enumerate().filter(|(_, i)| i.ty.differentiable()) {
            let used = forward
                .ids()
                .find(|v| matches!(forward.node(*v).op, Op::Input(id) if id.index() == n));
            let value = match used.and_then(|v| self.adjoint[v.index()]) {
                Some(adjoint) => adjoint,
                None => self.builder.real(0.0),
            };
            outputs.push(Output { name: format!("d_{}", input.name), value, ty: input.ty });
        }
        let seen = self.at(forward.seen);
        let (inputs, nodes) = self.builder.finish();
        Program {
            direction: Direction::Backward,
            inputs,
            nodes,
            seen,
            outputs,
            docs: Vec::new(),
            ..forward.clone()
        }
        .without_dead_nodes()
    }
}
