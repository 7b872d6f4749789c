//! Elementwise expressions over tiles: values in frames of vectors, and instructions over them.
//!
//! A tile has rows (positions × heads of a group) and columns (keys). A value lives in the smallest
//! of four domains that it varies over, so that what only depends on the key is computed once for
//! each key of a tile and what only depends on the query once for each row. Pair values exist for
//! one row at a time: a row of a few hundred columns stays in the first-level cache.

use super::vector;
use multiversion::multiversion;
use sparsek_dsl::ir::{Binary, Compare, Logic, Unary};

/// What a value varies over within a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Nothing: one value for a sequence and key-value head.
    Uniform,
    /// Rows.
    Row,
    /// Columns.
    Col,
    /// Both.
    Pair,
    /// Both, read from a product tile: `slot` is the tile's number.
    Product,
}

impl Domain {
    pub(crate) fn join(self, other: Domain) -> Domain {
        match (self, other) {
            (Domain::Product, _) | (_, Domain::Product) => Domain::Pair,
            (a, b) if a == b => a,
            (Domain::Uniform, x) | (x, Domain::Uniform) => x,
            _ => Domain::Pair,
        }
    }
}

/// Where a value is: its domain, whether it is an integer or a mask, and its vector there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loc {
    pub(crate) domain: Domain,
    pub(crate) int: bool,
    pub(crate) slot: usize,
}

impl Loc {
    pub(crate) const fn float(domain: Domain, slot: usize) -> Loc {
        Loc { domain, int: false, slot }
    }

    pub(crate) const fn int(domain: Domain, slot: usize) -> Loc {
        Loc { domain, int: true, slot }
    }
}

/// Columns: position of the key.
pub(crate) const COL_POS: Loc = Loc::int(Domain::Col, 0);
/// Columns: first query that no longer sees the key.
pub(crate) const COL_EXPIRY: Loc = Loc::int(Domain::Col, 1);
/// Columns: first query at which the key is a candidate; i32::MAX for sinks.
pub(crate) const COL_FROM: Loc = Loc::int(Domain::Col, 2);
/// Columns: score.
pub(crate) const COL_SCORE: Loc = Loc::float(Domain::Col, 0);
/// Rows: position of the query.
pub(crate) const ROW_POS: Loc = Loc::int(Domain::Row, 0);
/// Rows: threshold.
pub(crate) const ROW_TAU: Loc = Loc::float(Domain::Row, 0);
/// Pairs: all ones where seen.
pub(crate) const PAIR_SEEN: Loc = Loc::int(Domain::Pair, 0);

/// One step over the vectors of a domain. Masks are integers, 0 or −1.
#[derive(Clone, Debug)]
pub(crate) enum Instr {
    Unary(Unary, Loc, Loc),
    Binary(Binary, Loc, Loc, Loc),
    Compare(Compare, Loc, Loc, Loc),
    Logic(Logic, Loc, Loc, Loc),
    Not(Loc, Loc),
    Select(Loc, Loc, Loc, Loc),
    ToFloat(Loc, Loc),
    Copy(Loc, Loc),
    Gate(Loc),
}

/// The vectors of one domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) f: Vec<Vec<f32>>,
    pub(crate) i: Vec<Vec<i32>>,
}

impl Frame {
    /// That many float and integer vectors of `len` elements.
    pub(crate) fn new(floats: usize, ints: usize, len: usize) -> Frame {
        Frame { f: vec![vec![0.0; len]; floats], i: vec![vec![0; len]; ints] }
    }
}

/// What instructions of a domain may read beside their own frame.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) uniform: Option<&'a Frame>,
    pub(crate) row: Option<(&'a Frame, usize)>,
    pub(crate) col: Option<&'a Frame>,
    /// Product tiles, rows [`STRIDE`] apart.
    pub(crate) products: &'a [Vec<f32>],
}

impl<'a> Scope<'a> {
    /// A domain that only reads uniform values beside its own.
    pub(crate) fn of_uniform(uniform: &'a Frame) -> Scope<'a> {
        Scope { uniform: Some(uniform), row: None, col: None, products: &[] }
    }
}

/// Elements between rows of a product tile.
pub(crate) const STRIDE: usize = super::tiles::COLS;

/// An operand: one value for each lane, or the same for all.
#[derive(Clone, Copy)]
enum Arg<'a, T> {
    Lanes(&'a [T]),
    One(T),
}

/// Finds the vectors of a kind.
trait Lane: Copy + 'static {
    fn vectors(frame: &Frame) -> &[Vec<Self>];

    /// Product tiles hold f32 alone.
    fn products<'a>(scope: &Scope<'a>) -> &'a [Vec<Self>];
}

impl Lane for f32 {
    #[inline(always)]
    fn vectors(frame: &Frame) -> &[Vec<f32>] {
        &frame.f
    }

    #[inline(always)]
    fn products<'a>(scope: &Scope<'a>) -> &'a [Vec<f32>] {
        scope.products
    }
}

impl Lane for i32 {
    #[inline(always)]
    fn vectors(frame: &Frame) -> &[Vec<i32>] {
        &frame.i
    }

    #[inline(always)]
    fn products<'a>(_: &Scope<'a>) -> &'a [Vec<i32>] {
        &[]
    }
}

#[inline(always)]
fn arg<'a, T: Lane>(
    loc: Loc,
    domain: Domain,
    own: &'a Frame,
    scope: &Scope<'a>,
    n: usize,
) -> Arg<'a, T> {
    if loc.domain == domain {
        return Arg::Lanes(&T::vectors(own)[loc.slot][..n]);
    }
    let one = |frame: Option<&Frame>, at: usize| match frame {
        Some(frame) => Arg::One(T::vectors(frame)[loc.slot][at]),
        // The compiler of segments never refers to a domain that its stage does not have.
        None => Arg::Lanes(&[]),
    };
    match (loc.domain, scope.col) {
        (Domain::Col, Some(col)) => Arg::Lanes(&T::vectors(col)[loc.slot][..n]),
        (Domain::Product, _) => {
            let at = scope.row.map_or(0, |r| r.1) * STRIDE;
            Arg::Lanes(&T::products(scope)[loc.slot][at..at + n])
        }
        (Domain::Row, _) => one(scope.row.map(|r| r.0), scope.row.map_or(0, |r| r.1)),
        _ => one(scope.uniform, 0),
    }
}

#[inline(always)]
fn map<T: Copy, R>(out: &mut [R], x: Arg<'_, T>, f: impl Fn(T) -> R) {
    match x {
        Arg::Lanes(x) => out.iter_mut().zip(x).for_each(|(o, x)| *o = f(*x)),
        Arg::One(x) => out.iter_mut().for_each(|o| *o = f(x)),
    }
}

#[inline(always)]
fn zip<T: Copy, R>(out: &mut [R], a: Arg<'_, T>, b: Arg<'_, T>, f: impl Fn(T, T) -> R) {
    match (a, b) {
        (Arg::Lanes(a), Arg::Lanes(b)) => {
            out.iter_mut().zip(a).zip(b).for_each(|((o, a), b)| *o = f(*a, *b));
        }
        (Arg::Lanes(a), Arg::One(b)) => out.iter_mut().zip(a).for_each(|(o, a)| *o = f(*a, b)),
        (Arg::One(a), b) => map(out, b, |b| f(a, b)),
    }
}

#[inline(always)]
fn unary(op: Unary, out: &mut [f32], x: Arg<'_, f32>) {
    match op {
        Unary::Neg => map(out, x, |x| -x),
        Unary::Exp => map(out, x, vector::exp),
        Unary::Log => map(out, x, vector::log),
        Unary::Tanh => map(out, x, vector::tanh),
        Unary::Sigmoid => map(out, x, vector::sigmoid),
        Unary::Abs => map(out, x, f32::abs),
        Unary::Sqrt => map(out, x, f32::sqrt),
        Unary::Rsqrt => map(out, x, |x| 1.0 / x.sqrt()),
    }
}

#[inline(always)]
fn binary(op: Binary, out: &mut [f32], a: Arg<'_, f32>, b: Arg<'_, f32>) {
    match op {
        Binary::Add => zip(out, a, b, |a, b| a + b),
        Binary::Sub => zip(out, a, b, |a, b| a - b),
        Binary::Mul => zip(out, a, b, |a, b| a * b),
        Binary::Div => zip(out, a, b, |a, b| a / b),
        Binary::Min => zip(out, a, b, |a, b| if b < a { b } else { a }),
        Binary::Max => zip(out, a, b, |a, b| if b > a { b } else { a }),
    }
}

#[inline(always)]
fn compare<T: Copy + PartialOrd>(op: Compare, out: &mut [i32], a: Arg<'_, T>, b: Arg<'_, T>) {
    let mask = |x: bool| -i32::from(x);
    match op {
        Compare::Eq => zip(out, a, b, |a, b| mask(a == b)),
        Compare::Ne => zip(out, a, b, |a, b| mask(a != b)),
        Compare::Lt => zip(out, a, b, |a, b| mask(a < b)),
        Compare::Le => zip(out, a, b, |a, b| mask(a <= b)),
        Compare::Gt => zip(out, a, b, |a, b| mask(a > b)),
        Compare::Ge => zip(out, a, b, |a, b| mask(a >= b)),
    }
}

#[inline(always)]
fn select(out: &mut [f32], cond: Arg<'_, i32>, a: Arg<'_, f32>, b: Arg<'_, f32>) {
    match cond {
        Arg::One(c) => map(out, if c != 0 { a } else { b }, |x| x),
        // The mask's lanes go with the operand that has lanes; the other is blended in.
        Arg::Lanes(c) => {
            map(out, b, |b| b);
            match a {
                Arg::Lanes(a) => out.iter_mut().zip(c).zip(a).for_each(|((o, c), a)| {
                    *o = if *c != 0 { *a } else { *o };
                }),
                Arg::One(a) => out.iter_mut().zip(c).for_each(|(o, c)| {
                    *o = if *c != 0 { a } else { *o };
                }),
            }
        }
    }
}

/// m = clip(u − tau, 0, 1) on candidates, 1 off them and where tau is −inf.
#[inline(always)]
fn gate(out: &mut [f32], scope: &Scope<'_>) {
    let (Some((row, r)), Some(col)) = (scope.row, scope.col) else { return };
    let (tau, i) = (row.f[ROW_TAU.slot][r], row.i[ROW_POS.slot][r]);
    if tau == f32::NEG_INFINITY {
        out.fill(1.0);
        return;
    }
    let score = &col.f[COL_SCORE.slot][..out.len()];
    let from = &col.i[COL_FROM.slot][..out.len()];
    for ((o, u), from) in out.iter_mut().zip(score).zip(from) {
        let m = (u - tau).clamp(0.0, 1.0);
        *o = if i >= *from { m } else { 1.0 };
    }
}

#[inline(always)]
fn step(instr: &Instr, domain: Domain, own: &mut Frame, n: usize, scope: &Scope<'_>) {
    // The result's vector is taken out of the frame while the operands are borrowed from it.
    macro_rules! float {
        ($dst:expr, $out:ident => $body:expr) => {{
            let mut taken = std::mem::take(&mut own.f[$dst.slot]);
            {
                let $out = &mut taken[..n];
                $body
            }
            own.f[$dst.slot] = taken;
        }};
    }
    macro_rules! int {
        ($dst:expr, $out:ident => $body:expr) => {{
            let mut taken = std::mem::take(&mut own.i[$dst.slot]);
            {
                let $out = &mut taken[..n];
                $body
            }
            own.i[$dst.slot] = taken;
        }};
    }
    macro_rules! get {
        ($loc:expr) => {
            arg(*$loc, domain, own, scope, n)
        };
    }
    match instr {
        Instr::Unary(op, dst, x) => float!(dst, out => unary(*op, out, get!(x))),
        Instr::Binary(op, dst, a, b) => float!(dst, out => binary(*op, out, get!(a), get!(b))),
        Instr::Select(dst, c, a, b) => {
            float!(dst, out => select(out, get!(c), get!(a), get!(b)));
        }
        Instr::ToFloat(dst, x) => float!(dst, out => map(out, get!(x), |x: i32| x as f32)),
        Instr::Copy(dst, x) => float!(dst, out => map(out, get!(x), |x: f32| x)),
        Instr::Gate(dst) => float!(dst, out => gate(out, scope)),
        Instr::Compare(op, dst, a, b) if a.int => {
            int!(dst, out => compare::<i32>(*op, out, get!(a), get!(b)));
        }
        Instr::Compare(op, dst, a, b) => {
            int!(dst, out => compare::<f32>(*op, out, get!(a), get!(b)));
        }
        Instr::Logic(Logic::And, dst, a, b) => {
            int!(dst, out => zip(out, get!(a), get!(b), |a: i32, b: i32| a & b));
        }
        Instr::Logic(Logic::Or, dst, a, b) => {
            int!(dst, out => zip(out, get!(a), get!(b), |a: i32, b: i32| a | b));
        }
        Instr::Not(dst, x) => int!(dst, out => map(out, get!(x), |x: i32| !x)),
    }
}

/// Runs the instructions of one domain over `n` lanes.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
pub(crate) fn run(instrs: &[Instr], domain: Domain, own: &mut Frame, n: usize, scope: &Scope<'_>) {
    if instrs.is_empty() || n == 0 {
        return;
    }
    for instr in instrs {
        step(instr, domain, own, n, scope);
    }
}

/// Fills the seen mask of one row: causal and alive, and every predicate.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
pub(crate) fn seen_mask(predicates: &[Loc], pair: &mut Frame, n: usize, scope: &Scope<'_>) {
    let (Some((row, r)), Some(col)) = (scope.row, scope.col) else { return };
    let i = row.i[ROW_POS.slot][r];
    let mut mask = std::mem::take(&mut pair.i[PAIR_SEEN.slot]);
    let out = &mut mask[..n];
    let pos = &col.i[COL_POS.slot][..n];
    let expiry = &col.i[COL_EXPIRY.slot][..n];
    for ((o, j), e) in out.iter_mut().zip(pos).zip(expiry) {
        *o = -i32::from((*j <= i) & (i < *e));
    }
    for p in predicates {
        match arg::<i32>(*p, Domain::Pair, pair, scope, n) {
            Arg::Lanes(p) => out.iter_mut().zip(p).for_each(|(o, p)| *o &= p),
            Arg::One(p) => out.iter_mut().for_each(|o| *o &= p),
        }
    }
    pair.i[PAIR_SEEN.slot] = mask;
}

/// Puts `value` where the mask is 0.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma+bmi2",
    "x86_64+avx2+fma+bmi2"
))]
pub(crate) fn mask_off(x: &mut [f32], mask: &[i32], value: f32) {
    for (x, m) in x.iter_mut().zip(mask) {
        *x = if *m != 0 { *x } else { value };
    }
}
