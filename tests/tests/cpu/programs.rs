//! Random programs: the CPU backend against the interpreter on the program read back from its text.

use crate::problem::Problem;
use sparsek::{Elem, Program};
use sparsek_dsl::parse::compile_file;
use sparsek_reference::generate::{self, Scores, Shape};

/// Programs compared in full.
const PROGRAMS: u64 = 240;

pub(crate) fn reread(program: &Program) -> Program {
    let text = program.to_string();
    let compiled = compile_file(&text);
    assert!(compiled.diagnostics.is_empty(), "{:?}\n{text}", compiled.diagnostics);
    let kernel = compiled.kernels.into_iter().next().expect("one kernel");
    kernel.program.expect("no diagnostics, so a program")
}

fn check(seed: u64) {
    let n = [7, 19, 40, 66, 97][(seed % 5) as usize] + (seed % 3) as usize;
    let mut generated = generate::random(seed, n);
    if generated.program.elem.set.contains(&Elem::F32) && !seed.is_multiple_of(4) {
        generated.spec.elem = Elem::F32;
    }
    let instance = generated.program.instantiate(&generated.spec).expect("its own spec");
    let (hq, hkv) = [(1, 1), (4, 1), (4, 2), (6, 2), (3, 3)][(seed / 5 % 5) as usize];
    let packed = seed.is_multiple_of(6);
    let batch = if packed { 1 } else { 1 + (seed % 2) as usize };
    let shape = Shape { batch, n, hq, hkv };
    let scores = if generate::score_is_input(&instance.program) {
        Scores::ALL[(seed % Scores::ALL.len() as u64) as usize]
    } else {
        Scores::Normal([1.0, 0.1, 3.0][(seed % 3) as usize])
    };
    let inputs = generate::inputs(seed, &instance.program, &shape, scores).expect("an instance");
    let end = n as i32;
    let cu_seqlens = packed.then(|| vec![0, 0, end / 3, end / 3 + 1, end, end]);
    let reference = reread(&generated.program);
    Problem::new(&generated.program, &reference, &generated.spec, inputs, cu_seqlens)
        .check(&format!("seed {seed}, scores {scores:?}"));
}

#[test]
fn random_programs_agree_with_the_interpreter() {
    (0..PROGRAMS).for_each(check);
}
