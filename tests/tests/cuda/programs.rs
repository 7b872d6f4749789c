//! Random programs of the grammar.

use crate::compile::{Instance, in_parallel};
use sparsek_codegen::Target;
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Spec;
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

fn of_seed(seed: u64, why: &str) -> String {
    format!("seed {seed}: {why}")
}

/// Head dimension 16: nothing is a reason to refuse one.
#[test]
fn random_programs_compile_and_spill_nothing() {
    // The last two have sinks that are the same for every query of a sequence.
    let seeds: Vec<u64> = (0..20).chain([1108, 1184]).collect();
    in_parallel(&seeds, |seed| {
        let target = Target::ALL[(*seed % Target::ALL.len() as u64) as usize];
        instance(*seed)
            .compile(&target)
            .problems
            .into_iter()
            .map(|why| of_seed(*seed, &why))
            .collect()
    });
}

/// What leaves fewest registers on sm_90a: slopes, a soft cap and a predicate beside a gate.
const CROWDED: &str = "
sparsek_kernel! {
    kernel Crowded<E in [bf16, f16], D in multiples_of(16) up to 128, K in 1..=1024, W in 0..=1024>(
        q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey, slope: PerHead,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W)) & (q.pos - k.pos < 100000);
        let s = softcap(dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos), 30.0);
        dot(softmax(s, seen) * gate, v)
    }
}";

/// Groups decide how rows are found, and in groups of 1 and 2 and D = 64 a tile's columns have another order.
#[test]
fn crowded_programs_spill_nothing_in_any_group() {
    let kernel = compile_file(CROWDED).kernels.into_iter().next().expect("one kernel");
    let program = kernel.program.expect("it compiles");
    let target = Target::named("sm_90a").expect("it is known");
    let of = |(d, group)| {
        let spec = Spec::new(Elem::Bf16, d).k(512).w(256);
        Instance::new(&program, &spec, group, false)
    };
    let shapes = [(128, 1), (128, 2), (128, 3), (128, 4), (112, 1), (64, 1), (64, 2)];
    let all: Vec<Instance> = shapes.into_iter().map(of).collect();
    in_parallel(&all, |instance| {
        let ended = instance.compile(&target);
        assert!(!ended.refused, "{}", instance.label);
        ended.problems
    });
}

#[test]
fn random_programs_are_rendered_for_every_target() {
    let seeds: Vec<u64> = (100..300).collect();
    in_parallel(&seeds, |seed| {
        let instance = instance(*seed);
        let problem = |target: &Target| match instance.sources(target) {
            Ok(Some(_)) => None,
            Ok(None) => Some(of_seed(*seed, &format!("refused for {target}"))),
            Err(why) => Some(of_seed(*seed, &why)),
        };
        Target::ALL.iter().filter_map(problem).collect()
    });
}

#[test]
#[ignore = "ten minutes of processor time"]
fn many_random_programs_are_cuda() {
    let seeds: Vec<u64> = (1000..1100).collect();
    in_parallel(&seeds, |seed| {
        let target = Target::ALL[(*seed % Target::ALL.len() as u64) as usize];
        instance(*seed).ptx(&target).into_iter().map(|why| of_seed(*seed, &why)).collect()
    });
}
