//! Times over sequence lengths as a picture, both axes logarithmic.

use super::Row;
use crate::picture::{FAINT, GRID, INK, SELECTED, SINK, TAU, escaped};
use std::fmt::{self, Write};

const LEFT: f64 = 74.0;
const TOP: f64 = 74.0;
const SIDE: f64 = 620.0;
const HEIGHT: f64 = 380.0;

/// A line of the chart: its name, its colour, and a time in milliseconds for each row that has one.
type Line<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

/// The chart as SVG.
pub(crate) fn svg(title: &str, rows: &[Row]) -> Result<String, fmt::Error> {
    let n = |row: &Row| row.n as f64;
    let lines: [Line; 3] = [
        ("backward", TAU, rows.iter().filter_map(|r| Some((n(r), r.backward?.median))).collect()),
        (
            "forward, plan included",
            SELECTED,
            rows.iter().map(|r| (n(r), r.forward.median)).collect(),
        ),
        ("plan", SINK, rows.iter().filter_map(|r| Some((n(r), r.plan?.median))).collect()),
    ];
    let all = || lines.iter().flat_map(|(_, _, points)| points.iter().copied());
    let x = Axis::of(all().map(|p| p.0), 2.0, LEFT, SIDE);
    let y = Axis::of(all().map(|p| p.1), 10.0, TOP + HEIGHT, -HEIGHT);
    let (width, height) = (LEFT + SIDE + 26.0, TOP + HEIGHT + 58.0);
    let mut out = String::new();
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-size=\"13\" fill=\"{INK}\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
    )?;
    writeln!(out, "<title>{}</title>", escaped(title))?;
    writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>")?;
    writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"27\" font-size=\"17\" font-weight=\"600\">{}</text>",
        escaped(title)
    )?;
    axes(&mut out, &x, &y)?;
    let mut at = LEFT;
    for (name, colour, points) in lines.iter().filter(|(_, _, points)| !points.is_empty()) {
        let mut d = String::new();
        for (i, (n, ms)) in points.iter().enumerate() {
            let (px, py) = (x.at(*n), y.at(*ms));
            write!(d, "{}{px:.1} {py:.1}", if i == 0 { 'M' } else { 'L' })?;
            writeln!(out, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4\" fill=\"{colour}\"/>")?;
        }
        writeln!(out, "<path d=\"{d}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>")?;
        at = crate::picture::key(&mut out, at, TOP - 14.0, colour, name)?;
    }
    out.push_str("</svg>\n");
    Ok(out)
}

/// A logarithmic axis between powers of a base.
struct Axis {
    base: f64,
    low: i32,
    high: i32,
    start: f64,
    length: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64>, base: f64, start: f64, length: f64) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite() && *v > 0.0) {
            (low, high) = (low.min(value.log(base)), high.max(value.log(base)));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A value that is a power up to rounding is that power.
        let low = (low + 1e-9).floor() as i32;
        Axis { base, low, high: ((high - 1e-9).ceil() as i32).max(low + 1), start, length }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log(self.base) - f64::from(self.low)) / f64::from(self.high - self.low);
        self.start + share * self.length
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.low..=self.high).map(|power| self.base.powi(power))
    }
}

fn axes(out: &mut String, x: &Axis, y: &Axis) -> fmt::Result {
    let bottom = TOP + HEIGHT;
    for n in x.ticks() {
        let px = x.at(n);
        let label = if n >= 1024.0 { format!("{}k", n / 1024.0) } else { format!("{n}") };
        writeln!(
            out,
            "<path d=\"M{px:.1} {TOP}v{HEIGHT}\" stroke=\"{GRID}\"/><text x=\"{px:.1}\" y=\"{}\" \
             text-anchor=\"middle\" fill=\"{FAINT}\">{label}</text>",
            bottom + 18.0
        )?;
    }
    for ms in y.ticks() {
        let py = y.at(ms);
        writeln!(
            out,
            "<path d=\"M{LEFT} {py:.1}h{SIDE}\" stroke=\"{GRID}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\" fill=\"{FAINT}\">{} ms</text>",
            LEFT - 8.0,
            py + 4.5,
            (ms * 1e6).round() / 1e6
        )?;
    }
    writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">positions</text>",
        LEFT + SIDE / 2.0,
        bottom + 42.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Spread;
    use crate::work::Work;

    #[test]
    fn a_chart_of_two_lengths() {
        let row = |n: usize| Row {
            n,
            scores: String::new(),
            change: String::new(),
            schedule: String::new(),
            seen: 1.0,
            work: Work { forward: 1.0, backward: 1.0 },
            bytes: (1.0, 1.0),
            plan: None,
            forward: Spread { median: 1.0, least: 1.0, most: 1.0 },
            backward: Some(Spread { median: 10.0, least: 10.0, most: 10.0 }),
            launches: Vec::new(),
        };
        let svg = svg("a < b", &[row(1024), row(4096)]).unwrap();
        assert!(svg.contains("a &lt; b") && svg.contains(">1k<") && svg.contains(">4k<"), "{svg}");
        assert!(svg.contains(">10 ms<") && svg.contains("forward, plan included"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains(">plan<"), "{svg}");
    }
}
