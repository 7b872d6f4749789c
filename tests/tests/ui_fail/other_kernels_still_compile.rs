use sparsek::{Elem, Spec, sparsek_kernel};

// One kernel is wrong: its one error is all that is reported, here and where it is used.
sparsek_kernel! {
    pub kernel Wrong<E in [bf16, f16, f32], D in multiples_of(16) up to 256, W in 1..=4096>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>,
    ) -> Output<E, D> {
        dot(softmax(dot(q, k) * temperature, causal & window(W)), v)
    }

    pub kernel Right<E in [bf16, f16, f32], D in multiples_of(16) up to 256, W in 1..=4096>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>,
    ) -> Output<E, D> {
        dot(softmax(dot(q, k), causal & window(W)), v)
    }
}

fn main() {
    let _ = Wrong::new(Spec::new(Elem::F32, 16).w(4));
    let _ = Right::new(Spec::new(Elem::F32, 16).w(4));
    let _: fn(&Wrong, &WrongInputs<sparsek::TensorView<'_>>) -> _ = Wrong::forward;
}
