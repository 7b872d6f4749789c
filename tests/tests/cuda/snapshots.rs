//! Plans and CUDA C of a few kernels: what a change of the generator changes.

use crate::compile::Instance;
use sparsek_codegen::{Module, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Program, Spec};
use sparsek_dsl::parse::compile_file;

fn builtin(name: &str) -> Program {
    sparsek_kernels::builtin(name).expect("a built-in kernel").program().expect("it loads")
}

/// A snapshot whose failure says how to accept the change.
fn assert(name: String, text: &str) {
    let command = "INSTA_UPDATE=always cargo test -p sparsek-tests --test cuda snapshots";
    let description = format!(
        "after a deliberate change, update with\n{command}\nor all with cargo xtask update"
    );
    insta::with_settings!({ description => description, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// The plan of every module, and the sources of some.
fn snapshot(name: &str, instance: &Instance, target: &str, shown: &[Module]) {
    let target = Target::named(target).expect("a target");
    let (schedule, plans) = instance.plans(&target).expect("it fits");
    let texts: Vec<String> = plans.iter().map(|plan| plan.to_string()).collect();
    assert(format!("{name}_plans"), &format!("{schedule}\n\n{}", texts.join("\n")));
    for plan in plans.iter().filter(|plan| shown.contains(&plan.module)) {
        let source = plan.cuda().expect("it is rendered").text;
        assert(format!("{name}_{}", plan.module.name()), &source);
    }
}

#[test]
fn the_plainest_kernel() {
    let spec = Spec::new(Elem::Bf16, 64).k(512).w(512);
    let instance = Instance::new(&builtin("sparsek-value"), &spec, 4, false);
    snapshot("value", &instance, "sm_90a", &Module::ALL);
}

/// An extra input with a gradient of its own, and a soft cap.
#[test]
fn a_slope_and_a_soft_cap() {
    let spec = Spec::new(Elem::F16, 128).k(256).w(128);
    let instance = Instance::new(&builtin("sparsek-slope-softcap"), &spec, 8, false);
    snapshot("slope", &instance, "sm_80", &[Module::Forward]);
}

/// Scores computed from two inputs, sinks, an extra logit, a predicate, a value of keys; f32, and a
/// group that fills no tile.
#[test]
fn keys_queries_and_heads() {
    let text = "sparsek_kernel! {
        pub kernel Mixed(
            q: Query<f32, 48>, k: Key<f32, 48>, v: Key<f32, 48>, u: PerKey,
            bias: PerKey, shift: PerQuery, slope: PerHead, document: PerKey<i32>,
        ) -> Output<f32, 48> {
            let gate = sparsek(u + bias, 40);
            let seen = causal & (topk(gate) | window(24) | sinks(4)) & (document == 1);
            let s = dot(q, k) * rsqrt(48) * slope + shift - slope * (q.pos - k.pos);
            let p = softmax(s, seen, sink = shift);
            dot(p * gate * (1.0 + bias), v)
        }
    }";
    let compiled = compile_file(text);
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    let kernel = compiled.kernels.into_iter().next().expect("one kernel");
    let program = kernel.program.expect("it compiles");
    let instance = Instance::new(&program, &Spec::new(Elem::F32, 48), 3, true);
    snapshot("mixed", &instance, "sm_120a", &[Module::Backward]);
    let target = Target::named("sm_120a").expect("a target");
    let problems = instance.compile(&target).problems;
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Predicates that sweeps of sm90 decide for whole tiles: of documents, which need the least and the greatest of a tile,
/// and of positions, which ascend.
#[test]
fn documents_within_a_horizon() {
    let text = "sparsek_kernel! {
        pub kernel Documents<E in [bf16], D in [64, 128]>(
            q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey, doc_q: PerQuery<i32>, doc_k: PerKey<i32>,
        ) -> Output<E, D> {
            let gate = sparsek(u, 512);
            let near = (q.pos - k.pos < 20000) | (k.pos < 64);
            let seen = causal & (topk(gate) | window(512)) & near & (doc_q == doc_k);
            dot(softmax(dot(q, k) * rsqrt(D), seen) * gate, v)
        }
    }";
    let compiled = compile_file(text);
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    let kernel = compiled.kernels.into_iter().next().expect("one kernel");
    let program = kernel.program.expect("it compiles");
    let target = Target::named("sm_90a").expect("a target");
    for (d, group) in [(64, 1), (128, 4)] {
        let instance = Instance::new(&program, &Spec::new(Elem::Bf16, d), group, false);
        let problems = instance.compile(&target).problems;
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
    let instance = Instance::new(&program, &Spec::new(Elem::Bf16, 128), 4, false);
    snapshot("documents", &instance, "sm_90a", &[Module::Forward]);
}
