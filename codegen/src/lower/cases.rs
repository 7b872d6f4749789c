//! Kernels of unit tests.

use super::elementwise::Expressions;
use crate::{Given, Problem};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Spec;

/// Calls `use_them` with the expressions of a kernel of that body. Of `extras`, names and classes, it has the inputs
/// that the body names.
pub(super) fn with_expressions<T>(
    elem: Elem,
    extras: &[(&str, &str)],
    body: &str,
    use_them: impl FnOnce(&Expressions<'_>) -> T,
) -> T {
    let used = extras.iter().filter(|(name, _)| body.contains(name));
    let inputs: String = used.map(|(name, class)| format!("{name}: {class}, ")).collect();
    let kernel = format!(
        "sparsek_kernel! {{
            pub kernel Case<E in [bf16, f32], D in multiples_of(16) up to 256, W in 0..=8192>(
                q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, {inputs}
            ) -> Output<E, D> {{
                {body}
            }}
        }}"
    );
    let compiled = sparsek_dsl::parse::compile_file(&kernel);
    let program = compiled.kernels.into_iter().next().and_then(|k| k.program).unwrap();
    let instance = program.instantiate(&Spec::new(elem, 64).w(64)).unwrap();
    let names = ["q", "k", "v"].into_iter().chain(extras.iter().map(|(name, _)| *name));
    let given = names.map(|n| Given { name: n.to_owned(), per_head: false }).collect();
    let problem = Problem { instance: &instance, backward: &instance.program, group: 1, given };
    use_them(&Expressions::new(&problem, &instance.program).unwrap())
}
