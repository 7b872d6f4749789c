use sparsek::sparsek_kernel;

sparsek_kernel! {
}

fn main() {}
