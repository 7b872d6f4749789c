//! Random programs: well-formed, printed and read back, differentiated.

mod cases;
mod finite_differences;
mod programs;
