//! How much work a call is: pairs seen, and operations that serve them.

use sparsek::Tensor;

/// Useful operations of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    /// 4 · D · Hq · Σ_i |seen_i|: two products.
    pub(crate) forward: f64,
    /// 10 · D · Hq · Σ_i |seen_i|: five products.
    pub(crate) backward: f64,
}

impl Work {
    /// From pairs of query and key over batch and key-value heads.
    pub(crate) fn new(pairs: u64, group: usize, d: usize) -> Work {
        let products = pairs as f64 * group as f64 * d as f64;
        Work { forward: 4.0 * products, backward: 10.0 * products }
    }
}

/// Pairs of a query position and a key that it sees before predicates, over batch and key-value
/// heads: a key is seen from its own position to its expiry.
pub(crate) fn seen_pairs(expiry: &Tensor, sinks: usize, cu_seqlens: Option<&[i32]>) -> u64 {
    let (Some(expiry), &[_, _, n]) = (expiry.as_i32(), expiry.shape()) else {
        return 0;
    };
    let whole = [0, i32::try_from(n).unwrap_or(i32::MAX)];
    let bounds = cu_seqlens.unwrap_or(&whole);
    let mut pairs = 0;
    for row in expiry.chunks_exact(n.max(1)) {
        for sequence in bounds.windows(2) {
            let length = sequence[1] - sequence[0];
            let keys = &row[sequence[0] as usize..sequence[1] as usize];
            for (j, expiry) in keys.iter().enumerate() {
                let end = if j < sinks { length } else { *expiry };
                pairs += u64::try_from(i64::from(end) - j as i64).unwrap_or(0);
            }
        }
    }
    pairs
}
