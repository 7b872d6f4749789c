//! Rankings of a kernel like the built-in ones.

use super::{Machine, Space, Workload};
use crate::{Given, PassSchedule, Problem, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::backward;
use sparsek_dsl::ir::{Instance, Program, Spec};

const KERNEL: &str = "sparsek_kernel! {
    pub kernel Case<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let seen = causal & (topk(gate) | window(W));
        let p = softmax(dot(q, k) * rsqrt(D), seen);
        dot(p * gate, v)
    }
}";

/// An instance and its backward.
pub(super) struct Case {
    pub(super) instance: Instance,
    pub(super) backward: Program,
}

impl Case {
    pub(super) fn new(text: &str, spec: &Spec) -> Case {
        let compiled = sparsek_dsl::parse::compile_file(text);
        assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
        let program = compiled.kernels.into_iter().next().and_then(|k| k.program).unwrap();
        let instance = program.instantiate(spec).unwrap();
        let backward = backward::derive(&instance.program);
        Case { instance, backward }
    }

    pub(super) fn problem(&self, group: u32) -> Problem<'_> {
        let given = ["q", "k", "v", "u"].map(|n| Given { name: n.to_owned(), per_head: false });
        let (instance, backward) = (&self.instance, &self.backward);
        Problem { instance, backward, group, given: given.to_vec() }
    }
}

fn space(elem: Elem, d: i64, (k, w): (i64, i64), group: u32, target: &str, n: u64) -> Space {
    let case = Case::new(KERNEL, &Spec::new(elem, d).k(k).w(w));
    let target = Target::named(target).unwrap();
    let workload = Workload { n, ..Workload::default() };
    Space::new(&case.problem(group), &target, &Machine::of(&target), &workload).unwrap()
}

#[test]
fn print() {
    let show = |s: &PassSchedule, ms: f64| println!("    {ms:8.3} {s}");
    for (elem, d, kw, g, t, n) in [
        (Elem::Bf16, 128, (512, 512), 4, "sm_90a", 65_536),
        (Elem::Bf16, 64, (512, 512), 4, "sm_90a", 65_536),
        (Elem::Bf16, 128, (512, 512), 4, "sm_80", 65_536),
        (Elem::Bf16, 128, (128, 0), 1, "sm_90a", 65_536),
    ] {
        let s = space(elem, d, kw, g, t, n);
        println!(
            "{elem} {d} {kw:?} {g} {t} {n}: {} {} {}",
            s.forward.len(),
            s.backward.len(),
            s.chunks.len()
        );
        for c in s.forward.iter().take(14) {
            show(&c.schedule, c.predicted_ms);
        }
        println!("  sm80:");
        for c in s.forward.iter().filter(|c| c.schedule.family == crate::Family::Sm80).take(12) {
            show(&c.schedule, c.predicted_ms);
        }
        println!("  backward");
        for c in s.backward.iter().take(10) {
            show(&c.schedule, c.predicted_ms);
        }
        println!("  sm80:");
        for c in s.backward.iter().filter(|c| c.schedule.family == crate::Family::Sm80).take(8) {
            show(&c.schedule, c.predicted_ms);
        }
        println!("  {:?}", s.chunks);
    }
}
