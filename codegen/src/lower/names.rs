//! C names of values.

use sparsek_dsl::ir::{Coord, Op, Program, Role, ValueId};
use std::collections::BTreeSet;

/// One name for each value: the user's where there is one, unique, and never a word of C or of the
/// templates.
pub(crate) struct Names(Vec<String>);

/// Words that generated functions use themselves.
const TAKEN: &[&str] = &[
    "x", "r", "c", "a", "b", "s", "g", "i", "j", "h", "pair", "elem", "gate", "dot_qk", "dot_dov",
    "p", "tau", "score", "expiry", "head", "position", "from", "to", "token", "tile", "row", "sum",
    "entry", "total",
];

/// Keywords of CUDA C++ that are identifiers of the language, and names in scope.
const RESERVED: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "asm",
    "auto",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "class",
    "compl",
    "const",
    "constexpr",
    "continue",
    "default",
    "delete",
    "do",
    "double",
    "else",
    "enum",
    "exp",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "log",
    "long",
    "main",
    "mutable",
    "namespace",
    "new",
    "not",
    "operator",
    "or",
    "private",
    "protected",
    "public",
    "register",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "struct",
    "switch",
    "template",
    "this",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "while",
    "xor",
    "half",
    "min",
    "max",
    "abs",
    "tanh",
    "sqrt",
    "rsqrt",
    "dim3",
    "uint4",
    "float2",
    "float4",
    "warpSize",
    "threadIdx",
    "blockIdx",
    "blockDim",
    "gridDim",
    "isnan",
    "isinf",
    "divide",
    "minimum",
    "maximum",
    "sigmoid",
    "sigmoid_of_powers",
    "hyperbolic_tangent",
    "hyperbolic_tangent_of_powers",
    "power_of_two",
    "reciprocal",
    "reciprocal_square_root",
    "cap",
    "logit",
    "weight",
    "predicate",
    "exponential",
    "logarithm",
    "absolute",
    "square_root",
    "Row",
    "Column",
    "Uniform",
    "Bounds",
    "Truth",
    "Tile",
    "Arguments",
    "Sequence",
    "D",
    "K",
    "M",
    "ROW",
    "GROUP",
    "WINDOW",
    "SINKS",
    "CHUNK",
    "WARPS",
    "STAGES",
    "THREADS",
];

impl Names {
    pub(crate) fn new(program: &Program) -> Names {
        let mut used: BTreeSet<String> =
            TAKEN.iter().chain(RESERVED).map(|s| (*s).to_owned()).collect();
        let names = program.ids().map(|v| {
            if let Some(fixed) = fixed(program, v) {
                return fixed.to_owned();
            }
            let wanted = wanted(program, v);
            let mut name = wanted.clone();
            let mut n = v.0;
            while !used.insert(name.clone()) {
                name = format!("{wanted}_{n}");
                n += program.nodes.len() as u32;
            }
            name
        });
        Names(names.collect())
    }

    pub(crate) fn of(&self, v: ValueId) -> &str {
        &self.0[v.index()]
    }
}

/// Names that the templates give.
fn fixed(program: &Program, v: ValueId) -> Option<&'static str> {
    let role = |v: &ValueId| match program.node(*v).op {
        Op::Input(id) => Some(program.input(id).role),
        _ => None,
    };
    match &program.node(v).op {
        Op::Sparsek { .. } => Some("gate"),
        Op::Softmax { .. } => Some("p"),
        Op::Coord(Coord::QueryPos) => Some("i"),
        Op::Coord(Coord::QueryHead) => Some("head"),
        Op::Coord(Coord::KeyPos) => Some("j"),
        Op::Dot(a, b) => match (role(a)?, role(b)?) {
            (Role::Query, Role::Key) | (Role::Key, Role::Query) => Some("dot_qk"),
            (Role::OutputGrad, Role::Value) | (Role::Value, Role::OutputGrad) => Some("dot_dov"),
            _ => None,
        },
        _ => None,
    }
}

fn wanted(program: &Program, v: ValueId) -> String {
    let node = program.node(v);
    let name = match (&node.name, &node.op) {
        (Some(name), _) => name.clone(),
        (None, Op::Input(id)) => program.input(*id).name.clone(),
        (None, Op::Coord(Coord::KeyHead)) => "kv_head".to_owned(),
        (None, Op::Coord(Coord::Batch)) => "batch".to_owned(),
        (None, _) => format!("t{}", v.0),
    };
    // Identifiers of the language may hold letters that C does not take.
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.trim_start_matches("r#").chars().map(letter).collect();
    if name.starts_with(|c: char| c.is_ascii_digit() || c == '_') {
        format!("v{name}")
    } else {
        name
    }
}
