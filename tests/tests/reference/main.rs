//! The two references against stored results and against each other.

mod golden;
