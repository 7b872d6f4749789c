//! Window and top-k: the five places a gate can be.

use sparsek::sparsek_kernel;

sparsek_kernel! {
    /// SPARSEK attention with a sliding window; the soft gate multiplies the values.
    #[tuned("../tuned.json")]
    pub kernel SparsekValue<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = dot(q, k) * rsqrt(D);
        let p = softmax(s, seen);
        dot(p * gate, v)
    }
}

sparsek_kernel! {
    /// SPARSEK attention with a sliding window; the soft gate multiplies the keys, that is the
    /// dot products.
    #[tuned("../tuned.json")]
    pub kernel SparsekKey<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = dot(q, k) * rsqrt(D) * gate;
        let p = softmax(s, seen);
        dot(p, v)
    }
}

sparsek_kernel! {
    /// SPARSEK attention with a sliding window; the soft gate multiplies keys and values, as in
    /// the paper.
    #[tuned("../tuned.json")]
    pub kernel SparsekBoth<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = dot(q, k) * rsqrt(D) * gate;
        let p = softmax(s, seen);
        dot(p * gate, v)
    }
}

sparsek_kernel! {
    /// Attention over the selected keys and a sliding window, without a gate: the scores only
    /// choose, and receive no gradient.
    #[tuned("../tuned.json")]
    pub kernel SparsekHard<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = dot(q, k) * rsqrt(D);
        let p = softmax(s, seen);
        dot(p, v)
    }
}

sparsek_kernel! {
    /// Attention over the selected keys and a sliding window; the gate is 1 in the forward and
    /// passes its gradient on to the scores in the backward.
    #[tuned("../tuned.json")]
    pub kernel SparsekStraightThrough<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = dot(q, k) * rsqrt(D);
        let p = softmax(s, seen);
        dot(p * straight_through(gate), v)
    }
}
