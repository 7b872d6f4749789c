use sparsek::sparsek_kernel;

sparsek_kernel! {
    pub kernel Case<E in [bf16, f16, f32], D in [], K in 4096..=1, W in multiples_of(64) up to 32>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let s = dot(q, k) * rsqrt(D);
        let p = softmax(s, seen);
        dot(p * gate, v)
    }
}

fn main() {}
