//! The sparsek kernel language.
//!
//! A kernel is a small program over typed tiles. This crate holds the typed program ([`ir`]), its
//! well-formedness rules, its derived backward (([`backward::derive`])) and its
//! serialised form. With feature `parse` it also turns source text into programs and reports what
//! is wrong with a kernel ([`Diagnostic`](diagnostic::Diagnostic)).

#[cfg(feature = "parse")]
pub mod ast;
pub mod backward;
#[cfg(feature = "parse")]
pub mod diagnostic;
mod elem;
pub mod ir;
#[cfg(feature = "parse")]
mod lower;
#[cfg(feature = "parse")]
pub mod parse;
mod span;

pub use elem::Elem;
pub use span::Span;
