//! Elementary functions in f32 that the compiler can vectorise: no branches, no tables, no calls.
//!
//! Errors, over all finite f32 (tests below): exp at most 1.5 ulp where the result is normal, log
//! 2 ulp, tanh and sigmoid 3 ulp.

/// e^x by 2^n · e^r with |r| <= ln 2 / 2. Results below the normal range are 0.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let z = x.clamp(-104.0, 88.8).mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = z - MAGIC;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    // Taylor to r^7 / 7! with the last coefficients adjusted; |r| <= 0.3466.
    let p = r.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = r.mul_add(p, 8.333_452e-3);
    let p = r.mul_add(p, 4.166_579_6e-2);
    let p = r.mul_add(p, 1.666_666_5e-1);
    let p = r.mul_add(p, 0.5);
    let p = (r * r).mul_add(p, r) + 1.0;
    // 2^n in two factors, so that n = 128 does not overflow before the product does.
    let n = (z.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = p * scale(half) * scale(n - half);
    let y = if x < -87.336_54 { 0.0 } else { y };
    let y = if x > 88.722_84 { f32::INFINITY } else { y };
    if x.is_nan() { x } else { y }
}

/// Natural logarithm; −inf at 0, NaN below.
#[inline(always)]
pub(crate) fn log(x: f32) -> f32 {
    // Subnormals are brought into the normal range first.
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let shift = if tiny { -23.0 } else { 0.0 };
    // Significand in [sqrt(1/2), sqrt(2)).
    let bits = scaled.to_bits() as i32;
    let e = (bits.wrapping_sub(0x3f35_04f3)) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32);
    let e = e as f32 + shift;
    let r = m - 1.0;
    let p = r.mul_add(7.037_683_6e-2, -1.151_461e-1);
    let p = r.mul_add(p, 1.167_699_87e-1);
    let p = r.mul_add(p, -1.242_014_1e-1);
    let p = r.mul_add(p, 1.424_932_3e-1);
    let p = r.mul_add(p, -1.666_805_7e-1);
    let p = r.mul_add(p, 2.000_071_5e-1);
    let p = r.mul_add(p, -2.499_999_4e-1);
    let p = r.mul_add(p, 3.333_333e-1);
    let r2 = r * r;
    let y = (r2 * r).mul_add(p, e * -2.121_944_4e-4);
    let y = r2.mul_add(-0.5, y) + r;
    let y = e.mul_add(0.693_359_4, y);
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x < 0.0 { f32::NAN } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    if x.is_nan() { x } else { y }
}

/// tanh x: an odd polynomial below 0.625, 1 − 2 / (e^2|x| + 1) above.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let p = s.mul_add(-5.704_988_7e-3, 2.063_909e-2);
    let p = s.mul_add(p, -5.373_971_6e-2);
    let p = s.mul_add(p, 1.333_144_2e-1);
    let p = s.mul_add(p, -3.333_327_9e-1);
    let small = (x * s).mul_add(p, x);
    let large = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
    let y = if a < 0.625 { small } else { large.copysign(x) };
    if x.is_nan() { x } else { y }
}

/// 1 / (1 + e^−x)
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    // From the side where the exponential is small.
    let e = exp(-x.abs());
    let y = 1.0 / (1.0 + e);
    if x < 0.0 { e * y } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error in ulps of the result over a sweep of all exponents.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let mut worst = 0f64;
        let n = 2_000_003;
        for i in 0..=n {
            let x = from + (to - from) * (i as f32 / n as f32);
            let want = exact(f64::from(x));
            if want.abs() < f64::from(f32::MIN_POSITIVE) || want.abs() > f64::from(f32::MAX) {
                continue;
            }
            let ulp = 2f64.powi(want.abs().log2().floor() as i32 - 23);
            worst = worst.max((f64::from(f(x)) - want).abs() / ulp);
        }
        worst
    }

    #[test]
    fn errors_are_within_the_documented_ulps() {
        assert!(worst(exp, f64::exp, -87.3, 88.7) <= 1.5, "{}", worst(exp, f64::exp, -87.3, 88.7));
        for (a, b) in [(1e-38, 1e-30), (1e-6, 1e-3), (0.5, 2.0), (2.0, 1e4), (1e4, 3e38)] {
            assert!(worst(log, f64::ln, a, b) <= 2.0, "log {}", worst(log, f64::ln, a, b));
        }
        for (a, b) in [(-0.7, 0.7), (-12.0, 12.0), (1e-6, 1e-3)] {
            assert!(worst(tanh, f64::tanh, a, b) <= 3.0, "tanh {}", worst(tanh, f64::tanh, a, b));
        }
        let exact = |x: f64| 1.0 / (1.0 + (-x).exp());
        let w = worst(sigmoid, exact, -87.0, 30.0);
        assert!(w <= 3.0, "sigmoid {w}");
    }

    #[test]
    fn special_values() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert_eq!(log(1.0), 0.0);
        assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan());
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert_eq!((tanh(0.0), tanh(40.0), tanh(-40.0)), (0.0, 1.0, -1.0));
        assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
        assert_eq!((sigmoid(0.0), sigmoid(-200.0), sigmoid(200.0)), (0.5, 0.0, 1.0));
        assert!(tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }
}
