//! The two products: `dot(q, k)`, and `dot(weights, v)`, which a kernel ends with.

use super::{Lowerer, Value};
use crate::Span;
use crate::ast::Expr;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Kind, Op, Role, ValueId};

const PRODUCTS: &str =
    "products are `dot(q, k)` for the logit and `dot(weights, v)` for the result";

/// What an operand of a product is.
#[derive(Clone, Copy, PartialEq)]
enum Operand {
    Queries(ValueId),
    Keys(ValueId),
    Values(ValueId),
    /// A number or integer: weights.
    Weight,
    /// A mask, set or computed vector.
    Other,
}

impl Lowerer<'_> {
    fn operand(&self, value: &Value) -> Option<Operand> {
        let v = match value {
            Value::Poison => return None,
            Value::Set(_) => return Some(Operand::Other),
            Value::Node(v) => *v,
        };
        let role = match self.builder.node(v).op {
            Op::Input(id) => self.builder.inputs().get(id.index()).map(|i| i.role),
            _ => None,
        };
        Some(match (role, self.builder.ty(v).kind) {
            (Some(Role::Query), _) => Operand::Queries(v),
            (Some(Role::Key), _) => Operand::Keys(v),
            (Some(Role::Value), _) => Operand::Values(v),
            (_, Kind::F32 | Kind::I32) => Operand::Weight,
            (_, Kind::Bool | Kind::Vector) => Operand::Other,
        })
    }

    pub(super) fn dot(&mut self, a: &Expr, b: &Expr, span: Span) -> Value {
        use Operand::{Keys, Other, Queries, Values, Weight};
        let (left, right) = (self.value(a), self.value(b));
        let (Some(x), Some(y)) = (self.operand(&left), self.operand(&right)) else {
            return Value::Poison;
        };
        match (x, y) {
            (Queries(q), Keys(k)) | (Keys(k), Queries(q)) => self.push(Op::Dot(q, k), span),
            (Weight, Values(v)) => self.weighted_sum(&left, a.span, v, span),
            (Values(v), Weight) => self.weighted_sum(&right, b.span, v, span),
            (Queries(_), Values(_)) => {
                self.wrong_vector(b.span, "`v` is used as the keys", "dot(q, k)")
            }
            (Values(_), Queries(_)) => {
                self.wrong_vector(a.span, "`v` is used as the keys", "dot(q, k)")
            }
            (Weight, Keys(_)) => {
                self.wrong_vector(b.span, "`k` is used as the values", "dot(weights, v)")
            }
            (Keys(_), Weight) => {
                self.wrong_vector(a.span, "`k` is used as the values", "dot(weights, v)")
            }
            (Weight, Queries(_)) => {
                self.wrong_vector(b.span, "`q` is used as the values", "dot(weights, v)")
            }
            (Queries(_), Weight) => {
                self.wrong_vector(a.span, "`q` is used as the values", "dot(weights, v)")
            }
            (Queries(_) | Keys(_) | Values(_), Queries(_) | Keys(_) | Values(_)) => {
                self.wrong_vector(span, "a product of the wrong vectors", "dot(q, k)")
            }
            (Other, _) => self.not_a_vector(&left, a.span),
            (_, Other) => self.not_a_vector(&right, b.span),
            (Weight, Weight) => self.not_a_vector(&right, b.span),
        }
    }

    fn wrong_vector(&mut self, span: Span, message: &str, meant: &str) -> Value {
        self.report(
            Diagnostic::new(Code::WrongVector, span, message)
                .label(format!("`{meant}` is meant"))
                .help(PRODUCTS),
        );
        Value::Poison
    }

    fn not_a_vector(&mut self, value: &Value, span: Span) -> Value {
        let found = self.describe(value);
        self.report(
            Diagnostic::new(Code::NotAVector, span, "this cannot be an operand of `dot`")
                .label(format!("this is {found}"))
                .help(PRODUCTS),
        );
        Value::Poison
    }

    /// `dot(weights, v)`: the weights are linear in the softmax.
    fn weighted_sum(&mut self, weight: &Value, at: Span, tile: ValueId, span: Span) -> Value {
        let Some(weight) = self.as_f32(weight, at) else { return Value::Poison };
        if !self.linear_in_softmax(weight, at) {
            return Value::Poison;
        }
        self.push(Op::WeightedSum { weight, tile }, span)
    }
}
