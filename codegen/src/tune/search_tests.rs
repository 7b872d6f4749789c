use super::*;
use crate::tune::tests::space;
use crate::{Family, PassSchedule};
use sparsek_dsl::Elem;
use std::collections::BTreeMap;

/// How a candidate behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Right,
    Wrong,
    Crashes,
    CrashesWhenTimed,
    Hangs,
    DoesNotCompile,
}

/// What a function of a candidate gives.
type Of<'a, T> = Box<dyn Fn(Axis, &Schedule) -> T + 'a>;

/// A machine whose times are a function of the schedule.
struct Fake<'a> {
    ms: Of<'a, f64>,
    behaviour: Of<'a, Behaviour>,
    checked: Vec<(Axis, Schedule)>,
    calls: BTreeMap<String, usize>,
    /// Told to stop after so many checks.
    stop: &'a AtomicBool,
    stop_after: usize,
    /// Candidates that crash when they are timed after so many calls.
    fails_after: Option<(usize, Of<'a, bool>)>,
}

impl<'a> Fake<'a> {
    fn new(stop: &'a AtomicBool, ms: impl Fn(Axis, &Schedule) -> f64 + 'a) -> Fake<'a> {
        Fake {
            ms: Box::new(ms),
            behaviour: Box::new(|_, _| Behaviour::Right),
            checked: Vec::new(),
            calls: BTreeMap::new(),
            stop,
            stop_after: usize::MAX,
            fails_after: None,
        }
    }
}

impl Measure for Fake<'_> {
    fn compile(&mut self, axis: Axis, schedules: &[Schedule]) -> Vec<Result<(), Trouble>> {
        let one = |s: &Schedule| match (self.behaviour)(axis, s) {
            Behaviour::DoesNotCompile => Err(Trouble::Failed("ptxas".to_owned())),
            _ => Ok(()),
        };
        schedules.iter().map(one).collect()
    }

    fn check(&mut self, axis: Axis, schedule: &Schedule) -> Result<(), Trouble> {
        self.checked.push((axis, *schedule));
        if self.checked.len() >= self.stop_after {
            self.stop.store(true, Ordering::Relaxed);
        }
        match (self.behaviour)(axis, schedule) {
            Behaviour::Right | Behaviour::CrashesWhenTimed => Ok(()),
            Behaviour::Wrong => Err(Trouble::Wrong(WrongResult {
                tensor: "d_q".to_owned(),
                error: f64::INFINITY,
                limit: 1e-3,
            })),
            Behaviour::Crashes => Err(Trouble::Fault("an illegal address".to_owned())),
            Behaviour::Hangs => Err(Trouble::Timeout(10.0)),
            Behaviour::DoesNotCompile => panic!("what does not compile is not run"),
        }
    }

    fn time(
        &mut self,
        axis: Axis,
        schedule: &Schedule,
        calls: usize,
        _: Option<f64>,
    ) -> Result<Vec<f64>, Trouble> {
        if (self.behaviour)(axis, schedule) == Behaviour::CrashesWhenTimed {
            return Err(Trouble::Fault("an illegal address".to_owned()));
        }
        assert!(self.checked.contains(&(axis, *schedule)), "timed before it was checked");
        let before = self.calls.entry(format!("{axis:?} {schedule}")).or_default();
        if let Some((most, of)) = &self.fails_after
            && *before >= *most
            && of(axis, schedule)
        {
            return Err(Trouble::Fault("an illegal address".to_owned()));
        }
        *before += calls;
        Ok(vec![(self.ms)(axis, schedule); calls])
    }
}

fn usual() -> Space {
    space(Elem::Bf16, 128, (512, 512), 4, "sm_90a", 65_536)
}

fn options<'a>(level: Level, stop: &'a AtomicBool, known: &'a [Measurement]) -> Options<'a> {
    Options { level, budget: None, stop, known }
}

/// A time that prefers one candidate in the middle of the model's ranking on each axis.
fn preferring(space: &Space) -> (Schedule, impl Fn(Axis, &Schedule) -> f64 + use<>) {
    let wanted = Schedule {
        chunk: space.chunks[1].schedule,
        forward: space.forward[7].schedule,
        backward: space.backward[5].schedule,
    };
    let ms = move |axis: Axis, s: &Schedule| {
        let different = match axis {
            Axis::Forward => s.forward != wanted.forward,
            Axis::Backward => s.backward != wanted.backward,
            Axis::Chunk => s.chunk != wanted.chunk,
        };
        let more = f64::from(s.forward.stages + s.backward.stages) * 1e-3;
        if different { 2.0 + more } else { 1.0 }
    };
    (wanted, ms)
}

#[test]
fn the_best_of_every_axis_is_found() {
    let space = usual();
    let (wanted, ms) = preferring(&space);
    for (level, tried) in [(Level::Quick, 10 + 10 + 3), (Level::Full, space.len())] {
        let stop = AtomicBool::new(false);
        let mut fake = Fake::new(&stop, &ms);
        let found = search(&space, &mut fake, &mut (), options(level, &stop, &[]));
        assert_eq!(found.schedule, Some(wanted));
        assert_eq!(found.ended, Ended::Complete);
        assert_eq!(found.measurements.len(), tried);
        assert!(found.measurements.iter().all(|m| m.outcome.spread().is_some()));
    }
    // Enough to time on every built-in shape.
    for (d, k, w) in [(64, 128, 0), (64, 1024, 1024), (128, 128, 0), (128, 1024, 1024)] {
        let space = super::super::tests::space(Elem::Bf16, d, (k, w), 4, "sm_90a", 65_536);
        assert!(space.len() >= 40, "D {d}, k {k}, w {w}: {}", space.len());
    }
}

#[test]
fn what_is_not_right_never_wins() {
    let space = usual();
    let (wanted, ms) = preferring(&space);
    let next = Schedule {
        forward: space.forward[3].schedule,
        backward: space.backward[2].schedule,
        chunk: space.chunks[2].schedule,
    };
    for bad in [
        Behaviour::Wrong,
        Behaviour::Crashes,
        Behaviour::CrashesWhenTimed,
        Behaviour::Hangs,
        Behaviour::DoesNotCompile,
    ] {
        let stop = AtomicBool::new(false);
        // Candidates that would win fail; those meant to win instead are a little slower.
        let of = |axis: Axis, s: &Schedule, like: &Schedule| match axis {
            Axis::Forward => s.forward == like.forward,
            Axis::Backward => s.backward == like.backward,
            Axis::Chunk => s.chunk == like.chunk,
        };
        let mut fake =
            Fake::new(&stop, |axis, s| if of(axis, s, &next) { 1.5 } else { ms(axis, s) });
        fake.behaviour =
            Box::new(move |axis, s| if of(axis, s, &wanted) { bad } else { Behaviour::Right });
        let found = search(&space, &mut fake, &mut (), options(Level::Full, &stop, &[]));
        assert_eq!(found.schedule, Some(next), "{bad:?}");
        // The failure is kept, and costs no other candidate anything.
        assert_eq!(found.measurements.len(), space.len());
        let failed: Vec<&Measurement> =
            found.measurements.iter().filter(|m| m.outcome.spread().is_none()).collect();
        assert_eq!(failed.len(), 3, "{bad:?}: {failed:?}");
        let name = match bad {
            Behaviour::Wrong => "wrong",
            Behaviour::Crashes | Behaviour::CrashesWhenTimed => "fault",
            Behaviour::Hangs => "timeout",
            Behaviour::DoesNotCompile | Behaviour::Right => "failed to compile",
        };
        assert!(failed.iter().all(|m| m.outcome.name() == name), "{failed:?}");
        // Measurements survive their text, infinite errors too.
        let text = serde_json::to_string(&found.measurements).unwrap();
        let read: Vec<Measurement> = serde_json::from_str(&text).unwrap();
        assert!(read == found.measurements);
    }
}

#[test]
fn nothing_right_is_no_schedule() {
    let space = usual();
    let stop = AtomicBool::new(false);
    let mut fake = Fake::new(&stop, |_, _| 1.0);
    fake.behaviour = Box::new(|_, _| Behaviour::Wrong);
    let found = search(&space, &mut fake, &mut (), options(Level::Quick, &stop, &[]));
    assert_eq!(found.schedule, None);
    assert!(fake.calls.is_empty());
    // Right forwards alone do not make a schedule whose whole is wrong.
    let mut fake = Fake::new(&stop, |_, _| 1.0);
    fake.behaviour = Box::new(|axis, _| match axis {
        Axis::Forward | Axis::Backward => Behaviour::Right,
        Axis::Chunk => Behaviour::Wrong,
    });
    let found = search(&space, &mut fake, &mut (), options(Level::Quick, &stop, &[]));
    assert_eq!(found.schedule, None);
}

#[test]
fn a_baseline_is_the_models_choice_alone() {
    let space = usual();
    let stop = AtomicBool::new(false);
    // Every other candidate would be faster.
    let first = space.first();
    let mut fake = Fake::new(&stop, |_, s| if *s == first { 2.0 } else { 1.0 });
    let found = search(&space, &mut fake, &mut (), options(Level::Baseline, &stop, &[]));
    assert_eq!((found.schedule, found.ended), (Some(first), Ended::Complete));
    let tried: Vec<(Axis, Schedule)> =
        found.measurements.iter().map(|m| (m.axis, m.schedule)).collect();
    assert_eq!(tried, Axis::ALL.map(|axis| (axis, first)));
    assert_eq!(fake.checked, tried);
    // Nobody takes turns.
    assert!(fake.calls.values().all(|calls| *calls == FIRST + MORE), "{:?}", fake.calls);
    // What is known is not measured again.
    let mut fake = Fake::new(&stop, |_, _| 1.0);
    let known = &found.measurements;
    let again = search(&space, &mut fake, &mut (), options(Level::Baseline, &stop, known));
    assert_eq!((again.schedule, again.known.len()), (Some(first), 3));
    assert!(again.measurements.is_empty() && fake.checked.is_empty());
}

#[test]
fn a_baseline_with_a_part_that_is_not_right_is_none() {
    let space = usual();
    for bad in Axis::ALL {
        for behaviour in [
            Behaviour::Wrong,
            Behaviour::Crashes,
            Behaviour::CrashesWhenTimed,
            Behaviour::Hangs,
            Behaviour::DoesNotCompile,
        ] {
            let stop = AtomicBool::new(false);
            let mut fake = Fake::new(&stop, |_, _| 1.0);
            fake.behaviour =
                Box::new(move |axis, _| if axis == bad { behaviour } else { Behaviour::Right });
            let found = search(&space, &mut fake, &mut (), options(Level::Baseline, &stop, &[]));
            assert_eq!(found.schedule, None, "{bad:?} {behaviour:?}");
            assert_eq!(found.measurements.len(), 3);
        }
    }
}

#[test]
fn losers_are_stopped_early() {
    let space = usual();
    let stop = AtomicBool::new(false);
    // The model's first is the best; half of the others are far behind.
    let first = space.first();
    let slow = |s: &PassSchedule| s.family == Family::Sm80;
    let mut fake = Fake::new(&stop, |axis, s| match axis {
        Axis::Forward if s.forward == first.forward => 1.0,
        Axis::Forward if slow(&s.forward) => 1.4,
        _ => 1.2,
    });
    let found = search(&space, &mut fake, &mut (), options(Level::Full, &stop, &[]));
    assert_eq!(found.schedule.map(|s| s.forward), Some(first.forward));
    for m in found.measurements.iter().filter(|m| m.axis == Axis::Forward) {
        let calls = fake.calls[&format!("{:?} {}", m.axis, m.schedule)];
        let (outcome, expected) = match &m.outcome {
            Outcome::Stopped(_) => (slow(&m.schedule.forward), FIRST),
            Outcome::Measured(_) if m.schedule.forward == first.forward => (true, FIRST + MORE),
            Outcome::Measured(_) => (!slow(&m.schedule.forward), FIRST + MORE),
            other => panic!("{other:?}"),
        };
        assert!(outcome && calls == expected, "{m:?}: {calls}");
    }
}

#[test]
fn finalists_that_fail_do_not_win() {
    let space = usual();
    let stop = AtomicBool::new(false);
    // The model's first choice of each pass is fastest, and fails once it has been timed alone.
    let first = space.first();
    let fragile = move |axis: Axis, s: &Schedule| match axis {
        Axis::Forward => s.forward == first.forward,
        Axis::Backward => s.backward == first.backward,
        Axis::Chunk => s.chunk == first.chunk,
    };
    let mut fake = Fake::new(&stop, |axis, s| if fragile(axis, s) { 1.0 } else { 1.01 });
    fake.fails_after = Some((FIRST + MORE, Box::new(fragile)));
    let found = search(&space, &mut fake, &mut (), options(Level::Quick, &stop, &[]));
    let winner = found.schedule.expect("others are right");
    for axis in Axis::ALL {
        assert!(!fragile(axis, &winner), "{axis:?}: {winner}");
        let spoiled = found.measurements.iter().filter(|m| fragile(axis, &m.schedule));
        let spoiled = spoiled.filter(|m| m.axis == axis && matches!(m.outcome, Outcome::Fault(_)));
        assert_eq!(spoiled.count(), 1, "{axis:?}");
    }
}

#[test]
fn finalists_take_turns() {
    let space = usual();
    let stop = AtomicBool::new(false);
    let mut fake = Fake::new(&stop, |_, _| 1.0);
    let found = search(&space, &mut fake, &mut (), options(Level::Quick, &stop, &[]));
    let finalists = fake.calls.values().filter(|calls| **calls == FIRST + MORE + TURNS * CALLS);
    assert_eq!(finalists.count(), FINALISTS + FINALISTS + 3);
    let counts = found.measurements.iter().filter_map(|m| m.outcome.spread()).map(|s| s.count);
    assert_eq!(counts.filter(|count| *count == TURNS * CALLS).count(), 2 * FINALISTS + 3);
}

#[test]
fn a_search_that_is_stopped_goes_on_where_it_was() {
    let space = usual();
    let (wanted, ms) = preferring(&space);
    let stop = AtomicBool::new(false);
    let mut first = Fake { stop_after: 20, ..Fake::new(&stop, &ms) };
    let found = search(&space, &mut first, &mut (), options(Level::Full, &stop, &[]));
    assert_eq!(found.ended, Ended::Stopped);
    assert_eq!(found.measurements.len(), 20);
    // What is best so far is right as a whole: that was one more check.
    assert_eq!(found.schedule.map(|s| s.forward), Some(wanted.forward));
    assert_eq!(first.checked.len(), 21);

    stop.store(false, Ordering::Relaxed);
    let mut second = Fake::new(&stop, &ms);
    // Finalists that are known are timed again, and were checked before.
    second.checked = found.measurements.iter().map(|m| (m.axis, m.schedule)).collect();
    let again =
        search(&space, &mut second, &mut (), options(Level::Full, &stop, &found.measurements));
    assert_eq!(again.schedule, Some(wanted));
    assert_eq!(again.known.len(), 20);
    assert_eq!(again.measurements.len(), space.len() - 20);
    assert_eq!(second.checked.len(), space.len());
}

#[test]
fn every_axis_has_its_share_of_a_budget() {
    let space = usual();
    let stop = AtomicBool::new(false);
    // A candidate takes milliseconds, and there are more forwards than the budget has. One is far ahead, so
    // that nobody takes turns.
    let first = space.first();
    let mut fake = Fake::new(&stop, |_, s| {
        std::thread::sleep(Duration::from_millis(4));
        if *s == first { 1.0 } else { 2.0 }
    });
    let budget = Some(Duration::from_millis(400));
    let options = Options { budget, ..options(Level::Full, &stop, &[]) };
    let found = search(&space, &mut fake, &mut (), options);
    let tried = |axis| found.measurements.iter().filter(|m| m.axis == axis).count();
    assert!(tried(Axis::Forward) < space.forward.len());
    assert!(tried(Axis::Backward) > 0 && tried(Axis::Chunk) > 0);
    assert_eq!(found.ended, Ended::Budget);
}

#[test]
fn a_budget_ends_a_search() {
    let space = usual();
    let stop = AtomicBool::new(false);
    let mut fake = Fake::new(&stop, |_, _| 1.0);
    let budget = Some(Duration::ZERO);
    let options = Options { budget, ..options(Level::Full, &stop, &[]) };
    let found = search(&space, &mut fake, &mut (), options);
    assert_eq!((found.schedule, found.ended), (None, Ended::Budget));
    assert!(found.measurements.is_empty() && fake.checked.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// Whatever the times are and whichever candidates fail, the winner of each axis is the fastest right one,
    /// and every candidate is tried once.
    #[test]
    fn the_winner_is_the_fastest_right_one(seed in 0u64..1 << 40) {
        let space = usual();
        let of = |axis: Axis, s: &Schedule| {
            let part = match axis {
                Axis::Forward => s.forward.to_string(),
                Axis::Backward => s.backward.to_string(),
                Axis::Chunk => s.chunk.to_string(),
            };
            let text = format!("{seed} {axis:?} {part}");
            text.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |h, b| {
                (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
            })
        };
        let ms = |axis: Axis, s: &Schedule| 1.0 + (of(axis, s) >> 40) as f64 / 1e7;
        let behaviour = |axis: Axis, s: &Schedule| match of(axis, s) % 11 {
            0 => Behaviour::Wrong,
            1 => Behaviour::Crashes,
            2 => Behaviour::Hangs,
            3 => Behaviour::DoesNotCompile,
            4 => Behaviour::CrashesWhenTimed,
            _ => Behaviour::Right,
        };
        let stop = AtomicBool::new(false);
        let mut fake = Fake::new(&stop, ms);
        fake.behaviour = Box::new(behaviour);
        let found = search(&space, &mut fake, &mut (), options(Level::Full, &stop, &[]));
        proptest::prop_assert_eq!(found.measurements.len(), space.len());
        let right = |axis| {
            let of_axis = found.measurements.iter().filter(move |m| m.axis == axis);
            of_axis.filter(|m| behaviour(m.axis, &m.schedule) == Behaviour::Right)
        };
        for axis in Axis::ALL {
            let least = right(axis).map(|m| ms(axis, &m.schedule)).reduce(f64::min);
            match (found.schedule, least) {
                (Some(winner), Some(least)) => {
                    proptest::prop_assert_eq!(ms(axis, &winner), least);
                    proptest::prop_assert_eq!(behaviour(axis, &winner), Behaviour::Right);
                }
                (None, None) => {}
                // No chunk is right: no schedule is, though passes are.
                (None, Some(_)) => proptest::prop_assert!(right(Axis::Chunk).next().is_none()),
                (Some(_), None) => proptest::prop_assert!(false, "{axis:?} has no right candidate"),
            }
        }
    }
}
