//! Kernels that several tests use.

/// A kernel that uses most of the language.
pub(crate) const FULL: &str = "\
/// SPARSEK attention with a sliding window, sinks and ALiBi; soft gate on the values.
pub kernel SparsekWindow<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192, C in [1, 2]>(
    q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    slope: PerHead = 0.0, doc_q: PerQuery<i32>, doc_k: PerKey<i32>, scale: Scalar = rsqrt(D),
) -> Output<E, D> {
    let gate = sparsek(u, K);
    let seen = causal & (topk(gate) | window(W) | sinks(4)) & (doc_q == doc_k);
    let s = softcap(dot(q, k) * scale + slope * (k.pos - q.pos), 30.0 * C);
    let p = softmax(s, seen);
    dot(p * gate, v)
}
schedule { forward { tile q in [64, 128], kv in [32, 64, 128]; warps in [4, 8, 12]; stages in [1, 2, 3, 4]; } }
";
