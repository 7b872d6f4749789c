//! Random problems: a program, an instance of it, and inputs.

use sparsek_dsl::backward::derive;
use sparsek_dsl::ir::Program;
use sparsek_dsl::parse::compile_file;
use sparsek_reference::generate::{self, Generated, Scores, Shape};
use sparsek_reference::{Arrays, dense};

/// The program that the text of `program` parses to.
pub(crate) fn reread(seed: u64, program: &Program) -> Program {
    let text = program.to_string();
    let compiled = compile_file(&text);
    let messages: Vec<&str> = compiled.diagnostics.iter().map(|d| d.message.as_str()).collect();
    assert!(messages.is_empty(), "seed {seed}: {messages:?}\n{text}");
    let kernel = compiled.kernels.into_iter().next().expect("one kernel");
    kernel.program.expect("a kernel without diagnostics has a program")
}

/// One random problem.
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) generated: Generated,
    pub(crate) forward: Program,
    pub(crate) backward: Program,
    pub(crate) inputs: Arrays,
    cu_seqlens: Option<Vec<i32>>,
}

impl Case {
    /// The problem of a seed: 5 to 20 tokens, up to 2 sequences and 4 query heads.
    pub(crate) fn new(seed: u64) -> Case {
        let n = 5 + (seed % 16) as usize;
        let mut generated = generate::random(seed, n);
        // What runs is what was printed and read back.
        generated.program = reread(seed, &generated.program);
        let instance = |p: &Program| {
            p.instantiate(&generated.spec).unwrap_or_else(|e| panic!("seed {seed}: {e}")).program
        };
        let forward = instance(&generated.program);
        let backward = instance(&derive(&generated.program));
        let (hq, hkv) = [(1, 1), (2, 1), (4, 2), (2, 2)][(seed / 2 % 4) as usize];
        let packed = seed.is_multiple_of(5);
        let batch = if packed { 1 } else { 1 + (seed / 3 % 2) as usize };
        let deviation = [1.0, 0.3, 3.0][(seed % 3) as usize];
        let shape = Shape { batch, n, hq, hkv };
        let scores = Scores::Normal(deviation);
        let inputs = generate::inputs(seed, &forward, &shape, scores).expect("an instance");
        let cu_seqlens = packed.then(|| vec![0, (n / 3) as i32, n as i32]);
        Case { seed, generated, forward, backward, inputs, cu_seqlens }
    }

    pub(crate) fn options(&self) -> dense::Options<'_> {
        dense::Options { cu_seqlens: self.cu_seqlens.as_deref(), ..Default::default() }
    }
}
