//! The driver of the process that uses the GPU, against processes that only play one: shell scripts that
//! answer right, answer wrong numbers, die, hang, or talk nonsense.

use super::*;
use sparsek::{Elem, Spec};
use sparsek_codegen::tune::{Ended, Level, Machine, Options, Outcome, Space, Workload, search};
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// A worker that behaves by a shell script; `$line` is the request. Every schedule of 3 stages is `bad`.
fn script(bad: &str) -> impl Fn() -> std::io::Result<Command> + Send + 'static {
    let text = format!(
        r#"while read -r line; do
            case "$line" in
                *'"setup"'*) echo '{{"ready":{{"copy":4e12}}}}';;
                *'"expect"'*) echo '"right"';;
                *'"check"'*'"stages":3'*) {bad};;
                *'"check"'*) echo '"right"';;
                *'"time"'*'"stages":2'*) echo '{{"times":[1.0,1.1,1.2]}}';;
                *'"time"'*) echo '{{"times":[2.0,2.1,2.2]}}';;
                *'"figures"'*) echo '{{"figures":[[0.1,1.0,2.0]]}}';;
            esac
        done"#
    );
    move || {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&text);
        Ok(command)
    }
}

/// Compiles nothing: there is no NVRTC in a test.
struct Uncompiled<'a>(Remote<'a>);

impl Measure for Uncompiled<'_> {
    fn compile(&mut self, _: Axis, schedules: &[Schedule]) -> Vec<Result<(), Trouble>> {
        schedules.iter().map(|_| Ok(())).collect()
    }

    fn check(&mut self, axis: Axis, schedule: &Schedule) -> Result<(), Trouble> {
        self.0.check(axis, schedule)
    }

    fn time(
        &mut self,
        axis: Axis,
        schedule: &Schedule,
        calls: usize,
        cutoff: Option<f64>,
    ) -> Result<Vec<f64>, Trouble> {
        self.0.time(axis, schedule, calls, cutoff)
    }
}

/// Searches with a worker; the outcomes of schedules of 3 stages, the winner, and how often it was started.
fn tried(bad: &str) -> (Vec<Outcome>, Option<Schedule>, usize) {
    let program = sparsek_kernels::builtin("sparsek-value").unwrap().program().unwrap();
    let kernel = Kernel::from_program(&program, &Spec::new(Elem::Bf16, 64).k(16).w(16)).unwrap();
    let problem = crate::schedule::problem(&kernel, 4, |input| input.default.is_none());
    let target = Target::named("sm_90a").unwrap();
    let workload = Workload::default();
    let mut space = Space::new(&problem, &target, &Machine::of(&target), &workload).unwrap();
    let few = |s: &sparsek_codegen::PassSchedule| s.warps == 12 && s.tile_kv == 64 && s.stages < 4;
    space.forward.retain(|c| few(&c.schedule));
    space.backward.retain(|c| few(&c.schedule) && c.schedule.stages == 2);
    space.chunks.truncate(1);
    assert_eq!((space.forward.len(), space.backward.len()), (2, 1));
    let backward = gradients(&kernel, &problem);
    let mut compilers = Compilers::new(|| Err(std::io::Error::other("nothing is compiled")));
    let compiler = Compiler { problem, backward: &backward, target, compilers: &mut compilers };
    let setup = Setup {
        program: program.to_json(),
        elem: Elem::Bf16,
        d: 64,
        k: Some(16),
        w: Some(16),
        set: Default::default(),
        batch: 1,
        n: 64,
        hq: 4,
        hkv: 1,
        scores: "sd:1".to_owned(),
        ordinal: 0,
        with: Vec::new(),
    };
    let mut process = Process::new(script(bad));
    let mut remote = Remote::new(compiler, &mut process, setup);
    remote.patience = Duration::from_millis(700);
    remote.start().unwrap();
    assert_eq!(remote.copy, Some(4e12));
    let mut measure = Uncompiled(remote);
    let stop = AtomicBool::new(false);
    let options = Options { level: Level::Full, budget: None, stop: &stop, known: &[] };
    let found = search(&space, &mut measure, &mut (), options);
    assert_eq!(found.ended, Ended::Complete);
    let outcomes = found.measurements.iter().filter(|m| m.schedule.forward.stages == 3);
    let outcomes = outcomes.map(|m| m.outcome.clone()).collect();
    let restarts = measure.0.restarts();
    assert_eq!(process.starts, restarts + 1);
    (outcomes, found.schedule, process.starts)
}

#[test]
fn wrong_numbers_never_win() {
    let answer = r#"echo '{"wrong":{"tensor":"o","error":0.5,"limit":0.03}}'"#;
    let (outcomes, winner, starts) = tried(answer);
    let wrong = Outcome::Wrong { tensor: "o".to_owned(), error: Some(0.5), limit: 0.03 };
    assert_eq!(outcomes, [wrong]);
    assert_eq!(winner.map(|s| s.forward.stages), Some(2));
    assert_eq!(starts, 1);
}

#[test]
fn a_process_that_dies_is_started_again() {
    for (bad, word) in [
        ("echo segmentation >&2; kill -9 $$", "signal: 9"),
        ("exit 3", "exit status: 3"),
        (r#"echo '{"fault":"an illegal address"}'; exit 1"#, "an illegal address"),
        ("echo nonsense", "no answer"),
        (r"printf '\377\n'", "no answer"),
        ("exec sleep 30 >&-", "stopped answering"),
        (r#"echo '{"times":[1.0]}'"#, "another question"),
    ] {
        let (outcomes, winner, starts) = tried(bad);
        let [Outcome::Fault(reason)] = outcomes.as_slice() else { panic!("{bad}: {outcomes:?}") };
        assert!(reason.contains(word), "{bad}: {reason}");
        assert_eq!(winner.map(|s| s.forward.stages), Some(2), "{bad}");
        assert_eq!(starts, 2, "{bad}");
    }
}

#[test]
fn a_process_that_hangs_is_killed() {
    let (outcomes, winner, starts) = tried("sleep 60");
    assert_eq!(outcomes, [Outcome::Timeout(0.7)]);
    assert_eq!(winner.map(|s| s.forward.stages), Some(2));
    assert_eq!(starts, 2);
}

#[test]
fn what_other_candidates_survive_is_a_failure_of_one() {
    let (outcomes, _, starts) = tried(r#"echo '{"failed":"no memory"}'"#);
    assert_eq!(outcomes, [Outcome::Failed("no memory".to_owned())]);
    assert_eq!(starts, 1);
}

#[test]
fn a_worker_that_cannot_start_ends_the_search_with_a_message() {
    let mut process = Process::new(|| Ok(Command::new("/no/such/program")));
    let asked = process.ask(&Request::Expect(1), Duration::from_secs(1));
    assert!(matches!(asked, Err(Lost::Died(_))), "{asked:?}");
    assert!(!process.is_running());
}

/// The code of every schedule that is tried on an H200 compiles, whatever it does with registers.
#[test]
#[ignore = "minutes of processor time"]
fn every_candidate_compiles() {
    let program = sparsek_kernels::builtin("sparsek-value").unwrap().program().unwrap();
    for d in [64, 128] {
        let spec = Spec::new(Elem::Bf16, d).k(512).w(512);
        let kernel = Kernel::from_program(&program, &spec).unwrap();
        let problem = crate::schedule::problem(&kernel, 4, |input| input.default.is_none());
        let target = Target::named("sm_90a").unwrap();
        let (machine, workload) = (Machine::of(&target), Workload::default());
        let space = Space::new(&problem, &target, &machine, &workload).unwrap();
        let backward = gradients(&kernel, &problem);
        let problem = Problem { backward: &backward, ..problem };
        let first = space.first();
        let all = space
            .forward
            .iter()
            .map(|c| (Module::Forward, Schedule { forward: c.schedule, ..first }));
        let backwards = space
            .backward
            .iter()
            .map(|c| (Module::Backward, Schedule { backward: c.schedule, ..first }));
        let all: Vec<(Module, Schedule)> = all.chain(backwards).collect();
        let compile = |module: Module, schedule: &Schedule| -> Result<(), String> {
            let source = source(&problem, module, schedule, &target);
            let Source { name, text, .. } = source.map_err(|trouble| format!("{trouble:?}"))?;
            let compiled = sparsek::cuda::compiled_text(&name, &text, &target, None);
            compiled.map(|_| ()).map_err(|e| e.to_string())
        };
        let failed: Vec<String> = all
            .iter()
            .filter_map(|(module, schedule)| {
                let reason = compile(*module, schedule).err()?;
                Some(format!("{} {schedule}: {reason}", module.name()))
            })
            .collect();
        assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), all.len(), failed.join("\n"));
    }
}
