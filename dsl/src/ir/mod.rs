//! The typed program.
//!
//! # What a program is
//!
//! A [`Program`] is a list of [`Node`]s, each one operation over earlier nodes, in an order in
//! which operands come first. There is no control flow and no storage: a node is a value. Equal
//! operations are one node (the builder shares them), so naming a subexpression never costs
//! anything. `outputs` name the nodes that a caller receives. A program is either *forward* (what
//! a user wrote) or *backward* (derived from one by [`crate::backward`]); the operations are the
//! same, and both pass [`check::well_formed`].
//!
//! # Indices and classes
//!
//! `b` is a sequence of the batch, `h` a query head, `g = h / (Hq / Hkv)` its key-value head, `i` a
//! query position and `j` a key position, both counted from the start of the sequence. A value's
//! [`Class`] says which of these it varies over:
//!
//! | class | indices |
//! | --- | --- |
//! | `Scalar` | none |
//! | `PerBatch` | b |
//! | `PerHead` | h |
//! | `PerQuery` | b, h, i |
//! | `PerKey` | b, g, j |
//! | `Pair` | b, h, i, j where j is in `seen(i)` |
//!
//! Operands of a smaller class broadcast. A `Pair` value exists only on seen pairs: what an
//! expression would be elsewhere (an overflow, a NaN) has no effect on anything.
//!
//! Numbers are f32. Integers (`I32`) are only compared; [`Op::ToFloat`] turns one into a number,
//! exactly below 2^24. Vectors hold one f32 for each head dimension; tensors of them are stored in
//! the kernel's element type and rounded to it only when an output is stored.
//!
//! # Selection
//!
//! One [`Op::Seen`] says which keys each query sees: `j <= i`, and `j` is selected, in the window
//! (`i − w < j`) or a sink (`j < s`), and every predicate holds. Window and sinks that are absent
//! count as 0. With [`Op::Sparsek`] of scores u and extent k:
//!
//! * candidates `R_i = { s <= j <= i − w }`, without keys whose score is NaN or −inf;
//! * `tau_i` = the largest t with `Σ_{R_i} clip(u_j − t, 0, 1) >= k`, −inf when `|R_i| <= k`;
//! * the gate is `clip(u_j − tau_i, 0, 1)` on `R_i`, 1 when `tau_i` = −inf, and 1 off `R_i`;
//! * selected are the k candidates of highest score, ties to the smaller index.
//!
//! Predicates change none of these. Every program has exactly one seen set ([`Program::seen`]), at
//! most one gate, and the candidates of the gate follow from that set.
//!
//! [`Op::StraightThrough`] is 1 whatever the gate is; its adjoint passes to the gate unchanged.
//! [`Op::MaskVjp`] is the gate's vector-Jacobian product: with `I_i = { j in R_i : 0 < m_ij < 1 }`
//! and `dm_ij` the sum of `d_gate` over the heads of the group, zero off the seen set,
//! `d_u_j = Σ_i [j in I_i] (dm_ij − (1/|I_i|) Σ_{l in I_i} dm_il)`. `I_i` is not limited to seen keys.
//!
//! # Softmax
//!
//! `Softmax { logit, seen, sink }` is `exp(logit_ij − lse_i)` with `lse_i` =
//! `log(Σ_{seen} exp(logit_ij) + exp(sink_i))`, the last term only with a sink. [`Op::Lse`] is that
//! `lse`; where nothing is seen and there is no sink it is −inf.
//!
//! # Products and sums
//!
//! `Dot(a, b)` contracts the head dimension; its class is the join of the operands'.
//! `WeightedSum { weight, tile }` sums vectors under pair weights: `Σ_{j in seen(i)} weight_ij tile_j`
//! for Key vectors, `Σ_{h in group(g)} Σ_{i: j in seen(i)} weight_ij tile_i` for Query vectors.
//! `Sum { value, to }` adds over every index that `to` lacks. A sum over nothing is 0.
//!
//! # Minimum, maximum, comparison
//!
//! `min` and `max` return their first operand when both are equal, and their derivative goes to the
//! operand that was returned. A comparison with a NaN is false, but for `!=`.
//!
//! # Parameters
//!
//! Integer parameters and the element type are constants of one instance of the program:
//! [`Program::instantiate`] checks them against their sets and puts literals in their places.

mod builder;
pub mod check;
mod elementwise;
mod op;
mod param;
mod print;
mod schedule;
mod serial;
mod spec;
mod types;

pub use builder::Builder;
pub use elementwise::{Binary, Compare, Coord, Logic, Unary};
pub use op::{InputId, Op, Real, Seen, ValueId};
pub use param::{ElemParam, Extent, IntSet, Param, ParamId};
pub use schedule::{Knob, KnobName, Pass, ScheduleBlock, Section};
pub use serial::{FORMAT_VERSION, LoadError};
pub use spec::{Instance, Spec, SpecError};
pub use types::{Class, Kind, Type};

use crate::Span;
use serde::{Deserialize, Serialize};

/// Whether a program was written or derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Computes `o` and `lse`.
    Forward,
    /// Computes `d_*` from the forward's inputs and outputs and `d_o`.
    Backward,
}

/// What an input stands for; it fixes the tensor's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// `q` \[B, N, Hq, D\].
    Query,
    /// `k` \[B, N, Hkv, D\].
    Key,
    /// `v` \[B, N, Hkv, D\].
    Value,
    /// `u` \[B, Hkv, N\].
    Score,
    /// Any other input of the user's: Scalar \[1\], PerHead \[Hq\], PerQuery \[B, N\] or
    /// \[B, N, Hq\], PerKey \[B, N\] or \[B, N, Hkv\].
    Extra,
    /// `o` \[B, N, Hq, D\]: the forward's output, in a backward program.
    Output,
    /// `lse` \[B, Hq, N\], in a backward program.
    Lse,
    /// `d_o` \[B, N, Hq, D\], in a backward program.
    OutputGrad,
}

/// An input tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub role: Role,
    /// Its class and kind.
    pub ty: Type,
    /// A constant expression used when the tensor is not given.
    pub default: Option<ValueId>,
    /// Where it was declared.
    #[serde(skip)]
    pub span: Span,
}

/// One value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// How it is computed.
    pub op: Op,
    /// Its type, as [`Op::infer`] gives it.
    pub ty: Type,
    /// The name it was bound to, for printing only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it was written.
    #[serde(skip)]
    pub span: Span,
}

/// A named result.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Output {
    /// `o`, `lse`, or `d_` and the name of an input.
    pub name: String,
    /// The value; of a class that broadcasts to `ty`.
    pub value: ValueId,
    /// Type of the tensor that is stored.
    pub ty: Type,
}

/// A typed program. See the [module documentation](self) for its meaning.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Written or derived.
    pub direction: Direction,
    /// The kernel's name.
    pub name: String,
    /// Documentation lines.
    #[serde(default)]
    pub docs: Vec<String>,
    /// Element types of the stored vectors.
    pub elem: ElemParam,
    /// Head dimension D.
    pub head_dim: Extent,
    /// Integer parameters.
    pub params: Vec<Param>,
    /// Input tensors, in the order in which they were declared.
    pub inputs: Vec<Input>,
    /// Values, operands first.
    pub nodes: Vec<Node>,
    /// The seen set: an [`Op::Seen`].
    pub seen: ValueId,
    /// Results.
    pub outputs: Vec<Output>,
    /// The schedule space that the kernel declares.
    #[serde(default)]
    pub schedule: ScheduleBlock,
}

impl Program {
    /// The node of `v`.
    pub fn node(&self, v: ValueId) -> &Node {
        &self.nodes[v.index()]
    }

    /// The type of `v`.
    pub fn ty(&self, v: ValueId) -> Type {
        self.node(v).ty
    }

    /// The input of that index.
    pub fn input(&self, id: InputId) -> &Input {
        &self.inputs[id.index()]
    }

    /// The input of that name.
    pub fn input_named(&self, name: &str) -> Option<InputId> {
        self.inputs.iter().position(|i| i.name == name).map(|i| InputId(i as u32))
    }

    /// The result of that name.
    pub fn output_named(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|o| o.name == name)
    }

    /// The seen set.
    pub fn seen_set(&self) -> &Seen {
        static NOTHING: Seen =
            Seen { topk: None, window: None, sinks: None, predicates: Vec::new() };
        match &self.node(self.seen).op {
            Op::Seen(seen) => seen,
            _ => &NOTHING,
        }
    }

    /// The gate, when the program has one.
    pub fn gate(&self) -> Option<Gate> {
        let id = self.seen_set().topk?;
        match self.node(id).op {
            Op::Sparsek { score, k } => Some(Gate { value: id, score, k }),
            _ => None,
        }
    }

    /// The id of every node, operands first.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<> {
        (0..self.nodes.len() as u32).map(ValueId)
    }

    /// Which nodes the outputs and defaults need.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        live[self.seen.index()] = true;
        for root in self.outputs.iter().map(|o| o.value) {
            live[root.index()] = true;
        }
        for root in self.inputs.iter().filter_map(|i| i.default) {
            live[root.index()] = true;
        }
        for v in self.ids().rev() {
            if live[v.index()] {
                self.node(v).op.for_each_operand(|o| live[o.index()] = true);
            }
        }
        live
    }

    /// The same program with only the outputs that `keep` names, without nodes nothing needs.
    pub fn with_outputs(&self, keep: impl Fn(&str) -> bool) -> Program {
        let mut program = self.clone();
        program.outputs.retain(|o| keep(&o.name));
        program.without_dead_nodes()
    }

    /// The same program without nodes that nothing needs.
    pub fn without_dead_nodes(&self) -> Program {
        let live = self.live();
        let mut program = self.clone();
        let mut map = vec![ValueId(u32::MAX); self.nodes.len()];
        program.nodes.clear();
        for v in self.ids().filter(|v| live[v.index()]) {
            map[v.index()] = ValueId(program.nodes.len() as u32);
            let node = self.node(v);
            let op = node.op.map_operands(|o| map[o.index()]);
            program.nodes.push(Node { op, ..node.clone() });
        }
        program.seen = map[self.seen.index()];
        for output in &mut program.outputs {
            output.value = map[output.value.index()];
        }
        for input in &mut program.inputs {
            input.default = input.default.map(|d| map[d.index()]);
        }
        program
    }

    /// The same program without names, documentation, spans and schedule, its nodes in the order in
    /// which outputs reach them: equal for programs that compute the same thing the same way.
    pub fn canonical(&self) -> Program {
        let mut order: Vec<Option<ValueId>> = vec![None; self.nodes.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let defaults = self.inputs.iter().filter_map(|i| i.default);
        let roots = self.outputs.iter().map(|o| o.value).chain([self.seen]).chain(defaults);
        for root in roots {
            // Depth first without recursion: a long chain of operations must not overflow the stack.
            let mut stack = vec![(root, false)];
            while let Some((v, ready)) = stack.pop() {
                if order[v.index()].is_some() {
                    continue;
                }
                let node = self.node(v);
                if ready {
                    let op = node.op.map_operands(|o| order[o.index()].unwrap_or(o));
                    order[v.index()] = Some(ValueId(nodes.len() as u32));
                    nodes.push(Node { op, ty: node.ty, name: None, span: Span::NONE });
                } else {
                    stack.push((v, true));
                    stack.extend(node.op.operands().into_iter().rev().map(|o| (o, false)));
                }
            }
        }
        let at = |v: ValueId| order[v.index()].unwrap_or(v);
        let mut program = self.clone();
        program.seen = at(self.seen);
        program.name = String::new();
        program.docs = Vec::new();
        program.schedule = ScheduleBlock::default();
        for output in &mut program.outputs {
            output.value = at(output.value);
        }
        for input in &mut program.inputs {
            input.default = input.default.map(at);
            input.span = Span::NONE;
        }
        program.nodes = nodes;
        program
    }
}

/// The gate of a program: its node, and the operands of its [`Op::Sparsek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The gate's own value.
    pub value: ValueId,
    /// The score.
    pub score: ValueId,
    /// Keys kept for each query.
    pub k: Extent,
}
