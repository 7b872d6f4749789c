//! A crate that depends on `sparsek` alone declares a kernel in a nested module and runs it.

use std::path::Path;
use std::process::Command;

const MANIFEST: &str = r#"
[package]
name = "downstream"
version = "0.0.0"
edition = "2021"

[dependencies]
sparsek = { path = "SPARSEK" }

[workspace]
"#;

const MAIN: &str = r#"
#![deny(warnings)]

mod attention {
    pub mod kernels {
        sparsek::sparsek_kernel! {
            /// The newest keys, faded by distance.
            pub kernel Faded<E in [bf16, f32], D in multiples_of(16) up to 64, W in 1..=64>(
                q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, slope: PerHead = 0.0,
            ) -> Output<E, D> {
                let s = dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos);
                dot(softmax(s, causal & window(W)), v)
            }
        }
    }
}

use attention::kernels::{Faded, FadedInputs};
use sparsek::{Elem, Spec, TensorView};

fn main() -> Result<(), sparsek::Error> {
    let (n, heads, d) = (5, 2, 16);
    let zero = vec![0.0f32; n * heads * d];
    // Value j of every head is j in every dimension.
    let ramp: Vec<f32> = (0..n * heads * d).map(|i| (i / (heads * d)) as f32).collect();
    let view = |data| TensorView::new(&[1, n, heads, d], data);
    let inputs =
        FadedInputs { q: view(zero.as_slice())?, k: view(zero.as_slice())?, v: view(ramp.as_slice())?, slope: None };
    let kernel = Faded::new(Spec::new(Elem::F32, d as i64).w(2))?;
    let forward = kernel.forward(&inputs)?;
    // Equal logits: the mean of the last two values.
    let o = forward.o.to_f32();
    for (i, want) in [0.0, 0.5, 1.5, 2.5, 3.5].into_iter().enumerate() {
        assert!((o[i * heads * d] - want).abs() < 1e-6, "query {i}: {}", o[i * heads * d]);
    }
    let gradients = kernel.backward(&inputs, &forward, &view(ramp.as_slice())?)?;
    assert_eq!(gradients.get("d_v").map(|t| t.shape().to_vec()), Some(vec![1, n, heads, d]));
    assert!(gradients.get("d_slope").is_none(), "a default was not given, so it has no gradient");
    println!("ran {}", Faded::program()?.name);
    Ok(())
}
"#;

#[test]
fn a_crate_that_depends_on_sparsek_alone_runs_a_kernel() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let runtime = root.join("runtime");
    let manifest = MANIFEST.replace("SPARSEK", &runtime.to_string_lossy().replace('\\', "/"));
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("a manifest");
    std::fs::write(folder.path().join("src/main.rs"), MAIN).expect("a source file");
    // The versions that the workspace was built with are the ones there are without a network.
    std::fs::copy(root.join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("a lock file");
    let run = Command::new(env!("CARGO"))
        .args(["run", "--offline", "--quiet", "--manifest-path"])
        .arg(folder.path().join("Cargo.toml"))
        // Kept between runs, so that only the first one builds the dependencies.
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("downstream"))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{err}");
    assert_eq!(out.trim(), "ran Faded", "{err}");
}
