//! A crate that depends on `sparsek` alone declares a kernel in a nested module and runs it.

#[allow(dead_code, reason = "shared with the tests of the command line")]
#[path = "cli/binary.rs"]
mod binary;

use sparsek::tuned::{Figures, Gpu, How, Key, Manifest, Record};
use sparsek::{Elem, Kernel, Spec};
use sparsek_codegen::{Given, Problem, Schedule, Target};
use sparsek_dsl::parse::compile_file;
use std::path::Path;
use std::process::Command;

const MANIFEST: &str = r#"
[package]
name = "downstream"
version = "0.0.0"
edition = "2021"

[dependencies]
sparsek = { path = "SPARSEK" }

[workspace]
"#;

const MAIN: &str = r#"
#![deny(warnings)]

mod attention {
    pub mod kernels {
        sparsek::sparsek_kernel! {
            /// The newest keys, faded by distance.
            pub kernel Faded<E in [bf16, f32], D in multiples_of(16) up to 64, W in 1..=64>(
                q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, slope: PerHead = 0.0,
            ) -> Output<E, D> {
                let s = dot(q, k) * rsqrt(D) + slope * (k.pos - q.pos);
                dot(softmax(s, causal & window(W)), v)
            }
        }
    }
}

use attention::kernels::{Faded, FadedInputs};
use sparsek::{Elem, Spec, TensorView};

fn main() -> Result<(), sparsek::Error> {
    let (n, heads, d) = (5, 2, 16);
    let zero = vec![0.0f32; n * heads * d];
    // Value j of every head is j in every dimension.
    let ramp: Vec<f32> = (0..n * heads * d).map(|i| (i / (heads * d)) as f32).collect();
    let view = |data| TensorView::new(&[1, n, heads, d], data);
    let inputs =
        FadedInputs { q: view(zero.as_slice())?, k: view(zero.as_slice())?, v: view(ramp.as_slice())?, slope: None };
    let kernel = Faded::new(Spec::new(Elem::F32, d as i64).w(2))?;
    let forward = kernel.forward(&inputs)?;
    // Equal logits: the mean of the last two values.
    let o = forward.o.to_f32();
    for (i, want) in [0.0, 0.5, 1.5, 2.5, 3.5].into_iter().enumerate() {
        assert!((o[i * heads * d] - want).abs() < 1e-6, "query {i}: {}", o[i * heads * d]);
    }
    let gradients = kernel.backward(&inputs, &forward, &view(ramp.as_slice())?)?;
    assert_eq!(gradients.get("d_v").map(|t| t.shape().to_vec()), Some(vec![1, n, heads, d]));
    assert!(gradients.get("d_slope").is_none(), "a default was not given, so it has no gradient");
    println!("ran {}", Faded::program()?.name);
    Ok(())
}
"#;

/// Cargo as a user runs it, its builds kept between runs so that only the first one builds the
/// dependencies.
fn cargo(manifest: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    let (verb, rest) = args.split_first().expect("a command of cargo");
    command.args([verb, "--offline", "--quiet", "--manifest-path"]).arg(manifest).args(rest);
    command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("downstream"));
    // Nobody debugs these builds.
    command.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("RUSTFLAGS");
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The versions that the workspace was built with are the ones there are without a network.
fn copy_lock(folder: &Path) {
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
}

/// Standard output of a command that ends well.
fn output(command: &mut Command) -> String {
    let ran = command.output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    out.into_owned()
}

#[test]
fn a_crate_that_depends_on_sparsek_alone_runs_a_kernel() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let runtime = root().join("runtime");
    let manifest = MANIFEST.replace("SPARSEK", &runtime.to_string_lossy().replace('\\', "/"));
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("a manifest");
    std::fs::write(folder.path().join("src/main.rs"), MAIN).expect("a source file");
    copy_lock(folder.path());
    let out = output(&mut cargo(&folder.path().join("Cargo.toml"), &["run"]));
    assert_eq!(out.trim(), "ran Faded");
}

/// The example's own tests, its snapshot of generated code among them.
#[test]
fn the_example_passes_its_tests() {
    let example = root().join("examples/downstream");
    copy_lock(&example);
    // Nothing is written beside the snapshots; `cargo xtask update` accepts what changed.
    let update = std::env::var("SPARSEK_UPDATE_SNAPSHOTS").is_ok_and(|v| v == "1");
    let mut tests = cargo(&example.join("Cargo.toml"), &["test"]);
    tests.env("INSTA_UPDATE", if update { "always" } else { "no" });
    let out = output(tests.env_remove("INSTA_FORCE_PASS"));
    assert!(out.contains("2 passed"), "{out}");
}

/// What the example would run with on an H200.
fn said(store: &Path) -> String {
    let example = root().join("examples/downstream");
    let mut run = cargo(&example.join("Cargo.toml"), &["run", "--", "65536", "NVIDIA H200", "9.0"]);
    output(run.env("SPARSEK_TUNED_DIR", store).env_remove("SPARSEK_TUNED"))
}

/// A schedule for the example's calls, as tuning its source file gives one: the key is made from the
/// file, not from the compiled crate.
fn record(schedule: impl FnOnce(Schedule) -> Schedule) -> Record {
    let source = root().join("examples/downstream/src/lib.rs");
    let compiled = compile_file(&std::fs::read_to_string(source).expect("the example's source"));
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    let program = compiled.kernels[0].program.as_ref().expect("it compiles");
    let spec = Spec::new(Elem::Bf16, 128).k(512).w(512);
    let kernel = Kernel::from_program(program, &spec).expect("it is in the sets");
    let given = ["q", "k", "v", "u", "slope"];
    let given = given.map(|name| Given { name: name.to_owned(), per_head: false }).to_vec();
    let (instance, backward) = (kernel.instance(), kernel.backward_program());
    let problem = Problem { instance, backward, group: 4, given };
    let target = Target::named("sm_90a").expect("a target");
    let calls = sparsek::cuda::CallShape::group(4);
    let model = kernel.code(&calls, target).expect("it fits").schedule();
    Record {
        kernel: program.name.clone(),
        key: Key::new(&problem, 65_536, Gpu::new("NVIDIA H200", (9, 0))),
        schedule: schedule(model),
        how: How::Full,
        figures: Some(Figures {
            batch: 1,
            n: 65_536,
            heads: 32,
            kv_heads: 8,
            scores: "sd:1".to_owned(),
            plan_ms: 0.25,
            forward_ms: 2.5,
            backward_ms: 6.5,
            driver: "13.0".to_owned(),
            date: "2026-11-24T12:00:00Z".to_owned(),
        }),
    }
}

/// A schedule that was tuned from the example's source file is the one that the compiled crate runs with.
#[test]
fn the_example_runs_with_the_schedule_that_was_tuned_from_its_source() {
    copy_lock(&root().join("examples/downstream"));
    let folder = tempfile::tempdir().expect("a folder");
    let untuned = said(folder.path());
    assert!(untuned.contains("id         none\n") && untuned.contains("cost model"), "{untuned}");
    let record = record(|model| Schedule { chunk: 2 * model.chunk, ..model });
    import(folder.path(), &record);
    let tuned = said(folder.path());
    let id = record.id();
    assert!(tuned.contains(&format!("id         {id}\n")), "{id} is not in:\n{tuned}");
    assert!(tuned.contains(&format!("tuned, {id} of the store")), "{tuned}");
    assert!(tuned.contains(&format!("chunk {}\n", record.schedule.chunk)), "{tuned}");
    // The command line finds the same from the source file.
    let file = "examples/downstream/src/lib.rs";
    let doctor = sparsek(folder.path(), &["doctor", file, "--gpu", "NVIDIA H200"]);
    assert!(doctor.contains("AlibiCapped") && doctor.contains(&id), "{id} is not in:\n{doctor}");
    let kernel = "examples/downstream/src/lib.rs::AlibiCapped";
    let flags = "--head-dim 128 --k 512 --window 512 --group 4 --tuned".split(' ');
    let emit: Vec<&str> = ["emit", kernel, "--stage", "plan"]
        .into_iter()
        .chain(flags)
        .chain(["NVIDIA H200"])
        .collect();
    let plan = sparsek(folder.path(), &emit);
    assert!(plan.starts_with(&format!("{}\n", record.schedule)), "{plan}");
}

/// Takes the record into a store, as a user does with a file that `sparsek tune export` wrote elsewhere.
fn import(store: &Path, record: &Record) {
    let file = store.join("record.json");
    let manifest = Manifest::new([record.clone()]);
    std::fs::write(&file, manifest.to_json()).expect("the file is written");
    sparsek(store, &["tune", "import", file.to_str().expect("a plain name")]);
}

/// Standard output of the command line with that store.
fn sparsek(store: &Path, args: &[&str]) -> String {
    let mut command = Command::new(binary::sparsek());
    command.args(args).env("SPARSEK_TUNED_DIR", store).env_remove("SPARSEK_TUNED");
    output(command.current_dir(root()))
}
