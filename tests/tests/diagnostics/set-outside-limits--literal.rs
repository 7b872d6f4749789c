use sparsek::sparsek_kernel;

sparsek_kernel! {
    pub kernel Case<E in [f32]>(
        q: Query<E, 17>, k: Key<E, 17>, v: Key<E, 17>, u: PerKey,
    ) -> Output<E, 17> {
        let gate = sparsek(u, 0);
        let seen = causal & (topk(gate) | window(-1));
        let s = dot(q, k);
        let p = softmax(s, seen);
        dot(p * gate, v)
    }
}

fn main() {}
