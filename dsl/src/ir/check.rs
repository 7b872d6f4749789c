//! Well-formedness: the rules that every program keeps, written or derived.
//!
//! 1. Operands come before their users, and every id is in range.
//! 2. Every node has the type that [`Op::infer`] gives it.
//! 3. There is one seen set, `program.seen`, and every softmax is over it.
//! 4. There is at most one gate; `topk` of the seen set is that gate, and only gates are
//!    operands of `straight_through` and `mask_vjp`.
//! 5. A forward program has no `sum`, no `mask_vjp` and no weighted sum of queries; a backward
//!    program has no softmax. Each has only inputs of its own roles, each role but `Extra` once.
//! 6. Defaults are Scalar and depend on constants and parameters alone.
//! 7. Names of inputs are unique, and so are names of outputs; an output's value broadcasts to its type.
//! 8. Parameters exist, and their sets are not empty.
//! 9. A score depends on no pair, and a predicate on no product, softmax or gate.
//! 10. Inputs are Scalar, PerHead, PerQuery or PerKey.

use super::{Class, Direction, Extent, Kind, Op, Program, Role, Seen, Type, ValueId};
use std::fmt;

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number in the list above.
    pub rule: u8,
    /// The node it was found at.
    pub node: Option<ValueId>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(v) => write!(f, "rule {}, node {}: {}", self.rule, v.0, self.message),
            None => write!(f, "rule {}: {}", self.rule, self.message),
        }
    }
}

struct Checker<'a> {
    program: &'a Program,
    broken: Vec<Broken>,
}

/// Every rule that does not hold, in the order of the nodes. Empty for a well-formed program.
pub fn well_formed(program: &Program) -> Vec<Broken> {
    let mut c = Checker { program, broken: Vec::new() };
    c.order();
    if !c.broken.is_empty() {
        // With ids out of range nothing else can be looked at.
        return c.broken;
    }
    c.types();
    c.selection();
    c.direction();
    c.defaults();
    c.interface();
    c.parameters();
    c.dependencies();
    c.broken
}

impl Checker<'_> {
    fn report(&mut self, rule: u8, node: Option<ValueId>, message: impl Into<String>) {
        self.broken.push(Broken { rule, node, message: message.into() });
    }

    fn order(&mut self) {
        let p = self.program;
        for v in p.ids() {
            let node = p.node(v);
            let mut bad = false;
            node.op.for_each_operand(|o| bad |= o >= v);
            if bad {
                self.report(1, Some(v), "an operand does not come before its user");
            }
            if let Op::Input(i) = node.op
                && i.index() >= p.inputs.len()
            {
                self.report(1, Some(v), "the input does not exist");
            }
        }
        let n = p.nodes.len();
        let roots = p.outputs.iter().map(|o| o.value).chain([p.seen]);
        let roots = roots.chain(p.inputs.iter().filter_map(|i| i.default));
        if roots.into_iter().any(|v| v.index() >= n) {
            self.report(1, None, "an output, a default or the seen set does not exist");
        }
    }

    fn types(&mut self) {
        let p = self.program;
        for v in p.ids() {
            let node = p.node(v);
            match node.op.infer(|i| p.inputs.get(i.index()).map(|i| i.ty), |v| p.ty(v)) {
                Ok(ty) if ty == node.ty => {}
                Ok(ty) => self.report(2, Some(v), format!("typed {} and is {ty}", node.ty)),
                Err(rule) => self.report(2, Some(v), rule),
            }
        }
    }

    fn selection(&mut self) {
        let p = self.program;
        if !matches!(p.node(p.seen).op, Op::Seen(_)) {
            self.report(3, Some(p.seen), "the program's seen set is another operation");
        }
        let gate = p.seen_set().topk;
        for v in p.ids() {
            match &p.node(v).op {
                Op::Seen(_) if v != p.seen => self.report(3, Some(v), "a second seen set"),
                Op::Softmax { seen, .. } if *seen != p.seen => {
                    self.report(3, Some(v), "a softmax over another set");
                }
                Op::Sparsek { .. } if gate != Some(v) => {
                    self.report(4, Some(v), "a gate that the seen set does not select by");
                }
                Op::StraightThrough(g) | Op::MaskVjp { gate: g, .. } if gate != Some(*g) => {
                    self.report(4, Some(v), "the operand is not the gate");
                }
                _ => {}
            }
        }
        if let Some(g) = gate
            && !matches!(p.node(g).op, Op::Sparsek { .. })
        {
            self.report(4, Some(g), "the seen set selects by something that is not a gate");
        }
    }

    fn direction(&mut self) {
        let p = self.program;
        for v in p.ids() {
            let wrong = match (p.direction, &p.node(v).op) {
                (Direction::Forward, Op::Sum { .. } | Op::MaskVjp { .. }) => true,
                (Direction::Forward, Op::WeightedSum { tile, .. }) => {
                    p.ty(*tile).class == Class::PerQuery
                }
                (Direction::Backward, Op::Softmax { .. } | Op::Lse(_)) => true,
                _ => false,
            };
            if wrong {
                self.report(5, Some(v), format!("not an operation of a {:?} program", p.direction));
            }
        }
        for (n, input) in p.inputs.iter().enumerate() {
            let backward_only = matches!(input.role, Role::Output | Role::Lse | Role::OutputGrad);
            if backward_only && p.direction == Direction::Forward {
                self.report(5, None, format!("input {} in a forward program", input.name));
            }
            let again = p.inputs[..n].iter().any(|i| i.role == input.role);
            if input.role != Role::Extra && again {
                self.report(5, None, format!("a second input in the role of {}", input.name));
            }
        }
    }

    fn defaults(&mut self) {
        let p = self.program;
        for input in &p.inputs {
            let Some(default) = input.default else { continue };
            let mut stack = vec![default];
            while let Some(v) = stack.pop() {
                if matches!(p.node(v).op, Op::Input(_) | Op::Coord(_)) {
                    let message = format!("the default of {} is not a constant", input.name);
                    self.report(6, Some(v), message);
                }
                stack.extend(p.node(v).op.operands());
            }
            if p.ty(default).class != Class::Scalar {
                self.report(
                    6,
                    Some(default),
                    format!("the default of {} is not Scalar", input.name),
                );
            }
        }
    }

    fn interface(&mut self) {
        let p = self.program;
        for (n, input) in p.inputs.iter().enumerate() {
            if p.inputs[..n].iter().any(|i| i.name == input.name) {
                self.report(7, None, format!("two inputs are named {}", input.name));
            }
            if matches!(input.ty.class, Class::PerBatch | Class::Pair) {
                self.report(10, None, format!("input {} is {}", input.name, input.ty.class));
            }
        }
        for (n, output) in p.outputs.iter().enumerate() {
            if p.outputs[..n].iter().any(|o| o.name == output.name) {
                self.report(7, None, format!("two outputs are named {}", output.name));
            }
            let (value, ty) = (p.ty(output.value), output.ty);
            let zero = matches!(p.node(output.value).op, Op::Const(_));
            if !(zero || value.kind == ty.kind) || !value.class.broadcasts_to(ty.class) {
                self.report(
                    7,
                    Some(output.value),
                    format!("output {} is {value}, not {ty}", output.name),
                );
            }
        }
    }

    fn parameters(&mut self) {
        let p = self.program;
        let exists = |e: Extent| match e {
            Extent::Literal(_) => true,
            Extent::Param(id) => (id.0 as usize) < p.params.len(),
        };
        let Seen { window, sinks, .. } = p.seen_set();
        let used = [Some(p.head_dim), *window, *sinks, p.gate().map(|g| g.k)];
        if !used.into_iter().flatten().all(exists) {
            self.report(8, None, "an extent names a parameter that does not exist");
        }
        for v in p.ids() {
            if let Op::Param(id) = p.node(v).op
                && !exists(Extent::Param(id))
            {
                self.report(8, Some(v), "the parameter does not exist");
            }
        }
        for param in &p.params {
            if param.set.bounds().is_none() {
                self.report(8, None, format!("the set of parameter {} is empty", param.name));
            }
        }
        if p.elem.set.is_empty() {
            self.report(8, None, "the set of element types is empty");
        }
    }

    fn dependencies(&mut self) {
        let p = self.program;
        // Which nodes depend on a product, a softmax or a gate.
        let mut late = vec![false; p.nodes.len()];
        for v in p.ids() {
            let op = &p.node(v).op;
            let mut is = matches!(
                op,
                Op::Dot(..)
                    | Op::Softmax { .. }
                    | Op::Sparsek { .. }
                    | Op::WeightedSum { .. }
                    | Op::Lse(_)
            );
            op.for_each_operand(|o| is |= late[o.index()]);
            late[v.index()] = is;
        }
        for m in &p.seen_set().predicates {
            if late[m.index()] {
                self.report(9, Some(*m), "a predicate depends on a product, a softmax or the gate");
            }
        }
        if let Some(gate) = p.gate() {
            let Type { class, kind } = p.ty(gate.score);
            if kind != Kind::F32 || !class.broadcasts_to(Class::PerKey) || late[gate.score.index()]
            {
                self.report(9, Some(gate.score), "the score is not a number for each key");
            }
        }
    }
}
