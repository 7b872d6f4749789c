use sparsek::sparsek_kernel;

sparsek_kernel! {
    pub kernal First(q: Query<f32, 64>) -> Output<f32, 64> { dot(q, q) }
    pub kernel Second<E [f32]>(q Query<E, 64>, k: , v: Key<E 64>) -> Output<E, 64> { dot(q, k) }
    pub kernel Third(q: Query<f32, 64>) Output<f32, 64> { dot(q, k) }
}

fn main() {}
