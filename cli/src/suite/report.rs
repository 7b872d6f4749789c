//! What the suite says: each kind of checks, the worst error of each quantity, and each failure with
//! the command that runs it alone.

use super::queue::Ran;
use super::record::{Outcome as Ended, Record};
use super::{Id, Settings};
use crate::commands::verify::{burden, table};
use crate::failure::{Failure, Outcome};
use crate::table::Table;
use crate::terminal::{self, Channel, duration};
use serde_json::{Value, json};
use sparsek_reference::rule::Measurement;
use std::time::Duration;

/// Refusals and failures of which the text says everything; of the rest it says the name.
const MOST: usize = 20;

/// Kinds in the order in which they are listed.
const KINDS: [&str; 6] = ["golden", "random", "rows", "repeat", "long", "million"];

/// Results of a suite.
pub(super) struct Report<'a> {
    settings: &'a Settings,
    machine: &'a str,
    ran: &'a Ran,
    took: Duration,
}

/// Checks of one kind, counted.
struct Group {
    kind: &'static str,
    checks: usize,
    accepted: usize,
    refused: usize,
    wrong: usize,
    failed: usize,
    not_run: usize,
    /// From the start of the first to the end of the last.
    seconds: f64,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        machine: &'a str,
        ran: &'a Ran,
        took: Duration,
    ) -> Report<'a> {
        Report { settings, machine, ran, took }
    }

    fn groups(&self) -> Vec<Group> {
        let of = |kind: &'static str| {
            let all: Vec<&Record> =
                self.ran.records.iter().filter(|r| r.id.kind() == kind).collect();
            let count = |what: fn(&Record) -> bool| all.iter().filter(|r| what(r)).count();
            let refused = count(|r| matches!(r.outcome, Ended::Refused(_)));
            let from = all.iter().map(|r| r.start).fold(f64::INFINITY, f64::min);
            let to = all.iter().map(|r| r.start + r.seconds).fold(0.0, f64::max);
            Group {
                kind,
                checks: all.len(),
                accepted: count(Record::accepted) - refused,
                refused,
                wrong: count(|r| matches!(r.outcome, Ended::Measured(_)) && !r.accepted()),
                failed: count(|r| matches!(r.outcome, Ended::Failed(_) | Ended::Fault(_))),
                not_run: self.ran.left.iter().filter(|id| id.kind() == kind).count(),
                seconds: (to - from).max(0.0),
            }
        };
        let groups = KINDS.into_iter().map(of);
        groups.filter(|group| group.checks + group.not_run > 0).collect()
    }

    /// The worst of each quantity, and its case.
    fn worst(&self) -> Vec<(Measurement, String)> {
        let mut worst: Vec<(Measurement, String)> = Vec::new();
        for record in &self.ran.records {
            for m in record.measured() {
                let case = || format!("{}: {}", record.id, record.label);
                match worst.iter_mut().find(|(w, _)| w.name == m.name) {
                    None => worst.push((m.clone(), case())),
                    Some(slot) if burden(m) > burden(&slot.0) => *slot = (m.clone(), case()),
                    Some(_) => {}
                }
            }
        }
        worst
    }

    fn not_accepted(&self) -> Vec<&Record> {
        self.ran.records.iter().filter(|r| !r.accepted()).collect()
    }

    /// Every number, for programs.
    pub(super) fn json(&self) -> Value {
        let failure = |record: &&Record| {
            let mut value = record.json();
            value["again"] = json!(again(self.settings, &record.id));
            value
        };
        let group = |g: &Group| {
            json!({
                "kind": g.kind,
                "checks": g.checks,
                "accepted": g.accepted,
                "refused": g.refused,
                "not_accepted": g.wrong,
                "failed": g.failed,
                "not_run": g.not_run,
                "seconds": g.seconds,
            })
        };
        let names = |ids: &[Id]| ids.iter().map(Id::to_string).collect::<Vec<_>>();
        let worst = |(m, case): &(Measurement, String)| json!({ "result": m.name, "error": m.error, "limit": m.limit, "case": case });
        json!({
            "device": self.machine,
            "seed": self.settings.seed,
            "seconds": self.took.as_secs_f64(),
            "groups": self.groups().iter().map(group).collect::<Vec<_>>(),
            "failures": self.not_accepted().iter().map(failure).collect::<Vec<_>>(),
            "worst": self.worst().iter().map(worst).collect::<Vec<_>>(),
            "not_run": names(&self.ran.left),
            "hanging": names(&self.ran.hanging),
            "checks": self.ran.records.iter().map(Record::json).collect::<Vec<_>>(),
        })
    }

    fn summary(&self) -> String {
        let mut table = Table::new(&[
            "<checks",
            "run",
            "accepted",
            "refused",
            "not accepted",
            "failed",
            "not run",
            "seconds",
        ]);
        let groups = self.groups();
        for g in &groups {
            let counts = [g.checks, g.accepted, g.refused, g.wrong, g.failed, g.not_run];
            let cells = counts.map(|n| n.to_string());
            let seconds = format!("{:.1}", g.seconds);
            table.row([g.kind.to_owned()].into_iter().chain(cells).chain([seconds]));
        }
        let sum = |of: fn(&Group) -> usize| groups.iter().map(of).sum::<usize>().to_string();
        table.row([
            "all".to_owned(),
            sum(|g| g.checks),
            sum(|g| g.accepted),
            sum(|g| g.refused),
            sum(|g| g.wrong),
            sum(|g| g.failed),
            sum(|g| g.not_run),
            format!("{:.1}", self.took.as_secs_f64()),
        ]);
        table.render(2)
    }

    /// Prints everything and decides.
    pub(super) fn end(&self) -> Result<Outcome, Failure> {
        let settings = self.settings;
        let mut out = format!(
            "suite on {}, seed {}{}, {}\n",
            self.machine,
            settings.seed,
            if settings.small { ", small shapes" } else { "" },
            duration(self.took)
        );
        out.push_str(&self.summary());
        let worst = self.worst();
        if !worst.is_empty() {
            out.push_str("largest error of each result, relative to its limit:\n");
            out.push_str(&table(&worst));
        }
        self.refusals(&mut out);
        let wrong = self.not_accepted();
        for (at, record) in wrong.iter().enumerate() {
            out.push_str(&self.failure(record, at < MOST));
        }
        for id in &self.ran.hanging {
            out.push_str(&format!("\n{id} did not end\n  again: {}\n", again(settings, id)));
        }
        let left = self.ran.left.len();
        if wrong.is_empty() && left == 0 {
            Channel::Stdout.write(&(out + "every result is accepted\n"))?;
            return Ok(Outcome::Done);
        }
        Channel::Stdout.write(&out)?;
        let text = match (wrong.len(), left) {
            (wrong, 0) => format!("{wrong} checks are not accepted"),
            (0, left) => format!("{left} checks were not run"),
            (wrong, left) => format!("{wrong} checks are not accepted; {left} were not run"),
        };
        let failure = Failure::new(text);
        terminal::error(&match (left, settings.limit) {
            (1.., Some(limit)) if self.took >= limit => {
                failure.help(format_args!("raise --limit {}", limit.as_secs()))
            }
            (1.., _) => failure.help("too many faults of the GPU: repeat those above first"),
            _ => failure,
        });
        Ok(Outcome::DoesNotHold)
    }

    fn refusals(&self, out: &mut String) {
        let mut count = 0;
        for record in &self.ran.records {
            if let Ended::Refused(reason) = &record.outcome {
                count += 1;
                if count <= MOST {
                    out.push_str(&format!("refused {}: {reason}\n", record.id));
                }
            }
        }
        if count > MOST {
            out.push_str(&format!("… {count} refused in all\n"));
        }
    }

    fn failure(&self, record: &Record, in_full: bool) -> String {
        let Record { id, label, .. } = record;
        let again = again(self.settings, id);
        if !in_full {
            return format!("\n{id} is not accepted: {again}\n");
        }
        let what = match &record.outcome {
            Ended::Measured(all) => {
                let beyond = all.iter().filter(|m| !m.ok);
                let rows: Vec<_> = beyond.map(|m| (m.clone(), String::new())).collect();
                format!("is not accepted: {label}\n{}", table(&rows))
            }
            Ended::Fault(reason) => format!("ended in a fault of the GPU: {label}\n  {reason}\n"),
            Ended::Failed(reason) | Ended::Refused(reason) => {
                format!("failed: {label}\n  {reason}\n")
            }
        };
        format!("\n{id} {what}  again: {again}\n")
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
