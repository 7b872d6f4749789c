//! Random inputs and programs from a seed.
//!
//! * [`inputs`] makes tensors for an instance of any program, with scores of many kinds.
//! * [`program`] is the program of one [`Attention`](crate::brute::Attention).
//! * [`random`] makes a program from the grammar of the language: logit and weight expressions over every
//!   class of input, coordinates and the gate, predicates, score expressions, sink logits, parameters.

mod grammar;
mod inputs;
mod masks;
mod random;
mod standard;
mod terms;

pub use inputs::{Scores, Shape, inputs, normals, score_is_input};
pub use random::{Generated, random};
pub use standard::program;
