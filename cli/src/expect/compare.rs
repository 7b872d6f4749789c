//! How far results are from the `expect.*` tensors of a file, by the rule of [`sparsek_reference::rule`].
//! Expectations are read piece by piece: comparing takes no memory to speak of.

use crate::failure::{Failure, Outcome};
use crate::table::Table;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::Loaded;
use crate::terminal;
use sparsek::{Data, Elem, Kernel, Tensor};
use sparsek_reference::rule::Measurement;
use sparsek_reference::{Arrays, dense, rule};

/// Query-key pairs up to which the plain error is worked out: a few seconds and a few hundred MB.
const MOST_PAIRS: usize = 1 << 22;

/// A result next to its expectation.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Tensor.
    pub(crate) name: String,
    /// How they differ.
    pub(crate) difference: Difference,
    /// What the difference is held to.
    pub(crate) measure: Measure,
}

/// What a tensor's difference is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    /// Relative error (absolute where the expectation is zero) and its limit, if that is known.
    Error(Option<f64>),
    /// Thresholds: −inf at the same places, and this many units of the last place elsewhere.
    Ulps(f64),
    /// Every entry is equal.
    Exact,
}

/// How a result differs from what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Difference {
    /// Relative Frobenius error over the finite entries, or the largest absolute difference where
    /// the expectation is zero everywhere.
    pub(crate) error: f64,
    /// Whether the expectation is zero everywhere.
    pub(crate) of_zero: bool,
    /// Largest difference in units of the last f32 place of max(1, |expected|).
    pub(crate) ulps: f64,
    /// Entries of which one is finite and the other is not, or that are not equal integers.
    pub(crate) mismatches: usize,
}

/// Sums of a comparison under way.
#[derive(Debug, Default)]
struct Comparison {
    squared: f64,
    norm: f64,
    largest: f64,
    ulps: f64,
    mismatches: usize,
}

impl Comparison {
    fn add(&mut self, found: f64, expected: f64) {
        if !(found.is_finite() && expected.is_finite()) {
            self.mismatches += usize::from(found != expected);
            return;
        }
        let off = (found - expected).abs();
        self.squared += off * off;
        self.norm += expected * expected;
        self.largest = self.largest.max(off);
        self.ulps = self.ulps.max(off / rule::ulp(expected));
    }

    fn end(&self) -> Difference {
        let of_zero = self.norm == 0.0;
        let error = if of_zero { self.largest } else { (self.squared / self.norm).sqrt() };
        Difference { error, of_zero, ulps: self.ulps, mismatches: self.mismatches }
    }
}

impl Row {
    /// Whether the result is acceptable; `None` when no limit is known.
    pub(crate) fn ok(&self) -> Option<bool> {
        let d = &self.difference;
        match self.measure {
            Measure::Exact => Some(d.mismatches == 0),
            Measure::Ulps(most) => Some(d.mismatches == 0 && d.ulps <= most),
            Measure::Error(_) if d.mismatches > 0 => Some(false),
            Measure::Error(limit) => limit.map(|limit| d.error <= limit),
        }
    }

    /// As a measurement of the rule; one that is not judged has no limit.
    pub(crate) fn measurement(&self) -> Measurement {
        let d = &self.difference;
        let (error, limit) = match self.measure {
            Measure::Exact => (d.mismatches as f64, 0.0),
            _ if d.mismatches > 0 => (f64::INFINITY, 0.0),
            Measure::Ulps(most) => (d.ulps, most),
            Measure::Error(limit) => (d.error, limit.unwrap_or(f64::INFINITY)),
        };
        Measurement::new(&self.name, error, limit)
    }

    fn cells(&self) -> [String; 4] {
        let d = &self.difference;
        let differ = |n: usize| format!("{n} differ");
        let (error, limit) = match self.measure {
            Measure::Exact if d.mismatches == 0 => ("exact".to_owned(), "exact".to_owned()),
            Measure::Exact => (differ(d.mismatches), "exact".to_owned()),
            Measure::Ulps(most) if d.mismatches == 0 => {
                (format!("{:.2} ulp", d.ulps), format!("{most} ulp"))
            }
            Measure::Ulps(most) => {
                (format!("{} at -inf", differ(d.mismatches)), format!("{most} ulp"))
            }
            Measure::Error(limit) => {
                let error = match d.mismatches {
                    0 => format!("{:.2e}", d.error),
                    n => format!("{n} not finite"),
                };
                (error, limit.map_or("unknown".to_owned(), |l| format!("{l:.2e}")))
            }
        };
        let verdict = match self.ok() {
            Some(true) => "ok",
            Some(false) => "too large",
            None => "not judged",
        };
        [self.name.clone(), error, limit, verdict.to_owned()]
    }
}

/// The rows as a table.
pub(crate) fn table(rows: &[Row], indent: usize) -> String {
    let mut table = Table::new(&["<tensor", "error", "limit", "<"]);
    for row in rows {
        table.row(row.cells());
    }
    table.render(indent)
}

/// Whether every result that could be judged is within the rule; says which is not, and `help`.
pub(crate) fn verdict(rows: &[Row], help: &str) -> Outcome {
    let far: Vec<&str> =
        rows.iter().filter(|r| r.ok() == Some(false)).map(|r| r.name.as_str()).collect();
    if far.is_empty() {
        return Outcome::Done;
    }
    let far = far.join(", ");
    terminal::error(
        &Failure::new(format_args!("too far from the expected tensors: {far}")).help(help),
    );
    Outcome::DoesNotHold
}

/// Every result that the file has an expectation of.
pub(crate) fn rows(
    kernel: &Kernel,
    file: &TensorFile,
    loaded: &Loaded,
    tensors: &[(String, &Tensor)],
) -> Result<Vec<Row>, Failure> {
    let plain = plain(kernel, loaded)?;
    let mut rows = Vec::new();
    for (name, tensor) in tensors {
        let expected = format!("expect.{name}");
        let Some(shape) = file.shape(&expected) else { continue };
        if shape != tensor.shape() {
            return Err(Failure::new(format_args!(
                "tensor `{expected}` of {} has shape {shape:?} and `{name}` has {:?}",
                file.path().display(),
                tensor.shape()
            ))
            .help("the expectations are of other inputs; remove them from the file"));
        }
        let data = tensor.data();
        let difference = difference(file, &expected, |at| entry(data, at))?;
        let measure = match name.as_str() {
            "expiry" => Measure::Exact,
            "tau" => Measure::Ulps(2.0),
            _ if difference.of_zero => Measure::Error(Some(rule::ABSOLUTE)),
            _ => Measure::Error(limit(file, &expected, name, &plain)?),
        };
        // An integer that differs is a mismatch, not a distance.
        let difference = match measure {
            Measure::Exact => unequal(file, &expected, |at| entry(data, at))?,
            Measure::Ulps(_) | Measure::Error(_) => difference,
        };
        rows.push(Row { name: name.clone(), difference, measure });
    }
    Ok(rows)
}

/// What is known of a plain implementation's error.
enum Plain {
    /// Results are in f32: its error is far below the rule's allowance.
    Negligible,
    /// Its results.
    Results(Arrays),
    /// Too much work.
    Unknown,
}

/// Twice the plain error plus the rule's allowance.
fn limit(
    file: &TensorFile,
    expected: &str,
    name: &str,
    plain: &Plain,
) -> Result<Option<f64>, Failure> {
    let plain = match plain {
        Plain::Negligible => return Ok(Some(rule::RELATIVE)),
        Plain::Unknown => return Ok(None),
        Plain::Results(arrays) => arrays.get(name),
    };
    let Some(plain) = plain else { return Ok(None) };
    let difference =
        difference(file, expected, |at| plain.data().get(at).copied().unwrap_or(f64::NAN))?;
    Ok(Some(2.0 * difference.error + rule::RELATIVE))
}

fn plain(kernel: &Kernel, loaded: &Loaded) -> Result<Plain, Failure> {
    let instance = kernel.instance();
    if instance.elem == Elem::F32 {
        return Ok(Plain::Negligible);
    }
    let pairs = match loaded.get("q").map(|q| q.shape.as_slice()) {
        Some(&[b, n, h, _]) => b.saturating_mul(h).saturating_mul(n).saturating_mul(n),
        _ => usize::MAX,
    };
    if pairs > MOST_PAIRS {
        return Ok(Plain::Unknown);
    }
    let inputs = loaded.arrays().map_err(Failure::new)?;
    let options = dense::Options {
        arithmetic: dense::Arithmetic::Plain(instance.elem),
        cu_seqlens: loaded.cu_seqlens.as_deref(),
        ..dense::Options::default()
    };
    let results = if loaded.d_o.is_some() {
        let given = |n: &str| n.strip_prefix("d_").is_some_and(|n| inputs.contains_key(n));
        let backward = kernel.backward_program().with_outputs(given);
        dense::run_both(&instance.program, &backward, &inputs, &options).map(
            |(forward, mut back)| {
                let mut all = forward.outputs;
                all.append(&mut back.outputs);
                all
            },
        )
    } else {
        dense::run(&instance.program, &inputs, &options).map(|run| run.outputs)
    };
    results.map(Plain::Results).map_err(Failure::new)
}

fn difference(
    file: &TensorFile,
    expected: &str,
    found: impl Fn(usize) -> f64,
) -> Result<Difference, Failure> {
    let mut comparison = Comparison::default();
    let mut at = 0;
    file.stream(expected, |part| {
        for expected in part {
            comparison.add(found(at), f64::from(*expected));
            at += 1;
        }
    })?;
    Ok(comparison.end())
}

fn unequal(
    file: &TensorFile,
    expected: &str,
    found: impl Fn(usize) -> f64,
) -> Result<Difference, Failure> {
    let mut difference = Difference::default();
    let mut at = 0;
    file.stream(expected, |part| {
        for expected in part {
            difference.mismatches += usize::from(found(at) != f64::from(*expected));
            at += 1;
        }
    })?;
    Ok(difference)
}

fn entry(data: Data<'_>, at: usize) -> f64 {
    match data {
        Data::F32(x) => f64::from(x[at]),
        Data::F16(x) => x[at].to_f64(),
        Data::Bf16(x) => x[at].to_f64(),
        Data::I32(x) => f64::from(x[at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_must_agree_and_zero_is_absolute() {
        let mut c = Comparison::default();
        c.add(f64::NEG_INFINITY, f64::NEG_INFINITY);
        c.add(1.0, f64::NEG_INFINITY);
        c.add(f64::NAN, 1.0);
        c.add(5e-7, 0.0);
        let d = c.end();
        assert_eq!((d.mismatches, d.of_zero), (2, true));
        assert!((d.error - 5e-7).abs() < 1e-12);
    }

    #[test]
    fn a_row_is_judged_by_its_measure() {
        let row = |difference, measure| Row { name: "o".to_owned(), difference, measure }.ok();
        let error = |error| Difference { error, ..Difference::default() };
        assert_eq!(row(error(1e-6), Measure::Error(Some(2e-5))), Some(true));
        assert_eq!(row(error(1e-4), Measure::Error(Some(2e-5))), Some(false));
        assert_eq!(row(error(f64::NAN), Measure::Error(Some(2e-5))), Some(false));
        assert_eq!(row(error(1e-4), Measure::Error(None)), None);
        let off = Difference { mismatches: 1, ..Difference::default() };
        assert_eq!(row(off, Measure::Error(None)), Some(false));
        assert_eq!(row(off, Measure::Exact), Some(false));
        assert_eq!(
            row(Difference { ulps: 3.0, ..Difference::default() }, Measure::Ulps(2.0)),
            Some(false)
        );
    }
}
