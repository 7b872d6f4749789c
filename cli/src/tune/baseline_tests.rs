//! Baselines of several keys, from the compilers to the store, against processes that only play a GPU and a
//! compiler.

use super::*;
use sparsek::Elem;
use sparsek::tuned::Record;
use sparsek_codegen::tune::Level;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A folder with a store and a log of what the processes were asked.
struct Played {
    folder: tempfile::TempDir,
    store: Store,
    manifest: Manifest,
    stop: AtomicBool,
}

impl Played {
    fn new() -> Played {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("store"));
        let (manifest, stop) = (Manifest::default(), AtomicBool::new(false));
        Played { folder, store, manifest, stop }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Processes that behave by a shell script; `bad` are cases that come before the usual ones, and `$n` is
    /// how often this process was set up.
    fn workers(&self, bad: &str) -> Workers {
        let log = self.log().display().to_string();
        let text = format!(
            r#"n=0; say() {{ echo "$1 $$" >> '{log}'; }}
            while read -r line; do
                case "$line" in
                    *'{{"setup"'*) n=$((n+1));;
                esac
                case "$line" in
                    {bad}
                    '{{"compile"'*) say compile; echo '"right"';;
                    '{{"setup"'*) say setup; echo '{{"ready":{{"copy":4e12}}}}';;
                    '{{"expect"'*) say expect; echo '"right"';;
                    '{{"check"'*) echo '"right"';;
                    '{{"time"'*) say "time"; echo '{{"times":[1.0,1.1,1.2]}}';;
                    '{{"figures"'*) say figures; echo '{{"figures":[[0.1,1.0,2.0]]}}';;
                esac
            done"#
        );
        Workers::of(move || {
            let mut command = Command::new("sh");
            command.arg("-c").arg(&text);
            Ok(command)
        })
    }

    fn settings(&self, level: Level, resume: bool) -> Settings<'_> {
        let scores = "sd:1".to_owned();
        let Played { store, manifest, stop, .. } = self;
        Settings { level, budget: None, stop, resume, scores, store, manifest }
    }

    /// Baselines of cases, one after another with the same processes.
    fn run(&self, workers: &mut Workers, cases: &[Case], resume: bool) -> Vec<Tuning> {
        let settings = self.settings(Level::Baseline, resume);
        workers.compile_ahead(cases, &gpu(), &settings, &|| true);
        let one = |case: &Case| {
            let space = case.space(&gpu().target, &gpu().machine()).unwrap();
            let program = &case.kernel.instance().program;
            tune(case, &space, program, &gpu(), workers, &settings).unwrap()
        };
        cases.iter().map(one).collect()
    }

    /// How often something was asked, and by how many processes.
    fn asked(&self, what: &str) -> (usize, usize) {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        let processes: Vec<&str> = lines.collect();
        let different: std::collections::BTreeSet<_> = processes.iter().collect();
        (processes.len(), different.len())
    }

    fn record(&self, case: &Case) -> Option<Record> {
        self.store.get(&case.key(gpu().gpu())).unwrap().and_then(|entry| entry.record())
    }
}

fn gpu() -> Tuned {
    let target = Target::named("sm_90a").unwrap();
    let info = DeviceInfo {
        ordinal: 0,
        name: "A played GPU".to_owned(),
        capability: (9, 0),
        memory: 80 << 30,
        multiprocessors: 132,
        target: Some(target),
    };
    Tuned { info, target, driver: "13.0".to_owned() }
}

fn case(name: &str, k: i64) -> Case {
    let program = sparsek_kernels::builtin(name).unwrap().program().unwrap();
    let spec = Spec::new(Elem::Bf16, 64).k(k).w(16);
    let kernel = Kernel::from_program(&program, &spec).unwrap();
    Case { kernel, spec, batch: 1, n: 64, hq: 4, hkv: 1, with: Vec::new() }
}

fn first(case: &Case) -> Schedule {
    case.space(&gpu().target, &gpu().machine()).unwrap().first()
}

#[test]
fn keys_share_processes_and_what_is_known_is_left() {
    let played = Played::new();
    let mut cases =
        vec![case("sparsek-value", 16), case("sparsek-value", 32), case("sparsek-key", 16)];
    let mut workers = played.workers("");
    for (case, tuning) in cases.iter().zip(played.run(&mut workers, &cases, false)) {
        let record = played.record(case).unwrap();
        assert_eq!((record.how, record.schedule), (How::Baseline, first(case)));
        let figures = record.figures.unwrap();
        assert_eq!((figures.plan_ms, figures.forward_ms, figures.backward_ms), (0.1, 1.0, 2.0));
        assert_eq!(tuning.winner.as_ref(), tuning.entry.winner.as_ref());
        assert_eq!((tuning.model, tuning.shipped), (None, None));
        let tried: Vec<_> = tuning.measurements.iter().map(|m| (m.axis, m.schedule)).collect();
        assert_eq!(tried, Axis::ALL.map(|axis| (axis, first(case))));
        assert_eq!((tuning.copy, tuning.restarts), (Some(4e12), 0));
    }
    // One process served all; what the CPU says was computed once for each.
    assert_eq!((played.asked("setup"), played.asked("expect")), ((3, 1), (3, 1)));
    assert_eq!(played.asked("figures"), (3, 1));
    assert_eq!(workers.process.starts, 1);
    // A text is compiled once, whatever axes ask for it.
    assert_eq!(played.asked("compile").0, 9);
    // The same again leaves everything, compilers too; a key that is new is measured.
    cases.push(case("sparsek-value", 48));
    let again = played.run(&mut workers, &cases, true);
    let settled: Vec<bool> = again.iter().map(|t| t.was_settled).collect();
    assert_eq!(settled, [true, true, true, false]);
    assert!(again.iter().all(|t| t.entry.winner.is_some() && !t.nothing_is_right()));
    assert_eq!((played.asked("setup").0, played.asked("compile").0), (4, 12));
    // Other calls are not known, and without --resume nothing is.
    let other = Case { hkv: 2, hq: 8, ..case("sparsek-value", 16) };
    assert!(!played.run(&mut workers, &[other], true)[0].was_settled);
    assert!(!played.run(&mut workers, &cases[..1], false)[0].was_settled);
}

#[test]
fn a_wrong_guess_is_no_record_and_costs_no_other_key() {
    let wrong = r#"echo '{"wrong":{"tensor":"o","error":0.5,"limit":0.03}}'"#;
    for axis in Axis::ALL {
        let played = Played::new();
        let cases = [case("sparsek-value", 16), case("sparsek-value", 32)];
        // Of the first key alone, whose process is set up first.
        let bad = format!(
            r#"'{{"check"'*'"axis":"{}"'*) if [ $n -eq 1 ]; then {wrong}; else echo '"right"'; fi;;"#,
            axis.name()
        );
        let mut workers = played.workers(&bad);
        let tunings = played.run(&mut workers, &cases, false);
        assert!(tunings[0].nothing_is_right() && tunings[0].winner.is_none(), "{axis:?}");
        assert_eq!(played.record(&cases[0]), None, "{axis:?}");
        assert!(!tunings[1].nothing_is_right());
        assert!(played.record(&cases[1]).is_some());
        // Resumed, the wrong one is known to be wrong, and still no record.
        let again = played.run(&mut workers, &cases, true);
        assert!(again[0].nothing_is_right() && !again[0].was_settled, "{axis:?}");
        assert_eq!(played.record(&cases[0]), None, "{axis:?}");
        assert!(again[1].was_settled);
    }
}

#[test]
fn a_text_that_does_not_compile_costs_only_its_key() {
    let played = Played::new();
    let cases = [case("sparsek-key", 16), case("sparsek-value", 16), case("sparsek-hard", 16)];
    let bad = r#"'{"compile"'*'"backward of '*SparsekKey*) echo '{"failed":"line 3: no such thing"}';;
        '{"compile"'*'"forward of '*SparsekHard*) exit 1;;"#;
    let mut workers = played.workers(bad);
    let tunings = played.run(&mut workers, &cases, false);
    let recorded = cases.each_ref().map(|case| played.record(case).is_some());
    assert_eq!(recorded, [false, true, false]);
    let right: Vec<bool> = tunings.iter().map(|t| !t.nothing_is_right()).collect();
    assert_eq!(right, recorded);
    let outcomes: Vec<_> = tunings[0].measurements.iter().map(|m| m.outcome.name()).collect();
    assert_eq!(outcomes, ["measured", "failed to compile", "failed to compile"]);
    let outcomes: Vec<_> = tunings[2].measurements.iter().map(|m| m.outcome.name()).collect();
    assert_eq!(outcomes, ["fault"; 3]);
}

#[test]
fn a_process_that_ends_between_keys_or_in_one_is_started_again() {
    // Dead when it is set up for another key; and killed by the check of a key, which alone has no result.
    let cases = [case("sparsek-value", 16), case("sparsek-value", 32)];
    for bad in [
        r#"'{"setup"'*) [ $n -gt 1 ] && exit 1; say setup; echo '{"ready":{"copy":4e12}}';;"#,
        r#"'{"setup"'*) if [ $n -gt 1 ]; then echo '{"failed":"no memory"}'; else
            say setup; echo '{"ready":{"copy":4e12}}'; fi;;"#,
    ] {
        let played = Played::new();
        let mut workers = played.workers(bad);
        let tunings = played.run(&mut workers, &cases, false);
        assert!(cases.iter().all(|case| played.record(case).is_some()));
        let restarts: Vec<usize> = tunings.iter().map(|t| t.restarts).collect();
        assert_eq!((restarts, workers.process.starts), (vec![0, 1], 2));
    }
    let played = Played::new();
    let mark = played.folder.path().join("crashed").display().to_string();
    let bad = format!(
        r#"'{{"check"'*'"axis":"backward"'*) [ -e '{mark}' ] || {{ touch '{mark}'; kill -9 $$; }}; echo '"right"';;"#
    );
    let mut workers = played.workers(&bad);
    let tunings = played.run(&mut workers, &cases, false);
    let recorded = cases.each_ref().map(|case| played.record(case).is_some());
    assert_eq!(recorded, [false, true]);
    assert_eq!((tunings[0].restarts, tunings[1].restarts), (1, 0));
    assert_eq!(played.asked("setup"), (3, 2));
    // What crashed is tried again.
    let again = played.run(&mut workers, &cases, true);
    assert!(played.record(&cases[0]).is_some() && again[1].was_settled);
}

#[test]
fn what_a_search_found_stays_and_takes_the_place_of_a_baseline() {
    let played = Played::new();
    let cases = [case("sparsek-value", 16)];
    let mut workers = played.workers("");
    played.run(&mut workers, &cases, false);
    let key = cases[0].key(gpu().gpu());
    let baseline = played.store.get(&key).unwrap().unwrap();
    // A search's winner, slower and of another driver.
    let mut found = baseline.winner.clone().unwrap();
    found.how = How::Quick;
    found.figures.forward_ms = 9.0;
    found.figures.driver = "12.9".to_owned();
    let entry = Entry { winner: Some(found.clone()), ..Entry::new("SparsekValue", key) };
    assert_eq!(played.store.merge(&entry).unwrap().entry.winner, Some(found.clone()));
    // Not the same conditions: it is measured, and is still no winner.
    let again = played.run(&mut workers, &cases, true);
    assert!(!again[0].was_settled && again[0].winner.is_some());
    assert_eq!(again[0].entry.winner, Some(found.clone()));
    // The same conditions: it would not take its place.
    found.figures.driver = gpu().driver;
    let entry = Entry { winner: Some(found.clone()), ..entry };
    played.store.merge(&entry).unwrap();
    let settled = played.run(&mut workers, &cases, true);
    assert!(settled[0].was_settled && settled[0].entry.winner == Some(found));
}

#[test]
fn the_interrupt_key_ends_compiling_and_leaves_what_is_measured() {
    let played = Played::new();
    let cases = [case("sparsek-value", 16), case("sparsek-value", 32)];
    let mut workers = played.workers("");
    let settings = played.settings(Level::Baseline, false);
    workers.compile_ahead(&cases, &gpu(), &settings, &|| false);
    assert_eq!(played.asked("compile").0, 0);
    // Other levels, and a single key, compile what they come to.
    workers.compile_ahead(&cases, &gpu(), &played.settings(Level::Quick, false), &|| true);
    workers.compile_ahead(&cases[..1], &gpu(), &settings, &|| true);
    assert_eq!(played.asked("compile").0, 0);
    // Stopped before it began, a key is neither right nor wrong.
    played.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let tunings = played.run(&mut workers, &cases[..1], false);
    assert_eq!(tunings[0].ended, Ended::Stopped);
    assert!(!tunings[0].nothing_is_right() && played.record(&cases[0]).is_none());
}

#[test]
fn a_quick_search_takes_turns_with_the_models_choice() {
    let played = Played::new();
    let case = case("sparsek-value", 16);
    let space = case.space(&gpu().target, &gpu().machine()).unwrap();
    let program = &case.kernel.instance().program;
    let run = |figures: &str| {
        let bad = format!(r#"'{{"figures"'*) echo '{{"figures":{figures}}}';;"#);
        let settings = played.settings(Level::Quick, false);
        let tuning =
            tune(&case, &space, program, &gpu(), &mut played.workers(&bad), &settings).unwrap();
        let total = |w: &Option<Winner>| w.as_ref().map(|w| (w.how, w.figures.total_ms()));
        (total(&tuning.winner), total(&tuning.model), tuning.measurements.len())
    };
    // The model's comes first, the winner behind it.
    let (winner, model, tried) = run("[[0.1,1.0,2.0],[0.1,0.5,2.0]]");
    assert_eq!((winner, model), (Some((How::Quick, 2.5)), Some((How::Model, 3.0))));
    assert!(tried > 10, "{tried}");
    // Where the model's is faster in turns it wins.
    let (winner, model, _) = run("[[0.1,1.0,1.0],[0.1,0.5,2.0]]");
    assert_eq!((winner, model), (Some((How::Quick, 2.0)), Some((How::Model, 2.0))));
    // An answer to another question is none.
    assert_eq!(run("[[0.1,1.0,1.0],[0.1,0.5,2.0],[1,1,1]]").0, None);
}
