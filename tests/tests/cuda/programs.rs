//! Random programs of the grammar.

use crate::compile::{Instance, in_parallel};
use sparsek_codegen::Target;
use sparsek_dsl::Elem;
use sparsek_dsl::parse::compile_file;
use sparsek_reference::generate;

/// The program of a seed, read back from its text, as users' programs are.
fn instance(seed: u64) -> Instance {
    let generated = generate::random(seed, 64);
    let compiled = compile_file(&generated.program.to_string());
    let kernel = compiled.kernels.into_iter().next().expect("one kernel");
    let program = kernel.program.expect("a generated program compiles");
    let mut spec = generated.spec;
    let elem = Elem::ALL[(seed % 3) as usize];
    if program.elem.set.contains(&elem) {
        spec.elem = elem;
    }
    Instance::new(&program, &spec, [1, 2, 3, 5][(seed % 4) as usize], seed.is_multiple_of(2))
}

/// Head dimension 16: nothing is a reason to refuse one.
#[test]
fn random_programs_compile_without_spills() {
    let seeds: Vec<u64> = (0..30).collect();
    in_parallel(&seeds, |seed| {
        let target = Target::ALL[(*seed % Target::ALL.len() as u64) as usize];
        instance(*seed).compile(&target);
    });
}

#[test]
fn random_programs_are_rendered_for_every_target() {
    let seeds: Vec<u64> = (100..300).collect();
    in_parallel(&seeds, |seed| {
        let instance = instance(*seed);
        for target in &Target::ALL {
            assert!(instance.sources(target).is_some(), "seed {seed} is refused for {target}");
        }
    });
}
