//! What must not change a single bit: running again, and the other rows of a batch.

use crate::backend::Backend;
use crate::cases::Case;
use crate::suite::Measured;
use sparsek::Tensor;
use sparsek_reference::rule::Measurement;

/// Runs of one case.
const RUNS: usize = 20;

/// Rows of a batch.
pub(super) const ROWS: usize = 3;

/// Every run gives the bits of the first.
pub(super) fn again(backend: &Backend, case: &Case, small: bool) -> Measured {
    let runner = backend.runner(&case.kernel, case.strided);
    let first = runner.run(&case.loaded, false)?.into_tensors();
    let mut worst = vec![0; first.len()];
    for _ in 1..if small { 3 } else { RUNS } {
        let next = runner.run(&case.loaded, false)?.into_tensors();
        for (worst, ((_, a), (_, b))) in worst.iter_mut().zip(first.iter().zip(&next)) {
            *worst = (*worst).max(different(&bits(a), &bits(b)));
        }
    }
    let named = first.iter().zip(&worst);
    Ok(named.map(|((name, _), n)| exact(name, "again", *n)).collect())
}

/// Every row of a batch of [`ROWS`] gives the bits that it gives alone.
pub(super) fn rows(backend: &Backend, case: &Case) -> Measured {
    let runner = backend.runner(&case.kernel, case.strided);
    let all = runner.run(&case.loaded, false)?.into_tensors();
    let mut worst = vec![0; all.len()];
    for row in 0..ROWS {
        let alone = runner.run(&case.loaded.row(row, ROWS), false)?.into_tensors();
        for (worst, ((_, a), (_, b))) in worst.iter_mut().zip(all.iter().zip(&alone)) {
            // Gradients of what all rows share are sums over them.
            if a.shape().len() >= 2 {
                let a = bits(a);
                let size = a.len() / ROWS;
                *worst = (*worst).max(different(&a[row * size..(row + 1) * size], &bits(b)));
            }
        }
    }
    let named = all.iter().zip(&worst);
    Ok(named.map(|((name, _), n)| exact(name, "alone", *n)).collect())
}

fn exact(name: &str, what: &str, entries: usize) -> Measurement {
    Measurement::new(&format!("{name} {what} (bits)"), entries as f64, 0.0)
}

fn different(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count() + a.len().abs_diff(b.len())
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    match tensor.as_i32() {
        Some(x) => x.iter().map(|x| *x as u32).collect(),
        None => tensor.to_f32().iter().map(|x| x.to_bits()).collect(),
    }
}
