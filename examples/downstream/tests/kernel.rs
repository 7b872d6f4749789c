//! The kernel's generated code and its results.

use downstream::{AlibiCapped, AlibiCappedInputs, KV_HEADS, QUERY_HEADS, attention, slopes};
use sparsek::codegen::Target;
use sparsek::cuda::{CallShape, Module};
use sparsek::{Elem, Spec, TensorView};

/// The CUDA C that an A100 runs. An edit of the kernel, or a release of sparsek that generates other
/// code, fails here before it runs anywhere.
#[test]
fn generated_code_is_reviewed() {
    let a100 = Target::named("sm_80").unwrap();
    let group = (QUERY_HEADS / KV_HEADS) as u32;
    let code = attention().unwrap().kernel().code(&CallShape::group(group), a100).unwrap();
    let command = "INSTA_UPDATE=always cargo test";
    insta::with_settings!({
        description => format!("after a deliberate change, update with\n{command}"),
        omit_expression => true,
    }, {
        insta::assert_snapshot!("forward", code.cuda(Module::Forward).unwrap());
        insta::assert_snapshot!("backward_plan", code.plan(Module::Backward).unwrap());
    });
}

/// With one head, a steep slope leaves each query its own key; without one, window and selection share.
#[test]
fn slopes_fade_what_is_far() {
    let (n, d) = (24, 16);
    let zero = vec![0.0f32; n * d];
    let ramp: Vec<f32> = (0..n * d).map(|i| (i / d) as f32).collect();
    let scores: Vec<f32> = (0..n).map(|i| (i as f32).sin()).collect();
    let kernel = AlibiCapped::new(Spec::new(Elem::F32, d as i64).k(4).w(6)).unwrap();
    let last = |slope: f32| {
        let vectors = |x| TensorView::new(&[1, n, 1, d], x).unwrap();
        let slope = [slope];
        let inputs = AlibiCappedInputs {
            q: vectors(zero.as_slice()),
            k: vectors(zero.as_slice()),
            v: vectors(ramp.as_slice()),
            u: TensorView::new(&[1, 1, n], scores.as_slice()).unwrap(),
            slope: TensorView::new(&[1], slope.as_slice()).unwrap(),
        };
        let forward = kernel.forward(&inputs).unwrap();
        let gradients = kernel.backward(&inputs, &forward, &vectors(ramp.as_slice())).unwrap();
        assert_eq!(gradients.get("d_slope").unwrap().shape(), [1]);
        forward.o.to_f32()[(n - 1) * d]
    };
    assert!((last(100.0) - (n - 1) as f32).abs() < 1e-3, "{}", last(100.0));
    assert!(last(0.0) < last(1.0) && last(1.0) < (n - 1) as f32);
    assert_eq!(slopes(8)[0], 0.5);
}
