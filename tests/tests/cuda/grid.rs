//! Built-in kernels over head dimensions, element types, extents, groups and targets.

use crate::compile::{Instance, in_parallel};
use sparsek_codegen::Target;
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Spec;
use std::sync::atomic::{AtomicUsize, Ordering};

const HEAD_DIMS: [i64; 5] = [16, 48, 64, 128, 256];

const GROUPS: [u32; 4] = [1, 3, 4, 8];

const EXTENTS: [(i64, i64); 4] = [(512, 512), (1, 0), (37, 64), (4096, 8192)];

/// Every kernel, head dimension and element type; groups and extents take turns.
fn instances() -> Vec<Instance> {
    let mut all = Vec::new();
    for builtin in sparsek_kernels::all() {
        let program = builtin.program().expect("a built-in program loads");
        for d in HEAD_DIMS {
            for elem in Elem::ALL {
                let at = all.len();
                let group = GROUPS[at % GROUPS.len()];
                let (k, w) = EXTENTS[at / GROUPS.len() % EXTENTS.len()];
                let spec = Spec::new(elem, d).k(k).w(w);
                all.push(Instance::new(&program, &spec, group, false));
            }
        }
    }
    all
}

/// Rendering is cheap: every instance for every target.
#[test]
fn every_kernel_is_rendered_or_refused_with_numbers() {
    let (rendered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_parallel(&instances(), |instance| {
        let mut problems = Vec::new();
        for target in &Target::ALL {
            match instance.sources(target) {
                Ok(Some(_)) => {
                    rendered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                Err(problem) => problems.push(problem),
            }
        }
        problems
    });
    let (rendered, refused) = (rendered.into_inner(), refused.into_inner());
    assert!(refused * 10 <= rendered, "{refused} refused and {rendered} rendered");
}

/// Compiling takes seconds: every kernel and element type, the rest in turns.
#[test]
fn every_kernel_compiles_and_spills_nothing() {
    let mut all = Vec::new();
    for builtin in sparsek_kernels::all() {
        let program = builtin.program().expect("a built-in program loads");
        for elem in Elem::ALL {
            let at = all.len();
            let (k, w) = EXTENTS[at % EXTENTS.len()];
            let spec = Spec::new(elem, HEAD_DIMS[at % HEAD_DIMS.len()]).k(k).w(w);
            // Kernels are multiples of the lists' lengths apart, so each turn starts one further.
            let group = GROUPS[(at + at / GROUPS.len()) % GROUPS.len()];
            let target = Target::ALL[(at + at / Target::ALL.len()) % Target::ALL.len()];
            all.push((Instance::new(&program, &spec, group, false), target));
        }
    }
    let refused = AtomicUsize::new(0);
    in_parallel(&all, |(instance, target)| {
        let ended = instance.compile(target);
        refused.fetch_add(usize::from(ended.refused), Ordering::Relaxed);
        ended.problems
    });
    assert!(refused.into_inner() <= 2);
}

/// What models run most, for every target.
#[test]
fn usual_kernels_compile_for_every_target() {
    let program = |name: &str| {
        let builtin = sparsek_kernels::builtin(name).expect("a built-in kernel");
        builtin.program().expect("a built-in program loads")
    };
    let usual = [("sparsek-value", Elem::Bf16, 128, 4), ("sparsek-both", Elem::F16, 64, 8)];
    let all: Vec<(Instance, Target)> = usual
        .iter()
        .flat_map(|(name, elem, d, group)| {
            let spec = Spec::new(*elem, *d).k(512).w(512);
            let instance = move |t| (Instance::new(&program(name), &spec, *group, false), t);
            Target::ALL.map(instance)
        })
        .collect();
    in_parallel(&all, |(instance, target)| {
        let mut ended = instance.compile(target);
        if ended.refused {
            ended.problems.push(format!("{} is refused for {target}", instance.label));
        }
        ended.problems
    });
}

/// Logits that read gates have no registers to spare where three warpgroups share them.
#[test]
fn gates_in_logits_spill_nothing_in_any_group() {
    let builtin = sparsek_kernels::builtin("sparsek-both").expect("a built-in kernel");
    let program = builtin.program().expect("a built-in program loads");
    let hopper = Target::named("sm_90a").expect("it is known");
    let instance = |(group, w)| {
        let spec = Spec::new(Elem::Bf16, 64).k(512).w(w);
        Instance::new(&program, &spec, group, false)
    };
    let all: Vec<Instance> = [(1, 512), (4, 0), (8, 0)].into_iter().map(instance).collect();
    in_parallel(&all, |instance| instance.compile(&hopper).problems);
}

/// Plans of short chunks, which the usual length does not choose, go over scores instead of sorted lists.
#[test]
fn plans_of_short_chunks_compile_and_spill_nothing() {
    let builtin = sparsek_kernels::builtin("sparsek-value").expect("a built-in kernel");
    let program = builtin.program().expect("a built-in program loads");
    let instance = |k| Instance::new(&program, &Spec::new(Elem::Bf16, 64).k(k).w(512), 4, false);
    let hopper = Target::named("sm_90a").expect("it is known");
    let mut all: Vec<_> = Target::ALL.map(|target| (instance(512), target, 256)).into();
    all.push((instance(64), hopper, 128));
    in_parallel(&all, |(instance, target, chunk)| instance.compile_plan(target, *chunk));
}

/// The whole of it takes an hour of processor time: `cargo test -p sparsek-tests --test cuda --
/// --ignored`.
#[test]
#[ignore = "every group and target: an hour of processor time"]
fn every_kernel_compiles_for_every_group_and_target() {
    let mut all = Vec::new();
    for builtin in sparsek_kernels::all() {
        let program = builtin.program().expect("a built-in program loads");
        for (at, d) in HEAD_DIMS.into_iter().enumerate() {
            for elem in Elem::ALL {
                for group in GROUPS {
                    let (k, w) = EXTENTS[(at + group as usize) % EXTENTS.len()];
                    let spec = Spec::new(elem, d).k(k).w(w);
                    all.push(Instance::new(&program, &spec, group, true));
                }
            }
        }
    }
    in_parallel(&all, |instance| {
        Target::ALL.iter().flat_map(|target| instance.compile(target).problems).collect()
    });
}
