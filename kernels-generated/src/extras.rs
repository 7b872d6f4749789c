//! Sinks, and a logit of more than the dot product.

use sparsek::sparsek_kernel;

sparsek_kernel! {
    /// SPARSEK attention with a sliding window and four sinks; the soft gate multiplies the values.
    #[tuned("../tuned.json")]
    pub kernel SparsekValueSinks<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W) | sinks(4));
        let s = dot(q, k) * rsqrt(D);
        let p = softmax(s, seen);
        dot(p * gate, v)
    }
}

sparsek_kernel! {
    /// SPARSEK attention with a sliding window, a slope for each head (ALiBi) and logits capped
    /// softly at 5; the soft gate multiplies the values.
    #[tuned("../tuned.json")]
    pub kernel SparsekSlopeSoftcap<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
        slope: PerHead,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = softcap(dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos), 5.0);
        let p = softmax(s, seen);
        dot(p * gate, v)
    }
}
