//! Input that a kernel cannot take: a message, exit code 2, no file.

use crate::binary::{files, run};
use crate::case::Case;
use safetensors::tensor::Dtype;
use std::path::Path;

/// Runs `sparsek-value` on a case that `spoil` spoiled; nothing but the input may be left behind.
#[track_caller]
fn refused(spoil: impl FnOnce(&mut Case), flags: &str, words: &[&str]) {
    refused_by("sparsek-value", spoil, flags, words);
}

#[track_caller]
fn refused_by(kernel: &str, spoil: impl FnOnce(&mut Case), flags: &str, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::sound();
    spoil(&mut case);
    case.write(&folder.path().join("in.safetensors"));
    let line =
        format!("run {kernel} --input {{}}/in.safetensors --output {{}}/out.safetensors {flags}");
    run(folder.path(), &line).fails(2, words);
    assert_eq!(files(folder.path()), ["in.safetensors"]);
}

#[test]
fn a_sound_case_is_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    Case::sound().write(&folder.path().join("in.safetensors"));
    let line = "run sparsek-value --input {}/in.safetensors --output {}/out.safetensors --backward";
    run(folder.path(), line).succeeds();
    assert_eq!(files(folder.path()), ["in.safetensors", "out.safetensors"]);
}

#[test]
fn missing_tensors() {
    for name in ["q", "k", "v", "u"] {
        let spoil = |case: &mut Case| {
            case.tensors.remove(name);
        };
        refused(spoil, "", &["in.safetensors", &format!("`{name}`")]);
    }
    let spoil = |case: &mut Case| {
        case.tensors.remove("d_o");
    };
    refused(spoil, "--backward", &["in.safetensors", "`d_o`", "--backward"]);
    refused_by("sparsek-slope-softcap", |_| {}, "", &["in.safetensors", "`slope`", "PerHead"]);
}

#[test]
fn wrong_ranks() {
    refused(
        |c| {
            c.f32("q", &[40, 4, 16]);
        },
        "",
        &["`q`", "[40, 4, 16]", "[B, N, Hq, D]"],
    );
    refused(
        |c| {
            c.f32("k", &[2, 40, 32]);
        },
        "",
        &["`k`", "[2, 40, 32]"],
    );
    refused(
        |c| {
            c.f32("v", &[2, 40, 2, 16, 1]);
        },
        "",
        &["`v`", "[2, 40, 2, 16, 1]"],
    );
    refused(
        |c| {
            c.f32("u", &[160]);
        },
        "",
        &["`u`", "[160]"],
    );
    refused(
        |c| {
            c.f32("d_o", &[2, 40, 64]);
        },
        "--backward",
        &["`d_o`", "[2, 40, 64]"],
    );
}

#[test]
fn shapes_that_disagree() {
    refused(
        |c| {
            c.f32("k", &[2, 41, 2, 16]);
        },
        "",
        &["[2, 41, 2, 16]"],
    );
    refused(
        |c| {
            c.f32("k", &[1, 40, 2, 16]);
        },
        "",
        &["[1, 40, 2, 16]"],
    );
    refused(
        |c| {
            c.f32("v", &[2, 40, 1, 16]);
        },
        "",
        &["`v`", "[2, 40, 1, 16]"],
    );
    refused(
        |c| {
            c.f32("v", &[2, 40, 2, 32]);
        },
        "",
        &["`v`", "[2, 40, 2, 32]"],
    );
    refused(
        |c| {
            c.f32("u", &[2, 40, 2]);
        },
        "",
        &["`u`", "[2, 40, 2]"],
    );
    refused(
        |c| {
            c.f32("d_o", &[2, 40, 2, 16]);
        },
        "--backward",
        &["`d_o`", "[2, 40, 2, 16]"],
    );
    let slope = |c: &mut Case| {
        c.f32("slope", &[2]);
    };
    refused_by("sparsek-slope-softcap", slope, "", &["`slope`", "[2]"]);
    refused(
        |c| {
            c.f32("u", &[2, 2, 0]);
        },
        "",
        &["`u`", "[2, 2, 0]"],
    );
}

#[test]
fn heads_that_do_not_divide() {
    let spoil = |case: &mut Case| {
        for name in ["k", "v"] {
            case.f32(name, &[2, 40, 3, 16]);
        }
        case.f32("u", &[2, 3, 40]);
    };
    refused(spoil, "", &["4 query heads", "multiple", "3 key-value heads"]);
}

#[test]
fn element_types() {
    let f64s = |c: &mut Case| {
        c.raw("k", Dtype::F64, &[2, 40, 2, 16], vec![0; 2560 * 8]);
    };
    refused(f64s, "", &["`k`", "F64", "BF16"]);
    let integers = |c: &mut Case| {
        c.i32("v", &[2, 40, 2, 16], &[1; 2560]);
    };
    refused(integers, "", &["`v`", "i32", "f32"]);
    let scores = |c: &mut Case| {
        c.i32("u", &[2, 2, 40], &[1; 160]);
    };
    refused(scores, "", &["`u`", "i32", "f32"]);
    refused(
        |c| {
            c.text("elem", "f8");
        },
        "",
        &["elem", "\"f8\"", "bf16, f16, f32"],
    );
    refused(|_| {}, "--elem f64", &["--elem", "bf16, f16 or f32"]);
}

#[test]
fn an_element_type_outside_the_kernels_set() {
    let folder = tempfile::tempdir().unwrap();
    Case::sound().write(&folder.path().join("in.safetensors"));
    let source = "sparsek::sparsek_kernel! {
        pub kernel Half<E in [bf16, f16], D in [16, 32], K in 1..=8, W in 0..=8>(
            q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
        ) -> Output<E, D> {
            let gate = sparsek(u, K);
            let p = softmax(dot(q, k), causal & (topk(gate) | window(W)));
            dot(p * gate, v)
        }
    }";
    std::fs::write(folder.path().join("half.rs"), source).unwrap();
    let line = "run {}/half.rs --input {}/in.safetensors --output {}/out.safetensors";
    run(folder.path(), line).fails(2, &["Half", "f32", "bf16, f16", "--elem"]);
    assert_eq!(files(folder.path()), ["half.rs", "in.safetensors"]);
    // Asked for, the input is rounded, and that is said.
    let ran = run(folder.path(), &format!("{line} --elem bf16")).succeeds();
    assert!(ran.stderr.contains("`q` is stored in f32 and rounded to bf16"), "{}", ran.stderr);
}

#[test]
fn head_dimension_17() {
    let spoil = |case: &mut Case| {
        case.f32("q", &[2, 40, 4, 17]).f32("k", &[2, 40, 2, 17]).f32("v", &[2, 40, 2, 17]);
    };
    refused(spoil, "", &["head dimension = 17", "multiples_of(16) up to 256"]);
}

#[test]
fn extents_outside_their_sets() {
    for k in ["0", "-3", "99999999"] {
        refused(|_| {}, &format!("--k {k}"), &[&format!("k = {k}"), "1..=4096"]);
        refused(
            |c| {
                c.text("k", k);
            },
            "",
            &[&format!("k = {k}"), "1..=4096"],
        );
    }
    for w in ["-1", "99999999"] {
        refused(|_| {}, &format!("--window {w}"), &[&format!("window = {w}"), "0..=8192"]);
    }
    refused(
        |c| {
            c.text("k", "many");
        },
        "",
        &["`k`", "\"many\"", "integer"],
    );
    refused(|_| {}, "--k many", &["--k", "many"]);
    refused(|_| {}, "--k 99999999999999999999", &["--k"]);
    refused(|_| {}, "--set X=1", &["no parameter X", "K"]);
    refused(|_| {}, "--set X", &["NAME=INT"]);
    let unsaid = |case: &mut Case| {
        case.metadata.remove("k");
    };
    refused(unsaid, "", &["needs k", "--k", "metadata"]);
    let unsaid = |case: &mut Case| {
        case.metadata.remove("window");
    };
    refused(unsaid, "", &["needs window", "--window", "metadata"]);
}

#[test]
fn scores_that_are_not_numbers() {
    for (bad, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "+inf")] {
        let spoil = |case: &mut Case| {
            let mut u = vec![0.25; 160];
            u[2 * 40 + 40 + 7] = bad;
            case.values("u", &[2, 2, 40], &u);
        };
        refused(spoil, "", &["`u`", name, "[1, 1, 7]"]);
    }
}

#[test]
fn unusable_packed_sequences() {
    let packed = |bounds: &'static [i32]| {
        move |case: &mut Case| {
            for (name, shape) in
                [("q", [1, 80, 4, 16]), ("k", [1, 80, 2, 16]), ("v", [1, 80, 2, 16])]
            {
                case.f32(name, &shape);
            }
            case.f32("u", &[1, 2, 80]).i32("cu_seqlens", &[bounds.len()], bounds);
        }
    };
    for bounds in [&[0, 81][..], &[1, 80], &[0, 60, 40, 80], &[0], &[-1, 80], &[0, i32::MAX, 80]] {
        refused(packed(bounds), "", &["cu_seqlens"]);
    }
}

#[test]
fn unknown_kernels_and_devices() {
    refused_by("sparsek-valeu", |_| {}, "", &["sparsek-valeu", "sparsek-value"]);
    refused_by("attention", |_| {}, "", &["attention", "sparsek-value", "sparsek-hard", "FILE.rs"]);
    refused_by("missing.rs::K", |_| {}, "", &["missing.rs", "No such file"]);
    refused(|_| {}, "--device cuda:99", &["cuda:99 cannot be used"]);
    refused(|_| {}, "--device cuda:x", &["--device", "`x`"]);
    refused(|_| {}, "--device tpu", &["--device", "auto, cpu, cuda or cuda:N"]);
}

#[test]
fn files_with_several_kernels_or_wrong_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    Case::sound().write(&path("in.safetensors"));
    let kernel = |name: &str, weight: &str| {
        format!(
            "sparsek_kernel! {{ pub kernel {name}<E in [f32], D in [16], K in 1..=8, W in 0..=8>(
                q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
            ) -> Output<E, D> {{
                let gate = sparsek(u, K);
                let p = softmax(dot(q, k), causal & (topk(gate) | window(W)));
                dot({weight}, v)
            }} }}\n"
        )
    };
    let write = |name: &str, text: String| std::fs::write(path(name), text).unwrap();
    write("two.rs", kernel("One", "p * gate") + &kernel("Two", "p"));
    write("wrong.rs", kernel("Wrong", "p * p"));
    write("none.rs", "fn main() {}\n".to_owned());
    std::fs::write(path("binary.rs"), [0xff, 0xfe, 0x00]).unwrap();
    let flags = "--input {}/in.safetensors --output {}/out.safetensors";
    let before = files(folder.path());
    let refused = |target: &str, words: &[&str]| {
        run(folder.path(), &format!("run {{}}/{target} {flags}")).fails(2, words);
        assert_eq!(files(folder.path()), before, "{target}");
    };
    refused("two.rs", &["2 kernels", "two.rs::One", "two.rs::Two"]);
    refused("two.rs::Three", &["Three", "two.rs::One", "two.rs::Two"]);
    refused("wrong.rs", &["wrong.rs:", "p * p"]);
    refused("none.rs", &["no kernel", "sparsek_kernel!"]);
    refused("binary.rs", &["UTF-8"]);
    run(folder.path(), &format!("run {{}}/two.rs::Two {flags}")).succeeds();
    assert!(path("out.safetensors").exists());
}

/// Arguments that are no command line at all.
#[test]
fn bad_usage() {
    let here = Path::new(".");
    run(here, "run").fails(2, &["--input", "--output"]);
    run(here, "").fails(2, &["Usage"]);
    run(here, "runn sparsek-value").fails(2, &["runn", "run"]);
    run(here, "run sparsek-value --inptu x --output y").fails(2, &["--inptu", "--input"]);
}
