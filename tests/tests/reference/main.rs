//! The two references against stored results and against each other.

mod agreement;
mod definition;
mod golden;
mod inputs;
