//! Programs as text. A forward program prints as the kernel it could have been written as: parsing
//! the text gives the same program back. A backward program prints in the same notation.

use super::{
    Binary, Class, Direction, Extent, Input, Kind, Op, Program, Role, Seen, Type, Unary, ValueId,
};
use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};

/// Operations inside one another in one expression; what is deeper gets a name.
const DEEPEST: usize = 32;

/// Binding strength of Rust's operators, weakest first.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Strength {
    Compare,
    Or,
    And,
    Sum,
    Product,
    Prefix,
    Atom,
}

struct Printer<'a> {
    program: &'a Program,
    /// The name of every value that gets a `let`.
    names: Vec<Option<String>>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printer = Printer::new(self);
        f.write_str(&printer.kernel()?)
    }
}

impl<'a> Printer<'a> {
    fn new(program: &'a Program) -> Printer<'a> {
        let live = program.live();
        let mut uses = vec![0usize; program.nodes.len()];
        for v in program.ids().filter(|v| live[v.index()]) {
            program.node(v).op.for_each_operand(|o| uses[o.index()] += 1);
        }
        for output in &program.outputs {
            uses[output.value.index()] += 1;
        }
        let mut taken: HashSet<String> = program.inputs.iter().map(|i| i.name.clone()).collect();
        taken.extend(program.params.iter().map(|p| p.name.clone()));
        taken.extend(program.elem.name.clone());
        let mut names: Vec<Option<String>> = vec![None; program.nodes.len()];
        let mut depth = vec![0usize; program.nodes.len()];
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for v in program.ids().filter(|v| live[v.index()]) {
            let node = program.node(v);
            let inside = |o: ValueId| if names[o.index()].is_none() { depth[o.index()] } else { 0 };
            depth[v.index()] = 1 + node.op.operands().into_iter().map(inside).max().unwrap_or(0);
            let constant = node.ty.class == Class::Scalar && node.op.operands().is_empty();
            let inline = match node.op {
                Op::Input(_) | Op::Coord(_) | Op::ToFloat(_) | Op::Lse(_) => true,
                Op::Seen(_) | Op::Sparsek { .. } | Op::Softmax { .. } => false,
                _ => {
                    let short = uses[v.index()] < 2 && depth[v.index()] < DEEPEST;
                    constant || (node.name.is_none() && short)
                }
            };
            // The result of a kernel is its last expression.
            let result = program.direction == Direction::Forward
                && program.outputs.iter().any(|o| o.value == v);
            if inline || result {
                continue;
            }
            let wanted = node.name.clone().unwrap_or_else(|| match node.op {
                Op::Seen(_) => "seen".to_owned(),
                Op::Sparsek { .. } => "gate".to_owned(),
                Op::Softmax { .. } => "p".to_owned(),
                _ => "t".to_owned(),
            });
            let mut name = wanted.clone();
            // Counted on from the last number given, or thousands of values take quadratic time.
            let n = numbers.entry(wanted.clone()).or_insert(1usize);
            while !taken.insert(name.clone()) {
                *n += 1;
                name = format!("{wanted}{n}");
            }
            names[v.index()] = Some(name);
        }
        Printer { program, names }
    }

    fn kernel(&self) -> Result<String, fmt::Error> {
        let p = self.program;
        let mut out = String::new();
        for line in &p.docs {
            writeln!(
                out,
                "///{}{}",
                if line.is_empty() || line.starts_with(' ') { "" } else { " " },
                line
            )?;
        }
        let keyword = match p.direction {
            Direction::Forward => "kernel",
            Direction::Backward => "backward kernel",
        };
        write!(out, "pub {keyword} {}", p.name)?;
        let params = self.parameters();
        if !params.is_empty() {
            write!(out, "<{}>", params.join(", "))?;
        }
        out.push_str("(\n");
        for input in &p.inputs {
            writeln!(out, "    {},", self.input(input)?)?;
        }
        out.push_str(") -> ");
        match p.direction {
            Direction::Forward => {
                write!(out, "Output<{}, {}> {{", self.elem(), self.extent(p.head_dim))?
            }
            Direction::Backward => out.push_str("Gradients {"),
        }
        out.push('\n');
        for v in p.ids() {
            if let Some(name) = &self.names[v.index()] {
                writeln!(out, "    let {name} = {};", self.expression(v)?)?;
            }
        }
        match p.direction {
            Direction::Forward => {
                if let Some(o) = p.output_named("o") {
                    writeln!(out, "    {}", self.expression(o.value)?)?;
                }
            }
            Direction::Backward => {
                out.push_str("    Gradients {\n");
                for o in &p.outputs {
                    writeln!(
                        out,
                        "        {}: {},",
                        o.name,
                        self.operand(o.value, Strength::Compare)?
                    )?;
                }
                out.push_str("    }\n");
            }
        }
        out.push_str("}\n");
        self.schedule(&mut out)?;
        Ok(out)
    }

    fn parameters(&self) -> Vec<String> {
        let p = self.program;
        let mut all = Vec::new();
        if let Some(name) = &p.elem.name {
            let set: Vec<&str> = p.elem.set.iter().map(|e| e.name()).collect();
            all.push(format!("{name} in [{}]", set.join(", ")));
        }
        all.extend(p.params.iter().map(|param| format!("{} in {}", param.name, param.set)));
        all
    }

    fn elem(&self) -> String {
        let elem = &self.program.elem;
        match (&elem.name, elem.set.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(only)) => only.name().to_owned(),
            (None, None) => "?".to_owned(),
        }
    }

    fn extent(&self, e: Extent) -> String {
        match e {
            Extent::Literal(n) => n.to_string(),
            Extent::Param(id) => match self.program.params.get(id.0 as usize) {
                Some(param) => param.name.clone(),
                None => format!("?{}", id.0),
            },
        }
    }

    fn input(&self, input: &Input) -> Result<String, fmt::Error> {
        let vector =
            |name: &str| format!("{name}<{}, {}>", self.elem(), self.extent(self.program.head_dim));
        let ty = match (input.role, input.ty) {
            (Role::Query | Role::Output | Role::OutputGrad, _) => vector("Query"),
            (Role::Key | Role::Value, _) => vector("Key"),
            (_, Type { class, kind: Kind::I32 }) => format!("{class}<i32>"),
            (_, Type { class, .. }) => class.name().to_owned(),
        };
        let mut out = format!("{}: {ty}", input.name);
        if let Some(default) = input.default {
            // No `let` is visible where inputs are declared.
            let names = vec![None; self.program.nodes.len()];
            let bare = Printer { program: self.program, names };
            write!(out, " = {}", bare.expression(default)?)?;
        }
        Ok(out)
    }

    fn schedule(&self, out: &mut String) -> fmt::Result {
        let block = &self.program.schedule;
        if block.sections.is_empty() {
            return Ok(());
        }
        out.push_str("schedule {\n");
        for section in &block.sections {
            write!(out, "    {} {{", section.pass.name())?;
            for (n, knob) in section.knobs.iter().enumerate() {
                write!(
                    out,
                    "{} {} in {:?}",
                    if n == 0 { "" } else { ";" },
                    knob.name.name(),
                    knob.values
                )?;
            }
            out.push_str(if section.knobs.is_empty() { "}\n" } else { "; }\n" });
        }
        out.push_str("}\n");
        Ok(())
    }

    /// The value as an operand: its name if it has one.
    fn operand(&self, v: ValueId, around: Strength) -> Result<String, fmt::Error> {
        if let Some(name) = &self.names[v.index()] {
            return Ok(name.clone());
        }
        let text = self.expression(v)?;
        Ok(if self.strength(v) < around { format!("({text})") } else { text })
    }

    fn strength(&self, v: ValueId) -> Strength {
        match &self.program.node(v).op {
            Op::Binary(Binary::Add | Binary::Sub, ..) => Strength::Sum,
            Op::Binary(Binary::Mul | Binary::Div, ..) => Strength::Product,
            Op::Binary(Binary::Min | Binary::Max, ..) => Strength::Atom,
            Op::Unary(Unary::Neg, _) | Op::Not(_) => Strength::Prefix,
            Op::Const(x) if x.get().is_sign_negative() => Strength::Prefix,
            Op::Int(n) if *n < 0 => Strength::Prefix,
            Op::Compare(..) => Strength::Compare,
            Op::Logic(super::Logic::And, ..) => Strength::And,
            Op::Logic(super::Logic::Or, ..) => Strength::Or,
            Op::ToFloat(x) => self.strength(*x),
            Op::Seen(_) => Strength::And,
            _ => Strength::Atom,
        }
    }

    fn call(&self, name: &str, operands: &[ValueId]) -> Result<String, fmt::Error> {
        let mut out = format!("{name}(");
        for (i, v) in operands.iter().enumerate() {
            let text = self.operand(*v, Strength::Compare)?;
            write!(out, "{}{text}", if i == 0 { "" } else { ", " })?;
        }
        out.push(')');
        Ok(out)
    }

    /// An operator between two operands; the right one of a non-associative operator is bracketed.
    fn infix(
        &self,
        symbol: &str,
        strength: Strength,
        above: Strength,
        a: ValueId,
        b: ValueId,
    ) -> Result<String, fmt::Error> {
        let left = if strength == Strength::Compare { above } else { strength };
        Ok(format!("{} {symbol} {}", self.operand(a, left)?, self.operand(b, above)?))
    }

    fn expression(&self, v: ValueId) -> Result<String, fmt::Error> {
        let p = self.program;
        match &p.node(v).op {
            Op::Const(x) => Ok(format!("{:?}", x.get())),
            Op::Int(n) => Ok(n.to_string()),
            Op::Param(id) => Ok(self.extent(Extent::Param(*id))),
            Op::Input(id) => Ok(p.input(*id).name.clone()),
            Op::Coord(c) => Ok(c.name().to_owned()),
            Op::Unary(Unary::Neg, x) => Ok(format!("-{}", self.operand(*x, Strength::Prefix)?)),
            Op::Unary(f, x) => self.call(f.name(), &[*x]),
            Op::Binary(f, a, b) => match f {
                Binary::Add | Binary::Sub => {
                    self.infix(f.name(), Strength::Sum, Strength::Product, *a, *b)
                }
                Binary::Mul | Binary::Div => {
                    self.infix(f.name(), Strength::Product, Strength::Prefix, *a, *b)
                }
                Binary::Min | Binary::Max => self.call(f.name(), &[*a, *b]),
            },
            Op::Compare(f, a, b) => self.infix(f.name(), Strength::Compare, Strength::Or, *a, *b),
            Op::Logic(f @ super::Logic::And, a, b) => {
                self.infix(f.name(), Strength::And, Strength::Sum, *a, *b)
            }
            Op::Logic(f @ super::Logic::Or, a, b) => {
                self.infix(f.name(), Strength::Or, Strength::And, *a, *b)
            }
            Op::Not(x) => Ok(format!("!{}", self.operand(*x, Strength::Prefix)?)),
            Op::Select(c, a, b) => self.call("select", &[*c, *a, *b]),
            Op::ToFloat(x) => self.expression(*x),
            Op::Sparsek { score, k } => Ok(format!(
                "sparsek({}, {})",
                self.operand(*score, Strength::Compare)?,
                self.extent(*k)
            )),
            Op::StraightThrough(g) => self.call("straight_through", &[*g]),
            Op::Seen(seen) => self.seen(seen),
            Op::MaskVjp { gate, d_gate } => self.call("mask_vjp", &[*gate, *d_gate]),
            Op::Softmax { logit, seen, sink } => {
                let mut out = self.call("softmax", &[*logit, *seen])?;
                if let Some(sink) = sink {
                    out.pop();
                    write!(out, ", sink = {})", self.operand(*sink, Strength::Compare)?)?;
                }
                Ok(out)
            }
            Op::Lse(p) => self.call("lse", &[*p]),
            Op::Dot(a, b) => self.call("dot", &[*a, *b]),
            Op::WeightedSum { weight, tile } => {
                let name = match p.direction {
                    Direction::Forward => "dot",
                    Direction::Backward => "weighted_sum",
                };
                self.call(name, &[*weight, *tile])
            }
            Op::Sum { value, to } => {
                Ok(format!("sum({}, {to})", self.operand(*value, Strength::Compare)?))
            }
        }
    }

    fn seen(&self, seen: &Seen) -> Result<String, fmt::Error> {
        let mut union = Vec::new();
        if let Some(gate) = seen.topk {
            union.push(self.call("topk", &[gate])?);
        }
        if let Some(w) = seen.window {
            union.push(format!("window({})", self.extent(w)));
        }
        if let Some(s) = seen.sinks {
            union.push(format!("sinks({})", self.extent(s)));
        }
        let mut out = "causal".to_owned();
        match union.as_slice() {
            [] => {}
            [only] => write!(out, " & {only}")?,
            several => write!(out, " & ({})", several.join(" | "))?,
        }
        for predicate in &seen.predicates {
            write!(out, " & {}", self.operand(*predicate, Strength::Sum)?)?;
        }
        Ok(out)
    }
}
