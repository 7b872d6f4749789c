use sparsek::sparsek_kernel;

sparsek_kernel! {
    #[tuned("tuned.json")]
    #[tuned("tuned.json")]
    pub kernel Case<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
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
