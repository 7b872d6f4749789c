//! A picture of what was measured: times of candidates in the order in which they were tried, and the
//! roofline.

use super::Tuning;
use crate::picture::{FAINT, GRID, INK, SELECTED, SINK, TAU, escaped};
use sparsek_codegen::tune::{Axis, Level, Outcome};
use std::fmt::{self, Write};

const LEFT: f64 = 70.0;
const SIDE: f64 = 430.0;
const HEIGHT: f64 = 260.0;
const TOP: f64 = 70.0;
const BETWEEN: f64 = 110.0;
const ROW: f64 = HEIGHT + 110.0;

const COLOURS: [&str; 3] = [SELECTED, TAU, SINK];

/// The picture as SVG: a row of two panels for each key. Peak in operations a second, memory in bytes.
pub(crate) fn svg(done: &[Tuning], peak: f64, memory: f64) -> Result<String, fmt::Error> {
    let width = LEFT + SIDE + BETWEEN + SIDE + 30.0;
    let height = TOP + ROW * done.len().max(1) as f64;
    let mut out = String::new();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-size=\"12\" fill=\"{INK}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
    )?;
    writeln!(out, "<title>Tuned schedules</title>")?;
    writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>")?;
    for (at, tuning) in done.iter().enumerate() {
        let top = TOP + ROW * at as f64;
        let of = match tuning.level {
            Level::Baseline => "; baseline: what the cost model chooses, compared with nothing",
            Level::Quick | Level::Full => "",
        };
        writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{}\" font-size=\"15\" font-weight=\"600\">{}{of}</text>",
            top - 40.0,
            escaped(&tuning.title)
        )?;
        let mut key = LEFT;
        for (axis, colour) in Axis::ALL.into_iter().zip(COLOURS) {
            key = crate::picture::key(&mut out, key, top - 14.0, colour, axis.name())?;
        }
        candidates(&mut out, tuning, top)?;
        let copy = tuning.copy.unwrap_or(memory);
        roofline(&mut out, tuning, (peak, copy), LEFT + SIDE + BETWEEN, top)?;
    }
    out.push_str("</svg>\n");
    Ok(out)
}

/// Powers of two between two numbers, those included.
fn doublings(low: f64, high: f64) -> impl Iterator<Item = f64> {
    (low.log2().floor() as i32..=high.log2().ceil() as i32).map(|p| 2f64.powi(p))
}

/// A logarithmic scale.
struct Scale {
    low: f64,
    high: f64,
    start: f64,
    length: f64,
}

impl Scale {
    fn new(low: f64, high: f64, start: f64, length: f64) -> Scale {
        let low = if low.is_finite() && low > 0.0 { low } else { 1.0 };
        Scale { low, high: high.max(low * 2.0), start, length }
    }

    fn at(&self, x: f64) -> f64 {
        let share = (x.max(self.low * 1e-3) / self.low).log2() / (self.high / self.low).log2();
        self.start + self.length * share
    }
}

fn number(x: f64) -> String {
    match x {
        x if x >= 1.0 => format!("{x:.0}"),
        x => format!("{}", (x * 1e4).round() / 1e4),
    }
}

fn frame(
    out: &mut String,
    (left, top): (f64, f64),
    x: &str,
    y: &str,
    ticks: &[(f64, String)],
) -> fmt::Result {
    for (at, text) in ticks {
        writeln!(
            out,
            "<path d=\"M{left} {at:.1}h{SIDE}\" stroke=\"{GRID}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\" fill=\"{FAINT}\">{text}</text>",
            left - 8.0,
            at + 4.0
        )?;
    }
    writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"{FAINT}\">{x}</text>",
        left + SIDE / 2.0,
        top + HEIGHT + 36.0
    )?;
    let (tx, ty) = (left - 48.0, top + HEIGHT / 2.0);
    writeln!(
        out,
        "<text x=\"{tx}\" y=\"{ty}\" text-anchor=\"middle\" fill=\"{FAINT}\" \
         transform=\"rotate(-90 {tx} {ty})\">{y}</text>"
    )
}

/// Milliseconds of every candidate, a dot each, and the best so far as a line; what has no right result is a
/// cross at the top.
fn candidates(out: &mut String, tuning: &Tuning, top: f64) -> fmt::Result {
    let all = &tuning.measurements;
    let times = || all.iter().filter_map(|m| m.outcome.spread()).map(|s| s.median);
    let low = times().fold(f64::INFINITY, f64::min) * 0.9;
    let high = times().fold(0.0, f64::max) * 1.1;
    let y = Scale::new(low, high, top + HEIGHT, -HEIGHT);
    let ticks = doublings(y.low, y.high).filter(|t| (y.low..=y.high).contains(t));
    let ticks: Vec<(f64, String)> = ticks.map(|t| (y.at(t), number(t))).collect();
    frame(out, (LEFT, top), "candidates, in the order of measuring", "median, ms", &ticks)?;
    let step = SIDE / all.len().max(1) as f64;
    for (axis, colour) in Axis::ALL.into_iter().zip(COLOURS) {
        let (mut best, mut line) = (f64::INFINITY, String::new());
        for (n, m) in all.iter().enumerate().filter(|(_, m)| m.axis == axis) {
            let x = LEFT + step * (n as f64 + 0.5);
            match &m.outcome {
                Outcome::Measured(s) | Outcome::Stopped(s) => {
                    let fill =
                        if matches!(m.outcome, Outcome::Measured(_)) { colour } else { "none" };
                    let at = y.at(s.median);
                    writeln!(
                        out,
                        "<circle cx=\"{x:.1}\" cy=\"{at:.1}\" r=\"3\" fill=\"{fill}\" stroke=\"{colour}\"/>"
                    )?;
                    best = best.min(s.median);
                }
                Outcome::Failed(_)
                | Outcome::Wrong { .. }
                | Outcome::Fault(_)
                | Outcome::Timeout(_) => {
                    let at = top + 4.0;
                    writeln!(
                        out,
                        "<path d=\"M{:.1} {:.1}l6 6m0 -6l-6 6\" stroke=\"{colour}\"/>",
                        x - 3.0,
                        at - 3.0
                    )?;
                }
            }
            if best.is_finite() {
                let start = if line.is_empty() { 'M' } else { 'L' };
                write!(line, "{start}{x:.1} {:.1}", y.at(best))?;
            }
        }
        if !line.is_empty() {
            writeln!(
                out,
                "<path d=\"{line}\" stroke=\"{colour}\" stroke-width=\"1.5\" fill=\"none\"/>"
            )?;
        }
    }
    Ok(())
}

/// Useful operations a second over operations a byte of device memory, below the ceilings of products and of
/// copies: every measured forward and backward, the winner filled.
fn roofline(
    out: &mut String,
    tuning: &Tuning,
    (peak, copy): (f64, f64),
    left: f64,
    top: f64,
) -> fmt::Result {
    let operations = |axis: Axis| {
        let products = if axis == Axis::Forward { 4.0 } else { 10.0 };
        products * tuning.pairs * tuning.d as f64
    };
    let knee = peak / copy;
    let intensity = |axis: Axis| operations(axis) / tuning.bytes(axis).max(1.0);
    let both = [Axis::Forward, Axis::Backward];
    let high = both.map(intensity).into_iter().fold(knee, f64::max) * 4.0;
    let low = both.map(intensity).into_iter().fold(knee, f64::min) / 8.0;
    let x = Scale::new(low, high, left, SIDE);
    let rates = tuning.measurements.iter().filter(|m| m.axis != Axis::Chunk).filter_map(|m| {
        let ms = m.outcome.spread()?.median;
        Some((m.axis, m.schedule, operations(m.axis) / (ms * 1e-3) / 1e12))
    });
    let rates: Vec<_> = rates.collect();
    let least = rates.iter().map(|r| r.2).fold(peak / 1e12, f64::min);
    let y = Scale::new(least / 1.5, peak / 1e12 * 1.5, top + HEIGHT, -HEIGHT);
    let ticks = doublings(y.low, y.high).filter(|t| (y.low..=y.high).contains(t));
    let ticks: Vec<(f64, String)> = ticks.map(|t| (y.at(t), number(t))).collect();
    frame(out, (left, top), "useful operations for each byte of memory", "TFLOP/s", &ticks)?;
    for t in doublings(x.low, x.high).filter(|t| (x.low..=x.high).contains(t)) {
        let at = x.at(t);
        writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"{FAINT}\">{}</text>",
            top + HEIGHT + 16.0,
            number(t)
        )?;
    }
    // Where the rate of copies leaves the panel at the bottom, up to the knee, and on.
    let start = x.low.max(y.low * 1e12 / copy);
    writeln!(
        out,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}H{:.1}\" stroke=\"{INK}\" fill=\"none\"/>",
        x.at(start),
        y.at(start * copy / 1e12),
        x.at(knee),
        y.at(peak / 1e12),
        left + SIDE
    )?;
    writeln!(
        out,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{FAINT}\">{:.0} TFLOP/s; copies {:.2} TB/s</text>",
        left + SIDE,
        y.at(peak / 1e12) - 6.0,
        peak / 1e12,
        copy / 1e12
    )?;
    for (axis, schedule, rate) in rates {
        let colour = COLOURS[axis as usize];
        let won = tuning.winner.as_ref().is_some_and(|w| axis.same(&w.schedule, &schedule));
        let (r, fill) = if won { (5, colour) } else { (2, "none") };
        writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{r}\" fill=\"{fill}\" stroke=\"{colour}\"/>",
            x.at(intensity(axis)),
            y.at(rate)
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
