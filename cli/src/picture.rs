//! A picture of a plan: which keys each query sees, over the scores and thresholds that decided it.
//!
//! A key is seen for one contiguous range of queries, so the lower panel is one rectangle for each
//! selected key and one band for the window. Both panels share the position axis.

use std::fmt::{self, Write};
use std::ops::Range;

/// The selection of one head of one sequence, or a range of it.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    /// Heading.
    pub(crate) title: &'a str,
    /// Lines of text in the empty corner.
    pub(crate) facts: &'a [String],
    /// Positions shown.
    pub(crate) range: Range<usize>,
    /// Window.
    pub(crate) window: usize,
    /// Sinks.
    pub(crate) sinks: usize,
    /// Score of each key, on the scale of `tau`; NaN where it is not known.
    pub(crate) scores: &'a [f32],
    /// Threshold of each query; −inf where every candidate is seen.
    pub(crate) tau: &'a [f32],
    /// First query that no longer sees the key.
    pub(crate) expiry: &'a [i32],
}

const LEFT: f64 = 74.0;
const SIDE: f64 = 760.0;
const SCORE_TOP: f64 = 74.0;
const SCORE_HEIGHT: f64 = 150.0;
const SEEN_TOP: f64 = SCORE_TOP + SCORE_HEIGHT + 22.0;
const WIDTH: f64 = LEFT + SIDE + 26.0;
const HEIGHT: f64 = SEEN_TOP + SIDE + 58.0;
/// Points drawn of a kind; more would only overlap.
const MOST_POINTS: usize = 4096;

/// Text.
pub(crate) const INK: &str = "#1f2933";
/// Text beside it.
pub(crate) const FAINT: &str = "#6b7785";
/// Lines of a grid.
pub(crate) const GRID: &str = "#e3e8ee";
const WINDOW: &str = "#a9bcd0";
/// Selected keys.
pub(crate) const SELECTED: &str = "#1565c0";
/// Sinks.
pub(crate) const SINK: &str = "#f08c00";
const OTHER: &str = "#b3bcc6";
/// Thresholds.
pub(crate) const TAU: &str = "#d6336c";

impl Picture<'_> {
    /// The picture as SVG.
    pub(crate) fn svg(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" font-size=\"13\" fill=\"{INK}\" \
             font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
        )?;
        writeln!(out, "<title>{}</title>", escaped(self.title))?;
        writeln!(out, "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>")?;
        writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"27\" font-size=\"17\" font-weight=\"600\">{}</text>",
            escaped(self.title)
        )?;
        self.score_panel(&mut out)?;
        self.seen_panel(&mut out)?;
        out.push_str("</svg>\n");
        Ok(out)
    }

    fn x(&self, position: f64) -> f64 {
        LEFT + (position - self.range.start as f64) / self.range.len() as f64 * SIDE
    }

    /// Whether a query outside the key's window ever sees it by its score.
    fn ever_selected(&self, j: usize) -> bool {
        j >= self.sinks && self.selected_rows(j).is_some()
    }

    /// The queries that see key `j` because it is selected.
    fn selected_rows(&self, j: usize) -> Option<Range<usize>> {
        let rows = (j + self.window)..usize::try_from(self.expiry[j]).unwrap_or(0);
        (j >= self.sinks && rows.start < rows.end).then_some(rows)
    }

    fn score_panel(&self, out: &mut String) -> fmt::Result {
        let shown = self.range.clone();
        let values = self.scores[shown.clone()].iter().chain(&self.tau[shown.clone()]);
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for v in values.filter(|v| v.is_finite()) {
            (low, high) = (low.min(*v), high.max(*v));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let margin = ((high - low) * 0.05).max(1e-6 * high.abs().max(1.0));
        let (low, high) = (f64::from(low - margin), f64::from(high + margin));
        let y = |v: f64| SCORE_TOP + SCORE_HEIGHT * (1.0 - (v - low) / (high - low));

        frame(out, SCORE_TOP, SCORE_HEIGHT)?;
        for v in ticks(low, high, 4) {
            let at = y(v);
            writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}h{SIDE}\" stroke=\"{GRID}\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\" fill=\"{FAINT}\">{}</text>",
                LEFT - 8.0,
                at + 4.5,
                number(v)
            )?;
        }
        vertical_label(out, SCORE_TOP + SCORE_HEIGHT / 2.0, "score")?;
        let points = |keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let all: Vec<usize> =
                shown.clone().filter(|j| self.scores[*j].is_finite() && keep(*j)).collect();
            let step = all.len().div_ceil(MOST_POINTS).max(1);
            all.into_iter().step_by(step).collect()
        };
        let dots = |out: &mut String, keys: &[usize], colour: &str, size: f64| -> fmt::Result {
            let mut d = String::new();
            for j in keys {
                let v = f64::from(self.scores[*j]);
                write!(d, "M{:.1} {:.1}h0", self.x(*j as f64 + 0.5), y(v))?;
            }
            writeln!(
                out,
                "<path d=\"{d}\" stroke=\"{colour}\" stroke-width=\"{size}\" \
                 stroke-linecap=\"round\" fill=\"none\"/>"
            )
        };
        let others = points(&|j| j >= self.sinks && !self.ever_selected(j));
        dots(out, &others, OTHER, 2.4)?;
        dots(out, &points(&|j| self.ever_selected(j)), SELECTED, 3.2)?;
        dots(out, &points(&|j| j < self.sinks), SINK, 3.2)?;
        self.threshold(out, y)?;
        let mut at = LEFT;
        at = key(out, at, SCORE_TOP - 14.0, SELECTED, "key that is ever selected")?;
        at = key(out, at, SCORE_TOP - 14.0, OTHER, "other key")?;
        key(out, at, SCORE_TOP - 14.0, TAU, "threshold τ of the query at that position")?;
        Ok(())
    }

    /// τ as a line; a point is left out where the line would not move visibly.
    fn threshold(&self, out: &mut String, y: impl Fn(f64) -> f64) -> fmt::Result {
        let mut d = String::new();
        let mut last: Option<(f64, f64)> = None;
        let end = self.range.end - 1;
        for i in self.range.clone().filter(|i| self.tau[*i].is_finite()) {
            let (px, py) = (self.x(i as f64 + 0.5), y(f64::from(self.tau[i])));
            let moved = last.is_none_or(|(lx, ly)| (px - lx).abs() + (py - ly).abs() > 0.6);
            if moved || i == end {
                write!(d, "{}{px:.1} {py:.1}", if last.is_none() { 'M' } else { 'L' })?;
                last = Some((px, py));
            }
        }
        writeln!(
            out,
            "<path d=\"{d}\" stroke=\"{TAU}\" stroke-width=\"1.8\" stroke-linejoin=\"round\" \
             fill=\"none\"/>"
        )
    }

    fn seen_panel(&self, out: &mut String) -> fmt::Result {
        frame(out, SEEN_TOP, SIDE)?;
        let (start, n) = (self.range.start, self.range.len());
        let scale = SIDE / n as f64;
        // Inside the group one unit is one position.
        writeln!(out, "<g transform=\"translate({LEFT} {SEEN_TOP}) scale({scale})\">")?;
        writeln!(out, "<path d=\"{}\" fill=\"{WINDOW}\"/>", self.window_band()?)?;
        let mut selected = String::new();
        for j in self.range.clone() {
            let Some(rows) = self.selected_rows(j) else { continue };
            let (top, bottom) = (rows.start.max(start), rows.end.min(self.range.end));
            if top < bottom {
                let height = bottom - top;
                write!(selected, "M{} {}v{height}h1v-{height}z", j - start, top - start)?;
            }
        }
        writeln!(out, "<path d=\"{selected}\" fill=\"{SELECTED}\"/>")?;
        let mut sinks = String::new();
        for j in start..self.sinks.min(self.range.end) {
            let x = j - start;
            write!(sinks, "M{x} {x}V{n}h1V{x}z")?;
        }
        writeln!(out, "<path d=\"{sinks}\" fill=\"{SINK}\"/>\n</g>")?;
        self.seen_axes(out)?;
        self.corner(out)
    }

    /// The window as one outline: rows j to j + w of every key j, those of keys before the range
    /// left out with the keys.
    fn window_band(&self) -> Result<String, fmt::Error> {
        let n = self.range.len();
        let w = self.window.min(n);
        let mut d = String::new();
        if w == 0 {
            return Ok(d);
        }
        if n > 2 * MOST_POINTS {
            // Steps of one position are far below a pixel.
            write!(d, "M0 0L{n} {n}H{}L0 {w}z", n - w)?;
            return Ok(d);
        }
        d.push_str("M0 0");
        d.push_str(&"h1v1".repeat(n));
        write!(d, "H{}", n - w)?;
        d.push_str(&"v-1h-1".repeat(n - w));
        d.push('z');
        Ok(d)
    }

    fn seen_axes(&self, out: &mut String) -> fmt::Result {
        let bottom = SEEN_TOP + SIDE;
        let (start, end) = (self.range.start as f64, self.range.end as f64);
        for v in ticks(start, end, 8) {
            let (x, y) = (self.x(v), SEEN_TOP + (self.x(v) - LEFT));
            let label = number(v);
            writeln!(
                out,
                "<path d=\"M{x:.1} {bottom}v5M{LEFT} {y:.1}h-5\" stroke=\"{FAINT}\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"{FAINT}\">{label}</text>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{FAINT}\">{label}</text>",
                bottom + 19.0,
                LEFT - 8.0,
                y + 4.5
            )?;
        }
        vertical_label(out, SEEN_TOP + SIDE / 2.0, "query i")?;
        writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">key j</text>",
            LEFT + SIDE / 2.0,
            bottom + 42.0
        )
    }

    /// Legend and facts in the corner above the diagonal, where no query sees a key.
    fn corner(&self, out: &mut String) -> fmt::Result {
        let x = LEFT + SIDE * 0.53;
        let mut y = SEEN_TOP + 36.0;
        let window = format!("window: the last {} keys", self.window);
        let mut legend = Vec::new();
        if self.window > 0 {
            legend.push((WINDOW, window.as_str()));
        }
        legend.push((SELECTED, "selected: among the k best scores"));
        if self.sinks > 0 {
            legend.push((SINK, "sink: always seen"));
        }
        for (colour, text) in legend {
            writeln!(
                out,
                "<rect x=\"{x}\" y=\"{}\" width=\"13\" height=\"13\" rx=\"2\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"{y}\">{}</text>",
                y - 11.0,
                x + 21.0,
                escaped(text)
            )?;
            y += 23.0;
        }
        y += 8.0;
        for fact in self.facts {
            writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{FAINT}\">{}</text>", escaped(fact))?;
            y += 20.0;
        }
        Ok(())
    }
}

fn frame(out: &mut String, top: f64, height: f64) -> fmt::Result {
    writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{SIDE}\" height=\"{height}\" fill=\"#fbfcfd\" \
         stroke=\"{GRID}\"/>"
    )
}

fn vertical_label(out: &mut String, y: f64, text: &str) -> fmt::Result {
    writeln!(
        out,
        "<text transform=\"translate(20 {y}) rotate(-90)\" text-anchor=\"middle\">{text}</text>"
    )
}

/// A dot and its meaning; where the next one goes.
pub(crate) fn key(
    out: &mut String,
    x: f64,
    y: f64,
    colour: &str,
    text: &str,
) -> Result<f64, fmt::Error> {
    writeln!(
        out,
        "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{y}\" \
         fill=\"{FAINT}\">{text}</text>",
        x + 4.0,
        y - 4.5,
        x + 14.0
    )?;
    // Widths of glyphs are not known here; 7.1 is a generous mean at this size.
    Ok(x + 34.0 + 7.1 * text.chars().count() as f64)
}

/// Round values inside `low..=high`, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    if !(rough.is_finite() && rough > 0.0) {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= rough)
        .unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).take(50).map(|n| n as f64 * step).collect()
}

fn number(v: f64) -> String {
    let v = if v.abs() < 1e-12 { 0.0 } else { v };
    if v.abs() >= 1e7 { format!("{v:.1e}") } else { format!("{}", (v * 1e6).round() / 1e6) }
}

/// Text between tags.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1024.0, 8), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(ticks(-1.2, 0.9, 4), [-1.0, 0.0].map(|x: f64| x));
        assert!(ticks(1.0, 1.0, 4).is_empty());
    }

    #[test]
    fn a_selected_key_is_one_strip() {
        let picture = Picture {
            title: "a < b",
            facts: &[],
            range: 0..6,
            window: 2,
            sinks: 1,
            scores: &[0.0, 1.0, 0.5, 0.2, 0.1, 0.0],
            tau: &[f32::NEG_INFINITY; 6],
            expiry: &[6, 5, 4, 5, 6, 6],
        };
        let svg = picture.svg().unwrap();
        // Key 1: selected for queries 3 and 4. Key 0 is a sink to the end. Key 2 leaves with the
        // window.
        assert!(svg.contains("d=\"M1 3v2h1v-2z\""), "{svg}");
        assert!(svg.contains("d=\"M0 0V6h1V0z\""), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }
}
