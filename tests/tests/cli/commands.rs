//! `check`, `emit`, `plan`, `verify`, `doctor` and help.

use crate::binary::{command, files, root, run};
use crate::case::Case;
use std::fs;
use std::path::Path;

const GOOD: &str = "
    mod nested {
        sparsek::sparsek_kernel! {
            /// A local kernel.
            pub kernel Local<E in [bf16, f16, f32], D in multiples_of(16) up to 128, K in 1..=64, W in 0..=64>(
                q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
            ) -> Output<E, D> {
                let gate = sparsek(u * 2.0, K);
                let p = softmax(dot(q, k) * rsqrt(D), causal & (topk(gate) | window(W)));
                dot(p * gate, v)
            }
        }
    }
";

/// A temporary folder with `good.rs` and `bad.rs` (one kernel, two mistakes).
fn sources() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good.rs"), GOOD).unwrap();
    let bad = GOOD.replace("p * gate", "p * gaet").replace("rsqrt(D)", "rsqrtt(D)");
    fs::write(folder.path().join("bad.rs"), bad).unwrap();
    folder
}

#[test]
fn check_reports_every_mistake() {
    let folder = sources();
    let ran = run(folder.path(), "check {}/good.rs").succeeds();
    assert_eq!(ran.stdout, "1 kernel in 1 file: no errors\n");
    assert_eq!(ran.stderr, "");
    let ran = run(folder.path(), "check {}/good.rs {}/bad.rs");
    let ran = ran.fails(1, &["bad.rs:", "gaet", "`gate`", "rsqrtt", "did you mean `rsqrt(x)`"]);
    assert!(ran.stdout.contains("in 2 files: 2 errors"), "{}", ran.stdout);
    let ran = run(folder.path(), "check {}/missing.rs {}/bad.rs").fails(2, &["missing.rs", "gaet"]);
    assert!(ran.stdout.contains("1 file not read"), "{}", ran.stdout);
    run(folder.path(), "check {}").fails(2, &["cannot read"]);
    run(folder.path(), "check").fails(2, &["FILE.rs"]);
}

#[test]
fn emitted_programs_compile_again() {
    let folder = sources();
    let first = run(folder.path(), "emit {}/good.rs --stage ir").succeeds().stdout;
    assert!(
        first.contains("pub kernel Local<") && first.contains("sparsek(u * 2.0, K)"),
        "{first}"
    );
    fs::write(folder.path().join("again.rs"), &first).unwrap();
    let again = run(folder.path(), "emit {}/again.rs").succeeds().stdout;
    assert_eq!(first, again);
}

#[test]
fn emit_shows_each_stage() {
    let folder = sources();
    let tree = run(folder.path(), "emit {}/good.rs::Local --stage ast").succeeds().stdout;
    assert!(tree.contains("Local") && tree.contains("gate"), "{tree}");
    let backward = run(folder.path(), "emit {}/good.rs --stage backward").succeeds().stdout;
    assert!(
        backward.contains("backward kernel Local<") && backward.contains("d_u: "),
        "{backward}"
    );
    let json = run(folder.path(), "emit sparsek-value --stage ir --json").succeeds().stdout;
    assert!(json.starts_with("{\"version\":1,"), "{json}");
    run(folder.path(), "emit sparsek-value --output {}/value.txt").succeeds();
    let text = fs::read_to_string(folder.path().join("value.txt")).unwrap();
    assert!(text.contains("pub kernel SparsekValue<"), "{text}");
    run(folder.path(), "emit sparsek-value --stage ast --json").fails(2, &["--stage ir"]);
    run(folder.path(), "emit {}/bad.rs").fails(2, &["gaet"]);
    run(folder.path(), "emit sparsek-value --output {}/no/x").fails(2, &["does not exist"]);
}

#[test]
fn plan_counts_and_draws() {
    let folder = sources();
    Case::sound().write(&folder.path().join("in.safetensors"));
    let line = "plan sparsek-value --input {}/in.safetensors --svg {}/plan.svg --head 1 --batch 1";
    let ran = run(folder.path(), line).succeeds();
    let rows: Vec<&str> = ran.stdout.lines().skip(2).filter(|l| l.contains(" 40 ")).collect();
    assert_eq!(rows.len(), 4, "{}", ran.stdout);
    let svg = fs::read_to_string(folder.path().join("plan.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("k = 6, window = 4, 40 positions"), "{svg}");
    let picture = |flags: &str| run(folder.path(), &format!("{line} {flags}"));
    picture("--from 10 --to 20").succeeds();
    picture("--from 20 --to 41").fails(2, &["20..41", "0..40"]);
    picture("--from 7 --to 7").fails(2, &["7..7"]);
    let other = "plan sparsek-value --input {}/in.safetensors --svg {}/other.svg --head 2";
    run(folder.path(), other).fails(2, &["head 2", "--head below 2"]);
    assert!(!files(folder.path()).contains(&"other.svg".to_owned()));
}

#[test]
fn the_picture_of_the_readme_is_the_one_that_plan_draws() {
    let folder = tempfile::tempdir().unwrap();
    let line = "plan sparsek-value --input tests/data/real_text.safetensors --svg {}/real_text.svg";
    run(folder.path(), line).succeeds();
    let drawn = fs::read_to_string(folder.path().join("real_text.svg")).unwrap();
    let kept = fs::read_to_string(root().join("docs/real_text.svg")).unwrap();
    assert!(drawn == kept, "draw it again: sparsek {}", line.replace("{}", "docs"));
}

#[test]
fn the_backward_of_the_readme_is_the_one_that_emit_prints() {
    let here = Path::new(".");
    let backward = run(here, "emit sparsek-value --stage backward").succeeds().stdout;
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&backward), "the README should hold\n{backward}");
    // The kernel above it is the built-in's own text.
    let source = fs::read_to_string(root().join("kernels-generated/src/window.rs")).unwrap();
    let kernel = source.split_inclusive("\n}\n").next().unwrap();
    let kernel = &kernel[kernel.find("sparsek_kernel! {").unwrap()..];
    // That it carries tuned schedules is no part of what it computes.
    let kernel = kernel.replace("    #[tuned(\"../tuned.json\")]\n", "");
    assert!(readme.contains(&kernel), "the README should hold\n{kernel}");
}

#[test]
fn verify_gives_a_parameter_in_two_roles_one_value() {
    let folder = sources();
    let shared = GOOD.replace("window(W)", "window(K)").replace(", W in 0..=64", "");
    assert!(!shared.contains('W'), "{shared}");
    fs::write(folder.path().join("shared.rs"), shared).unwrap();
    for flag in ["", " --k 5", " --set K=5"] {
        run(folder.path(), &format!("verify {{}}/shared.rs --cases 3 --seed 1{flag}")).succeeds();
    }
}

#[test]
fn verify_holds_results_against_the_reference() {
    let here = Path::new(".");
    let ran = run(here, "verify sparsek-both --cases 3 --seed 7").succeeds();
    assert!(ran.stdout.contains("seed 7") && ran.stdout.contains("d_u"), "{}", ran.stdout);
    let golden = "verify sparsek-key --input tests/data/golden/normal_gate_key.safetensors";
    run(here, golden).succeeds();
    run(here, "verify --programs 3 --seed 11").succeeds();
    run(here, "verify").fails(2, &["KERNEL"]);
}

/// An expectation that is a little off is found, and the results are there all the same.
#[test]
fn a_result_beyond_the_rule_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let source = root().join("tests/data/golden/normal_gate_value.safetensors");
    let mut bytes = fs::read(source).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let start = header + metadata.info("expect.d_u").unwrap().data_offsets.0;
    for word in bytes[start..start + 40].chunks_exact_mut(4) {
        word.copy_from_slice(&0.5f32.to_le_bytes());
    }
    fs::write(folder.path().join("in.safetensors"), bytes).unwrap();
    let line = "run sparsek-value --input {}/in.safetensors --output {}/out.safetensors --backward";
    let ran = run(folder.path(), line);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let row = ran.stdout.lines().find(|l| l.trim_start().starts_with("d_u ")).unwrap();
    assert!(row.ends_with("too large"), "{row}");
    assert!(folder.path().join("out.safetensors").exists());
    run(folder.path(), "verify sparsek-value --input {}/in.safetensors").fails(1, &["d_u"]);
    // Another gate: the expectations are not of this kernel.
    let line = "run sparsek-hard --input {}/in.safetensors --output {}/out.safetensors";
    let ran = run(folder.path(), line).succeeds();
    assert!(ran.stderr.contains("gate value"), "{}", ran.stderr);
}

#[test]
fn doctor_describes_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), "doctor")
        .env("SPARSEK_CACHE_DIR", folder.path().join("cache"))
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["CPU", "threads  1 ", "SIMD", "GPU", "driver", "NVRTC", "SPARSEK_CACHE_DIR"] {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    assert_eq!(files(folder.path()), [] as [&str; 0]);
}

#[test]
fn every_help_has_an_example() {
    let here = Path::new(".");
    for name in ["check", "emit", "run", "verify", "plan", "bench", "cache", "doctor"] {
        let help = run(here, &format!("{name} --help")).succeeds().stdout;
        assert!(help.contains(&format!("  sparsek {name}")), "{help}");
        assert!(help.contains("Example"), "{help}");
    }
    let help = run(here, "--help").succeeds().stdout;
    assert!(help.contains("Exit codes: 0 done, 1"), "{help}");
    assert!(run(here, "--version").succeeds().stdout.starts_with("sparsek 0."));
}

#[test]
fn verify_refuses_to_verify_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "verify sparsek-value --cases 0").fails(2, &["--cases", "0"]);
    run(folder.path(), "verify --programs 0").fails(2, &["--programs", "0"]);
    run(folder.path(), "verify --programs 2 --k 3").fails(2, &["--programs", "--k"]);
    run(folder.path(), "verify sparsek-value --set K=1 --set K=2").fails(2, &["K two values"]);
}
