//! What the references say about inputs that do not fit, and shapes that inputs may have.

use sparsek_dsl::Elem;
use sparsek_dsl::backward::derive;
use sparsek_dsl::ir::Program;
use sparsek_dsl::parse::compile_file;
use sparsek_reference::brute::{self, Attention, Gate};
use sparsek_reference::dense::{self, Options};
use sparsek_reference::generate::{self, Scores, Shape};
use sparsek_reference::{Array, Arrays, Error};

fn form() -> Attention {
    Attention { k: 3, window: 2, sinks: 0, gate: Gate::Both, scale: None, softcap: None }
}

fn shape() -> Shape {
    Shape { batch: 2, n: 9, hq: 4, hkv: 2 }
}

fn problem() -> (Program, Arrays) {
    let program = generate::program(&form(), Elem::F32, 16, true);
    let inputs = generate::inputs(1, &program, &shape(), Scores::Normal(1.0)).expect("an instance");
    (program, inputs)
}

/// Changes one input and returns what both references say.
fn errors(change: impl Fn(&mut Arrays), cu_seqlens: Option<&[i32]>) -> [String; 2] {
    let (program, mut inputs) = problem();
    change(&mut inputs);
    let options = Options { cu_seqlens, ..Options::default() };
    let text = |e: Option<Error>| e.map(|e| e.to_string()).unwrap_or_default();
    [
        text(brute::run(&form(), &inputs, cu_seqlens).err()),
        text(dense::run(&program, &inputs, &options).err()),
    ]
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let put = |name: &'static str, shape: &'static [usize]| {
        move |inputs: &mut Arrays| {
            inputs.insert(name.to_owned(), Array::zeros(shape));
        }
    };
    let has = |texts: [String; 2], part: &str| {
        assert!(texts.iter().all(|t| t.contains(part)), "{part:?} not in {texts:?}");
    };
    has(errors(|i| drop(i.remove("k")), None), "input k is missing");
    has(errors(|i| drop(i.remove("u")), None), "input u is missing");
    has(
        errors(put("q", &[2, 9, 64]), None),
        "input q has shape [2, 9, 64] and needs [B, N, Hq, D]",
    );
    has(
        errors(put("v", &[2, 9, 2, 32]), None),
        "input v has shape [2, 9, 2, 32] and needs [2, 9, 2, 16]",
    );
    has(errors(put("u", &[2, 9, 2]), None), "input u has shape [2, 9, 2] and needs [2, 2, 9]");
    has(errors(put("slope", &[3]), None), "input slope has shape [3] and needs [4]");
    has(errors(put("k", &[2, 9, 3, 16]), None), "4 query heads cannot share 3 key-value heads");
    has(errors(put("k", &[2, 9, 0, 16]), None), "4 query heads cannot share 0 key-value heads");
    has(errors(|_| {}, Some(&[0, 9])), "cu_seqlens packs sequences into one batch entry");
    assert!(Array::new(&[2, 3], vec![0.0; 5]).is_err());
    assert!(Array::new(&[usize::MAX, 2], vec![]).is_err());
}

#[test]
fn sequence_boundaries_must_rise_from_zero_to_the_end() {
    let (program, _) = problem();
    let one = Shape { batch: 1, ..shape() };
    let inputs = generate::inputs(1, &program, &one, Scores::Equal).expect("an instance");
    for bounds in [&[][..], &[0], &[0, 8], &[1, 9], &[0, 7, 5, 9], &[0, -1, 9], &[0, 12, 9]] {
        let options = Options { cu_seqlens: Some(bounds), ..Options::default() };
        let found = dense::run(&program, &inputs, &options);
        assert!(matches!(found, Err(Error::Sequences(_))), "{bounds:?}");
        assert!(brute::run(&form(), &inputs, Some(bounds)).is_err(), "{bounds:?}");
    }
}

#[test]
fn nothing_at_all_is_fine() {
    let (program, _) = problem();
    for (batch, n, hq) in [(0, 9, 4), (2, 0, 4), (0, 0, 4), (2, 9, 0)] {
        let empty = Shape { batch, n, hq, hkv: 2 };
        let inputs = generate::inputs(1, &program, &empty, Scores::Equal).expect("an instance");
        brute::run(&form(), &inputs, None).expect("an empty problem");
        dense::run_both(&program, &derive(&program), &inputs, &Options::default())
            .expect("an empty problem");
    }
}

#[test]
fn a_program_with_parameters_must_be_instantiated() {
    let generated = (0..).map(|seed| generate::random(seed, 9));
    let with_parameters = generated.into_iter().find(|g| !g.program.params.is_empty());
    let program = with_parameters.expect("some have parameters").program;
    let (_, inputs) = problem();
    let error = dense::run(&program, &inputs, &Options::default()).expect_err("not an instance");
    assert!(error.to_string().contains("instantiate it first"), "{error}");
    assert!(generate::inputs(1, &program, &shape(), Scores::Equal).is_err());
}

/// A kernel with an input of every class, PerQuery and PerKey ones given with heads or without.
const BIASED: &str = "
pub kernel Biased(
    q: Query<f32, 16>, k: Key<f32, 16>, v: Key<f32, 16>, u: PerKey,
    x: PerQuery, y: PerKey, factor: Scalar = 0.5,
) -> Output<f32, 16> {
    let gate = sparsek(u, 3);
    let seen = causal & (topk(gate) | window(2));
    let p = softmax(dot(q, k) * 0.25 + factor * (tanh(x) + sigmoid(x * y)), seen);
    dot(p * gate, v)
}
";

#[test]
fn an_input_without_heads_is_one_with_equal_heads() {
    let compiled = compile_file(BIASED);
    assert!(compiled.diagnostics.is_empty(), "{:?}", compiled.diagnostics);
    let program = compiled.kernels[0].program.clone().expect("it compiles");
    let backward = derive(&program);
    let mut flat =
        generate::inputs(4, &program, &shape(), Scores::Normal(1.0)).expect("an instance");
    flat.insert("x".to_owned(), generate::normals(1, &[2, 9]));
    flat.insert("y".to_owned(), generate::normals(2, &[2, 9]));
    flat.insert("factor".to_owned(), Array::filled(&[1], 0.5));
    let mut by_head = flat.clone();
    by_head.remove("factor");
    for (name, heads) in [("x", 4), ("y", 2)] {
        let repeated = flat[name].data().iter().flat_map(|x| vec![*x; heads]).collect();
        let array = Array::new(&[2, 9, heads], repeated).expect("repeated over heads");
        by_head.insert(name.to_owned(), array);
    }
    let run = |inputs: &Arrays| {
        dense::run_both(&program, &backward, inputs, &Options::default()).expect("valid inputs")
    };
    let ((a, da), (b, db)) = (run(&flat), run(&by_head));
    assert_eq!(a.outputs, b.outputs);
    assert_eq!(da.outputs["d_factor"], db.outputs["d_factor"]);
    for (name, heads) in [("d_x", 4), ("d_y", 2)] {
        let sums: Vec<f64> =
            db.outputs[name].data().chunks(heads).map(|c| c.iter().sum()).collect();
        assert_eq!(da.outputs[name].shape(), [2, 9]);
        for (got, want) in da.outputs[name].data().iter().zip(sums) {
            assert!((got - want).abs() <= 1e-14, "{name}: {got} and {want}");
        }
    }
}
