//! Values of few entries, computed when everything is summed: one function each, of a sequence b and a
//! query head h, in f64.

use super::elementwise::{Domain, Expressions, bare};
use super::module::{Builder, tensor_field};
use super::reduce::{Spread, Sums};
use crate::plan::{Function, SmallOutput};
use crate::{Axis, Error, Scalar};
use sparsek_dsl::ir::{Class, Coord, Kind, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// The functions of few values, and the entry that stores outputs.
pub(crate) fn lower(b: &mut Builder<'_>, e: &Expressions<'_>, sums: &Sums) -> Result<(), Error> {
    let mut functions = Functions { sums, e, done: BTreeMap::new(), order: Vec::new() };
    for output in sums.small_outputs() {
        let function = functions.of(b, output.value)?;
        let per_head = output.ty.class == Class::PerHead;
        b.tensor(&output.name, Scalar::F32, true, if per_head { &[Axis::Head] } else { &[] });
        b.values.small_outputs.push(SmallOutput {
            name: tensor_field(&output.name),
            length: if per_head { "a.hq" } else { "1" }.to_owned(),
            strided: per_head,
            function,
        });
    }
    b.values.small_functions = functions.order;
    if !b.values.small_outputs.is_empty() {
        b.launch("finish_small", [&[], &[], &[]], 256, 0);
    }
    Ok(())
}

/// Functions so far, operands first.
struct Functions<'a, 'b> {
    sums: &'a Sums,
    e: &'a Expressions<'b>,
    done: BTreeMap<ValueId, String>,
    order: Vec<Function>,
}

impl Functions<'_, '_> {
    /// The name of the function that gives `v`.
    fn of(&mut self, b: &mut Builder<'_>, v: ValueId) -> Result<String, Error> {
        let mut needed = BTreeSet::new();
        let mut stack = vec![v];
        while let Some(v) = stack.pop().map(|v| self.e.resolve(v)) {
            let known = self.done.contains_key(&v) || !needed.insert(v);
            if !known && self.spread(v).is_none() {
                stack.extend(self.e.program.node(v).op.operands());
            }
        }
        // Operands first; the arena is in that order but for defaults, which are constants.
        let constant = |v: &ValueId| self.e.at(*v).domain == Domain::Constant;
        let (constants, others): (Vec<ValueId>, Vec<ValueId>) =
            needed.into_iter().partition(constant);
        for v in constants.into_iter().chain(others) {
            if self.done.contains_key(&v) {
                continue;
            }
            let name = format!("small_{}", self.e.name(v));
            let lines = self.lines(b, v)?;
            self.order.push(Function { name: name.clone(), lines, result: String::new() });
            self.done.insert(v, name);
        }
        let found = self.done.get(&self.e.resolve(v)).cloned();
        found.ok_or_else(|| self.e.unsupported("a value without a function"))
    }

    fn spread(&self, v: ValueId) -> Option<&Spread> {
        self.sums.spread.iter().find(|s| s.value == v)
    }

    fn lines(&self, b: &mut Builder<'_>, v: ValueId) -> Result<Vec<String>, Error> {
        let e = self.e;
        if let Some(spread) = self.spread(v) {
            return Ok(total(spread, e.program.ty(v).class));
        }
        if let Some(literal) = e.literal(v) {
            return Ok(vec![format!("return {literal};")]);
        }
        let call = |o: ValueId| match self.done.get(&e.resolve(o)) {
            Some(name) => format!("{name}(a, b, h)"),
            None => String::new(),
        };
        match &e.program.node(v).op {
            Op::Input(id) => {
                let input = e.program.input(*id);
                let axes: &[Axis] = match input.ty.class {
                    Class::Scalar | Class::PerBatch => &[],
                    Class::PerHead => &[Axis::Head],
                    Class::PerQuery | Class::PerKey | Class::Pair => {
                        return Err(e.unsupported("a value of many entries in a sum over all"));
                    }
                };
                let scalar = if input.ty.kind == Kind::I32 { Scalar::I32 } else { Scalar::F32 };
                b.tensor(&input.name, scalar, false, axes);
                let field = tensor_field(&input.name);
                let head = format!("h * a.{field}_head");
                let index = if axes.is_empty() { "0" } else { head.as_str() };
                Ok(vec![format!("return a.{field}[{index}];")])
            }
            Op::Coord(Coord::QueryHead) => Ok(vec!["return h;".to_owned()]),
            Op::Coord(Coord::Batch) => Ok(vec!["return b;".to_owned()]),
            Op::Sum { value, .. } => {
                let (index, count) = match e.program.ty(*value).class {
                    Class::PerHead => ("h", "a.hq"),
                    Class::PerBatch => ("b", "a.sequences"),
                    Class::Scalar | Class::PerQuery | Class::PerKey | Class::Pair => {
                        return Err(e.unsupported("a sum over several indices at the end"));
                    }
                };
                let all = format!("for ({index} = 0; {index} < {count}; ++{index})");
                let sum = format!("{all} total += {};", call(*value));
                Ok(vec!["double total = 0.0;".to_owned(), sum, "return total;".to_owned()])
            }
            Op::ToFloat(x) => Ok(vec![format!("return {};", call(*x))]),
            Op::Unary(..)
            | Op::Binary(..)
            | Op::Compare(..)
            | Op::Logic(..)
            | Op::Not(_)
            | Op::Select(..) => {
                let text = e.operation(v, call);
                Ok(vec![format!("return {};", bare(&text))])
            }
            Op::Const(_)
            | Op::Int(_)
            | Op::Param(_)
            | Op::Coord(_)
            | Op::Sparsek { .. }
            | Op::StraightThrough(_)
            | Op::Seen(_)
            | Op::MaskVjp { .. }
            | Op::Softmax { .. }
            | Op::Lse(_)
            | Op::Dot(..)
            | Op::WeightedSum { .. } => Err(e.unsupported("a value of pairs in a sum over all")),
        }
    }
}

/// Sums of a buffer's totals \[sequences, heads\] over what the class lacks.
fn total(spread: &Spread, class: Class) -> Vec<String> {
    let heads = if spread.by_key { "a.hkv" } else { "a.hq" };
    let at = format!("a.{}_total[b * {heads} + h]", spread.buffer);
    let over_b = "for (b = 0; b < a.sequences; ++b)";
    let over_h = format!("for (h = 0; h < {heads}; ++h)");
    let sum = match class {
        Class::PerHead => format!("{over_b} total += {at};"),
        Class::PerBatch => format!("{over_h} total += {at};"),
        Class::Scalar | Class::PerQuery | Class::PerKey | Class::Pair => {
            format!("{over_b} {over_h} total += {at};")
        }
    };
    vec!["double total = 0.0;".to_owned(), sum, "return total;".to_owned()]
}
