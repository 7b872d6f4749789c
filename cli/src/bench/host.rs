//! Times on the CPU, by the clock.

use super::{Row, Settings, Spread, data};
use crate::commands::failure;
use crate::failure::Failure;
use crate::work::{self, Work};
use sparsek::{Kernel, Options};
use std::time::Instant;

/// Times of one sequence length, for each kind of scores.
pub(crate) fn rows(kernel: &Kernel, settings: &Settings, n: usize) -> Result<Vec<Row>, Failure> {
    settings.scores.iter().map(|scores| row(kernel, settings, n, *scores)).collect()
}

fn row(
    kernel: &Kernel,
    settings: &Settings,
    n: usize,
    scores: data::Scores,
) -> Result<Row, Failure> {
    let instance = kernel.instance();
    let sizes = settings.sizes(n);
    let loaded = data::inputs(instance, &sizes, scores, 1);
    let failed = |e| failure(e, None);
    let inputs = loaded.inputs().map_err(failed)?;
    let Some(d_o) = &loaded.d_o else { return Err(Failure::new("inputs come with d_o")) };
    let d_o = d_o.view().map_err(failed)?;
    let options = Options::default();
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    let mut pairs = 0;
    // The first call touches fresh memory and is not counted.
    let warmup = settings.warmup.max(1);
    for call in 0..warmup + settings.iterations {
        let start = Instant::now();
        let forward = kernel.forward(&inputs, &options).map_err(failed)?;
        let between = Instant::now();
        if settings.backward {
            kernel.backward(&inputs, &forward, &d_o, &options).map_err(failed)?;
        }
        if call == 0 {
            pairs = work::seen_pairs(&forward.expiry, instance.sinks, None);
        }
        if call >= warmup {
            forwards.push((between - start).as_secs_f64() * 1e3);
            backwards.push(between.elapsed().as_secs_f64() * 1e3);
        }
    }
    let positions = (sizes.batch * sizes.hkv * n).max(1);
    Ok(Row {
        n,
        scores: scores.to_string(),
        change: String::new(),
        schedule: String::new(),
        seen: pairs as f64 / positions as f64,
        work: Work::new(pairs, sizes.hq / sizes.hkv, instance.d),
        bytes: super::sets::least_bytes(&sizes, instance),
        plan: None,
        forward: Spread::of(forwards).ok_or_else(|| Failure::new("nothing was repeated"))?,
        backward: Spread::of(backwards).filter(|_| settings.backward),
        launches: Vec::new(),
    })
}
