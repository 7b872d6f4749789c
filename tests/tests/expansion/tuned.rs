//! A kernel that carries tuned schedules in a file beside this one.

use sparsek::{Elem, Spec, sparsek_kernel};

sparsek_kernel! {
    /// It carries one.
    #[tuned("tuned.json")]
    pub kernel Carries<E in [bf16], D in multiples_of(16) up to 64, W in 1..=64>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>,
    ) -> Output<E, D> {
        dot(softmax(dot(q, k) * rsqrt(D), causal & window(W)), v)
    }

    /// It carries none.
    kernel Plain<E in [bf16], D in multiples_of(16) up to 64, W in 1..=64>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>,
    ) -> Output<E, D> {
        dot(softmax(dot(q, k) * rsqrt(D), causal & window(W)), v)
    }
}

#[test]
fn a_kernel_carries_the_file_that_it_names() -> Result<(), sparsek::Error> {
    let spec = || Spec::new(Elem::Bf16, 64).w(16);
    assert_eq!(Carries::new(spec())?.kernel().manifest().records().len(), 1);
    assert!(Carries::MANIFEST.is_some());
    assert!(Plain::new(spec())?.kernel().manifest().is_empty());
    assert!(Plain::MANIFEST.is_none());
    Ok(())
}
