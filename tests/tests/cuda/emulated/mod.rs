//! The plan's CUDA C run on the CPU, compiled as C++ with what `cuda.hpp` stands in for, and held against
//! the CPU backend: without a GPU nothing else runs generated code.

use crate::compile::{Instance, in_parallel};
use sparsek::{Elem, Inputs, Kernel, Options, Program, Spec, TensorView};
use sparsek_codegen::{Axis, KernelPlan, Parameter, Scalar, Sizes, Target};
use sparsek_reference::generate::{self, Scores, Shape};
use sparsek_reference::rule;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A compiled plan.
struct Emulated {
    kernel: Kernel,
    plan: KernelPlan,
    binary: PathBuf,
    folder: tempfile::TempDir,
}

/// Scores \[1, heads, N\], of which sequences may be packed.
struct Case<'a> {
    label: &'a str,
    u: &'a [f32],
    heads: usize,
    cu_seqlens: Option<&'a [i32]>,
}

impl Case<'_> {
    fn n(&self) -> usize {
        self.u.len() / self.heads
    }
}

/// What a plan decides.
struct Selection {
    tau: Vec<f32>,
    expiry: Vec<i32>,
}

impl Emulated {
    fn new(program: &Program, k: i64, w: i64, chunk: u32) -> Emulated {
        let spec = Spec::new(Elem::F32, 16).k(k).w(w);
        let target = Target::named("sm_89").expect("it is known");
        let instance = Instance::new(program, &spec, 1, false);
        let (plan, text) = instance.plan_of_chunk(&target, chunk).expect("it is rendered");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = folder.path().join("plan.cpp");
        std::fs::write(&source, cpp(&plan, &text)).expect("it is written");
        let binary = folder.path().join("plan");
        compile(&source, &binary);
        let kernel = Kernel::from_program(program, &spec).expect("the spec is of the sets");
        Emulated { kernel, plan, binary, folder }
    }

    /// What the emulated plan decides.
    fn run(&self, case: &Case<'_>) -> Selection {
        let (label, len) = (case.label, case.u.len());
        let input = self.folder.path().join("input");
        let output = self.folder.path().join("output");
        std::fs::write(&input, words(&self.plan, case)).expect("it is written");
        let ran = Command::new(&self.binary).args([&input, &output]).output().expect("it starts");
        let message = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{label}: {} {message}", ran.status);
        let bytes = std::fs::read(&output).expect("it has been written");
        let (numbers, _) = bytes.as_chunks::<4>();
        assert_eq!(numbers.len(), 2 * len, "{label}");
        let (tau, expiry) = numbers.split_at(len);
        Selection {
            tau: tau.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            expiry: expiry.iter().map(|b| i32::from_le_bytes(*b)).collect(),
        }
    }

    /// What the CPU backend decides.
    fn expected(&self, case: &Case<'_>) -> Selection {
        let (n, heads) = (case.n(), case.heads);
        let (shape, vectors) = ([1, n, heads, 16], vec![0.0f32; n * heads * 16]);
        let view = || TensorView::new(&shape, vectors.as_slice()).expect("shape and data agree");
        let scores = TensorView::new(&[1, heads, n], case.u).expect("shape and data agree");
        let inputs = ["q", "k", "v"].iter().fold(Inputs::new(), |i, name| i.with(name, view()));
        let options = Options { cu_seqlens: case.cu_seqlens, ..Options::default() };
        let forward = self.kernel.forward(&inputs.with("u", scores), &options).expect("it runs");
        Selection {
            tau: forward.tau.to_f32(),
            expiry: forward.expiry.as_i32().expect("whole numbers").to_vec(),
        }
    }

    /// What differs: an expiry, or a tau by more than the 2 ulp that each side may be off.
    fn problems(&self, case: &Case<'_>) -> Vec<String> {
        let (got, want, label) = (self.run(case), self.expected(case), case.label);
        let mut problems = Vec::new();
        if let Some(at) = (0..case.u.len()).find(|i| got.expiry[*i] != want.expiry[*i]) {
            let (got, want) = (got.expiry[at], want.expiry[at]);
            problems.push(format!("{label}: expiry {at} is {got} instead of {want}"));
        }
        let is_off = |i: &usize| {
            let (got, want) = (f64::from(got.tau[*i]), f64::from(want.tau[*i]));
            let distance = (got - want).abs();
            got != want && (distance.is_nan() || distance > 4.0 * rule::ulp(want))
        };
        if let Some(at) = (0..case.u.len()).find(is_off) {
            let (got, want) = (got.tau[at], want.tau[at]);
            problems.push(format!("{label}: tau {at} is {got} instead of {want}"));
        }
        problems
    }
}

/// The module as C++, with a main function that makes its launches.
fn cpp(plan: &KernelPlan, text: &str) -> String {
    let shared = "extern __shared__ __align__(16) unsigned char shared_memory[];";
    let text = text
        .replace(shared, "unsigned char* const shared_memory = emulated::dynamic_shared;")
        .replace("__shared__ alignas(16)", "alignas(16) __shared__");
    let launches: String = plan
        .interface
        .launches
        .iter()
        .map(|l| format!("    call.launch({}, a);\n", l.entry))
        .collect();
    format!(
        "#include \"call.hpp\"\n\n{text}\nint main(int, char** files) {{\n    emulated::Call call(files[1], \
         files[2]);\n    const Arguments a = call.arguments<Arguments>();\n{launches}    call.write();\n}}\n"
    )
}

fn compile(source: &Path, binary: &Path) {
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/emulated");
    let ran = Command::new("c++")
        .args(["-std=c++17", "-O1", "-w", "-fwrapv", "-fsanitize=address", "-I"])
        .args([&headers, source])
        .arg("-o")
        .arg(binary)
        .output()
        .expect("this test needs a C++ compiler, c++");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// What `call.hpp` reads: every field of the parameter struct, and every launch.
fn words(plan: &KernelPlan, case: &Case<'_>) -> Vec<u8> {
    const NUMBER: u64 = 0;
    const GIVEN: u64 = 1;
    const SCRATCH: u64 = 2;
    const KEPT: u64 = 3;
    let (n, heads) = (case.n() as u64, case.heads as u64);
    let sizes = Sizes {
        rows: 1,
        sequences: case.cu_seqlens.map_or(1, |c| c.len() as u64 - 1),
        n,
        hq: heads,
        hkv: heads,
        packed: case.cu_seqlens.is_some(),
        multiprocessors: 1,
    };
    let mut words = Vec::new();
    let given = |bytes: Vec<u8>, words: &mut Vec<u8>| {
        put(words, &[GIVEN, bytes.len() as u64]);
        words.write_all(&bytes).expect("to memory");
        words.resize(words.len().next_multiple_of(8), 0);
    };
    for parameter in &plan.interface.parameters {
        match parameter {
            Parameter::Rows => put(&mut words, &[NUMBER, sizes.rows]),
            Parameter::Sequences => put(&mut words, &[NUMBER, sizes.sequences]),
            Parameter::N => put(&mut words, &[NUMBER, sizes.n]),
            Parameter::Hq => put(&mut words, &[NUMBER, sizes.hq]),
            Parameter::Hkv => put(&mut words, &[NUMBER, sizes.hkv]),
            Parameter::CuSeqlens => match case.cu_seqlens {
                None => put(&mut words, &[NUMBER, 0]),
                Some(c) => given(c.iter().flat_map(|x| x.to_le_bytes()).collect(), &mut words),
            },
            Parameter::Tensor { name, axes, .. } => {
                match name.as_str() {
                    "u" => given(case.u.iter().flat_map(|x| x.to_le_bytes()).collect(), &mut words),
                    "tau" | "expiry" => put(&mut words, &[KEPT, 4 * n * heads]),
                    other => panic!("a plan that takes {other}"),
                }
                for axis in axes {
                    let stride = match axis {
                        Axis::Batch => n * heads,
                        Axis::Head => n,
                        Axis::Position => 1,
                    };
                    put(&mut words, &[NUMBER, stride]);
                }
            }
            Parameter::Buffer(name) => {
                let buffer =
                    plan.interface.buffers.iter().find(|b| b.name == *name).expect("its own");
                assert!(!buffer.zeroed && buffer.scalar != Scalar::Elem, "a plan's {name}");
                let len = buffer.len.of(&sizes).expect("it is short");
                put(&mut words, &[SCRATCH, len * buffer.scalar.bytes(4)]);
            }
        }
    }
    for launch in &plan.interface.launches {
        let grid = launch.grid.iter().map(|g| g.of(&sizes).expect("it is small"));
        put(&mut words, &grid.collect::<Vec<_>>());
        put(&mut words, &[u64::from(launch.threads), u64::from(launch.shared)]);
    }
    words
}

fn put(words: &mut Vec<u8>, all: &[u64]) {
    words.extend(all.iter().flat_map(|x| x.to_le_bytes()));
}

/// Kernel, k, window and chunk: by lists of scores and by sorted ones, fewer and more keys than a block has
/// threads, lengths that go over a sample and that do not.
const PLANS: [(&str, i64, i64, u32, usize); 6] = [
    ("sparsek-value", 16, 64, 128, 2500),
    ("sparsek-value-sinks", 512, 257, 256, 4100),
    ("sparsek-value", 1, 0, 256, 2900),
    ("sparsek-value", 600, 0, 256, 1700),
    ("sparsek-value-sinks", 300, 64, 512, 2700),
    ("sparsek-value", 70, 600, 2048, 2900),
];

#[test]
fn plans_run_on_the_cpu_select_as_the_cpu_backend_does() {
    in_parallel(&PLANS, |&(name, k, w, chunk, n)| {
        let builtin = sparsek_kernels::builtin(name).expect("a built-in kernel");
        let program = builtin.program().expect("a built-in program loads");
        let emulated = Emulated::new(&program, k, w, chunk);
        let mut problems = Vec::new();
        for (seed, scores) in Scores::ALL.into_iter().chain([Scores::Masked]).enumerate() {
            // Every fourth time several heads, and sequences that are packed, one of them empty.
            let packed = seed % 4 == 3;
            let heads = if packed { 2 } else { 1 };
            let shape = Shape { batch: 1, n, hq: heads, hkv: heads };
            let program = &emulated.kernel.instance().program;
            let inputs =
                generate::inputs(seed as u64, program, &shape, scores).expect("an instance");
            let cut = (n / 3) as i32;
            let sequences = [0, cut, cut, n as i32];
            let label = format!("{name}, k {k}, window {w}, chunk {chunk}, {n} {scores:?} scores");
            problems.extend(emulated.problems(&Case {
                label: &label,
                u: &inputs["u"].to_f32(),
                heads,
                cu_seqlens: packed.then_some(&sequences),
            }));
        }
        // A step, over which tau passes more scores than a block keeps in shared memory.
        let step = |j| 1e-6 * (j * 37 % 1000) as f32 + if j < 3 * n / 4 { 0.0 } else { 10.0 };
        problems.extend(emulated.problems(&Case {
            label: &format!("{name}, k {k}, window {w}, chunk {chunk}, {n} scores with a step"),
            u: &(0..n).map(step).collect::<Vec<f32>>(),
            heads: 1,
            cu_seqlens: None,
        }));
        problems
    });
}
