//! Random inputs of any size, made on every core.

use crate::tensors::file::HostTensor;
use crate::tensors::inputs::Loaded;
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rayon::prelude::*;
use sparsek::dsl::ir::{Class, Instance, Kind, Role};
use sparsek::{Elem, Storage};
use std::fmt;
use std::str::FromStr;

/// Elements made from one seed.
const BLOCK: usize = 1 << 16;

/// What scores are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scores {
    /// Independent normal ones of that standard deviation.
    Deviation(f32),
    /// A slope by position, and independent normal noise of a standard deviation.
    Trend(f32, f32),
    /// All the same.
    Equal,
}

impl FromStr for Scores {
    type Err = String;

    fn from_str(text: &str) -> Result<Scores, String> {
        let number = |text: &str| text.parse().ok().filter(|x: &f32| x.is_finite());
        let deviation = || text.strip_prefix("sd:").and_then(number).map(Scores::Deviation);
        let trend = || {
            let (slope, deviation) = text.strip_prefix("trend:")?.split_once(':')?;
            Some(Scores::Trend(number(slope)?, number(deviation)?))
        };
        match text {
            "equal" => Ok(Scores::Equal),
            _ => deviation()
                .or_else(trend)
                .ok_or_else(|| "scores are sd:NUMBER, trend:SLOPE:SD or equal".to_owned()),
        }
    }
}

/// Sizes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Rows.
    pub(crate) batch: usize,
    /// Positions.
    pub(crate) n: usize,
    /// Query heads.
    pub(crate) hq: usize,
    /// Key-value heads.
    pub(crate) hkv: usize,
}

/// Two normal numbers at a time, by Box and Muller.
fn normals(rng: &mut StdRng, out: &mut [f32]) {
    for pair in out.chunks_mut(2) {
        let bits = rng.next_u64();
        // (0, 1] and [0, 1).
        let a = ((bits >> 40) as f32 + 1.0) / (1u32 << 24) as f32;
        let b = (bits & 0xff_ffff) as f32 / (1u32 << 24) as f32;
        let radius = (-2.0 * a.ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * b).sin_cos();
        for (x, part) in pair.iter_mut().zip([radius * cos, radius * sin]) {
            *x = part;
        }
    }
}

/// Fills blocks in parallel; block `i` has a seed of its own.
fn filled<T: Copy + Default + Send>(
    len: usize,
    seed: u64,
    convert: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    let mut out = vec![T::default(); len];
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, block)| {
        let mut rng = StdRng::seed_from_u64(seed ^ (i as u64) << 20);
        let mut values = vec![0.0; block.len()];
        normals(&mut rng, &mut values);
        block.iter_mut().zip(&values).for_each(|(out, x)| *out = convert(*x));
    });
    out
}

fn vectors(elem: Elem, shape: [usize; 4], seed: u64) -> HostTensor {
    let len = shape.iter().product();
    let data = match elem {
        Elem::F32 => Storage::F32(filled(len, seed, |x| x)),
        Elem::F16 => Storage::F16(filled(len, seed, f16::from_f32)),
        Elem::Bf16 => Storage::Bf16(filled(len, seed, bf16::from_f32)),
    };
    HostTensor { shape: shape.to_vec(), data }
}

fn scores(kind: Scores, sizes: &Sizes, seed: u64) -> HostTensor {
    let shape = vec![sizes.batch, sizes.hkv, sizes.n];
    let mut u = filled(shape.iter().product(), seed, |x| x);
    let n = sizes.n.max(1);
    for (at, x) in u.iter_mut().enumerate() {
        let position = (at % n) as f32;
        *x = match kind {
            Scores::Deviation(deviation) => deviation * *x,
            Scores::Trend(slope, deviation) => slope * position + deviation * *x,
            Scores::Equal => 0.0,
        };
    }
    HostTensor { shape, data: Storage::F32(u) }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scores::Deviation(deviation) => write!(f, "sd:{deviation}"),
            Scores::Trend(slope, deviation) => write!(f, "trend:{slope}:{deviation}"),
            Scores::Equal => f.write_str("equal"),
        }
    }
}

/// The scores of a call alone; `None` for a kernel whose scores are computed or that has none.
pub(crate) fn only_scores(
    instance: &Instance,
    sizes: &Sizes,
    kind: Scores,
    seed: u64,
) -> Option<(String, HostTensor)> {
    let input = instance.program.inputs.iter().find(|input| input.role == Role::Score)?;
    Some((input.name.clone(), scores(kind, sizes, seed)))
}

/// Inputs of a call; one with a default keeps it.
pub(crate) fn inputs(instance: &Instance, sizes: &Sizes, kind: Scores, seed: u64) -> Loaded {
    inputs_with(instance, sizes, kind, seed, &[])
}

/// The same with inputs that have a default.
pub(crate) fn inputs_with(
    instance: &Instance,
    sizes: &Sizes,
    kind: Scores,
    seed: u64,
    with: &[String],
) -> Loaded {
    Recipe::new(instance, sizes, kind, with).make(seed)
}

/// Everything that random inputs depend on, beside the seed: inputs of equal recipes are equal, whatever kernels
/// they are for. They are made of it alone, so nothing can be missing here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recipe {
    sizes: Sizes,
    elem: Elem,
    d: usize,
    tensors: Vec<Made>,
}

/// A tensor of a recipe.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    /// Its place among the kernel's inputs: seeds differ by it.
    at: usize,
    name: String,
    what: What,
}

/// What a tensor is like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// A vector for each query head.
    Queries,
    /// A vector for each key-value head.
    Keys,
    Scores(Scores),
    /// Small numbers, as slopes and biases are.
    Extra(Class, Kind),
}

impl Recipe {
    /// Of the inputs that calls of an instance give: those without a default, and some with one.
    pub(crate) fn new(instance: &Instance, sizes: &Sizes, kind: Scores, with: &[String]) -> Recipe {
        let given = instance.program.inputs.iter().enumerate();
        let given =
            given.filter(|(_, input)| input.default.is_none() || with.contains(&input.name));
        let made = given.map(|(at, input)| {
            let what = match input.role {
                Role::Key | Role::Value => What::Keys,
                Role::Score => What::Scores(kind),
                Role::Extra => What::Extra(input.ty.class, input.ty.kind),
                Role::Query | Role::Output | Role::Lse | Role::OutputGrad => What::Queries,
            };
            Made { at, name: input.name.clone(), what }
        });
        Recipe { sizes: *sizes, elem: instance.elem, d: instance.d, tensors: made.collect() }
    }

    /// The inputs, and the gradient of the output.
    pub(crate) fn make(&self, seed: u64) -> Loaded {
        let &Recipe { sizes: Sizes { batch, n, hq, hkv }, elem, d, ref tensors } = self;
        let tensor = |made: &Made| {
            let seed = seed.wrapping_mul(0x9e37_79b9).wrapping_add(made.at as u64);
            match made.what {
                What::Keys => vectors(elem, [batch, n, hkv, d], seed),
                What::Scores(kind) => scores(kind, &self.sizes, seed),
                What::Extra(class, kind) => extra(class, kind, &self.sizes, seed),
                What::Queries => vectors(elem, [batch, n, hq, d], seed),
            }
        };
        let tensors = tensors.iter().map(|made| (made.name.clone(), tensor(made))).collect();
        let d_o = vectors(elem, [batch, n, hq, d], seed.wrapping_add(0x5eed));
        Loaded::new(tensors, Some(d_o), None)
    }
}

/// Small numbers, as slopes and biases are.
fn extra(class: Class, kind: Kind, sizes: &Sizes, seed: u64) -> HostTensor {
    let &Sizes { batch, n, hq, hkv } = sizes;
    let shape = match class {
        Class::Scalar | Class::PerBatch => vec![1],
        Class::PerHead => vec![hq],
        Class::PerQuery | Class::Pair => vec![batch, n, hq],
        Class::PerKey => vec![batch, n, hkv],
    };
    let len = shape.iter().product();
    let mut rng = StdRng::seed_from_u64(seed);
    let data = match kind {
        Kind::I32 => Storage::I32(vec![0; len]),
        Kind::F32 | Kind::Bool | Kind::Vector => {
            Storage::F32((0..len).map(|_| rng.random_range(0.01..0.1)).collect())
        }
    };
    HostTensor { shape, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_normal_and_depend_on_the_seed() {
        let x = filled(200_000, 1, |x| x);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.02, "{mean} {square}");
        assert!(x[..10] != filled(200_000, 2, |x| x)[..10]);
        assert!(x[..10] != x[BLOCK..BLOCK + 10]);
    }

    #[test]
    fn kinds_of_scores() {
        assert_eq!("sd:0.1".parse(), Ok(Scores::Deviation(0.1)));
        assert_eq!("trend:0.01:1".parse(), Ok(Scores::Trend(0.01, 1.0)));
        for text in ["sd:", "sd:x", "sd:nan", "normal"] {
            assert!(text.parse::<Scores>().is_err(), "{text}");
        }
    }

    /// The decision by which a process that measures kernel after kernel keeps its inputs or makes others.
    #[test]
    fn inputs_are_kept_where_nothing_they_depend_on_changed() {
        use sparsek::{Kernel, Spec};
        let kernel = |name: &str, elem: Elem, d: i64, k: i64, w: i64| {
            let program = sparsek_kernels::builtin(name).unwrap().program().unwrap();
            Kernel::from_program(&program, &Spec::new(elem, d).k(k).w(w)).unwrap()
        };
        let sizes = Sizes { batch: 1, n: 40, hq: 4, hkv: 2 };
        let kind = Scores::Deviation(1.0);
        let of = |kernel: &Kernel, sizes: &Sizes, kind: Scores, with: &[String]| {
            Recipe::new(kernel.instance(), sizes, kind, with)
        };
        let value = |d, k, w| kernel("sparsek-value", Elem::Bf16, d, k, w);
        let usual = of(&value(64, 16, 16), &sizes, kind, &[]);
        // k and the window leave them as they are.
        for (k, w) in [(32, 16), (16, 0), (512, 512)] {
            assert_eq!(of(&value(64, k, w), &sizes, kind, &[]), usual);
        }
        // So does another kernel with the same inputs, and its inputs are the same.
        let key = kernel("sparsek-key", Elem::Bf16, 64, 16, 16);
        assert_eq!(of(&key, &sizes, kind, &[]), usual);
        let [one, other] = [&value(64, 16, 16), &key].map(|kernel| {
            let loaded = inputs_with(kernel.instance(), &sizes, kind, 7, &[]);
            loaded.tensors().map(|(name, t)| (name.to_owned(), t.data.clone())).collect::<Vec<_>>()
        });
        assert!(one == other && one.len() == 4);
        let same = value(64, 16, 16);
        let others = [
            of(&value(128, 16, 16), &sizes, kind, &[]),
            of(&kernel("sparsek-value", Elem::F16, 64, 16, 16), &sizes, kind, &[]),
            of(&same, &Sizes { batch: 2, ..sizes }, kind, &[]),
            of(&same, &Sizes { n: 41, ..sizes }, kind, &[]),
            of(&same, &Sizes { hq: 8, ..sizes }, kind, &[]),
            of(&same, &Sizes { hkv: 1, ..sizes }, kind, &[]),
            of(&same, &sizes, Scores::Deviation(2.0), &[]),
            of(&same, &sizes, Scores::Equal, &[]),
            of(&same, &sizes, Scores::Trend(1.0, 1.0), &[]),
        ];
        for other in &others {
            assert_ne!(*other, usual);
        }
    }

    sparsek::sparsek_kernel! {
        /// Kernels whose inputs differ by what a recipe must tell.
        kernel Sloped<E in [bf16], D in multiples_of(16) up to 256, W in 0..=8192>(
            q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, slope: PerHead = 0.0,
        ) -> Output<E, D> {
            dot(softmax(dot(q, k) * rsqrt(D) + slope, causal & window(W)), v)
        }
        kernel Biased<E in [bf16], D in multiples_of(16) up to 256, W in 0..=8192>(
            q: Query<E, D>, k: Key<E, D>, v: Value<E, D>, slope: PerKey = 0.0,
        ) -> Output<E, D> {
            dot(softmax(dot(q, k) * rsqrt(D) + slope, causal & window(W)), v)
        }
    }

    #[test]
    fn inputs_depend_on_what_is_given_and_on_its_class() {
        let spec = || sparsek::Spec::new(Elem::Bf16, 64).w(16);
        let [sloped, biased] = [Sloped::program(), Biased::program()]
            .map(|p| sparsek::Kernel::from_program(&p.unwrap(), &spec()).unwrap());
        let sizes = Sizes { batch: 1, n: 40, hq: 4, hkv: 2 };
        let of = |kernel: &sparsek::Kernel, kind: Scores, with: &[&str]| {
            let with: Vec<String> = with.iter().map(|&name| name.to_owned()).collect();
            Recipe::new(kernel.instance(), &sizes, kind, &with)
        };
        let equal = Scores::Equal;
        assert_eq!(of(&sloped, equal, &[]), of(&biased, equal, &[]));
        assert_ne!(of(&sloped, equal, &[]), of(&sloped, equal, &["slope"]));
        assert_ne!(of(&sloped, equal, &["slope"]), of(&biased, equal, &["slope"]));
        // A kernel without scores does not ask what they are like.
        assert_eq!(of(&sloped, equal, &[]), of(&sloped, Scores::Deviation(1.0), &[]));
    }
}
