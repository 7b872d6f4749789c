//! The store: listed, shown, exported, imported, removed from.

use crate::failure::{Failure, Outcome};
use crate::table::Table;
use crate::tensors::output::Destination;
use crate::terminal::{Channel, note};
use crate::tune::show::part;
use sparsek::tuned::{Entry, How, Manifest, Record, Store, Winner};
use sparsek_codegen::tune::{Axis, Outcome as Tried};
use std::path::Path;

/// The store of the environment.
pub(crate) fn store() -> Result<Store, Failure> {
    Store::from_environment().ok_or_else(|| {
        Failure::new("there is no place for tuned schedules").help("set SPARSEK_TUNED_DIR")
    })
}

/// Every entry that can be read; what cannot is a note.
fn entries(store: &Store) -> Result<Vec<Entry>, Failure> {
    let listed = store.list().map_err(|e| {
        Failure::new(format_args!("{} cannot be read: {e}", store.folder().display()))
            .help("set SPARSEK_TUNED_DIR to another folder")
    })?;
    let mut all = Vec::new();
    for (_, entry) in listed {
        match entry {
            Ok(entry) => all.push(entry),
            Err(broken) => note(broken),
        }
    }
    Ok(all)
}

/// What an entry goes by: its winner, else its key.
fn id(entry: &Entry) -> String {
    entry.winner.as_ref().map_or_else(|| entry.key.id(), |w| w.id.clone())
}

/// Whether an entry's code is what this build generates.
fn is_current(entry: &Entry) -> bool {
    entry.key.code == sparsek_codegen::version()
}

pub(super) fn list() -> Result<Outcome, Failure> {
    let store = store()?;
    let all = entries(&store)?;
    if all.is_empty() {
        let folder = store.folder().display();
        Channel::Stdout.write(&format!("nothing is tuned in {folder}\n"))?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        "<id", "<kernel", "<elem", "D", "k", "window", "group", "N", "<GPU", "forward", "backward",
        "tried", "<how", "<date", "<",
    ]);
    for entry in &all {
        let key = &entry.key;
        let of = |f: fn(&Winner) -> String| entry.winner.as_ref().map_or("-".to_owned(), f);
        let old = if is_current(entry) { "" } else { "of another release: not used" };
        table.row([
            id(entry),
            entry.kernel.clone(),
            key.elem.to_string(),
            key.d.to_string(),
            key.k.to_string(),
            key.w.to_string(),
            key.group.to_string(),
            key.sequence.to_string(),
            key.gpu.name.clone(),
            of(|w| format!("{:.3}", w.figures.forward_ms)),
            of(|w| format!("{:.3}", w.figures.backward_ms)),
            entry.measurements.len().to_string(),
            of(|w| w.how.name().to_owned()),
            of(|w| w.figures.date.clone()),
            old.to_owned(),
        ]);
    }
    let folder = store.folder().display();
    Channel::Stdout.write(&format!("{folder}, times in ms:\n{}", table.render(2)))?;
    Ok(Outcome::Done)
}

/// The entries whose ids start with each text: one for each.
fn find<'a>(all: &'a [Entry], ids: &[String]) -> Result<Vec<&'a Entry>, Failure> {
    let one = |text: &String| {
        let is_it = |e: &&Entry| {
            !text.is_empty()
                && (id(e).starts_with(text.as_str()) || e.key.id().starts_with(text.as_str()))
        };
        let found: Vec<&Entry> = all.iter().filter(is_it).collect();
        match found.as_slice() {
            [entry] => Ok(*entry),
            [] => Err(Failure::new(format_args!("there is no {text} among the tuned schedules"))
                .help("`sparsek tune list` shows them")),
            several => {
                let ids: Vec<String> = several.iter().map(|e| id(e)).collect();
                Err(Failure::new(format_args!("{text} could be {}", ids.join(", ")))
                    .help("give more digits"))
            }
        }
    };
    ids.iter().map(one).collect()
}

pub(super) fn show(wanted: &str) -> Result<Outcome, Failure> {
    let store = store()?;
    let all = entries(&store)?;
    let found = find(&all, &[wanted.to_owned()])?;
    let Some(entry) = found.first() else { return Ok(Outcome::Done) };
    let key = &entry.key;
    let mut out = format!("{} of {}: {key}\n", id(entry), entry.kernel);
    out.push_str(&format!("  file      {}\n", store.path(key).display()));
    out.push_str(&format!("  program   {}, code {}", key.program, key.code));
    out.push_str(if is_current(entry) { "\n" } else { ", of another release: not used\n" });
    out.push_str(&format!("  inputs    {}\n", key.given.join(", ")));
    for (name, winner) in [("winner", &entry.winner), ("model", &entry.model)] {
        let Some(winner) = winner else { continue };
        let name = if winner.how == How::Baseline { "baseline" } else { name };
        let f = &winner.figures;
        let schedule = winner.schedule.to_string().replace('\n', "\n            ");
        out.push_str(&format!("  {name:9} {schedule}\n"));
        out.push_str(&format!(
            "            forward {:.3} ms (plan {:.3}), backward {:.3} ms; batch {}, N {}, heads {}/{}; {}, \
             driver {}, {}\n",
            f.forward_ms, f.plan_ms, f.backward_ms, f.batch, f.n, f.heads, f.kv_heads,
            winner.how.name(), f.driver, f.date
        ));
        if winner.how == How::Baseline {
            out.push_str("            what the cost model chooses, compared with nothing\n");
        }
    }
    for axis in Axis::ALL {
        let of_axis = entry.measurements.iter().filter(|k| k.measurement.axis == axis);
        let mut of_axis: Vec<_> = of_axis.collect();
        let ms = |k: &sparsek::tuned::Kept| {
            k.measurement.outcome.spread().map_or(f64::INFINITY, |s| s.median)
        };
        of_axis.sort_by(|a, b| ms(a).total_cmp(&ms(b)));
        if of_axis.is_empty() {
            continue;
        }
        let mut table = Table::new(&[
            "median",
            "least",
            "most",
            "calls",
            "predicted",
            "<schedule",
            "<",
            "<date",
        ]);
        for kept in of_axis {
            let m = &kept.measurement;
            let spread = m.outcome.spread();
            let of = |f: fn(&sparsek_codegen::tune::Spread) -> f64| {
                spread.map_or("-".to_owned(), |s| format!("{:.3}", f(s)))
            };
            let outcome = match &m.outcome {
                Tried::Measured(_) => String::new(),
                Tried::Stopped(_) => "stopped early".to_owned(),
                Tried::Wrong { tensor, error, limit } => {
                    let error = error.map_or("no number".to_owned(), |e| format!("{e:.2e}"));
                    format!("wrong: {tensor} {error}, at most {limit:.2e}")
                }
                other => other.name().to_owned(),
            };
            table.row([
                of(|s| s.median),
                of(|s| s.least),
                of(|s| s.most),
                spread.map_or("-".to_owned(), |s| s.count.to_string()),
                format!("{:.3}", m.predicted_ms),
                part(axis, &m.schedule),
                outcome,
                kept.date.clone(),
            ]);
        }
        out.push_str(&format!("{}, ms:\n{}", axis.name(), table.render(2)));
    }
    Channel::Stdout.write(&out)?;
    Ok(Outcome::Done)
}

pub(super) fn export(filter: Option<&str>, output: &Path) -> Result<Outcome, Failure> {
    let destination = Destination::new(output)?;
    let store = store()?;
    let wanted = |entry: &Entry| {
        let Some(filter) = filter else { return true };
        let filter = filter.to_lowercase().replace('-', "");
        let texts = [entry.kernel.clone(), entry.key.gpu.name.clone(), id(entry), entry.key.id()];
        texts.iter().any(|text| text.to_lowercase().replace('-', "").contains(&filter))
    };
    let all = entries(&store)?;
    let records: Vec<Record> =
        all.iter().filter(|e| is_current(e) && wanted(e)).filter_map(Entry::record).collect();
    if records.is_empty() {
        let what = filter.map_or(String::new(), |f| format!(" that matches `{f}`"));
        return Err(Failure::new(format_args!(
            "there is no tuned schedule{what} in {}",
            store.folder().display()
        ))
        .help("`sparsek tune list` shows what there is"));
    }
    let count = counted(&records);
    let text = Manifest::new(records).to_json();
    destination.write(|out| out.write_all(text.as_bytes()))?;
    note(format_args!("{count} in {}", output.display()));
    Ok(Outcome::Done)
}

/// How many records there are, and how many of them no search found.
fn counted(records: &[Record]) -> String {
    let alone = records.iter().filter(|record| record.how == How::Baseline).count();
    let tuned = records.len() - alone;
    match (tuned, alone) {
        (_, 0) => format!("{tuned} tuned schedules"),
        (0, _) => format!("{alone} baselines of the cost model's choice"),
        _ => format!("{tuned} tuned schedules and {alone} baselines of the cost model's choice"),
    }
}

pub(super) fn import(file: &Path) -> Result<Outcome, Failure> {
    let at = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::new(format_args!("cannot read {at}: {e}")).help("give a file"))?;
    let manifest = Manifest::from_json(&text)
        .map_err(|e| Failure::new(format_args!("{at}: {e}")).help("give what `export` wrote"))?;
    let store = store()?;
    let (mut taken, mut left) = (Vec::new(), 0);
    for record in manifest.records() {
        let Some(figures) = &record.figures else {
            left += 1;
            continue;
        };
        let winner = Winner::new(&record.key, record.schedule, record.how, figures.clone());
        let mut entry = Entry::new(&record.kernel, record.key.clone());
        entry.winner = Some(winner);
        let merged = store.merge(&entry).map_err(|e| {
            Failure::new(format_args!("{} cannot be written: {e}", store.folder().display()))
                .help("set SPARSEK_TUNED_DIR to a folder that can be written")
        })?;
        if let Some(aside) = merged.moved {
            note(format_args!("a file that could not be read is now {}", aside.display()));
        }
        taken.push(record.clone());
    }
    if left > 0 {
        note(format_args!("{left} records without figures are the cost model's choice: left out"));
    }
    Channel::Stdout.write(&format!("{} from {at}\n", counted(&taken)))?;
    Ok(Outcome::Done)
}

pub(super) fn remove(ids: &[String]) -> Result<Outcome, Failure> {
    let store = store()?;
    let all = entries(&store)?;
    // All are found before the first is removed.
    let found = find(&all, ids)?;
    for entry in &found {
        store.remove(&entry.key).map_err(|e| {
            Failure::new(format_args!(
                "{} cannot be removed: {e}",
                store.path(&entry.key).display()
            ))
        })?;
        Channel::Stdout.write(&format!(
            "removed {} of {}: {}\n",
            id(entry),
            entry.kernel,
            entry.key
        ))?;
    }
    Ok(Outcome::Done)
}
