//! Sums over pairs, positions, heads and the batch, and the values that depend on them.
//!
//! Row sums are complete when a row's sweep ends, key sums when all sweeps have ended. Values that are
//! summed further are left in buffers \[B, heads, N\], summed over the positions of each sequence in a
//! fixed order, and put together by `finish_small` ([`super::small`]).

use super::elementwise::{Domain, Expressions};
use super::module::{Builder, tensor_field};
use super::small;
use crate::plan::{Fold, KeySum, Total};
use crate::{Axis, Error, Factor, Scalar};
use sparsek_dsl::ir::{Class, Kind, Op, Output, Role, ValueId};
use std::collections::BTreeSet;

/// A sum over pairs.
pub(crate) struct PairSum {
    /// The [`Op::Sum`] or [`Op::MaskVjp`].
    pub(crate) value: ValueId,
    /// What is summed over pairs.
    pub(crate) summand: ValueId,
}

/// A row or key value that is summed over positions.
pub(crate) struct Spread {
    /// The [`Op::Sum`] that ends in few values.
    pub(crate) value: ValueId,
    /// What is summed: `value` itself where it sums pairs, whose row sums then are.
    of: ValueId,
    pub(crate) by_key: bool,
    pub(crate) buffer: String,
}

/// Every sum of a backward program.
pub(crate) struct Sums {
    /// Over keys.
    pub(crate) rows: Vec<PairSum>,
    /// Over queries and the heads of a group.
    pub(crate) keys: Vec<PairSum>,
    /// The adjoint of the gate.
    pub(crate) d_gate: Option<ValueId>,
    pub(crate) spread: Vec<Spread>,
    /// Outputs that are no vectors and not constant.
    outputs: Vec<Output>,
}

impl Sums {
    pub(crate) fn of(e: &Expressions<'_>) -> Sums {
        let program = &e.program;
        let mut sums =
            Sums { rows: vec![], keys: vec![], d_gate: None, spread: vec![], outputs: vec![] };
        let live = program.live();
        for value in program.ids().filter(|v| live[v.index()]) {
            match program.node(value).op {
                Op::MaskVjp { d_gate, .. } => {
                    sums.d_gate = Some(d_gate);
                    sums.keys.push(PairSum { value, summand: d_gate });
                }
                Op::Sum { value: summand, to } => sums.add(e, value, summand, to),
                _ => {}
            }
        }
        let constant = |o: &&Output| matches!(program.node(o.value).op, Op::Const(_));
        let numbers = program.outputs.iter().filter(|o| o.ty.kind != Kind::Vector);
        sums.outputs = numbers.filter(|o| !constant(o)).cloned().collect();
        sums
    }

    fn add(&mut self, e: &Expressions<'_>, value: ValueId, summand: ValueId, to: Class) {
        let number = self.spread.len();
        let spread = |of, by_key: bool| {
            let side = if by_key { "key" } else { "row" };
            Spread { value, of, by_key, buffer: format!("{side}_values_{number}") }
        };
        match (e.program.ty(summand).class, to) {
            (Class::Pair, Class::PerKey) => self.keys.push(PairSum { value, summand }),
            (Class::Pair, Class::PerQuery) => self.rows.push(PairSum { value, summand }),
            (Class::Pair, _) => {
                self.spread.push(spread(value, false));
                self.rows.push(PairSum { value, summand });
            }
            (Class::PerQuery, _) => self.spread.push(spread(summand, false)),
            (Class::PerKey, _) => self.spread.push(spread(summand, true)),
            // Few enough values to be summed at the end.
            (Class::Scalar | Class::PerBatch | Class::PerHead, _) => {}
        }
    }

    fn outputs_of(&self, class: Class) -> Vec<&Output> {
        self.outputs.iter().filter(|o| o.ty.class == class).collect()
    }

    /// Outputs of few entries.
    pub(crate) fn small_outputs(&self) -> Vec<&Output> {
        let small = |c| matches!(c, Class::Scalar | Class::PerBatch | Class::PerHead);
        self.outputs.iter().filter(|o| small(o.ty.class)).collect()
    }

    /// Statements that store what rows give when their sums are complete. Returns what they read.
    pub(crate) fn late_rows(&self, b: &mut Builder<'_>, e: &Expressions<'_>) -> BTreeSet<ValueId> {
        b.values.row_sums = (0..self.rows.len()).collect();
        let outputs = self.outputs_of(Class::PerQuery);
        let spread: Vec<&Spread> = self.spread.iter().filter(|s| !s.by_key).collect();
        let of_pairs = |v: ValueId| self.rows.iter().find(|s| s.value == v);
        let roots: Vec<ValueId> =
            outputs.iter().map(|o| o.value).chain(spread.iter().map(|s| s.of)).collect();
        b.values.has_rows |= !roots.is_empty();
        let body = e.body(&roots, Domain::Row, true);
        let mut lines = Vec::new();
        for (n, sum) in self.rows.iter().enumerate() {
            if body.leaves.contains(&sum.value) || roots.contains(&sum.value) {
                lines.push(format!("const float {} = sum[{n}];", e.name(sum.value)));
            }
        }
        lines.extend(body.lines);
        let result = |at: usize| match of_pairs(roots[at]) {
            Some(sum) => e.name(sum.value).to_owned(),
            None => body.results[at].clone(),
        };
        let store = |b: &mut Builder<'_>, buffer: &str, result: String| {
            b.scratch(buffer, Scalar::F32, &[Factor::Rows, Factor::Hq, Factor::N]);
            format!("a.{buffer}[(s.row * a.hq + r.head) * a.n + token] = {result};")
        };
        for (at, output) in outputs.iter().enumerate() {
            let (field, per_head) = declare(b, e, output);
            if per_head {
                let index = place(&field, "s.row");
                lines.push(format!(
                    "a.{field}[{index} + r.head * a.{field}_head] = {};",
                    result(at)
                ));
            } else {
                let buffer = format!("rows_of_{field}");
                lines.push(store(b, &buffer, result(at)));
                let index = place(&field, "row");
                let store = format!("a.{field}[{index}] = static_cast<float>(total);");
                b.values.row_folds.push(Fold { name: field, buffer, store });
            }
        }
        for (at, spread) in spread.iter().enumerate() {
            lines.push(store(b, &spread.buffer, result(outputs.len() + at)));
        }
        b.values.row_late_lines = lines;
        body.fields
    }

    /// Statements that store what keys give when everything is swept. Returns what they read.
    pub(crate) fn late_keys(&self, b: &mut Builder<'_>, e: &Expressions<'_>) -> BTreeSet<ValueId> {
        let is_d_gate = |s: &PairSum| matches!(e.program.node(s.value).op, Op::MaskVjp { .. });
        let numbered = self.keys.iter().enumerate();
        b.values.key_sums =
            numbered.map(|(index, s)| KeySum { index, is_d_gate: is_d_gate(s) }).collect();
        let outputs = self.outputs_of(Class::PerKey);
        let spread: Vec<&Spread> = self.spread.iter().filter(|s| s.by_key).collect();
        let roots: Vec<ValueId> =
            outputs.iter().map(|o| o.value).chain(spread.iter().map(|s| s.of)).collect();
        b.values.key_outputs = !roots.is_empty();
        let body = e.body(&roots, Domain::Column, true);
        let mut lines = Vec::new();
        for (n, sum) in self.keys.iter().enumerate() {
            if !body.leaves.contains(&sum.value) {
                continue;
            }
            let name = e.name(sum.value);
            let load = format!("a.key_sums[{n} * a.rows * a.hkv * a.n + entry]");
            lines.push(if is_d_gate(sum) {
                let share = "threshold_share(a, s, g, j)";
                format!("const float {name} = static_cast<float>({load} - {share});")
            } else {
                format!("const float {name} = {load};")
            });
        }
        lines.extend(body.lines);
        for (output, result) in outputs.iter().zip(&body.results) {
            let (field, per_head) = declare(b, e, output);
            let index = place(&field, "s.row");
            if per_head {
                lines.push(format!("a.{field}[{index} + g * a.{field}_head] = {result};"));
            } else {
                lines.push(format!("total_{field} += {result};"));
                let store = format!("a.{field}[{index}] = static_cast<float>(total_{field});");
                b.values.key_folds.push(Fold { name: field, buffer: String::new(), store });
            }
        }
        for (spread, result) in spread.iter().zip(&body.results[outputs.len()..]) {
            b.scratch(&spread.buffer, Scalar::F32, &[Factor::Rows, Factor::Hkv, Factor::N]);
            lines.push(format!("a.{}[entry] = {result};", spread.buffer));
        }
        b.values.key_late_lines = lines;
        body.fields
    }

    /// Launches of everything after the sweeps.
    pub(crate) fn finish(&self, b: &mut Builder<'_>, e: &Expressions<'_>) -> Result<(), Error> {
        let blocks = [Factor::Blocks(256)];
        if self.d_gate.is_some() {
            b.threshold()?;
        }
        if b.values.key_outputs {
            b.launch("finish_keys", [&blocks, &[], &[]], 256, 0);
        }
        if !b.values.row_folds.is_empty() {
            b.launch("finish_rows", [&blocks, &[], &[]], 256, 0);
        }
        for spread in &self.spread {
            let (heads, factor) =
                if spread.by_key { ("hkv", Factor::Hkv) } else { ("hq", Factor::Hq) };
            let (entry, buffer) = (format!("sum_{}", spread.buffer), spread.buffer.clone());
            b.scratch(&format!("{buffer}_total"), Scalar::F64, &[Factor::Sequences, factor]);
            b.launch(&entry, [&[Factor::Sequences], &[factor], &[]], 256, 0);
            b.values.totals.push(Total { entry, buffer, heads });
        }
        small::lower(b, e, self)
    }
}

/// Declares a gradient's tensor: its field, and whether it has a head axis.
fn declare(b: &mut Builder<'_>, e: &Expressions<'_>, output: &Output) -> (String, bool) {
    let name = output.name.strip_prefix("d_").unwrap_or(&output.name);
    let input = e.program.input_named(name);
    let is_score = input.is_some_and(|id| e.program.input(id).role == Role::Score);
    let per_head = is_score || input.is_none_or(|id| e.per_head(id));
    b.tensor(
        &output.name,
        Scalar::F32,
        true,
        if is_score {
            &[Axis::Batch, Axis::Head, Axis::Position]
        } else {
            &[Axis::Batch, Axis::Position, Axis::Head]
        },
    );
    (tensor_field(&output.name), per_head)
}

/// Index of a token in a gradient, without its head.
fn place(field: &str, row: &str) -> String {
    format!("{row} * a.{field}_batch + token * a.{field}_position")
}
