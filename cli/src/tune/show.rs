//! What is seen of a search while it runs: on a terminal bars and a table of the best so far, else lines.

use crate::terminal::note;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sparsek_codegen::Schedule;
use sparsek_codegen::tune::{Axis, Measurement, Observer, Outcome};
use std::io::IsTerminal;

/// The bars of one search.
pub(crate) struct Show {
    bars: Option<Bars>,
    axis: Axis,
    tried: usize,
    of: usize,
    /// The best so far of each axis, the first that was measured, and their times.
    best: [Option<(Schedule, f64)>; 3],
    first: [Option<f64>; 3],
}

struct Bars {
    all: MultiProgress,
    title: ProgressBar,
    rows: Vec<ProgressBar>,
}

/// A schedule's part that the axis changes, in few words.
pub(crate) fn part(axis: Axis, schedule: &Schedule) -> String {
    match axis {
        Axis::Forward => schedule.forward.to_string(),
        Axis::Backward => schedule.backward.to_string(),
        Axis::Chunk => format!("chunk {}", schedule.chunk),
    }
}

fn style(template: &str) -> ProgressStyle {
    // Templates are constants; should one be refused, the default style is fine.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Show {
    /// For a search of that name.
    pub(crate) fn new(title: &str) -> Show {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            let heading = all.add(ProgressBar::new(0).with_style(style("{msg}")));
            heading.set_message(title.to_owned());
            let row = |axis: Axis| {
                let bar = ProgressBar::new(1)
                    .with_style(style("  {prefix:9} {bar:20} {pos:>3}/{len:3} {msg}"))
                    .with_prefix(axis.name());
                let bar = all.add(bar);
                bar.tick();
                bar
            };
            let rows = Axis::ALL.into_iter().map(row).collect();
            heading.tick();
            Bars { all, title: heading, rows }
        });
        if bars.is_none() {
            note(title);
        }
        let (best, first) = ([None; 3], [None; 3]);
        Show { bars, axis: Axis::Forward, tried: 0, of: 0, best, first }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // A line that cannot be drawn is one that nobody sees.
            Some(bars) => drop(bars.all.println(text)),
            None => note(text),
        }
    }

    fn best(&self, axis: Axis) -> String {
        let at = axis as usize;
        match (&self.best[at], self.first[at]) {
            (Some((schedule, ms)), Some(first)) => {
                let gain = first / ms;
                format!(
                    "best {ms:.3} ms, {gain:.3} times the model's first: {}",
                    part(axis, schedule)
                )
            }
            _ => String::new(),
        }
    }
}

impl Observer for Show {
    fn begins(&mut self, axis: Axis, candidates: usize) {
        (self.axis, self.tried, self.of) = (axis, 0, candidates);
        if let Some(bar) = self.bars.as_ref().and_then(|bars| bars.rows.get(axis as usize)) {
            bar.set_length(candidates as u64);
        }
    }

    fn tried(&mut self, measurement: &Measurement, known: bool) {
        let Measurement { axis, schedule, predicted_ms, outcome } = measurement;
        let at = *axis as usize;
        self.tried += 1;
        if let Outcome::Measured(spread) = outcome {
            self.first[at].get_or_insert(spread.median);
            if self.best[at].is_none_or(|(_, ms)| spread.median < ms) {
                self.best[at] = Some((*schedule, spread.median));
            }
        }
        let what = match outcome {
            Outcome::Measured(s) => {
                format!("{:.3} ms ({:.3} to {:.3})", s.median, s.least, s.most)
            }
            Outcome::Stopped(s) => format!("{:.3} ms, stopped early", s.least),
            Outcome::Failed(reason) => {
                format!("does not compile: {}", reason.lines().next().unwrap_or_default())
            }
            Outcome::Wrong { tensor, error, limit } => match error {
                Some(error) => {
                    format!("wrong: {tensor} is off by {error:.1e}, at most {limit:.1e}")
                }
                None => format!("wrong: {tensor} is off by more than any number"),
            },
            Outcome::Fault(reason) => {
                format!("fault: {}", reason.lines().next().unwrap_or_default())
            }
            Outcome::Timeout(seconds) => format!("no end after {seconds:.0} s"),
        };
        let known = if known { ", known" } else { "" };
        let text = format!(
            "{:8} {:>3}/{:<3} {what}{known} (predicted {predicted_ms:.3}): {}",
            axis.name(),
            self.tried,
            self.of,
            part(*axis, schedule)
        );
        match &self.bars {
            Some(bars) => {
                if let Some(bar) = bars.rows.get(at) {
                    bar.set_position(self.tried as u64);
                    bar.set_message(self.best(*axis));
                }
                if outcome.spread().is_none() {
                    self.line(&text);
                }
            }
            None => self.line(&text),
        }
    }

    fn finals(&mut self, axis: Axis, finalists: usize) {
        let text = format!("{}: the {finalists} best take turns", axis.name());
        match &self.bars {
            Some(bars) => bars.title.tick(),
            None => self.line(&text),
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            bars.rows.iter().for_each(ProgressBar::finish);
            bars.title.finish();
        }
    }
}
