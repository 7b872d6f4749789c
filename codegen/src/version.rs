//! Which code this release generates.

/// Changes with the lowering: raise it with every change after which a program and schedule give
/// other machine code although no template changed. `cargo xtask generate` asks for it where it changes the
/// built-in kernels.
const LOWERING: &str = "1";

/// Names the generated code: a schedule was measured with the code of one version, and says nothing
/// of another. The number of the lowering and a hash of the templates without their comments.
pub fn version() -> String {
    format!("{LOWERING}-{}", env!("SPARSEK_TEMPLATES"))
}
