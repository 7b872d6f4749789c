//! Plans and CUDA C of a few kernels: what a change of the generator changes.

use crate::compile::Instance;
use sparsek_codegen::Target;
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Spec;

fn snapshot(name: &str, builtin: &str, spec: &Spec, group: u32, target: &str) {
    let program = sparsek_kernels::builtin(builtin).expect("a built-in kernel").program();
    let instance = Instance::new(&program.expect("it loads"), spec, group, false);
    let target = Target::named(target).expect("a target");
    let (schedule, plans) = instance.plans(&target).expect("it fits");
    let shown: Vec<String> = plans.iter().map(|plan| plan.to_string()).collect();
    insta::assert_snapshot!(format!("{name}_plan"), format!("{schedule}\n\n{}", shown.join("\n")));
    for plan in &plans {
        let source = plan.cuda().expect("it is rendered").text;
        insta::assert_snapshot!(format!("{name}_{}", plan.module.name()), source);
    }
}

/// What the documentation measures.
#[test]
fn the_headline_kernel() {
    let spec = Spec::new(Elem::Bf16, 128).k(512).w(512);
    snapshot("headline", "sparsek-value", &spec, 4, "sm_90a");
}

/// An extra input with a gradient of its own, a soft cap, f32, an odd head dimension.
#[test]
fn a_slope_and_a_soft_cap() {
    let spec = Spec::new(Elem::F32, 48).k(64).w(32);
    snapshot("slope", "sparsek-slope-softcap", &spec, 3, "sm_80");
}
