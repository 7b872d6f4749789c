//! `tune`, and what `doctor` says of kernels: all that needs no GPU.

use crate::binary::{Ran, command, files};
use sparsek::tuned::{Figures, Gpu, How, Key, Manifest, Record};
use sparsek::{Elem, Kernel, Program, Spec};
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Given, Problem, Schedule, Target};
use std::fs;
use std::path::Path;
use std::process::Command;

const GPU: &str = "NVIDIA H200";

/// A command whose store is a folder of its own.
fn tune(folder: &Path, line: &str) -> Command {
    let mut command = command(folder, line);
    command.env("SPARSEK_TUNED_DIR", folder.join("store")).env_remove("SPARSEK_TUNED");
    // No driver, also on a machine that has one.
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

fn run(folder: &Path, line: &str) -> Ran {
    Ran::of(&tune(folder, line).output().expect("the binary starts"))
}

fn value() -> Program {
    sparsek_kernels::builtin("sparsek-value").expect("a built-in").program().expect("it loads")
}

/// A record of calls with 4 query heads for each key-value head, its schedule the model's with another
/// chunk.
fn record(program: &Program, k: i64, chunk: u32, ms: f64) -> Record {
    let kernel = Kernel::from_program(program, &Spec::new(Elem::Bf16, 128).k(k).w(512)).unwrap();
    let given = ["q", "k", "v", "u"].map(|n| Given { name: n.to_owned(), per_head: false });
    let (instance, backward) = (kernel.instance(), kernel.backward_program());
    let problem = Problem { instance, backward, group: 4, given: given.to_vec() };
    let target = Target::named("sm_90a").unwrap();
    let machine = Machine::of(&target);
    let schedule = Schedule::choose(&problem, &target, &machine, &Workload::default()).unwrap();
    Record {
        kernel: program.name.clone(),
        key: Key::new(&problem, 65_536, Gpu::new(GPU, (9, 0))),
        schedule: Schedule { chunk, ..schedule },
        how: How::Full,
        figures: Some(Figures {
            batch: 1,
            n: 65_536,
            heads: 32,
            kv_heads: 8,
            scores: "sd:1".to_owned(),
            plan_ms: 0.25,
            forward_ms: ms,
            backward_ms: 9.5,
            driver: "13.0".to_owned(),
            date: "2026-11-24T12:00:00Z".to_owned(),
        }),
    }
}

fn manifest(folder: &Path, name: &str, records: impl IntoIterator<Item = Record>) {
    fs::write(folder.join(name), Manifest::new(records).to_json()).unwrap();
}

/// Update with `INSTA_UPDATE=always cargo test -p sparsek-tests --test cli`, and say why in the commit.
#[test]
fn a_dry_run_shows_the_models_ranking() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        "tune sparsek-value --head-dim 128 --k 512 --window 512 --dry-run --target sm_90a --top 6";
    let ran = run(folder.path(), line).succeeds();
    insta::assert_snapshot!("dry_run", ran.stdout);
    let line = "tune sparsek-value --head-dim 64,128 --k 128..512 --window 0 --dry-run --target sm_80 --top 1";
    let ran = run(folder.path(), line).succeeds();
    assert_eq!(ran.stdout.matches("without tuning: chunk").count(), 6, "{}", ran.stdout);
    assert!(ran.stdout.contains("D 64, k 256, window 0") && !ran.stdout.contains("sm90"));
    // All candidates of the axis, at least 40 in all.
    let line = "tune sparsek-key --head-dim 64 --dry-run --target sm_90a --top 0";
    let ran = run(folder.path(), line).succeeds();
    assert!(ran.stdout.lines().filter(|l| l.contains("; sm")).count() > 40, "{}", ran.stdout);
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[test]
fn a_dry_run_of_a_baseline_shows_what_would_be_timed() {
    let folder = tempfile::tempdir().unwrap();
    let line = "tune sparsek-value --head-dim 128 --k 256,512 --window 512 --dry-run --target sm_90a \
                --level baseline --top 6";
    let said = run(folder.path(), line).succeeds().stdout;
    let all = "without tuning, and all that would be timed: chunk";
    assert_eq!(said.matches(all).count(), 2, "{said}");
    assert!(said.contains("forward, the first of 87 candidates"), "{said}");
    // One line for each axis of each key, and the line that says all of it.
    assert_eq!(said.matches("warps 12").count(), 2 * (2 + 2), "{said}");
    // Lengths outside k and the window: inputs are made for each D and length once.
    let line =
        "tune sparsek-value --k 256,512 --seq 4096,8192 --dry-run --target sm_90a --level baseline";
    let said = run(folder.path(), line).succeeds().stdout;
    let titles = said.lines().filter(|l| l.starts_with("SparsekValue"));
    let lengths: Vec<bool> = titles.map(|l| l.contains("N 4096")).collect();
    assert_eq!(lengths, [true, true, false, false], "{said}");
    run(folder.path(), "tune sparsek-value --level base --dry-run")
        .fails(2, &["baseline", "quick", "full"]);
    run(folder.path(), "tune sparsek-value --level baseline").fails(2, &["measured on a GPU"]);
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[test]
fn without_a_gpu_it_says_so_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let line = "tune sparsek-value --report {}/r.svg --json {}/r.json";
    run(folder.path(), line).fails(2, &["measured on a GPU", "--dry-run"]);
    run(folder.path(), "tune sparsek-value --device cpu").fails(2, &["--device cuda"]);
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[test]
fn bad_input_says_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |line: &str, words: &[&str]| {
        run(folder.path(), line).fails(2, words);
    };
    fails("tune", &["KERNEL"]);
    fails("tune sparsek-valeu", &["sparsek-value"]);
    fails("tune sparsek-value --k 8..4", &["--k", "8..4"]);
    fails("tune sparsek-value --k 1,x", &["`x` is no number"]);
    fails("tune sparsek-value --k 5000 --dry-run", &["k = 5000", "4096"]);
    fails("tune sparsek-value --head-dim 100 --dry-run", &["head dimension = 100"]);
    fails("tune sparsek-value --with slope --dry-run", &["no input `slope`", "none"]);
    fails("tune sparsek-value --seq 0 --dry-run", &["--seq"]);
    fails("tune sparsek-value --heads 3/2 --dry-run", &["32/8"]);
    fails("tune sparsek-value --budget soon", &["10m"]);
    fails("tune sparsek-value --target sm_90a", &["--dry-run"]);
    fails("tune sparsek-value --dry-run --target sm_91", &["sm_90a"]);
    fails("tune sparsek-value --dry-run --report {}/x.svg", &["--report"]);
    fails("tune show 1234", &["there is no 1234", "tune list"]);
    fails("tune rm 1234", &["there is no 1234"]);
    fails("tune export --output {}/out.json", &["no tuned schedule"]);
    fails("tune import {}/missing.json", &["cannot read"]);
    fs::write(folder.path().join("bad.json"), "{\"version\": 7}").unwrap();
    fails("tune import {}/bad.json", &["bad.json", "version 7"]);
    assert_eq!(files(folder.path()), ["bad.json"]);
}

#[test]
fn what_is_kept_is_listed_shown_exported_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(run(at, "tune list").succeeds().stdout.contains("nothing is tuned"));
    let (one, other) = (record(&value(), 512, 1024, 2.5), record(&value(), 256, 1024, 2.0));
    manifest(at, "in.json", [one.clone(), other.clone()]);
    let ran = run(at, "tune import {}/in.json").succeeds();
    assert!(ran.stdout.contains("2 tuned schedules"), "{}", ran.stdout);
    let listed = run(at, "tune list").succeeds().stdout;
    for word in
        [one.id(), other.id(), "SparsekValue".to_owned(), GPU.to_owned(), "2.500".to_owned()]
    {
        assert!(listed.contains(&word), "{word}: {listed}");
    }
    let shown = run(at, &format!("tune show {}", one.id())).succeeds().stdout;
    assert!(shown.contains("chunk 1024") && shown.contains("driver 13.0"), "{shown}");
    run(at, "tune export sparsek-value --output {}/out.json").succeeds();
    let text = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    assert_eq!(text("out.json"), text("in.json"));
    run(at, &format!("tune export {} --output {{}}/one.json", one.id())).succeeds();
    assert_eq!(Manifest::from_json(&text("one.json")).unwrap(), Manifest::new([one.clone()]));
    run(at, &format!("tune rm {} {}", one.id(), other.id())).succeeds();
    assert!(run(at, "tune list").succeeds().stdout.contains("nothing is tuned"));
}

/// The same as the model's choice that was measured alone.
fn baseline(record: &Record) -> Record {
    Record { how: How::Baseline, ..record.clone() }
}

#[test]
fn a_baseline_is_said_to_be_one_and_gives_way() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (guess, found) = (record(&value(), 512, 512, 1.5), record(&value(), 512, 1024, 2.5));
    manifest(at, "baseline.json", [baseline(&guess)]);
    manifest(at, "found.json", [found.clone()]);
    let said = run(at, "tune import {}/baseline.json").succeeds().stdout;
    assert!(said.contains("1 baselines of the cost model's choice"), "{said}");
    let listed = run(at, "tune list").succeeds().stdout;
    assert!(listed.contains("baseline") && listed.contains("1.500"), "{listed}");
    let shown = run(at, &format!("tune show {}", guess.id())).succeeds().stdout;
    assert!(shown.contains("  baseline  chunk 512"), "{shown}");
    assert!(shown.contains("compared with nothing") && !shown.contains("winner"), "{shown}");
    run(at, "tune export --output {}/out.json").succeeds();
    let text = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    assert_eq!(text("out.json"), text("baseline.json"));
    // It is slower, and was searched for: it takes the place, and keeps it.
    run(at, "tune import {}/found.json").succeeds();
    run(at, "tune import {}/baseline.json").succeeds();
    run(at, "tune export --output {}/out.json").succeeds();
    assert_eq!(text("out.json"), text("found.json"));
}

#[test]
fn broken_files_are_told_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    manifest(at, "in.json", [record(&value(), 512, 1024, 2.5)]);
    run(at, "tune import {}/in.json").succeeds();
    let store = at.join("store");
    let name = files(&store).into_iter().find(|n| n.ends_with(".json")).unwrap();
    let whole = fs::read_to_string(store.join(&name)).unwrap();
    for (text, word) in [(&whole[..200], "damaged"), ("{\"version\": 99}", "version 99")] {
        fs::write(store.join(&name), text).unwrap();
        let ran = run(at, "tune list").succeeds();
        assert!(ran.stderr.contains(word) && ran.stderr.contains(&name), "{}", ran.stderr);
        let line = format!("doctor sparsek-value --gpu {} --k 512", GPU.replace(' ', "_"));
        run(at, &line).succeeds();
        let ran = run(at, "tune import {}/in.json").succeeds();
        assert!(ran.stderr.contains("broken-"), "{}", ran.stderr);
        assert_eq!(fs::read_to_string(store.join(&name)).unwrap(), whole);
    }
    let aside: Vec<String> = files(&store).into_iter().filter(|n| n.contains("broken-")).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // Twelve keys, each written by three processes; the fastest figures win.
    for process in 0..3 {
        let records = (0..12).map(|n| record(&value(), 64 + n, 512, 2.0 + f64::from(process)));
        manifest(at, &format!("{process}.json"), records);
    }
    let mut running: Vec<_> = (0..3)
        .map(|n| tune(at, &format!("tune import {{}}/{n}.json")).spawn().expect("it starts"))
        .collect();
    assert!(running.iter_mut().all(|child| child.wait().expect("it ends").success()));
    run(at, "tune export --output {}/out.json").succeeds();
    let text = fs::read_to_string(at.join("out.json")).unwrap();
    let expected = Manifest::new((0..12).map(|n| record(&value(), 64 + n, 512, 2.0)));
    assert_eq!(Manifest::from_json(&text).unwrap(), expected);
    assert!(!files(&at.join("store")).iter().any(|n| n.contains("broken") || n.ends_with("tmp")));
}

/// A kernel in a file that carries a manifest, and a store that knows better.
#[test]
fn doctor_says_which_keys_are_tuned() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let text = value().to_string();
    let doctor = |more: &str| {
        let mut command = tune(at, "doctor {}/kernels.rs");
        command.args(["--gpu", GPU]).args(more.split_whitespace());
        Ran::of(&command.output().expect("the binary starts"))
    };
    let kernels = |attribute: &str| {
        let text = text.replacen("pub kernel", &format!("{attribute} pub kernel"), 1);
        fs::write(at.join("kernels.rs"), format!("sparsek_kernel! {{ {text} }}")).unwrap();
    };
    kernels("");
    let said = doctor("").succeeds().stdout;
    assert!(said.contains("no key is tuned"), "{said}");
    kernels("#[tuned(\"carried.json\")]");
    doctor("").fails(2, &["carried.json", "sparsek tune export"]);
    let (carried, stored) = (record(&value(), 512, 1024, 2.5), record(&value(), 512, 256, 2.4));
    manifest(at, "carried.json", [carried.clone(), record(&value(), 256, 1024, 2.0)]);
    let said = doctor("").succeeds().stdout;
    assert!(said.contains("2 of 2 keys") && said.contains("of the kernel's manifest"), "{said}");
    assert!(said.contains(&carried.id()) && said.contains("2.500"), "{said}");
    // A baseline of the store does not hide what the manifest has; alone it is said to be one.
    manifest(at, "baseline.json", [512, 1024].map(|k| baseline(&record(&value(), k, 512, 1.0))));
    run(at, "tune import {}/baseline.json").succeeds();
    let said = doctor("--k 512,1024").succeeds().stdout;
    assert!(said.contains("1 of 2 keys run on a tuned schedule"), "{said}");
    assert!(said.contains(", 1 on the cost model's guess, measured\n"), "{said}");
    assert!(said.contains("of the kernel's manifest"), "{said}");
    assert!(said.contains("the cost model's guess, measured as "), "{said}");
    let ids = [512, 1024].map(|k| record(&value(), k, 512, 1.0).id());
    run(at, &format!("tune rm {} {}", ids[0], ids[1])).succeeds();
    let said = doctor("--k 512,1024").succeeds().stdout;
    assert!(said.contains("1 of 2 keys") && said.contains("the cost model's guess"), "{said}");
    manifest(at, "in.json", [stored.clone()]);
    run(at, "tune import {}/in.json").succeeds();
    let said = doctor("--k 512").succeeds().stdout;
    assert!(said.contains(&format!("{} of the store", stored.id())), "{said}");
    // An edited kernel keeps no stale winner.
    fs::write(
        at.join("kernels.rs"),
        format!("sparsek_kernel! {{ {} }}", text.replacen("dot(q, k)", "2.0 * dot(q, k)", 1)),
    )
    .unwrap();
    let said = doctor("--k 512").succeeds().stdout;
    assert!(said.contains("0 of 1 keys"), "{said}");
    // Nor does a schedule block that does not allow it.
    let block = "schedule { forward { stages in [2]; } }";
    fs::write(at.join("kernels.rs"), format!("sparsek_kernel! {{ {text} {block} }}")).unwrap();
    let ran = doctor("--k 512").succeeds();
    assert!(ran.stdout.contains("0 of 1 keys"), "{}", ran.stdout);
    assert!(ran.stderr.contains("does not allow stages"), "{}", ran.stderr);
    run(at, "doctor sparsek-value").fails(2, &["--gpu"]);
}
