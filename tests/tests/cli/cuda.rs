//! Generated code, devices, benchmarks and the cache from the command line, without a GPU.

use crate::binary::{Ran, command, files, run};
use crate::case::Case;
use sparsek::cuda::{Image, Module};
use std::fs;
use std::path::Path;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

const SHAPE: &str = "--head-dim 64 --k 64 --window 32 --group 2";

/// Runs a command line with variables of the environment set.
fn with(folder: &Path, variables: &[(&str, &str)], line: &str) -> Ran {
    let mut command = command(folder, line);
    let folder = folder.to_str().expect("temporary folders have plain names");
    for (name, value) in variables {
        command.env(name, value.replace("{}", folder));
    }
    Ran::of(&command.output().expect("the binary starts"))
}

/// A machine's own GPU is hidden, so that every machine says the same.
const HIDDEN: (&str, &str) = ("CUDA_VISIBLE_DEVICES", "");

#[test]
fn a_device_that_is_not_there_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    Case::sound().write(&folder.path().join("in.safetensors"));
    let input = "--input {}/in.safetensors";
    for line in [
        format!("run sparsek-value {input} --output {{}}/out.safetensors --device cuda"),
        format!("plan sparsek-value {input} --device cuda:0"),
        "verify sparsek-value --cases 1 --device cuda".to_owned(),
        "verify --suite --device cuda".to_owned(),
        "bench --device cuda --seq 64".to_owned(),
    ] {
        let ran = with(folder.path(), &[HIDDEN], &line);
        ran.fails(2, &["cuda:0 cannot be used", "CUDA", "--device cpu"]);
    }
    assert_eq!(files(folder.path()), ["in.safetensors"]);
    let line = format!("run sparsek-value {input} --output {{}}/out.safetensors");
    let ran = with(folder.path(), &[HIDDEN], &line).succeeds();
    assert!(ran.stdout.contains("on the CPU"), "{}", ran.stdout);
}

#[test]
fn plans_and_cuda_need_no_cuda() {
    let folder = tempfile::tempdir().unwrap();
    let missing = [HIDDEN, ("SPARSEK_NVRTC", "/nonexistent")];
    let emit = |line: &str| {
        with(folder.path(), &missing, &format!("emit sparsek-value {SHAPE} {line}"))
            .succeeds()
            .stdout
    };
    let plan = emit("--stage plan");
    for word in ["chunk", "forward", "backward", "SparsekValue", "sm_90a"] {
        assert!(plan.contains(word), "{word:?} is not in:\n{plan}");
    }
    assert!(emit("--stage plan --json").starts_with('{'));
    for module in ["plan", "forward", "backward"] {
        for target in ["sm_80", "sm_120a"] {
            let source = emit(&format!("--stage cuda --module {module} --target {target}"));
            assert!(source.contains("__global__") && source.contains("Arguments"), "{source}");
            // The same bytes wherever and whenever it is made.
            assert_eq!(source, emit(&format!("--stage cuda --module {module} --target {target}")));
        }
    }
}

#[test]
fn machine_code_and_its_resources() {
    let folder = tempfile::tempdir().unwrap();
    let emit = format!("emit sparsek-value {SHAPE} --target sm_80");
    let ran = run(folder.path(), &format!("{emit} --stage cubin --output {{}}/f.cubin")).succeeds();
    let cubin = fs::read(folder.path().join("f.cubin")).unwrap();
    assert!(cubin.starts_with(b"\x7fELF"));
    for word in ["registers", "spilled", "shared", "sm_80"] {
        assert!(ran.stderr.contains(word), "{word:?} is not in:\n{}", ran.stderr);
    }
    let ptx = run(folder.path(), &format!("{emit} --stage ptx --module plan")).succeeds();
    assert!(ptx.stdout.contains(".target sm_80"), "{}", ptx.stdout);
    let missing = [("SPARSEK_NVRTC", "/nonexistent")];
    for stage in ["ptx", "cubin"] {
        let line = format!("{emit} --stage {stage} --output {{}}/no.bin");
        with(folder.path(), &missing, &line).fails(2, &["NVRTC", "SPARSEK_NVRTC", "/nonexistent"]);
    }
    assert_eq!(files(folder.path()), ["f.cubin"]);
}

/// Of texts whose kernels are compiled side by side ptxas prints its remarks past the log: that it added waits between products,
/// for one, which would also take time.
#[test]
fn the_compiler_has_no_remarks() {
    let folder = tempfile::tempdir().unwrap();
    for (kernel, module) in [
        ("sparsek-value", "forward"),
        ("sparsek-value", "backward"),
        ("sparsek-slope-softcap", "backward"),
    ] {
        let line = format!(
            "emit {kernel} {SHAPE} --target sm_90a --stage cubin --module {module} --output {{}}/f.cubin"
        );
        let ran = run(folder.path(), &line).succeeds();
        assert!(!ran.stderr.contains("ptxas"), "{}", ran.stderr);
    }
}

#[test]
fn images_hold_all_that_a_launch_needs() {
    let folder = tempfile::tempdir().unwrap();
    let emit = |line: &str, variables: &[(&str, &str)]| {
        let line = format!("emit sparsek-slope-softcap {SHAPE} --target sm_80 {line}");
        with(folder.path(), variables, &line)
    };
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    // Another place than a cache: whoever ships an image keeps the file.
    let place = [("SPARSEK_CACHE_DIR", "{}/cache")];
    let ran = emit("--image --output {}/all.image", &place).succeeds();
    for word in ["plan of SparsekSlopeSoftcap", "forward of", "backward of", "registers"] {
        assert!(ran.stderr.contains(word), "{word:?} is not in:\n{}", ran.stderr);
    }
    let images = Image::all_from_bytes(&read("all.image")).unwrap();
    assert_eq!(images.iter().map(Image::module).collect::<Vec<_>>(), Module::ALL);
    for image in &images {
        assert_eq!((image.kernel(), image.target()), ("SparsekSlopeSoftcap", "sm_80"));
        assert!(image.cubin().starts_with(b"\x7fELF"));
        let launches = &image.interface().launches;
        let entries = image.resources();
        assert!(launches.iter().all(|l| entries.iter().any(|r| r.entry == l.entry)));
        let again = Image::from_bytes(&image.to_bytes().unwrap()).unwrap();
        assert_eq!(&again, image);
    }
    // One module is one image, and its code is what --cubin writes.
    emit("--stage image --module forward --output {}/one.image", &place).succeeds();
    let one = Image::from_bytes(&read("one.image")).unwrap();
    assert_eq!(one, images[1]);
    emit("--cubin --output {}/one.cubin", &place).succeeds();
    assert_eq!(read("one.cubin"), one.cubin());
    // Fewer gradients are another image.
    emit("--image --module backward --wanted d_q --output {}/q.image", &place).succeeds();
    let fewer = Image::from_bytes(&read("q.image")).unwrap();
    assert!(fewer.interface().launches.len() < images[2].interface().launches.len());
    assert_eq!(files(folder.path()), ["all.image", "one.cubin", "one.image", "q.image"]);
    emit("--image --output {}/no.image", &[("SPARSEK_NVRTC", "/nonexistent")])
        .fails(2, &["NVRTC", "/nonexistent"]);
    emit("--image --without slope --output {}/no.image", &[]).fails(2, &["slope", "left out"]);
    emit("--image --shared u --output {}/no.image", &[]).fails(2, &["`u`", "head axis"]);
    emit("--image --wanted d_x --output {}/no.image", &[]).fails(2, &["d_x", "d_slope"]);
    let nothing = [("SPARSEK_TUNED_DIR", "{}/tuned")];
    emit("--image --tuned A100 --output {}/no.image", &nothing)
        .fails(2, &["no schedule", "A100 (8.0), N 65536", "sparsek tune"]);
    emit("--image --seq 4", &[]).fails(2, &["--tuned"]);
    emit("--image --cubin", &[]).fails(2, &["--image", "--cubin"]);
    emit("--image --stage ir", &[]).fails(2, &["--image", "--stage"]);
}

/// The repository shows what the command line says.
#[test]
fn the_generated_files_are_what_emit_prints() {
    for file in sparsek_kernels::generated::files() {
        // Schedules of other targets may have been measured, and emit gives the model's.
        if !file.text.lines().any(|line| line.starts_with("// target    sm_80")) {
            continue;
        }
        let (module, kernel) = file.path[10..file.path.len() - 3].split_once('_').unwrap();
        let line = format!(
            "emit {kernel} --stage cuda --module {module} --target sm_80 --head-dim 128 --k 512 \
             --window 512 --group 4"
        );
        assert_eq!(run(Path::new("."), &line).succeeds().stdout, file.text, "{}", file.path);
    }
}

#[test]
fn windows_of_any_length_stay_in_32_bits() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = "sparsek_kernel! {
        pub kernel Whole<E in [bf16], D in [64], W in 0..=2147483647>(q: Query<E, D>, k: Key<E, D>, v: Value<E, D>) -> Output<E, D> {
            dot(softmax(dot(q, k) * rsqrt(D), causal & window(W)), v)
        }
    }";
    fs::write(folder.path().join("whole.rs"), kernel).unwrap();
    let emit = |window: &str| {
        let line = format!(
            "emit {{}}/whole.rs --stage cuda --head-dim 64 --target sm_90a --window {window}"
        );
        run(folder.path(), &line).succeeds().stdout
    };
    assert!(emit("1000").contains("int WINDOW = 1000;"));
    for window in ["1073741824", "2147483647"] {
        assert!(emit(window).contains("int WINDOW = 1073741824;"), "{window}");
    }
}

/// Where each warpgroup of a tile sees a part of its window, columns begin with that.
#[test]
fn the_window_comes_first_where_warpgroups_see_parts_of_it() {
    let begins_with_window = |window: &str, group: &str, schedule: &str| {
        let line =
            "emit sparsek-value --stage cuda --module forward --target sm_90a --head-dim 64 --k 64";
        let mut command = command(Path::new("."), line);
        command.args(["--window", window, "--group", group, "--schedule", schedule]);
        let text = Ran::of(&command.output().expect("the binary starts")).succeeds().stdout;
        text.contains("enum Stretch { BEFORE")
    };
    let three = "forward: q 192 kv 64 warps 16";
    assert!(begins_with_window("100", "1", three) && begins_with_window("100", "2", three));
    // One warpgroup's 64 rows are all positions of the tile, there is no window, or two warpgroups.
    assert!(!begins_with_window("100", "3", three) && !begins_with_window("0", "1", three));
    assert!(!begins_with_window("100", "1", "forward: q 128 kv 64 warps 12"));
}

#[test]
fn emit_refuses_what_it_cannot_do() {
    let here = Path::new(".");
    let emit = |line: &str| run(here, &format!("emit sparsek-value {line}"));
    emit(&format!("--stage cuda {SHAPE} --target sm_70")).fails(2, &["sm_70", "sm_80", "sm_90a"]);
    emit("--stage cuda --k 4 --window 4").fails(2, &["head dimension", "--head-dim"]);
    emit("--stage cuda --head-dim 64 --window 4").fails(2, &["k", "--k"]);
    emit("--stage cuda --head-dim 17 --k 4 --window 4").fails(2, &["17", "multiples_of(16)"]);
    emit(&format!("--stage cuda --json {SHAPE}")).fails(2, &["--json"]);
    emit("--stage cuda --head-dim 64 --k 4 --window 4 --group 0").fails(2, &["--group"]);
    emit(&format!("--stage sass {SHAPE}")).fails(2, &["--stage", "cubin"]);
    let schedule = |text: &str| {
        let mut command = command(here, &format!("emit sparsek-value --stage plan {SHAPE}"));
        Ran::of(&command.arg("--schedule").arg(text).output().expect("the binary starts"))
    };
    let plan = schedule("forward: family sm80 q 64 kv 32 warps 2; chunk 256").succeeds().stdout;
    assert!(plan.contains("chunk 256") && plan.contains("kv 32; warps 2"), "{plan}");
    schedule("forward: q 24").fails(2, &["schedule", "16"]);
    schedule("forward: warps 2").fails(2, &["sm90", "four warps", "family sm80"]);
    schedule("backward: stages 1").fails(2, &["sm90", "at least 2"]);
    schedule("forward: q 256 kv 256 warps 8 stages 8 family sm80")
        .fails(2, &["bytes of shared memory", "sm_90a"]);
    schedule("forward q 64").fails(2, &["--schedule", "forward: q"]);
}

#[test]
fn bench_on_the_cpu_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        "bench --device cpu --seq 64,128 --heads 2/1 --head-dim 16 --k 8 --window 8 --iterations 2";
    let table = run(folder.path(), line).succeeds().stdout;
    assert!(table.contains("forward ms") && table.contains("128"), "{table}");
    let line = format!(
        "{line} --scores sd:0.1,trend:0.01:0.001 --json {{}}/times.json --svg {{}}/times.svg --ceiling 1"
    );
    let table = run(folder.path(), &line).succeeds().stdout;
    assert!(table.contains("trend:0.01:0.001") && table.contains("sd:0.1"), "{table}");
    let json = fs::read_to_string(folder.path().join("times.json")).unwrap();
    assert!(json.contains("\"rows\"") && json.contains("\"floor_ms\""), "{json}");
    let svg = fs::read_to_string(folder.path().join("times.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    let line =
        "bench --device cpu --seq 64 --heads 1/1 --head-dim 16 --forward-only --iterations 1";
    let table = run(folder.path(), line).succeeds().stdout;
    assert!(table.contains("forward ms") && !table.contains("backward"), "{table}");
    for (flags, words) in [
        ("--heads 3/2", ["--heads", "32/8"]),
        ("--seq 0", ["--seq", "0"]),
        ("--scores loud", ["--scores", "sd:NUMBER"]),
        ("--first-call", ["--first-call", "--device cuda"]),
        ("--ceiling 0", ["--ceiling", "tera"]),
        ("--schedule chunk", ["--schedule", "forward: q"]),
        ("--schedule chunk=1", ["--schedule", "forward: q"]),
        ("--iterations 0", ["--iterations", "0"]),
    ] {
        let line = format!("bench --device cpu --seq 64 --head-dim 16 {flags}");
        let line = line.replace("--seq 64 --head-dim 16 --seq", "--head-dim 16 --seq");
        run(folder.path(), &line).fails(2, &words);
    }
}

#[test]
fn the_suite_runs_on_the_cpu() {
    let here = Path::new(".");
    let line = "verify --suite --device cpu --small --cases 12 --seed 3";
    let ran = run(here, line).succeeds();
    for word in ["random   12        12", "every result is accepted", "d_u"] {
        assert!(ran.stdout.contains(word), "{word:?} is not in:\n{}", ran.stdout);
    }
    let folder = tempfile::tempdir().unwrap();
    let only = "verify --suite --device cpu --only golden:ties --only random:7 --only rows:1";
    let ran =
        run(folder.path(), &format!("{only} --golden {GOLDEN} --json {{}}/suite.json")).succeeds();
    for word in ["golden    1         1", "random    1         1", "rows      1         1"] {
        assert!(ran.stdout.contains(word), "{word:?} is not in:\n{}", ran.stdout);
    }
    let json = fs::read_to_string(folder.path().join("suite.json")).unwrap();
    assert!(json.contains("\"golden:ties\"") && json.contains("\"failures\": []"), "{json}");
    // What does not exist is said, and the rest is run.
    let ran = run(here, "verify --suite --device cpu --only golden:none --only random:7");
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    for word in ["--only golden:none", "random    1         1"] {
        assert!(ran.stdout.contains(word), "{word:?} is not in:\n{}", ran.stdout);
    }
    run(here, "verify --suite --limit 0").fails(2, &["--limit"]);
    run(here, "verify --suite --only nothing").fails(2, &["--only", "random:SEED"]);
    run(here, "verify --suite --golden /nonexistent --device cpu").fails(2, &["/nonexistent"]);
    run(here, "verify sparsek-value --small").fails(2, &["--suite"]);
}

#[test]
fn the_cache_is_listed_checked_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let place = [("SPARSEK_CACHE_DIR", "{}/cache")];
    let cache = |what: &str| with(folder.path(), &place, &format!("cache {what}"));
    for what in ["list", "verify", "clear"] {
        let ran = cache(what).succeeds();
        assert!(ran.stdout.contains("0 entries"), "{}", ran.stdout);
    }
    cache("empty").fails(2, &["empty", "sparsek cache"]);
    cache("").fails(2, &["list"]);
}
