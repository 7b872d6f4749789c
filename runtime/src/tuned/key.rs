//! What a tuned schedule was measured for.

use serde::{Deserialize, Serialize};
use sparsek_codegen::Problem;
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Instance;
use std::fmt;

/// The GPU that something was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name, as the driver gives it.
    pub name: String,
    /// Compute capability, as `9.0`.
    pub capability: String,
}

impl Gpu {
    /// The GPU of that name and compute capability.
    pub fn new(name: &str, (major, minor): (u32, u32)) -> Gpu {
        Gpu { name: name.to_owned(), capability: format!("{major}.{minor}") }
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.capability)
    }
}

/// What a schedule was measured for. Two calls of one key run the same code on sequences of about the
/// same length; anything that could make another schedule the best is in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Hash of the program with its parameters put in, without the kernel's name, documentation,
    /// spans and schedule block. An edited kernel has another.
    pub program: String,
    /// [`sparsek_codegen::version`]: the code that was generated.
    pub code: String,
    /// Element type.
    pub elem: Elem,
    /// Head dimension.
    pub d: usize,
    /// Keys that the top-k mask keeps.
    pub k: usize,
    /// Window.
    pub w: usize,
    /// Query heads of a key-value head.
    pub group: u32,
    /// Inputs that calls give, sorted; those with a head axis end in ` of heads`.
    pub given: Vec<String>,
    /// The longest sequence, rounded up to a power of two.
    pub sequence: u64,
    /// GPU.
    pub gpu: Gpu,
}

/// Hash of what an instance computes: the same for kernels that differ in names, documentation, spans
/// and schedule block alone.
pub(crate) fn program_hash(instance: &Instance) -> String {
    let Instance { program, elem, d, k, w, sinks } = instance;
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{elem} {d} {k} {w} {sinks} ").as_bytes());
    hasher.update(program.canonical().to_json().as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The first digits of a hash, for names that people type.
pub(crate) fn short(hash: &blake3::Hash) -> String {
    hash.to_hex()[..8].to_owned()
}

impl Key {
    /// The key of calls of a kernel whose longest sequence has `longest` positions; the number of
    /// positions of all where only the GPU knows their boundaries.
    pub fn new(problem: &Problem<'_>, longest: u64, gpu: Gpu) -> Key {
        Key::of_hash(&program_hash(problem.instance), problem, longest, gpu)
    }

    /// The same with [`program_hash`] known.
    pub(crate) fn of_hash(hash: &str, problem: &Problem<'_>, longest: u64, gpu: Gpu) -> Key {
        let instance = problem.instance;
        let given = problem.given.iter();
        let name = |per_head| if per_head { " of heads" } else { "" };
        let mut given: Vec<String> =
            given.map(|g| format!("{}{}", g.name, name(g.per_head))).collect();
        given.sort();
        Key {
            program: hash.chars().take(32).collect(),
            code: sparsek_codegen::version(),
            elem: instance.elem,
            d: instance.d,
            k: instance.k,
            w: instance.w,
            group: problem.group,
            given,
            sequence: bucket(longest),
            gpu,
        }
    }

    /// Hash of all of it.
    pub(crate) fn hash(&self) -> blake3::Hash {
        let Key { program, code, elem, d, k, w, group, given, sequence, gpu } = self;
        let mut hasher = blake3::Hasher::new();
        let given = given.join(",");
        for part in [program, code, elem.name(), &given, &gpu.name, &gpu.capability] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(format!("{d} {k} {w} {group} {sequence}").as_bytes());
        hasher.finalize()
    }

    /// Eight digits that stand for the key.
    pub fn id(&self) -> String {
        short(&self.hash())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { elem, d, k, w, group, sequence, gpu, .. } = self;
        write!(f, "{elem}, D {d}, k {k}, window {w}, group {group}, N to {sequence}, {gpu}")
    }
}

/// Sequences that share a key: up to this power of two.
pub(crate) fn bucket(longest: u64) -> u64 {
    longest.max(1).checked_next_power_of_two().unwrap_or(1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kernel, Program, Spec};
    use sparsek_codegen::Given;

    sparsek::sparsek_kernel! {
        /// One way to write it.
        pub kernel First<E in [bf16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
            q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey,
        ) -> Output<E, D> {
            let gate = sparsek(u, K);
            let seen = causal & (topk(gate) | window(W) | sinks(2));
            dot(softmax(dot(q, k) * rsqrt(D), seen) * gate, v)
        }
        schedule { forward { tile q in [64]; } }

        /// Another way.
        pub kernel Second<E in [bf16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
            q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey,
        ) -> Output<E, D> {
            let mask = sparsek(u, K);
            let visible = causal & (topk(mask) | window(W) | sinks(2));
            let s = dot(q, k) * rsqrt(D);
            let weight = softmax(s, visible) * mask;
            dot(weight, v)
        }

        /// Something else: one sink more.
        pub kernel Third<E in [bf16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
            q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, u: PerKey,
        ) -> Output<E, D> {
            let gate = sparsek(u, K);
            let seen = causal & (topk(gate) | window(W) | sinks(3));
            dot(softmax(dot(q, k) * rsqrt(D), seen) * gate, v)
        }
    }

    fn key(program: &Program, spec: &Spec, group: u32, longest: u64) -> Key {
        let kernel = Kernel::from_program(program, spec).unwrap();
        let given = |name: &str| Given { name: name.to_owned(), per_head: false };
        let given = ["v", "u", "q", "k"].map(given).to_vec();
        let (instance, backward) = (kernel.instance(), kernel.backward_program());
        let problem = Problem { instance, backward, group, given };
        Key::new(&problem, longest, Gpu::new("Some GPU", (9, 0)))
    }

    #[test]
    fn names_and_schedule_blocks_do_not_matter_and_all_else_does() {
        let spec = || Spec::new(Elem::Bf16, 64).k(32).w(16);
        let [first, second, third] = [First::program(), Second::program(), Third::program()];
        let first = first.unwrap();
        let base = key(&first, &spec(), 4, 4096);
        assert_eq!(base, key(&second.unwrap(), &spec(), 4, 4096));
        assert_eq!(base, key(&first, &spec(), 4, 2049));
        assert_eq!(base.given, ["k", "q", "u", "v"]);
        let others = [
            key(&third.unwrap(), &spec(), 4, 4096),
            key(&first, &spec().k(33), 4, 4096),
            key(&first, &spec().w(17), 4, 4096),
            key(&first, &Spec::new(Elem::F32, 64).k(32).w(16), 4, 4096),
            key(&first, &Spec::new(Elem::Bf16, 80).k(32).w(16), 4, 4096),
            key(&first, &spec(), 2, 4096),
            key(&first, &spec(), 4, 4097),
            key(&first, &spec(), 4, 2048),
            Key { gpu: Gpu::new("Some GPU", (8, 0)), ..base.clone() },
            Key { gpu: Gpu::new("Other GPU", (9, 0)), ..base.clone() },
            Key { code: "0-0".to_owned(), ..base.clone() },
            Key { given: vec!["k".to_owned()], ..base.clone() },
        ];
        for other in &others {
            assert_ne!(base.id(), other.id(), "{base:?} and {other:?}");
        }
    }

    #[test]
    fn buckets() {
        let buckets = [0, 1, 2, 3, 65_536, 65_537, u64::MAX].map(bucket);
        assert_eq!(buckets, [1, 1, 2, 4, 65_536, 131_072, 1 << 63]);
    }
}
