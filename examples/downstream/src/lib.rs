//! A crate of its own that declares an attention kernel: ALiBi, a soft cap and sinks around SPARSEK's
//! top-k mask. It depends on `sparsek` and nothing else.
//!
//! * `cargo test` compares the kernel's CUDA C with the copy in `tests/snapshots`, so that a new
//!   release of the compiler, or an edit of the kernel, shows what it changes before it runs;
//! * `sparsek tune src/lib.rs::AlibiCapped …` measures schedules on the GPU at hand, from this file;
//! * `cargo run` says which schedule calls run with, and runs one where there is a GPU.

use sparsek::{Elem, Error, Spec, sparsek_kernel};

sparsek_kernel! {
    /// SPARSEK attention with a sliding window and four sinks; logits fade with the distance, by a slope
    /// for each head, and are capped softly at 30. The soft gate multiplies the values.
    pub kernel AlibiCapped<E in [bf16, f16, f32], D in multiples_of(16) up to 128, K in 1..=2048, W in 0..=4096>(
        q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey,
        slope: PerHead,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W) | sinks(4));
        let s = softcap(dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos), 30.0);
        dot(softmax(s, seen) * gate, v)
    }
}

/// Head dimension of the model that this kernel is for.
pub const D: i64 = 128;
/// Selected keys.
pub const K: i64 = 512;
/// Window.
pub const W: i64 = 512;
/// Query heads.
pub const QUERY_HEADS: usize = 32;
/// Key-value heads.
pub const KV_HEADS: usize = 8;

/// The kernel as the model uses it.
pub fn attention() -> Result<AlibiCapped, Error> {
    AlibiCapped::new(Spec::new(Elem::Bf16, D).k(K).w(W))
}

/// The slopes of ALiBi: 2^(−8 (h + 1) / heads) for head h.
pub fn slopes(heads: usize) -> Vec<f32> {
    (0..heads).map(|h| (-8.0 * (h + 1) as f32 / heads as f32).exp2()).collect()
}
