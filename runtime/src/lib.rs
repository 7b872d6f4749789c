//! Sparse attention kernels written as mathematics.
//!
//! A kernel is declared with [`sparsek_kernel!`]; the macro checks it, derives its backward and
//! expands to a type with a named-field inputs struct. [`Kernel`] is what stands behind that type:
//! one instance of a program, for one element type, head dimension, k and window. It runs on the
//! CPU: the same program, tile by tile, with an online softmax, in f32, on rayon's threads.
//!
//! ```
//! use sparsek::{Elem, Spec, TensorView, sparsek_kernel};
//!
//! sparsek_kernel! {
//!     /// SPARSEK attention with a sliding window; soft gate on the values.
//!     pub kernel Local<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
//!         q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
//!     ) -> Output<E, D> {
//!         let gate = sparsek(u, K);
//!         let seen = causal & (topk(gate) | window(W));
//!         let p = softmax(dot(q, k) * rsqrt(D), seen);
//!         dot(p * gate, v)
//!     }
//! }
//!
//! # fn main() -> Result<(), sparsek::Error> {
//! let (n, heads, d) = (100, 2, 16);
//! let x = vec![0.5f32; n * heads * d];
//! let u: Vec<f32> = (0..heads * n).map(|i| (i as f32).sin()).collect();
//! let rows = TensorView::new(&[1, n, heads, d], x.as_slice())?;
//!
//! let kernel = Local::new(Spec::new(Elem::F32, d as i64).k(8).w(4))?;
//! let inputs = LocalInputs {
//!     q: rows.clone(),
//!     k: rows.clone(),
//!     v: rows.clone(),
//!     u: TensorView::new(&[1, heads, n], u.as_slice())?,
//! };
//! let forward = kernel.forward(&inputs)?;
//! let gradients = kernel.backward(&inputs, &forward, &rows)?;
//! assert_eq!(gradients.get("d_u").unwrap().shape(), [1, heads, n]);
//! # Ok(())
//! # }
//! ```

// What `sparsek_kernel!` expands to names this crate; the tests in it use the macro.
#[cfg(test)]
extern crate self as sparsek;

mod bind;
mod cpu;
pub mod cuda;
mod error;
mod kernel;
mod tensor;
pub mod tuned;

pub use error::Error;
/// Elements of f16 and bf16 tensors.
pub use half;
pub use kernel::{Forward, Gradients, Inputs, Kernel, NamedTensors, Options};
pub use sparsek_codegen as codegen;
pub use sparsek_dsl as dsl;
pub use sparsek_dsl::Elem;
pub use sparsek_dsl::ir::{Program, Spec, SpecError};
pub use sparsek_macros::sparsek_kernel;
pub use tensor::{DType, Data, Storage, Tensor, TensorView};
