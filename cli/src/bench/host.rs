//! Times on the CPU, by the clock.

use super::{Row, Spread, data};
use crate::commands::failure;
use crate::failure::Failure;
use crate::work::{self, Work};
use sparsek::{Kernel, Options};
use std::time::Instant;

/// Times of one sequence length.
pub(crate) fn measure(
    kernel: &Kernel,
    sizes: &data::Sizes,
    scores: data::Scores,
    repeat: usize,
) -> Result<Row, Failure> {
    let instance = kernel.instance();
    let loaded = data::inputs(instance, sizes, scores, 1);
    let failed = |e| failure(e, None);
    let inputs = loaded.inputs().map_err(failed)?;
    let Some(d_o) = &loaded.d_o else { return Err(Failure::new("inputs come with d_o")) };
    let d_o = d_o.view().map_err(failed)?;
    let options = Options::default();
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    let mut pairs = 0;
    // The first call touches fresh memory and is not counted.
    for call in 0..=repeat {
        let start = Instant::now();
        let forward = kernel.forward(&inputs, &options).map_err(failed)?;
        let between = Instant::now();
        kernel.backward(&inputs, &forward, &d_o, &options).map_err(failed)?;
        if call == 0 {
            pairs = work::seen_pairs(&forward.expiry, instance.sinks, None);
            continue;
        }
        forwards.push((between - start).as_secs_f64() * 1e3);
        backwards.push(between.elapsed().as_secs_f64() * 1e3);
    }
    let spread = |times| Spread::of(times).ok_or_else(|| Failure::new("nothing was repeated"));
    let positions = (sizes.batch * sizes.hkv * sizes.n).max(1);
    Ok(Row {
        n: sizes.n,
        seen: pairs as f64 / positions as f64,
        work: Work::new(pairs, sizes.hq / sizes.hkv, instance.d),
        bytes: super::device::least_bytes(sizes, instance),
        plan: None,
        forward: spread(forwards)?,
        backward: spread(backwards)?,
        launches: Vec::new(),
    })
}
