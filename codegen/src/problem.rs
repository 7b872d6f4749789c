//! What is to be compiled.

use sparsek_dsl::ir::{Instance, Program};

/// An input tensor that calls will give; one with a default that is not given is a constant of the
/// generated code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The input's name.
    pub name: String,
    /// For PerQuery and PerKey extras: whether the tensor has a head axis.
    pub per_head: bool,
}

/// One kernel instance, specialised for the shape of its calls.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// The forward program with its parameters put in.
    pub instance: &'a Instance,
    /// The derived backward, with only the outputs that are wanted; unused by the other modules.
    pub backward: &'a Program,
    /// Query heads of one key-value head.
    pub group: u32,
    /// The inputs that are given, in any order: q, k, v, u and extras.
    pub given: Vec<Given>,
}
