//! The README's call on a GPU, compiled and not run: continuous integration has no GPU.

use cudarc::driver::CudaSlice;
use half::bf16;
use sparsek::cuda::{Device, Gradients, TensorView};
use sparsek::{Elem, Spec};
use sparsek_kernels::{SparsekValue, SparsekValueInputs};

/// q, k, v and d_o on the GPU, and scores.
struct Tensors {
    vectors: [CudaSlice<bf16>; 4],
    u: CudaSlice<f32>,
}

fn call(
    tensors: &Tensors,
    [batch, n, query_heads, kv_heads, d]: [usize; 5],
) -> Result<Gradients, sparsek::Error> {
    let Tensors { vectors: [q, k, v, d_o], u } = tensors;
    let device = Device::new(0)?;
    let kernel = SparsekValue::new(Spec::new(Elem::Bf16, d as i64).k(512).w(512))?.cuda(&device);
    let inputs = SparsekValueInputs {
        q: TensorView::new(q, &[batch, n, query_heads, d])?,
        k: TensorView::new(k, &[batch, n, kv_heads, d])?,
        v: TensorView::new(v, &[batch, n, kv_heads, d])?,
        u: TensorView::new(u, &[batch, kv_heads, n])?,
    };
    let d_o = TensorView::new(d_o, &[batch, n, query_heads, d])?;
    let forward = kernel.forward(&inputs)?;
    kernel.backward(&inputs, &forward, &d_o)
}

#[test]
fn the_readme_compiles() {
    let readme = include_str!("../../../README.md");
    let of_readme = |line: &str| readme.lines().any(|l| l.trim_start().starts_with(line));
    // What the README shows is what was compiled.
    for line in include_str!("readme.rs").lines().map(str::trim) {
        if line.starts_with("let device") || line.starts_with("let kernel") {
            assert!(of_readme(line), "{line}");
        }
    }
    let _: fn(&Tensors, [usize; 5]) -> Result<Gradients, sparsek::Error> = call;
}
