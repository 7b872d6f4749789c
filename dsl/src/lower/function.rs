//! The functions of the language.

use crate::ir::{Binary, Unary};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    // elementwise.rs
    Unary(Unary),
    Binary(Binary),
    Clamp,
    Softcap,
    Select,
    // topk.rs
    Sparsek,
    Topk,
    Window,
    Sinks,
    StraightThrough,
    // softmax.rs
    Softmax,
    // matmul.rs
    Dot,
}

/// A function, how it is called, and with how many operands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) function: Function,
    pub(super) arity: usize,
    pub(super) signature: &'static str,
}

const fn entry(
    name: &'static str,
    function: Function,
    arity: usize,
    signature: &'static str,
) -> Entry {
    Entry { name, function, arity, signature }
}

/// Every function.
pub(super) const FUNCTIONS: [Entry; 19] = [
    entry("exp", Function::Unary(Unary::Exp), 1, "exp(x)"),
    entry("log", Function::Unary(Unary::Log), 1, "log(x)"),
    entry("tanh", Function::Unary(Unary::Tanh), 1, "tanh(x)"),
    entry("sigmoid", Function::Unary(Unary::Sigmoid), 1, "sigmoid(x)"),
    entry("abs", Function::Unary(Unary::Abs), 1, "abs(x)"),
    entry("sqrt", Function::Unary(Unary::Sqrt), 1, "sqrt(x)"),
    entry("rsqrt", Function::Unary(Unary::Rsqrt), 1, "rsqrt(x)"),
    entry("min", Function::Binary(Binary::Min), 2, "min(a, b)"),
    entry("max", Function::Binary(Binary::Max), 2, "max(a, b)"),
    entry("clamp", Function::Clamp, 3, "clamp(x, lowest, highest)"),
    entry("softcap", Function::Softcap, 2, "softcap(x, cap)"),
    entry("select", Function::Select, 3, "select(mask, where_true, where_false)"),
    entry("sparsek", Function::Sparsek, 2, "sparsek(score, K)"),
    entry("topk", Function::Topk, 1, "topk(gate)"),
    entry("window", Function::Window, 1, "window(W)"),
    entry("sinks", Function::Sinks, 1, "sinks(4)"),
    entry("straight_through", Function::StraightThrough, 1, "straight_through(gate)"),
    entry(
        "softmax",
        Function::Softmax,
        2,
        "softmax(logit, seen)` or `softmax(logit, seen, sink = x)",
    ),
    entry("dot", Function::Dot, 2, "dot(q, k)` or `dot(weights, v)"),
];

/// The function of that name.
pub(super) fn named(name: &str) -> Option<&'static Entry> {
    FUNCTIONS.iter().find(|f| f.name == name)
}
