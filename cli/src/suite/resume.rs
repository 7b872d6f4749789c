//! The rest of a suite after a fault: a process whose GPU context is lost cannot use it again, so a
//! process of its own runs what is left.

use super::queue::Ran;
use super::record::Record;
use super::{Id, Settings};
use crate::failure::Failure;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Processes after the first. Checks that are left after the last are not run.
pub(super) const MOST: usize = 12;

/// Runs checks in another process; its times count from `start` of this one.
pub(super) fn run(
    settings: &Settings,
    ids: &[Id],
    start: Instant,
    deadline: Option<Instant>,
) -> Result<Ran, Failure> {
    let binary = std::env::current_exe()
        .map_err(|e| Failure::new(format_args!("this program's own path is unknown: {e}")))?;
    let folder = tempfile::tempdir()
        .map_err(|e| Failure::new(format_args!("no temporary folder could be made: {e}")))?;
    let file = folder.path().join("checks.json");
    let mut command = Command::new(&binary);
    command.args(["verify", "--suite", "--device", &settings.device]);
    command.arg("--seed").arg(settings.seed.to_string());
    command.arg("--resumed").arg("--json").arg(&file);
    if settings.small {
        command.arg("--small");
    }
    if let Some(golden) = &settings.golden {
        command.arg("--golden").arg(golden);
    }
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        command.arg("--limit").arg(left.as_secs().max(1).to_string());
    }
    for id in ids {
        command.arg("--only").arg(id.to_string());
    }
    let before = start.elapsed().as_secs_f64();
    let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    ran.map_err(|e| Failure::new(format_args!("{} did not start: {e}", binary.display())))?;
    let value: Value = std::fs::read(&file)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| {
            Failure::new("the process that ran the rest of the suite left no results")
        })?;
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let mut out = Ran::default();
    for record in list("checks").iter().filter_map(Record::read) {
        out.records.push(Record { start: record.start + before, ..record });
    }
    let named = |list: Vec<Value>| list.iter().filter_map(|id| id.as_str()?.parse().ok()).collect();
    out.left = named(list("not_run"));
    out.hanging = named(list("hanging"));
    Ok(out)
}
