use sparsek::sparsek_kernel;

sparsek_kernel! {
    pub kernel Case<E in [f32], D in [64]>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>,
    ) -> Output<E, D> {
        let seen = causal;
        let s = dot(q, k) * rsqrt(D);
        let p = softmax(s, seen);
        dot(p, v)
    }
}

fn main() {}
