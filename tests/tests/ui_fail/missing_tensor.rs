use sparsek::{TensorView, sparsek_kernel};

sparsek_kernel! {
    pub kernel Case<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey, slope: PerHead = 0.0,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let s = dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos);
        dot(softmax(s, causal & topk(gate)) * gate, v)
    }
}

fn main() {
    let x = TensorView::new(&[1, 1, 1, 16], [0.0f32; 16].as_slice()).unwrap();
    let _ = CaseInputs { q: x.clone(), k: x.clone(), u: x.clone(), slope: None };
}
