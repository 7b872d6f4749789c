//! The search: candidates compiled, checked, timed, compared.
//!
//! The time of a forward depends on the forward's schedule, that of a backward on the backward's, and both on
//! the chunk, so the axes are searched one after another: every forward, every backward behind the best
//! forward, every chunk with the best of both. On each axis, in the order of the cost model:
//!
//! 1. a candidate is compiled, and its result checked. What fails there never wins, and is never timed;
//! 2. a few calls are timed. When even the shortest is [`BEHIND`] times the best median so far, that is all;
//! 3. else more are timed;
//! 4. the [`FINALISTS`] best take turns, and their medians decide: times of one call differ from those of
//!    the next minute by more than the candidates do.

use super::measurement::{Axis, Measurement, Outcome, Spread};
use super::space::Space;
use crate::Schedule;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A candidate this much slower than the best is not timed further.
pub const BEHIND: f64 = 1.3;

/// Calls of the first look, and those that follow.
const FIRST: usize = 3;
const MORE: usize = 7;

/// Candidates that take turns in the end, the turns of each, and the calls of a turn.
pub const FINALISTS: usize = 4;
const TURNS: usize = 3;
const CALLS: usize = 5;

/// Finalists are at most this far behind the best.
const CLOSE: f64 = 1.1;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The first of the ranking on each axis alone: what the cost model chooses, compared with nothing.
    Baseline,
    /// The first few of the ranking on each axis.
    Quick,
    /// Every candidate.
    Full,
}

impl Level {
    /// Candidates of an axis.
    pub fn most(self, axis: Axis) -> usize {
        match (self, axis) {
            (Level::Full, _) => usize::MAX,
            (Level::Quick, Axis::Forward | Axis::Backward) => 10,
            (Level::Quick, Axis::Chunk) => 3,
            (Level::Baseline, _) => 1,
        }
    }

    /// The share of the budget at whose end an axis makes way for the next one. Quick has few candidates, and
    /// tries those of the axes in order as far as its time goes.
    fn share(self, axis: Axis) -> f64 {
        match (self, axis) {
            (Level::Full, Axis::Forward) => 0.4,
            (Level::Full, Axis::Backward) => 0.85,
            (Level::Full, Axis::Chunk) | (Level::Quick | Level::Baseline, _) => 1.0,
        }
    }
}

/// Why a candidate has no result, or a wrong one.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// It cannot be compiled or run, and other candidates can.
    Failed(String),
    /// The result is wrong: tensor, error, limit.
    Wrong(WrongResult),
    /// A fault of the GPU, or the end of the process that used it.
    Fault(String),
    /// It did not end in that many seconds.
    Timeout(f64),
}

/// A tensor that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct WrongResult {
    /// Its name.
    pub tensor: String,
    /// Its error.
    pub error: f64,
    /// The largest that is accepted.
    pub limit: f64,
}

impl From<Trouble> for Outcome {
    fn from(trouble: Trouble) -> Outcome {
        match trouble {
            Trouble::Failed(reason) => Outcome::Failed(reason),
            Trouble::Wrong(WrongResult { tensor, error, limit }) => {
                Outcome::Wrong { tensor, error: error.is_finite().then_some(error), limit }
            }
            Trouble::Fault(reason) => Outcome::Fault(reason),
            Trouble::Timeout(seconds) => Outcome::Timeout(seconds),
        }
    }
}

/// What compiles, runs and times schedules. A fault or a hang of one candidate must not be seen in the next.
pub trait Measure {
    /// How many candidates are best compiled at a time.
    fn batch(&self) -> usize {
        16
    }

    /// Compiles what the axis runs of each schedule, side by side; one result each, in order.
    fn compile(&mut self, axis: Axis, schedules: &[Schedule]) -> Vec<Result<(), Trouble>>;

    /// Compares the results of a schedule with those that are known to be right.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&mut self, axis: Axis, schedule: &Schedule) -> Result<(), Trouble>;

    /// Milliseconds of so many calls of what the axis times. It may stop when a call took longer than
    /// `cutoff`.
    ///
    /// # Errors
    /// Why there are none.
    fn time(
        &mut self,
        axis: Axis,
        schedule: &Schedule,
        calls: usize,
        cutoff: Option<f64>,
    ) -> Result<Vec<f64>, Trouble>;
}

/// What is told while a search runs.
pub trait Observer {
    /// An axis begins, with so many candidates.
    fn begins(&mut self, axis: Axis, candidates: usize);
    /// A candidate was tried, or was known.
    fn tried(&mut self, measurement: &Measurement, known: bool);
    /// The finalists of an axis take turns.
    fn finals(&mut self, axis: Axis, finalists: usize);
}

/// Observes nothing.
impl Observer for () {
    fn begins(&mut self, _: Axis, _: usize) {}
    fn tried(&mut self, _: &Measurement, _: bool) {}
    fn finals(&mut self, _: Axis, _: usize) {}
}

/// How a search is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// How much is tried.
    pub level: Level,
    /// No candidate is started after it. Of a full search forwards have the first 40 %, backwards what is left
    /// until 85 %, chunks the rest.
    pub budget: Option<Duration>,
    /// Set from elsewhere: the search ends behind the candidate that runs.
    pub stop: &'a AtomicBool,
    /// What is known of the same key: it is not measured again.
    pub known: &'a [Measurement],
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every candidate of the level was tried.
    Complete,
    /// Its budget was spent.
    Budget,
    /// It was told to stop.
    Stopped,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The best schedule; `None` when no candidate gave a right result.
    pub schedule: Option<Schedule>,
    /// Every candidate that was tried in this search.
    pub measurements: Vec<Measurement>,
    /// Candidates that were known before.
    pub known: Vec<Measurement>,
    /// Why it ended.
    pub ended: Ended,
}

/// A search under way.
struct Search<'a, M, O> {
    measure: &'a mut M,
    observer: &'a mut O,
    options: Options<'a>,
    start: Instant,
    /// Whether an axis made way for the next one with candidates left.
    cut: bool,
    new: Vec<Measurement>,
    old: Vec<Measurement>,
}

/// Searches a space for the best schedule.
pub fn search<M: Measure, O: Observer>(
    space: &Space,
    measure: &mut M,
    observer: &mut O,
    options: Options<'_>,
) -> Found {
    let (start, new, old) = (Instant::now(), Vec::new(), Vec::new());
    let mut search = Search { measure, observer, options, start, cut: false, new, old };
    let mut best = space.first();
    let mut right = [false; 3];
    for (right, axis) in right.iter_mut().zip(Axis::ALL) {
        let candidates = candidates(space, axis, &best);
        if let Some(winner) = search.axis(axis, &candidates) {
            (best, *right) = (winner, true);
        }
    }
    let cut = if search.cut { Ended::Budget } else { Ended::Complete };
    let ended = search.ended().unwrap_or(cut);
    // The last axis runs forward and backward with the chunk. Where it was not reached, what the others
    // found is checked as a whole here; where a part of it was tried and is not right, nothing is.
    let failed = |m: &Measurement| m.outcome.spread().is_none() && m.axis.same(&m.schedule, &best);
    let whole = match right {
        _ if search.new.iter().chain(&search.old).any(failed) => false,
        [_, _, true] => true,
        _ if right.contains(&true) => search.whole_is_right(&best),
        _ => false,
    };
    let schedule = whole.then_some(best);
    Found { schedule, measurements: search.new, known: search.old, ended }
}

/// The schedules of an axis and what the model expects of them.
fn candidates(space: &Space, axis: Axis, best: &Schedule) -> Vec<(Schedule, f64)> {
    let (forward, backward) = (space.forward.iter(), space.backward.iter());
    match axis {
        Axis::Forward => {
            let of = |s| Schedule { forward: s, ..*best };
            forward.map(|c| (of(c.schedule), c.predicted_ms)).collect()
        }
        Axis::Backward => {
            let of = |s| Schedule { backward: s, ..*best };
            backward.map(|c| (of(c.schedule), c.predicted_ms)).collect()
        }
        Axis::Chunk => {
            let predicted =
                |mut all: std::slice::Iter<'_, super::Candidate<crate::PassSchedule>>, s| {
                    all.find(|c| c.schedule == s).map_or(0.0, |c| c.predicted_ms)
                };
            let passes = predicted(forward, best.forward) + predicted(backward, best.backward);
            let of = |chunk| Schedule { chunk, ..*best };
            space.chunks.iter().map(|c| (of(c.schedule), passes + c.predicted_ms)).collect()
        }
    }
}

impl<M: Measure, O: Observer> Search<'_, M, O> {
    /// Why nothing more is to be started.
    fn ended(&self) -> Option<Ended> {
        if self.options.stop.load(Ordering::Relaxed) {
            return Some(Ended::Stopped);
        }
        let spent = self.options.budget.is_some_and(|budget| self.start.elapsed() >= budget);
        spent.then_some(Ended::Budget)
    }

    /// Whether no more of an axis is to be tried, its finals aside.
    fn makes_way(&mut self, axis: Axis) -> bool {
        let share = self.options.level.share(axis);
        let over = |budget: Duration| self.start.elapsed() >= budget.mul_f64(share);
        let over = self.ended().is_some() || self.options.budget.is_some_and(over);
        self.cut |= over;
        over
    }

    /// The best of an axis; `None` where none is right.
    fn axis(&mut self, axis: Axis, candidates: &[(Schedule, f64)]) -> Option<Schedule> {
        let most = self.options.level.most(axis).min(candidates.len());
        self.observer.begins(axis, most);
        // Right results and their medians.
        let mut right: Vec<(Schedule, f64)> = Vec::new();
        for batch in candidates[..most].chunks(self.measure.batch().max(1)) {
            if self.makes_way(axis) {
                break;
            }
            self.batch(axis, batch, &mut right);
        }
        right.sort_by(|a, b| a.1.total_cmp(&b.1));
        let first = *right.first()?;
        let close = right.iter().take(FINALISTS).take_while(|(_, ms)| *ms <= first.1 * CLOSE);
        let finalists: Vec<Schedule> = close.map(|(s, _)| *s).collect();
        if finalists.len() < 2 || self.ended().is_some() {
            return Some(first.0);
        }
        let best = self.finals(axis, &finalists);
        // Stopped in between, or none of them is to be relied on: the next one that did not fail.
        best.or_else(|| right.iter().map(|(s, _)| *s).find(|s| !self.is_spoiled(axis, s)))
    }

    /// Whether a candidate that was right failed later.
    fn is_spoiled(&self, axis: Axis, schedule: &Schedule) -> bool {
        let same = |m: &&Measurement| m.axis == axis && m.schedule == *schedule;
        let last = self.new.iter().rfind(same);
        last.is_some_and(|m| !matches!(m.outcome, Outcome::Measured(_)))
    }

    fn batch(&mut self, axis: Axis, batch: &[(Schedule, f64)], right: &mut Vec<(Schedule, f64)>) {
        let known = |schedule: &Schedule| {
            let same = |m: &&Measurement| m.axis == axis && axis.same(&m.schedule, schedule);
            self.options.known.iter().rfind(same).cloned()
        };
        let mut wanted = Vec::new();
        for (schedule, predicted_ms) in batch {
            match known(schedule) {
                Some(measurement) => {
                    if let Outcome::Measured(spread) = &measurement.outcome {
                        right.push((*schedule, spread.median));
                    }
                    self.observer.tried(&measurement, true);
                    self.old.push(measurement);
                }
                None => wanted.push((*schedule, *predicted_ms)),
            }
        }
        let schedules: Vec<Schedule> = wanted.iter().map(|(s, _)| *s).collect();
        if schedules.is_empty() {
            return;
        }
        let compiled = self.measure.compile(axis, &schedules);
        for ((schedule, predicted_ms), compiled) in wanted.into_iter().zip(compiled) {
            if self.makes_way(axis) {
                return;
            }
            let best = right.iter().map(|(_, ms)| *ms).reduce(f64::min);
            let outcome = match compiled.and_then(|()| self.one(axis, &schedule, best)) {
                Ok(outcome) => outcome,
                Err(trouble) => trouble.into(),
            };
            if let Outcome::Measured(spread) = &outcome {
                right.push((schedule, spread.median));
            }
            let measurement = Measurement { axis, schedule, predicted_ms, outcome };
            self.observer.tried(&measurement, false);
            self.new.push(measurement);
        }
    }

    /// Checks and times a candidate; `best` is the best median so far.
    fn one(
        &mut self,
        axis: Axis,
        schedule: &Schedule,
        best: Option<f64>,
    ) -> Result<Outcome, Trouble> {
        let none = || Trouble::Failed("its times are no numbers".to_owned());
        self.measure.check(axis, schedule)?;
        let cutoff = best.map(|best| best * BEHIND);
        let mut times = self.measure.time(axis, schedule, FIRST, cutoff)?;
        let first = Spread::of(&times).ok_or_else(none)?;
        if cutoff.is_some_and(|cutoff| first.least > cutoff) {
            return Ok(Outcome::Stopped(first));
        }
        times.extend(self.measure.time(axis, schedule, MORE, None)?);
        Ok(Outcome::Measured(Spread::of(&times).ok_or_else(none)?))
    }

    /// Lets finalists take turns; the one of the least median. Their measurements are of these calls then.
    fn finals(&mut self, axis: Axis, finalists: &[Schedule]) -> Option<Schedule> {
        self.observer.finals(axis, finalists.len());
        let compiled = self.measure.compile(axis, finalists);
        let mut times: Vec<Option<Vec<f64>>> =
            compiled.into_iter().map(|c| c.ok().map(|()| Vec::new())).collect();
        for _ in 0..TURNS {
            if self.ended().is_some() {
                return None;
            }
            for (schedule, times) in finalists.iter().zip(&mut times) {
                let Some(all) = times else { continue };
                match self.measure.time(axis, schedule, CALLS, None) {
                    Ok(more) => all.extend(more),
                    // One that fails now is none to rely on.
                    Err(trouble) => {
                        *times = None;
                        self.spoil(axis, schedule, trouble);
                    }
                }
            }
        }
        let mut best: Option<(Schedule, f64)> = None;
        for (schedule, times) in finalists.iter().zip(&times) {
            let Some(spread) = times.as_ref().and_then(|times| Spread::of(times)) else { continue };
            let same = |m: &&mut Measurement| m.axis == axis && m.schedule == *schedule;
            if let Some(measurement) = self.new.iter_mut().rfind(same) {
                measurement.outcome = Outcome::Measured(spread);
            }
            if best.is_none_or(|(_, ms)| spread.median < ms) {
                best = Some((*schedule, spread.median));
            }
        }
        best.map(|(schedule, _)| schedule)
    }

    /// Notes that a candidate that was right before failed.
    fn spoil(&mut self, axis: Axis, schedule: &Schedule, trouble: Trouble) {
        let outcome = Outcome::from(trouble);
        let same = |m: &&mut Measurement| m.axis == axis && m.schedule == *schedule;
        match self.new.iter_mut().rfind(same) {
            Some(measurement) => measurement.outcome = outcome,
            None => {
                let (schedule, predicted_ms) = (*schedule, 0.0);
                self.new.push(Measurement { axis, schedule, predicted_ms, outcome });
            }
        }
    }

    fn whole_is_right(&mut self, schedule: &Schedule) -> bool {
        let compiled = self.measure.compile(Axis::Chunk, &[*schedule]);
        compiled.into_iter().all(|c| c.is_ok()) && self.measure.check(Axis::Chunk, schedule).is_ok()
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
