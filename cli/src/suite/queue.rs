//! Checks on all processors, with an eye on the clock and on the GPU.

use super::record::{Outcome, Record};
use super::{Checked, Id, Problem};
use crate::machine;
use crate::progress::Progress;
use crate::terminal::note;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long checks that are under way may go on after the time is up.
const GRACE: Duration = Duration::from_secs(60);

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What came of a queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Ran {
    /// Checks that ended.
    pub(super) records: Vec<Record>,
    /// Checks that did not, in the order in which they were asked for.
    pub(super) left: Vec<Id>,
    /// Those of them that were under way when waiting for them was given up.
    pub(super) hanging: Vec<Id>,
}

struct State {
    next: usize,
    ran: Ran,
    running: Vec<Id>,
    fault: bool,
}

/// Runs checks until all are done, one ends in a fault, or the time is up. When the time is up and
/// one does not end, `given_up` is told what there is, and must end the process.
pub(super) fn run(
    ids: &[Id],
    start: Instant,
    deadline: Option<Instant>,
    check: impl Fn(&Id) -> Checked + Sync,
    given_up: impl FnOnce(Ran) + Send,
) -> Ran {
    let state =
        Mutex::new(State { next: 0, ran: Ran::default(), running: Vec::new(), fault: false });
    let lock = || -> MutexGuard<'_, State> { state.lock().unwrap_or_else(PoisonError::into_inner) };
    let late = |grace: Duration| deadline.is_some_and(|d| Instant::now() >= d + grace);
    let bar = Progress::new("suite");
    let take = || -> Option<Id> {
        let mut state = lock();
        let id = ids.get(state.next).filter(|_| !state.fault && !late(Duration::ZERO))?.clone();
        state.next += 1;
        state.running.push(id.clone());
        Some(id)
    };
    let work = || {
        while let Some(id) = take() {
            let began = Instant::now();
            let Checked { label, program, result } = check(&id);
            let mut state = lock();
            state.running.retain(|other| *other != id);
            let outcome = match result {
                Ok(measured) => Outcome::Measured(measured),
                Err(Problem::Refused(reason)) => Outcome::Refused(reason),
                Err(Problem::Failed(reason)) => Outcome::Failed(reason),
                Err(Problem::Fault(reason)) => {
                    state.fault = true;
                    Outcome::Fault(reason)
                }
                Err(Problem::NotRun) => {
                    state.ran.left.push(id);
                    continue;
                }
            };
            let seconds = began.elapsed().as_secs_f64();
            let at = began.duration_since(start).as_secs_f64();
            let mut record = Record { id, label, program, start: at, seconds, outcome };
            if record.accepted() {
                record.program = None;
            }
            let kind = record.id.kind();
            state.ran.records.push(record);
            bar.update(state.ran.records.len(), ids.len());
            told(&state.ran.records, ids, kind);
        }
    };
    std::thread::scope(|scope| {
        // Not rayon's threads: one that waits for the device would be given other checks to start.
        let workers: Vec<_> =
            (0..machine::available_threads()).map(|_| scope.spawn(work)).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            if late(GRACE) {
                let state = lock();
                let hanging = state.running.clone();
                let mut left = state.ran.left.clone();
                left.extend(hanging.iter().chain(&ids[state.next..]).cloned());
                given_up(Ran { records: state.ran.records.clone(), left, hanging });
                break;
            }
            std::thread::sleep(LOOK);
        }
    });
    drop(bar);
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut ran = state.ran;
    ran.left.extend(ids[state.next..].iter().cloned());
    ran
}

/// Says how a kind of checks ended, after the last of them.
fn told(records: &[Record], ids: &[Id], kind: &str) {
    let asked = ids.iter().filter(|id| id.kind() == kind).count();
    let ended: Vec<&Record> = records.iter().filter(|r| r.id.kind() == kind).collect();
    if ended.len() < asked {
        return;
    }
    let accepted = ended.iter().filter(|r| r.accepted()).count();
    let from = ended.iter().map(|r| r.start).fold(f64::INFINITY, f64::min);
    let to = ended.iter().map(|r| r.start + r.seconds).fold(0.0, f64::max);
    note(format_args!("{kind}: {accepted} of {asked} accepted in {:.1} s", to - from));
}
