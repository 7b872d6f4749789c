//! Which numbers are rounded.

use half::{bf16, f16};
use sparsek_dsl::Elem;

/// The arithmetic of an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Everything in f64.
    #[default]
    Exact,
    /// Everything in f64 but the score: its operations are rounded to f32, as everywhere a score is
    /// computed, so that keys are ranked and thresholds taken from the same numbers.
    F32Scores,
    /// A plain implementation: every operation's result and every step of a sum rounded to f32, and
    /// inputs, weights of weighted sums and outputs rounded to the element type. Its error against the
    /// others is what any implementation in that precision may be expected to have.
    Plain(Elem),
    /// Another plain implementation: its operations round up or down as a hash of the exact result and
    /// this number (below [`VARIANTS`]) says, and its sums other than the dot products of pairs go from
    /// the last term to the first. Weights are rounded to the element type relative to something else
    /// than their row's sum, as an online softmax does; number 1 keeps them in f32. Where terms nearly
    /// cancel, the error of one plain implementation may be small by luck; the largest of several says
    /// what the precision is worth there.
    Varied(Elem, u8),
}

/// A rounding of one number.
pub(super) type Round = fn(f64) -> f64;

fn same(x: f64) -> f64 {
    x
}

fn to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

/// One of the two f32 around `x`, as a hash of it says; `x` itself where it is one.
fn hashed<const N: u64>(x: f64) -> f64 {
    let near = x as f32;
    if f64::from(near) == x || !near.is_finite() {
        return f64::from(near);
    }
    let (below, above) =
        if f64::from(near) < x { (near, near.next_up()) } else { (near.next_down(), near) };
    // The multiplier of Knuth's 64-bit generator; the top bit of the product is as good as random.
    let mixed = (x.to_bits() ^ (N << 7)).wrapping_mul(6_364_136_223_846_793_005);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(6_364_136_223_846_793_005);
    f64::from(if mixed >> 63 == 0 { below } else { above })
}

/// `x` rounded to an element type.
pub(crate) fn to_elem(elem: Elem, x: f64) -> f64 {
    // Through f32 first, as a value computed in f32 is.
    match elem {
        Elem::F32 => to_f32(x),
        Elem::F16 => f16::from_f32(x as f32).to_f64(),
        Elem::Bf16 => bf16::from_f32(x as f32).to_f64(),
    }
}

/// How many different [`Arithmetic::Varied`] there are.
pub const VARIANTS: u8 = 16;

/// `x` rounded to an element type as a multiple of a number that depends on `N`.
fn relative<const N: u64>(elem: Elem, x: f64) -> f64 {
    // Fractional parts of multiples of the golden ratio are spread evenly.
    let unit = 1.0 + (N as f64 * 0.618_033_988_749_894_9).fract();
    to_elem(elem, x / unit) * unit
}

/// The roundings of results and of weights of one variant.
struct Variant {
    result: Round,
    f32: Round,
    f16: Round,
    bf16: Round,
}

macro_rules! variants {
    ($($n:literal)*) => {
        [$(Variant {
            result: hashed::<$n>,
            f32: |x| relative::<$n>(Elem::F32, x),
            f16: |x| relative::<$n>(Elem::F16, x),
            bf16: |x| relative::<$n>(Elem::Bf16, x),
        }),*]
    };
}

fn variant(n: u8) -> &'static Variant {
    static ALL: [Variant; VARIANTS as usize] = variants![0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15];
    &ALL[usize::from(n % VARIANTS)]
}

impl Arithmetic {
    /// Rounding of an operation's result.
    pub(super) fn result(self, in_score: bool) -> Round {
        match self {
            Arithmetic::Exact => same,
            Arithmetic::F32Scores if in_score => to_f32,
            Arithmetic::F32Scores => same,
            Arithmetic::Plain(_) => to_f32,
            Arithmetic::Varied(_, n) => variant(n).result,
        }
    }

    /// Rounding of stored vectors and of weights.
    pub(super) fn stored(self) -> Round {
        match self {
            Arithmetic::Exact | Arithmetic::F32Scores => same,
            Arithmetic::Plain(elem) | Arithmetic::Varied(elem, _) => match elem {
                Elem::F32 => to_f32,
                Elem::F16 => |x| to_elem(Elem::F16, x),
                Elem::Bf16 => |x| to_elem(Elem::Bf16, x),
            },
        }
    }

    /// Rounding of the weights of weighted sums.
    pub(super) fn weights(self) -> Round {
        match self {
            Arithmetic::Varied(_, 1) => self.result(false),
            Arithmetic::Varied(elem, n) => match elem {
                Elem::F32 => variant(n).f32,
                Elem::F16 => variant(n).f16,
                Elem::Bf16 => variant(n).bf16,
            },
            Arithmetic::Exact | Arithmetic::F32Scores | Arithmetic::Plain(_) => self.stored(),
        }
    }

    /// Whether sums are taken from the last term to the first.
    pub(super) fn reversed(self) -> bool {
        matches!(self, Arithmetic::Varied(..))
    }

    /// Rounding of thresholds.
    pub(super) fn tau(self) -> Round {
        self.result(false)
    }
}
