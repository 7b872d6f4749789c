//! Kernels as written to typed programs: names are resolved, classes inferred, and the rules of
//! the language's shape applied.
//!
//! 1. `scope.rs`: names, reserved words, what is unused. 2. `params.rs`, `inputs.rs`,
//!    `schedule.rs`: declarations. 3. `value.rs`: expressions, and beside it one file for each
//!    family of operations. 4. Here: the order of it all, and the program at the end.
//!
//! An expression that is wrong gives [`value::Value::Poison`], which nothing complains about
//! again, so one mistake is reported once and the rest of the kernel is still looked at.

mod elementwise;
mod function;
mod inputs;
mod linear;
mod matmul;
mod params;
mod schedule;
mod scope;
mod softmax;
mod topk;
mod value;

use crate::ast;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{
    Builder, Class, Direction, ElemParam, Extent, Kind, Op, Output, Param, Program, Type, ValueId,
    check,
};
use crate::parse::Reader;
use crate::{Elem, Span};
use scope::Scope;
use value::Value;

/// The program of a kernel; `None` when something is wrong with it, after that was reported.
pub(crate) fn lower(kernel: &ast::Kernel, reader: &mut Reader) -> Option<Program> {
    let before = reader.diagnostics.len();
    let program = lower_checked(kernel, reader);
    if program.is_none() && kernel.complete && reader.diagnostics.len() == before {
        internal(kernel, reader, "a kernel without a program has nothing wrong");
    }
    program
}

fn internal(kernel: &ast::Kernel, reader: &mut Reader, what: &str) {
    let message = format!("a fault of the compiler: {what}");
    reader.report(
        Diagnostic::new(Code::Internal, kernel.name.span, message)
            .help("please report this to the authors of sparsek with the kernel"),
    );
}

fn lower_checked(kernel: &ast::Kernel, reader: &mut Reader) -> Option<Program> {
    let before = reader.diagnostics.len();
    let mut lowerer = Lowerer {
        reader,
        builder: Builder::new(),
        scope: Scope::default(),
        params: Vec::new(),
        elem_set: Vec::new(),
        param_sets: Vec::new(),
        elem: None,
        head_dim: None,
        in_default: false,
        complete: kernel.complete,
        names_left_out: false,
        first_diagnostic: before,
        gate: None,
        softmax: None,
    };
    lowerer.declarations(kernel);
    for binding in &kernel.lets {
        lowerer.binding(binding);
    }
    let result = kernel.result.as_ref().map(|r| lowerer.result(r));
    lowerer.gate_is_selected();
    if kernel.complete {
        lowerer.missing_inputs(kernel);
        if !lowerer.names_left_out {
            lowerer.unused();
        }
    }
    let schedule = lowerer.schedule(&kernel.schedule);
    let o = result.flatten()?;
    if lowerer.reader.diagnostics.len() > before || !kernel.complete {
        return None;
    }
    let (softmax, seen) = lowerer.softmax.map(|s| (s.value, s.seen))?;
    let lse = lowerer.node(Op::Lse(softmax), kernel.name.span)?;
    let Lowerer { reader, builder, params, elem, head_dim, .. } = lowerer;
    let (inputs, nodes) = builder.finish();
    let output = |name: &str, value, kind| Output {
        name: name.to_owned(),
        value,
        ty: Type::new(Class::PerQuery, kind),
    };
    let program = Program {
        direction: Direction::Forward,
        name: kernel.name.text.clone(),
        docs: kernel.docs.clone(),
        elem: elem?.0,
        head_dim: head_dim?.0,
        params,
        inputs,
        nodes,
        seen,
        outputs: vec![output("o", o, Kind::Vector), output("lse", lse, Kind::F32)],
        schedule,
    };
    let program = program.without_dead_nodes();
    match check::well_formed(&program).first() {
        None => Some(program),
        Some(rule) => {
            internal(kernel, reader, &format!("its program breaks {rule}"));
            None
        }
    }
}

/// A kernel being lowered.
struct Lowerer<'r> {
    reader: &'r mut Reader,
    builder: Builder,
    scope: Scope,
    params: Vec<Param>,
    /// The element types of the element type parameter.
    elem_set: Vec<Elem>,
    /// Where each parameter's set was written.
    param_sets: Vec<Span>,
    /// The element type of the vectors and where it was first named.
    elem: Option<(ElemParam, Span)>,
    /// The head dimension and where it was first named.
    head_dim: Option<(Extent, Span)>,
    /// Whether the expression at hand is the default of an input.
    in_default: bool,
    /// Whether every part of the kernel could be read.
    complete: bool,
    /// Whether arguments are missing somewhere, so that what is unused is not known.
    names_left_out: bool,
    /// Number of diagnostics before this kernel's.
    first_diagnostic: usize,
    /// The one gate, and where it was written.
    gate: Option<(ValueId, Span)>,
    softmax: Option<Softmax>,
}

/// The one softmax.
#[derive(Clone, Copy)]
struct Softmax {
    value: ValueId,
    seen: ValueId,
    span: Span,
}

impl Lowerer<'_> {
    fn report(&mut self, diagnostic: Diagnostic) {
        self.reader.report(diagnostic);
    }

    /// Reports, unless the same was said of another place in this kernel.
    fn report_once(&mut self, diagnostic: Diagnostic) {
        let said = self.reader.diagnostics.get(self.first_diagnostic..).unwrap_or_default();
        if said.iter().all(|d| d.message != diagnostic.message) {
            self.report(diagnostic);
        }
    }

    /// A node, or `None` after reporting which typing rule it breaks.
    fn node(&mut self, op: Op, span: Span) -> Option<ValueId> {
        match self.builder.try_push(op, span) {
            Ok(v) => Some(v),
            Err(rule) => {
                self.report(Diagnostic::new(Code::WrongClass, span, rule));
                None
            }
        }
    }

    fn declarations(&mut self, kernel: &ast::Kernel) {
        for param in &kernel.params {
            self.param(param);
        }
        for input in &kernel.inputs {
            self.input(input);
        }
        if let Some(output) = &kernel.output {
            self.output(output);
        }
    }

    fn binding(&mut self, binding: &ast::Let) {
        let mut value = self.value(&binding.value);
        match &mut value {
            Value::Node(v) => self.builder.name(*v, &binding.name.text),
            Value::Set(set) => {
                set.name.get_or_insert_with(|| binding.name.text.clone());
            }
            Value::Poison => {}
        }
        self.declare_let(&binding.name, value);
    }

    /// The weighted sum that the kernel ends with.
    fn result(&mut self, expr: &ast::Expr) -> Option<ValueId> {
        let value = self.value(expr);
        if let Value::Node(v) = value
            && matches!(self.builder.node(v).op, Op::WeightedSum { .. })
        {
            return Some(v);
        }
        if !matches!(value, Value::Poison) {
            let message = "the result of a kernel is `dot(weights, v)`";
            let found = self.describe(&value);
            self.report(
                Diagnostic::new(Code::ResultShape, expr.span, message)
                    .label(format!("this is {found}"))
                    .help("end with `dot(p, v)`, where `p = softmax(s, seen)`; factors go on `p`"),
            );
        }
        None
    }

    /// The names of all element types, for messages.
    fn elem_names() -> [&'static str; 3] {
        Elem::ALL.map(Elem::name)
    }
}
