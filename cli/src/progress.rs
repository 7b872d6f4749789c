//! A progress bar for work that takes longer than a glance.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Once;
use std::time::{Duration, Instant};

/// Work that ends sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bar on standard error that appears once the work has taken two seconds, on a terminal only.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    shown: Once,
}

impl Progress {
    /// A bar for `what`.
    pub(crate) fn new(what: &'static str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        // The template is a constant; should indicatif refuse it, its own style is fine.
        if let Ok(style) = ProgressStyle::with_template("{msg:9} {wide_bar} {percent:>3}%  {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        Progress { bar, start: Instant::now(), shown: Once::new() }
    }

    /// Tells how far the work is.
    pub(crate) fn update(&self, done: usize, total: usize) {
        if self.start.elapsed() < PATIENCE {
            return;
        }
        self.shown.call_once(|| {
            if std::io::stderr().is_terminal() {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
            }
        });
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
