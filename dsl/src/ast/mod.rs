//! Kernels as they were written: names, sets, statements and expressions with their positions,
//! before anything is known about types.
//!
//! [`Kernel`] prints as source text; [`Kernel::dump`] prints its tree.

mod dump;
mod expr;
mod print;

pub use expr::{Expr, ExprKind, Operator};

use crate::Span;
use crate::ir::{KnobName, Pass};
use proc_macro2::{Literal, TokenStream};

/// A name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    /// The name.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// An integer literal and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// Its value.
    pub value: i64,
    /// Where it stands.
    pub span: Span,
}

/// One kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Documentation lines without the slashes and the blank after them.
    pub docs: Vec<String>,
    /// The file of tuned schedules that it carries.
    pub tuned: Option<Tuned>,
    /// `pub`, `pub(crate)`, … as written; empty for a private kernel.
    pub visibility: TokenStream,
    /// Its name.
    pub name: Ident,
    /// Specialisation parameters.
    pub params: Vec<Param>,
    /// Input tensors in declared order.
    pub inputs: Vec<Input>,
    /// `E, D` of `Output<E, D>`; `None` when it could not be read.
    pub output: Option<TypeExpr>,
    /// `let` statements in order.
    pub lets: Vec<Let>,
    /// The last expression; `None` when there is none.
    pub result: Option<Expr>,
    /// The `schedule` block.
    pub schedule: Vec<Section>,
    /// Whether every part of the kernel could be read. When one could not, rules about what a
    /// kernel lacks are not applied to it.
    pub complete: bool,
}

/// `#[tuned("file.json")]`
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The file, beside the one that the kernel is declared in.
    pub path: String,
    /// The literal as written: `include_str!` finds the file from where it stands.
    pub literal: Literal,
    /// Where the literal stands.
    pub span: Span,
}

/// A specialisation parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: Ident,
    /// The values it may take; `None` when the set could not be read.
    pub set: Option<Set>,
}

/// A set of values with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The set.
    pub kind: SetKind,
    /// Where it stands.
    pub span: Span,
}

/// The forms a set is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetKind {
    /// `[bf16, f16]`
    Elems(Vec<Ident>),
    /// `[1, 2, 4]`
    List(Vec<Int>),
    /// `lo..=hi`
    Range(Int, Int),
    /// `multiples_of(m) up to hi`
    Multiples(Int, Int),
}

/// An input tensor.
#[derive(Clone, Debug)]
pub struct Input {
    /// Documentation lines.
    pub docs: Vec<String>,
    /// Its name.
    pub name: Ident,
    /// Its type; `None` when it could not be read.
    pub ty: Option<TypeExpr>,
    /// The value used when the tensor is not given.
    pub default: Option<Expr>,
}

/// A type: `Query<E, D>`, `PerKey<i32>`, `Scalar`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeExpr {
    /// Its name.
    pub name: Ident,
    /// What stands between the angle brackets.
    pub args: Vec<TypeArg>,
    /// All of it.
    pub span: Span,
}

/// One argument of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeArg {
    /// A parameter, an element type or `i32`.
    Name(Ident),
    /// An integer.
    Int(Int),
}

impl TypeArg {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            TypeArg::Name(name) => name.span,
            TypeArg::Int(int) => int.span,
        }
    }
}

/// `let name = value;`
#[derive(Clone, Debug)]
pub struct Let {
    /// The name.
    pub name: Ident,
    /// The value.
    pub value: Expr,
}

/// The schedule of one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Which pass.
    pub pass: Pass,
    /// Where its name stands.
    pub span: Span,
    /// Its knobs.
    pub knobs: Vec<Knob>,
}

/// The values that one knob may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knob {
    /// Which knob.
    pub name: KnobName,
    /// Where its name stands.
    pub span: Span,
    /// Its values.
    pub values: Vec<Int>,
    /// Where the list of values stands.
    pub values_span: Span,
}
