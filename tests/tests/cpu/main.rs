//! The CPU backend against the f64 reference, and what must hold for any kernel on it.

mod problem;
mod programs;
mod properties;
