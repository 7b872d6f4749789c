//! Where results go: whole, or not at all.

use crate::binary::{Ran, command, files, run};
use crate::case::{Case, Results};
use safetensors::tensor::Dtype;
use std::fs;
use std::process::Stdio;

fn folder_with_case() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Case::sound().write(&folder.path().join("in.safetensors"));
    folder
}

const RUN: &str = "run sparsek-value --input {}/in.safetensors --output";

#[test]
fn every_output_has_its_shape_and_type() {
    let folder = folder_with_case();
    run(folder.path(), &format!("{RUN} {{}}/out.safetensors --backward")).succeeds();
    let results = Results::read(&folder.path().join("out.safetensors"));
    for (name, shape) in [
        ("o", &[2, 40, 4, 16][..]),
        ("lse", &[2, 4, 40]),
        ("tau", &[2, 2, 40]),
        ("expiry", &[2, 2, 40]),
        ("d_q", &[2, 40, 4, 16]),
        ("d_k", &[2, 40, 2, 16]),
        ("d_v", &[2, 40, 2, 16]),
        ("d_u", &[2, 2, 40]),
    ] {
        assert_eq!(results.shape(name), shape, "{name}");
        let dtype = if name == "expiry" { Dtype::I32 } else { Dtype::F32 };
        assert_eq!(results.dtype(name), dtype, "{name}");
    }
    assert_eq!(results.names().len(), 8);
    let metadata = results.metadata();
    assert_eq!((metadata["k"].as_str(), metadata["window"].as_str()), ("6", "4"));
}

#[test]
fn extra_inputs_have_gradients_only_where_given() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        "sparsek_kernel! { pub kernel Extra<E in [f32], D in [16], K in 1..=8, W in 0..=8>(
            q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey, slope: PerHead = 0.0,
            bias: Scalar = 0.0, doc_q: PerQuery<i32> = 0, doc_k: PerKey<i32> = 0,
        ) -> Output<E, D> {
            let gate = sparsek(u, K);
            let seen = causal & (topk(gate) | window(W)) & (doc_q == doc_k);
            let p = softmax(dot(q, k) + slope * (k.pos - q.pos) + bias, seen);
            dot(p * gate, v)
        } }";
    fs::write(folder.path().join("extra.rs"), source).unwrap();
    let documents: Vec<i32> = (0..80).map(|i| i % 40 / 20).collect();
    let mut case = Case::sound();
    case.f32("slope", &[4]).i32("doc_q", &[2, 40], &documents).i32("doc_k", &[2, 40], &documents);
    case.f32("spare", &[3]);
    case.write(&folder.path().join("in.safetensors"));
    let line = "run {}/extra.rs --input {}/in.safetensors --output {}/out.safetensors --backward";
    let ran = run(folder.path(), line).succeeds();
    assert!(ran.stderr.contains("`spare`") && ran.stderr.contains("ignored"), "{}", ran.stderr);
    let results = Results::read(&folder.path().join("out.safetensors"));
    let names = ["d_k", "d_q", "d_slope", "d_u", "d_v", "expiry", "lse", "o", "tau"];
    assert_eq!(results.names(), names);
    assert_eq!(results.shape("d_slope"), [4]);
}

#[test]
fn places_that_cannot_be_written() {
    let folder = folder_with_case();
    let ran = run(folder.path(), &format!("{RUN} {{}}/missing/out.safetensors"));
    ran.fails(2, &["missing", "does not exist", "nothing was computed"]);
    run(folder.path(), &format!("{RUN} {{}}")).fails(2, &["is a folder"]);
    run(folder.path(), &format!("{RUN} {{}}/in.safetensors")).fails(2, &["is the input file"]);
    run(folder.path(), &format!("{RUN} {{}}/new/")).fails(2, &["new/", "does not name a file"]);
    run(folder.path(), &format!("{RUN} {{}}/in.safetensors/new")).fails(2, &["is a file"]);
    // Nobody, root among them, can create a file there.
    if cfg!(target_os = "linux") {
        run(folder.path(), &format!("{RUN} /proc/out.safetensors"))
            .fails(2, &["/proc/out.safetensors", "nothing was computed"]);
    }
    assert_eq!(files(folder.path()), ["in.safetensors"]);
}

#[test]
fn no_command_replaces_what_it_reads() {
    let folder = folder_with_case();
    let kernel = run(folder.path(), "emit sparsek-value").succeeds().stdout;
    fs::write(folder.path().join("own.rs"), &kernel).unwrap();
    let input = fs::read(folder.path().join("in.safetensors")).unwrap();
    let read = "{}/own.rs --input {}/in.safetensors";
    for (line, which) in [
        (format!("plan {read} --svg {{}}/in.safetensors"), "input"),
        (format!("plan {read} --svg {{}}/own.rs"), "kernel's"),
        (format!("run {read} --output {{}}/own.rs"), "kernel's"),
        ("emit {}/own.rs --output {}/own.rs".to_owned(), "kernel's"),
    ] {
        run(folder.path(), &line).fails(2, &[&format!("is the {which} file")]);
    }
    assert_eq!(fs::read_to_string(folder.path().join("own.rs")).unwrap(), kernel);
    assert_eq!(fs::read(folder.path().join("in.safetensors")).unwrap(), input);
}

#[test]
fn unusable_expectations_leave_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::sound();
    case.text("gate", "value").f32("expect.o", &[2, 40, 4, 8]);
    case.write(&folder.path().join("in.safetensors"));
    run(folder.path(), &format!("{RUN} {{}}/out.safetensors")).fails(2, &["`expect.o`"]);
    assert_eq!(files(folder.path()), ["in.safetensors"]);
}

#[test]
fn a_nan_in_q_stays_in_its_own_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::sound();
    let at = ((40 + 7) * 4 + 2) * 16;
    let q = case.tensors.get_mut("q").unwrap();
    q.bytes[at * 4..at * 4 + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    case.write(&folder.path().join("in.safetensors"));
    run(folder.path(), &format!("{RUN} {{}}/out.safetensors")).succeeds();
    let results = Results::read(&folder.path().join("out.safetensors"));
    let nans = |name: &str| {
        let values = results.values(name);
        (0..values.len()).filter(|i| values[*i].is_nan()).collect::<Vec<_>>()
    };
    assert_eq!(nans("o"), (at..at + 16).collect::<Vec<_>>());
    assert_eq!(nans("lse"), [(4 + 2) * 40 + 7]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let folder = folder_with_case();
    let ran = run(folder.path(), &format!("{RUN} /dev/full --backward"));
    ran.fails(2, &["/dev/full", "No space left", "--output"]);
    assert_eq!(files(folder.path()), ["in.safetensors"]);
    let emitted = command(folder.path(), "emit sparsek-value")
        .stdout(fs::File::options().write(true).open("/dev/full").unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|child| child.wait_with_output())
        .unwrap();
    Ran::of(&emitted).fails(2, &["standard output", "No space left"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_receives_the_tensors_alone() {
    let folder = folder_with_case();
    let output = command(folder.path(), &format!("{RUN} /dev/stdout")).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let path = folder.path().join("piped.safetensors");
    fs::write(&path, output.stdout).unwrap();
    assert_eq!(Results::read(&path).names(), ["expiry", "lse", "o", "tau"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("forward"));
}

#[test]
fn an_older_result_is_replaced_whole() {
    let folder = folder_with_case();
    let out = folder.path().join("out.safetensors");
    fs::write(&out, "older").unwrap();
    // A run that fails leaves what was there.
    run(folder.path(), &format!("{RUN} {{}}/out.safetensors --k 0")).fails(2, &["k = 0"]);
    assert_eq!(fs::read(&out).unwrap(), b"older");
    run(folder.path(), &format!("{RUN} {{}}/out.safetensors")).succeeds();
    assert_eq!(Results::read(&out).names(), ["expiry", "lse", "o", "tau"]);
    assert_eq!(files(folder.path()), ["in.safetensors", "out.safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_modes_are_usual() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder_with_case();
    let (out, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&out, "older").unwrap();
    std::os::unix::fs::symlink(&out, &link).unwrap();
    run(folder.path(), &format!("{RUN} {{}}/link")).succeeds();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Results::read(&out).names().len(), 4);
    run(folder.path(), &format!("{RUN} {{}}/new")).succeeds();
    fs::write(folder.path().join("usual"), "").unwrap();
    let mode =
        |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("new"), mode("usual"));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_error() {
    let folder = folder_with_case();
    for line in ["emit sparsek-value --stage backward", "doctor", "emit sparsek-value --stage ast"]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command(folder.path(), line).stdout(writer).stderr(Stdio::piped()).spawn();
        let ran = Ran::of(&child.unwrap().wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}");
    }
}
