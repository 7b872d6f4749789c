//! What the suite says: the worst error of each quantity, and each failure with the command that
//! runs it alone.

use super::{Checked, Id, Problem, Settings};
use crate::commands::verify::{burden, table};
use crate::failure::{Failure, Outcome};
use crate::terminal::{self, Channel, duration};
use sparsek_reference::rule::Measurement;
use std::time::Duration;

/// Refusals that are printed; the rest is counted.
const MOST_REFUSALS: usize = 5;

/// Results so far.
#[derive(Debug)]
pub(super) struct Report {
    worst: Vec<(Measurement, String)>,
    /// Checks with measurements beyond their limits.
    beyond: Vec<(Id, Vec<(Measurement, String)>)>,
    failed: Vec<(Id, String)>,
    refused: Vec<(Id, String)>,
    done: Vec<Id>,
}

impl Report {
    pub(super) fn new() -> Report {
        Report {
            worst: Vec::new(),
            beyond: Vec::new(),
            failed: Vec::new(),
            refused: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Takes in a check; whether it is accepted.
    pub(super) fn add(&mut self, id: &Id, checked: Checked) -> bool {
        self.done.push(id.clone());
        let (label, measurements) = match checked {
            Ok(measured) => measured,
            Err(Problem::Refused(reason)) => {
                self.refused.push((id.clone(), reason));
                return true;
            }
            Err(Problem::Failed(reason)) => {
                self.failed.push((id.clone(), reason));
                return false;
            }
        };
        let mut beyond = Vec::new();
        for m in measurements {
            if !m.ok {
                beyond.push((m.clone(), label.clone()));
            }
            let case = format!("{id}: {label}");
            match self.worst.iter_mut().find(|(w, _)| w.name == m.name) {
                None => self.worst.push((m, case)),
                Some(slot) if burden(&m) > burden(&slot.0) => *slot = (m, case),
                Some(_) => {}
            }
        }
        let accepted = beyond.is_empty();
        if !accepted {
            self.beyond.push((id.clone(), beyond));
        }
        accepted
    }

    /// Prints everything and decides.
    pub(super) fn end(
        &self,
        settings: &Settings,
        asked: &[Id],
        machine: &str,
        took: Duration,
    ) -> Result<Outcome, Failure> {
        let mut out = format!(
            "suite on {machine}, seed {}{}\n  {} in {}\n",
            settings.seed,
            if settings.small { ", small shapes" } else { "" },
            self.counts(),
            duration(took)
        );
        if !self.worst.is_empty() {
            out.push_str("largest error of each result, relative to its limit:\n");
            out.push_str(&table(&self.worst));
        }
        for (id, reason) in self.refused.iter().take(MOST_REFUSALS) {
            out.push_str(&format!("refused {id}: {reason}\n"));
        }
        if self.refused.len() > MOST_REFUSALS {
            out.push_str(&format!("… {} refused in all\n", self.refused.len()));
        }
        for (id, rows) in &self.beyond {
            out.push_str(&format!("\n{id} is not accepted:\n{}", table(rows)));
            out.push_str(&format!("  again: {}\n", again(settings, id)));
        }
        for (id, reason) in &self.failed {
            out.push_str(&format!("\n{id} failed: {reason}\n"));
            out.push_str(&format!("  again: {}\n", again(settings, id)));
        }
        let wrong = self.beyond.len() + self.failed.len();
        if wrong == 0 {
            Channel::Stdout.write(&(out + "every result is accepted\n"))?;
            return Ok(Outcome::Done);
        }
        Channel::Stdout.write(&out)?;
        let left = asked.len().saturating_sub(self.done.len());
        let left = if left > 0 { format!("; {left} checks were not run") } else { String::new() };
        terminal::error(&Failure::new(format_args!("{wrong} checks are not accepted{left}")));
        Ok(Outcome::DoesNotHold)
    }

    fn counts(&self) -> String {
        let of = |kind: fn(&Id) -> bool| self.done.iter().filter(|id| kind(id)).count();
        let programs = of(|id| matches!(id, Id::Random(seed) if seed.is_multiple_of(2)));
        format!(
            "{} golden cases, {} random cases ({programs} of them random programs), {} long \
             sequences, {} repeated calls, {} batches by rows",
            of(|id| matches!(id, Id::Golden(_))),
            of(|id| matches!(id, Id::Random(_))),
            of(|id| matches!(id, Id::Long(_))),
            of(|id| matches!(id, Id::Repeat(_))),
            of(|id| matches!(id, Id::Rows(_))),
        )
    }
}

/// The command that runs one check alone.
fn again(settings: &Settings, id: &Id) -> String {
    let small = if settings.small { " --small" } else { "" };
    let golden = match (&settings.golden, id) {
        (Some(folder), Id::Golden(_)) => format!(" --golden {}", folder.display()),
        _ => String::new(),
    };
    format!("sparsek verify --suite --device {}{small}{golden} --only {id}", settings.device)
}
