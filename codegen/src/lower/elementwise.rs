//! Elementwise expressions as C.
//!
//! Every value has a domain: what it varies over inside a sweep. A value of a smaller domain is computed
//! once (for a row, a key, the block) and read from a field of `Row`, `Column` or `Uniform` by the
//! functions of larger domains. Within a function, a value that is used once and has no name of its
//! own is written in place; the others become locals in the order of the program.

use super::factors;
use super::names::Names;
use crate::{Error, Problem};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{
    Binary, Class, Coord, InputId, Kind, Logic, Op, Program, Role, Unary, ValueId,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What a value varies over inside a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Domain {
    /// A literal.
    Constant,
    /// The sequence and key-value head.
    Uniform,
    /// A query head and position.
    Row,
    /// A key.
    Column,
    /// A pair of the two.
    Pair,
    /// Few values, known when every sum is complete.
    Small,
}

impl Domain {
    fn join(self, other: Domain) -> Domain {
        match (self, other) {
            (Domain::Row, Domain::Column) | (Domain::Column, Domain::Row) => Domain::Pair,
            (Domain::Small, _) | (_, Domain::Small) => Domain::Small,
            (a, b) => a.max(b),
        }
    }
}

/// A value's domain, and whether it depends on sums over pairs: then it is known after a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) domain: Domain,
    pub(crate) late: bool,
}

/// Domains and C names of all values of one program.
pub(crate) struct Expressions<'a> {
    pub(crate) program: Cow<'a, Program>,
    given: BTreeMap<String, bool>,
    places: Vec<Place>,
    names: Names,
    /// Functions that take their argument as powers of two ([`factors`]).
    powers: BTreeSet<ValueId>,
    /// Whether every operation rounds by itself: no product is fused with a sum.
    rounds_each: bool,
}

/// The body of one generated function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    /// Statements.
    pub(crate) lines: Vec<String>,
    /// One expression for each root.
    pub(crate) results: Vec<String>,
    /// Values that are read from fields.
    pub(crate) fields: BTreeSet<ValueId>,
    /// Leaves of the function's own domain that it reads.
    pub(crate) leaves: BTreeSet<ValueId>,
}

impl<'a> Expressions<'a> {
    /// Expressions of sweeps, where those of 16-bit elements need not round as they are written.
    pub(crate) fn new(problem: &Problem<'_>, program: &'a Program) -> Result<Self, Error> {
        match problem.instance.elem {
            Elem::F32 => Self::of(problem, Cow::Borrowed(program), BTreeSet::new()),
            Elem::Bf16 | Elem::F16 => {
                let (program, powers) = factors::gathered(program);
                Self::of(problem, Cow::Owned(program), powers)
            }
        }
    }

    /// Expressions of which every operation rounds by itself, as written.
    pub(crate) fn exact(problem: &Problem<'_>, program: &'a Program) -> Result<Self, Error> {
        let exact = Self::of(problem, Cow::Borrowed(program), BTreeSet::new())?;
        Ok(Expressions { rounds_each: true, ..exact })
    }

    fn of(
        problem: &Problem<'_>,
        program: Cow<'a, Program>,
        powers: BTreeSet<ValueId>,
    ) -> Result<Self, Error> {
        let mut this = Expressions {
            given: problem.given.iter().map(|g| (g.name.clone(), g.per_head)).collect(),
            places: vec![Place { domain: Domain::Constant, late: false }; program.nodes.len()],
            names: Names::new(&program),
            powers,
            rounds_each: false,
            program,
        };
        for v in this.program.ids() {
            this.places[v.index()] = this.place(v)?;
        }
        Ok(this)
    }

    /// The value that stands for `v`: its default where an input is not given.
    pub(crate) fn resolve(&self, mut v: ValueId) -> ValueId {
        while let Op::Input(id) = self.program.node(v).op {
            match self.program.input(id).default {
                Some(default) if !self.is_given(id) => v = default,
                _ => break,
            }
        }
        v
    }

    /// Whether calls give that input. Those of the backward alone are always given.
    fn is_given(&self, id: InputId) -> bool {
        let input = self.program.input(id);
        matches!(input.role, Role::Output | Role::Lse | Role::OutputGrad)
            || self.given.contains_key(&input.name)
    }

    /// Whether the tensor of a PerQuery or PerKey extra has a head axis; true where none is given.
    pub(crate) fn per_head(&self, id: InputId) -> bool {
        self.given.get(&self.program.input(id).name).copied().unwrap_or(true)
    }

    pub(crate) fn at(&self, v: ValueId) -> Place {
        self.places[self.resolve(v).index()]
    }

    /// The C name of a value.
    pub(crate) fn name(&self, v: ValueId) -> &str {
        self.names.of(v)
    }

    /// The C type of a value.
    pub(crate) fn c_type(&self, v: ValueId) -> &'static str {
        match self.program.ty(v).kind {
            Kind::F32 | Kind::Vector => "float",
            Kind::I32 => "int",
            Kind::Bool => "bool",
        }
    }

    pub(crate) fn unsupported(&self, reason: &str) -> Error {
        Error::Unsupported { kernel: self.program.name.clone(), reason: reason.to_owned() }
    }

    fn place(&self, v: ValueId) -> Result<Place, Error> {
        let early = |domain| Ok(Place { domain, late: false });
        let late = |domain| Ok(Place { domain, late: true });
        match &self.program.node(v).op {
            Op::Const(_) | Op::Int(_) | Op::StraightThrough(_) => early(Domain::Constant),
            Op::Param(_) => Err(self.unsupported("a parameter has no value")),
            Op::Input(id) => {
                let input = self.program.input(*id);
                if input.default.is_some() && !self.is_given(*id) {
                    return early(Domain::Constant);
                }
                match input.ty.class {
                    Class::Scalar | Class::PerBatch => early(Domain::Uniform),
                    Class::PerHead | Class::PerQuery => early(Domain::Row),
                    Class::PerKey => early(Domain::Column),
                    Class::Pair => Err(self.unsupported("an input for every pair")),
                }
            }
            Op::Coord(Coord::QueryPos | Coord::QueryHead) => early(Domain::Row),
            Op::Coord(Coord::KeyPos) => early(Domain::Column),
            Op::Coord(Coord::KeyHead | Coord::Batch) => early(Domain::Uniform),
            Op::Unary(..)
            | Op::Binary(..)
            | Op::Compare(..)
            | Op::Logic(..)
            | Op::Not(_)
            | Op::Select(..)
            | Op::ToFloat(_) => self.joined(v),
            Op::Sparsek { .. } | Op::Softmax { .. } | Op::Seen(_) => early(Domain::Pair),
            Op::Dot(a, b) => match (self.program.ty(*a).class, self.program.ty(*b).class) {
                (Class::PerQuery, Class::PerQuery) => early(Domain::Row),
                (Class::PerKey, Class::PerKey) => Err(self.unsupported("a product of two keys")),
                _ => early(Domain::Pair),
            },
            Op::Lse(_) => late(Domain::Row),
            Op::MaskVjp { .. } => late(Domain::Column),
            Op::WeightedSum { .. } | Op::Sum { .. } => match self.program.ty(v).class {
                Class::PerKey => late(Domain::Column),
                Class::PerQuery => late(Domain::Row),
                Class::Scalar | Class::PerBatch | Class::PerHead | Class::Pair => {
                    late(Domain::Small)
                }
            },
        }
    }

    /// The place of an elementwise operation.
    fn joined(&self, v: ValueId) -> Result<Place, Error> {
        let mut place = Place { domain: Domain::Constant, late: false };
        self.program.node(v).op.for_each_operand(|o| {
            let at = self.at(o);
            place.domain = place.domain.join(at.domain);
            place.late |= at.late;
        });
        let class = self.program.ty(v).class;
        if place.domain == Domain::Small
            && matches!(class, Class::PerQuery | Class::PerKey | Class::Pair)
        {
            return Err(self.unsupported("a sum over everything spread over positions again"));
        }
        if place.late && place.domain == Domain::Pair {
            return Err(self.unsupported("a pair value that depends on sums over pairs"));
        }
        Ok(place)
    }

    /// The function of `domain` that computes `roots`. Leaves ([`Self::is_leaf`]) are taken as they
    /// are, under their own names; values of smaller domains come from fields, and so do, in a
    /// `late` function, those of its own domain that were known before.
    pub(crate) fn body(&self, roots: &[ValueId], domain: Domain, late: bool) -> Body {
        let outside = |v: ValueId| {
            let at = self.places[v.index()];
            at.domain != Domain::Constant && (at.domain != domain || late && !at.late)
        };
        let roots: Vec<ValueId> = roots.iter().map(|r| self.resolve(*r)).collect();
        let mut body = Body::default();
        // Uses of every value that this function computes.
        let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
        let mut stack: Vec<ValueId> = roots.clone();
        while let Some(v) = stack.pop() {
            let seen = uses.entry(v).or_insert(0);
            *seen += 1;
            let whole = self.literal(v).is_some() || self.is_leaf(v);
            if *seen > 1 || outside(v) || whole {
                continue;
            }
            stack.extend(self.program.node(v).op.operands().iter().map(|o| self.resolve(*o)));
        }
        let mut text: BTreeMap<ValueId, String> = BTreeMap::new();
        // Operands first: the arena's order, but defaults, which are constants, may come late.
        let (constants, others): (Vec<ValueId>, Vec<ValueId>) =
            uses.keys().copied().partition(|v| self.is_constant(*v));
        for v in constants.into_iter().chain(others) {
            let expression = if let Some(literal) = self.literal(v) {
                literal
            } else if outside(v) {
                body.fields.insert(v);
                format!("{}.{}", owner(self.places[v.index()].domain), self.name(v))
            } else if self.is_leaf(v) {
                body.leaves.insert(v);
                self.name(v).to_owned()
            } else {
                let of = |o: ValueId| text.get(&self.resolve(o)).cloned().unwrap_or_default();
                let expression = self.operation(v, of);
                let named = self.program.node(v).name.is_some();
                if uses[&v] > 1 || named && !roots.contains(&v) {
                    let (ty, name) = (self.c_type(v), self.name(v));
                    body.lines.push(format!("const {ty} {name} = {};", bare(&expression)));
                    name.to_owned()
                } else {
                    expression
                }
            };
            text.insert(v, expression);
        }
        body.results = roots.iter().map(|r| bare(&text[r]).to_owned()).collect();
        body
    }

    /// Whether a function takes its argument as powers of two.
    pub(crate) fn takes_powers(&self, v: ValueId) -> bool {
        self.powers.contains(&v)
    }

    fn is_constant(&self, v: ValueId) -> bool {
        self.places[v.index()].domain == Domain::Constant
    }

    /// Whether a value is loaded, or computed by a sweep, rather than by an expression.
    fn is_leaf(&self, v: ValueId) -> bool {
        match &self.program.node(v).op {
            Op::Input(_)
            | Op::Coord(_)
            | Op::Sparsek { .. }
            | Op::Softmax { .. }
            | Op::Dot(..)
            | Op::Lse(_)
            | Op::MaskVjp { .. }
            | Op::WeightedSum { .. }
            | Op::Sum { .. } => true,
            Op::Const(_)
            | Op::Int(_)
            | Op::Param(_)
            | Op::Unary(..)
            | Op::Binary(..)
            | Op::Compare(..)
            | Op::Logic(..)
            | Op::Not(_)
            | Op::Select(..)
            | Op::ToFloat(_)
            | Op::StraightThrough(_)
            | Op::Seen(_) => false,
        }
    }

    /// A literal.
    pub(crate) fn literal(&self, v: ValueId) -> Option<String> {
        match &self.program.node(v).op {
            Op::Const(x) => Some(float(x.get())),
            Op::Int(n) if *n == i32::MIN => Some("(-2147483647 - 1)".to_owned()),
            Op::Int(n) if *n < 0 => Some(format!("({n})")),
            Op::Int(n) => Some(n.to_string()),
            Op::StraightThrough(_) => Some(float(1.0)),
            _ => None,
        }
    }

    /// One operation over the texts of its operands.
    pub(crate) fn operation(&self, v: ValueId, of: impl Fn(ValueId) -> String) -> String {
        match &self.program.node(v).op {
            Op::Unary(f, x) if self.takes_powers(v) => of_powers(*f, &of(*x)),
            Op::Unary(f, x) => unary(*f, &of(*x)),
            Op::Binary(Binary::Mul, a, b) if self.rounds_each => {
                format!("__fmul_rn({}, {})", bare(&of(*a)), bare(&of(*b)))
            }
            Op::Binary(f, a, b) => binary(*f, &of(*a), &of(*b)),
            Op::Compare(f, a, b) => format!("({} {} {})", of(*a), f.name(), of(*b)),
            Op::Logic(Logic::And, a, b) => format!("({} && {})", of(*a), of(*b)),
            Op::Logic(Logic::Or, a, b) => format!("({} || {})", of(*a), of(*b)),
            Op::Not(x) => format!("!{}", of(*x)),
            Op::Select(c, a, b) => format!("({} ? {} : {})", of(*c), of(*a), of(*b)),
            Op::ToFloat(x) => format!("float({})", bare(&of(*x))),
            // Leaves, literals and what sweeps compute: read under their own names.
            Op::Const(_)
            | Op::Int(_)
            | Op::Param(_)
            | Op::Input(_)
            | Op::Coord(_)
            | Op::Sparsek { .. }
            | Op::StraightThrough(_)
            | Op::Seen(_)
            | Op::MaskVjp { .. }
            | Op::Softmax { .. }
            | Op::Lse(_)
            | Op::Dot(..)
            | Op::WeightedSum { .. }
            | Op::Sum { .. } => self.name(v).to_owned(),
        }
    }
}

/// The parameter of generated functions that holds values of a domain.
fn owner(domain: Domain) -> &'static str {
    match domain {
        Domain::Constant | Domain::Uniform => "x",
        Domain::Row => "r",
        Domain::Column => "c",
        Domain::Pair | Domain::Small => "pair",
    }
}

/// Without the parentheses around the whole expression.
pub(crate) fn bare(expression: &str) -> &str {
    let Some(inner) = expression.strip_prefix('(').and_then(|e| e.strip_suffix(')')) else {
        return expression;
    };
    // The first parenthesis must be the one that the last one closes.
    let mut depth = 0i32;
    for c in inner.chars() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth < 0 {
            return expression;
        }
    }
    inner
}

/// An f32 literal.
pub(crate) fn float(x: f32) -> String {
    if x.is_nan() {
        return "__int_as_float(0x7fffffff)".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "INFINITY_F" } else { "(-INFINITY_F)" }.to_owned();
    }
    let text = format!("{:?}f", x.abs());
    if x.is_sign_negative() { format!("(-{text})") } else { text }
}

fn unary(f: Unary, x: &str) -> String {
    match f {
        Unary::Neg => format!("(-{x})"),
        Unary::Exp => format!("exponential({})", bare(x)),
        Unary::Log => format!("logarithm({})", bare(x)),
        Unary::Tanh => format!("hyperbolic_tangent({})", bare(x)),
        Unary::Sigmoid => format!("sigmoid({})", bare(x)),
        Unary::Abs => format!("absolute({})", bare(x)),
        Unary::Sqrt => format!("square_root({})", bare(x)),
        Unary::Rsqrt => format!("reciprocal_square_root({})", bare(x)),
    }
}

/// A function of x by y = x log2 e, a tangent by y = 2 x log2 e.
fn of_powers(f: Unary, y: &str) -> String {
    match f {
        Unary::Tanh => format!("hyperbolic_tangent_of_powers({})", bare(y)),
        Unary::Sigmoid => format!("sigmoid_of_powers({})", bare(y)),
        Unary::Exp => format!("power_of_two({})", bare(y)),
        Unary::Neg | Unary::Log | Unary::Abs | Unary::Sqrt | Unary::Rsqrt => unary(f, y),
    }
}

fn binary(f: Binary, a: &str, b: &str) -> String {
    match f {
        Binary::Add | Binary::Sub | Binary::Mul => format!("({a} {} {b})", f.name()),
        Binary::Div => format!("divide({}, {})", bare(a), bare(b)),
        Binary::Min => format!("minimum({}, {})", bare(a), bare(b)),
        Binary::Max => format!("maximum({}, {})", bare(a), bare(b)),
    }
}
