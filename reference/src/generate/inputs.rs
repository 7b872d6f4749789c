//! Random inputs.

use crate::dense::round::to_elem;
use crate::{Array, Arrays, Error};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Class, Input, Kind, Op, Program, Role};

/// Kinds of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// Independent normal ones of that standard deviation.
    Normal(f64),
    /// All the same.
    Equal,
    /// Each a little higher than the one before.
    Rising,
    /// Each a little lower than the one before.
    Falling,
    /// Normal ones times a million: next to no candidate is fractional.
    Huge,
    /// Multiples of a half: many are equal, and thresholds sit on kinks.
    Ties,
    /// Normal ones, a fifth of them NaN or −inf, and one +inf at most (fewer than k, or no threshold
    /// exists).
    NonFinite,
    /// Normal ones, most of which are masked by −1e30, so that the K-th best may be a masked one. tau is one less then, which
    /// is no float: gates do not sum to k.
    Masked,
    /// Negative ones and zeros of both signs, which are the best.
    Zeros,
    /// Normal ones, and every now and then 32 in a row that are higher: a sample of some says little of all.
    Bursts,
    /// Seventh powers of normal ones: a few are far above the rest.
    Tails,
}

impl Scores {
    /// Every kind whose gates sum to k, for tables and generators.
    pub const ALL: [Scores; 13] = [
        Scores::Normal(1.0),
        Scores::Normal(0.1),
        Scores::Normal(0.01),
        Scores::Normal(8.0),
        Scores::Equal,
        Scores::Rising,
        Scores::Falling,
        Scores::Huge,
        Scores::Ties,
        Scores::NonFinite,
        Scores::Zeros,
        Scores::Bursts,
        Scores::Tails,
    ];

    /// Whether a program may compute with them: expressions of these stay finite.
    pub fn suits_expressions(self) -> bool {
        !matches!(self, Scores::NonFinite | Scores::Huge | Scores::Masked | Scores::Tails)
    }

    fn one(self, rng: &mut StdRng, j: usize) -> f64 {
        let noise = normal(rng);
        match self {
            Scores::Normal(deviation) => deviation * noise,
            Scores::Equal => 0.3,
            Scores::Rising => 0.05 * j as f64 + 0.001 * noise,
            Scores::Falling => -0.05 * j as f64 + 0.001 * noise,
            Scores::Huge => 1e6 * noise,
            Scores::Ties => (2.0 * noise).round() / 2.0,
            Scores::NonFinite => match rng.random_range(0..10) {
                0 => f64::NAN,
                1 => f64::NEG_INFINITY,
                _ => noise,
            },
            Scores::Masked if rng.random_range(0..20) > 0 => -1e30,
            Scores::Masked => noise,
            Scores::Zeros if noise > 0.0 => [0.0, -0.0][rng.random_range(0..2)],
            Scores::Zeros => noise,
            Scores::Bursts => noise + if j / 32 % 37 == 5 { 4.0 } else { 0.0 },
            Scores::Tails => noise.powi(7),
        }
    }

    /// The scores of \[B, Hkv, N\].
    fn all(self, rng: &mut StdRng, shape: &Shape, k: usize) -> Vec<f64> {
        let mut all = Vec::with_capacity(shape.batch * shape.hkv * shape.n);
        for _ in 0..shape.batch * shape.hkv {
            let start = all.len();
            for j in 0..shape.n {
                all.push(f64::from(self.one(rng, j) as f32));
            }
            if self == Scores::NonFinite && k > 1 && shape.n > 0 && rng.random_bool(0.5) {
                all[start + rng.random_range(0..shape.n)] = f64::INFINITY;
            }
        }
        all
    }
}

/// Sizes of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Batch entries; 1 with packed sequences.
    pub batch: usize,
    /// Tokens of each entry.
    pub n: usize,
    /// Query heads, a multiple of `hkv`.
    pub hq: usize,
    /// Key-value heads.
    pub hkv: usize,
}

/// A normal number of mean 0 and standard deviation 1.
pub(super) fn normal(rng: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// An array of normal numbers of mean 0 and standard deviation 1.
pub fn normals(seed: u64, shape: &[usize]) -> Array {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut array = Array::zeros(shape);
    array.data_mut().iter_mut().for_each(|x| *x = normal(&mut rng));
    array
}

/// Whether the program reads `u` in one place only, as the score of its gate, so that scores which are not
/// finite reach nothing else.
pub fn score_is_input(program: &Program) -> bool {
    let is_score = |op: &Op| matches!(op, Op::Input(id) if program.input(*id).role == Role::Score);
    let Some(gate) = program.gate() else { return false };
    if !is_score(&program.node(gate.score).op) {
        return false;
    }
    let mut readers = 0;
    for v in program.ids() {
        program.node(v).op.for_each_operand(|o| readers += usize::from(o == gate.score));
    }
    readers == 1
}

/// Tensors for every input of an instance of a forward program, and `d_o`.
///
/// Vectors are normal and rounded to the element type. Other numbers are f32: Scalar 0.5 to 1.5, the rest
/// 0.05 to 1.5 of either sign (so that no comparison with 0 is close). Integers are 0, 1 or 2, some of
/// them rising along the sequence as document numbers do. PerQuery and PerKey inputs have heads or
/// not. A third of the inputs that have a default are left out.
///
/// # Errors
/// A program with parameters left.
pub fn inputs(
    seed: u64,
    program: &Program,
    shape: &Shape,
    scores: Scores,
) -> Result<Arrays, Error> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (Some(d), [elem]) = (program.head_dim.literal(), program.elem.set.as_slice()) else {
        let reason = "has a parameter left; instantiate it first".to_owned();
        return Err(Error::Program { name: program.name.clone(), reason });
    };
    let (d, k) = (d as usize, program.gate().and_then(|g| g.k.literal()).unwrap_or(0) as usize);
    let mut all = Arrays::new();
    all.insert("d_o".to_owned(), vectors(&mut rng, *elem, &[shape.batch, shape.n, shape.hq, d]));
    for input in &program.inputs {
        let array = match input.role {
            Role::Query | Role::Output | Role::OutputGrad => {
                vectors(&mut rng, *elem, &[shape.batch, shape.n, shape.hq, d])
            }
            Role::Key | Role::Value => {
                vectors(&mut rng, *elem, &[shape.batch, shape.n, shape.hkv, d])
            }
            Role::Score => {
                let data = scores.all(&mut rng, shape, k);
                Array::new(&[shape.batch, shape.hkv, shape.n], data)?
            }
            Role::Lse => Array::zeros(&[shape.batch, shape.hq, shape.n]),
            Role::Extra if input.default.is_some() && rng.random_range(0..3) == 0 => continue,
            Role::Extra => extra(&mut rng, input, shape),
        };
        all.insert(input.name.clone(), array);
    }
    Ok(all)
}

fn vectors(rng: &mut StdRng, elem: Elem, shape: &[usize]) -> Array {
    let mut array = Array::zeros(shape);
    array.data_mut().iter_mut().for_each(|x| *x = to_elem(elem, normal(rng)));
    array
}

fn extra(rng: &mut StdRng, input: &Input, s: &Shape) -> Array {
    let by_head = rng.random_bool(0.5);
    let shape = match (input.ty.class, by_head) {
        (Class::Scalar | Class::PerBatch, _) => vec![1],
        (Class::PerHead, _) => vec![s.hq],
        (Class::PerQuery | Class::PerKey | Class::Pair, false) => vec![s.batch, s.n],
        (Class::PerQuery | Class::Pair, true) => vec![s.batch, s.n, s.hq],
        (Class::PerKey, true) => vec![s.batch, s.n, s.hkv],
    };
    let rising = rng.random_bool(0.5);
    let per_token = if shape.len() == 3 { shape[2] } else { 1 };
    let mut array = Array::zeros(&shape);
    for (at, x) in array.data_mut().iter_mut().enumerate() {
        *x = match (input.ty.kind, input.ty.class) {
            (Kind::I32, _) if rising && s.n > 0 => ((at / per_token) % s.n * 3 / s.n) as f64,
            (Kind::I32, _) => f64::from(rng.random_range(0..3)),
            (_, Class::Scalar) => f64::from(rng.random_range(0.5f32..1.5)),
            _ => {
                let size = f64::from(rng.random_range(0.05f32..1.5));
                if rng.random_bool(0.5) { size } else { -size }
            }
        };
    }
    array
}
