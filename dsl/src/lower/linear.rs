//! Weights are linear in the softmax: every term has it as exactly one factor.
//!
//! That is what makes a row of the output a weighted mean whose normalisation can be applied
//! after the sum, tile by tile.

use super::Lowerer;
use crate::Span;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Binary, Op, Unary, ValueId};

/// How a value depends on the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Degree {
    /// Not at all.
    Free,
    /// Zero, which is linear and free.
    Zero,
    /// As one factor of every term.
    Linear,
    /// In another way.
    Other(&'static str),
    /// Made of something that was found already.
    Inherited,
}

const SUM: &str = "a term without the softmax is added to one with it";
const PRODUCT: &str = "the softmax is multiplied by itself";
const DIVISION: &str = "something is divided by the softmax";
const FUNCTION: &str = "a function of the softmax";

fn degree(op: &Op, is: impl Fn(ValueId) -> Degree) -> Degree {
    use Degree::{Free, Inherited, Linear, Other, Zero};
    let joined = |a: Degree, b: Degree, mixed: &'static str| match (a, b) {
        (Zero, x) | (x, Zero) => x,
        (a, b) if a == b => a,
        _ => Other(mixed),
    };
    let mut inherited = false;
    let mut free = true;
    op.for_each_operand(|v| {
        inherited |= matches!(is(v), Other(_) | Inherited);
        free &= matches!(is(v), Free | Zero);
    });
    match op {
        Op::Softmax { .. } => Linear,
        Op::Const(c) if c.get() == 0.0 => Zero,
        _ if inherited => Inherited,
        Op::Binary(Binary::Mul, a, b) => match (is(*a), is(*b)) {
            (Free | Zero, Linear) | (Linear, Free | Zero) => Linear,
            (Zero, _) | (_, Zero) => Zero,
            (Free, x) | (x, Free) => x,
            _ => Other(PRODUCT),
        },
        _ if free => Free,
        Op::Unary(Unary::Neg, x) => is(*x),
        Op::Binary(Binary::Add | Binary::Sub, a, b) => joined(is(*a), is(*b), SUM),
        Op::Binary(Binary::Div, a, b) => match (is(*a), is(*b)) {
            (Linear, Free) => Linear,
            _ => Other(DIVISION),
        },
        Op::Select(c, a, b) => match is(*c) {
            Free | Zero => joined(is(*a), is(*b), "one branch has the softmax and the other not"),
            _ => Other("a condition depends on the softmax"),
        },
        Op::Binary(Binary::Min | Binary::Max, ..)
        | Op::Unary(
            Unary::Exp
            | Unary::Log
            | Unary::Tanh
            | Unary::Sigmoid
            | Unary::Abs
            | Unary::Sqrt
            | Unary::Rsqrt,
            _,
        )
        | Op::Compare(..)
        | Op::Logic(..)
        | Op::Not(_)
        | Op::ToFloat(_)
        | Op::Sparsek { .. }
        | Op::StraightThrough(_)
        | Op::Seen(_)
        | Op::MaskVjp { .. }
        | Op::Lse(_)
        | Op::Dot(..)
        | Op::WeightedSum { .. }
        | Op::Sum { .. } => Other(FUNCTION),
        Op::Const(_) | Op::Int(_) | Op::Param(_) | Op::Input(_) | Op::Coord(_) => Free,
    }
}

impl Lowerer<'_> {
    /// Whether the weight is linear in the softmax; what breaks that is reported.
    pub(super) fn linear_in_softmax(&mut self, weight: ValueId, at: Span) -> bool {
        let mut needed = vec![false; weight.index() + 1];
        needed[weight.index()] = true;
        for n in (0..needed.len()).rev() {
            if needed[n] {
                let op = &self.builder.node(ValueId(n as u32)).op;
                op.for_each_operand(|o| needed[o.index()] = true);
            }
        }
        let mut degrees: Vec<Degree> = Vec::with_capacity(needed.len());
        let mut broken = None;
        for (n, needed) in needed.iter().enumerate() {
            let node = self.builder.node(ValueId(n as u32));
            let d = degree(&node.op, |v| degrees[v.index()]);
            if let (Degree::Other(why), true, None) = (d, *needed, broken) {
                broken = Some((why, node.span));
            }
            degrees.push(d);
        }
        let (why, span) = match (broken, degrees[weight.index()]) {
            (Some((why, span)), _) => (why, if span == Span::NONE { at } else { span }),
            (None, Degree::Linear) => return true,
            (None, _) => ("the softmax is not a factor of this", at),
        };
        self.report(
            Diagnostic::new(Code::NotLinear, span, "the weight is not linear in the softmax")
                .label(why)
                .help("every term of the weight has `p` as one factor: `p`, `p * gate`, `p * 0.5 - p * gate`"),
        );
        false
    }
}
