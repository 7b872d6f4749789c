//! Peak memory of a forward and backward call, in a process of its own.

use sparsek::{Elem, Inputs, Kernel, Options, Spec, TensorView};

const N: usize = 65_536;
const HQ: usize = 8;
const HKV: usize = 2;
const D: usize = 64;

/// The most resident memory this process has had, in bytes; `None` where the system does not say.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib * 1024)
}

/// Numbers between −1 and 1 that do not repeat for a while.
fn numbers(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * step).sin()).collect()
}

/// At most 1.3 × (inputs + outputs) + 64 MiB: no N × N anything, no second copy of anything.
#[test]
fn peak_memory_is_inputs_and_outputs_and_little_more() {
    let program = sparsek_kernels::builtin("sparsek-value").expect("built in").program().unwrap();
    let spec = Spec::new(Elem::F32, D as i64).k(256).w(256);
    let kernel = Kernel::from_program(&program, &spec).expect("values of the sets");
    let (q, d_o) = (numbers(N * HQ * D, 0.37), numbers(N * HQ * D, 0.91));
    let (k, v) = (numbers(N * HKV * D, 0.53), numbers(N * HKV * D, 0.71));
    let u = numbers(HKV * N, 12.9898);
    let rows = |heads, x| TensorView::new(&[1, N, heads, D], x).expect("they agree");
    let inputs = Inputs::new()
        .with("q", rows(HQ, q.as_slice()))
        .with("k", rows(HKV, k.as_slice()))
        .with("v", rows(HKV, v.as_slice()))
        .with("u", TensorView::new(&[1, HKV, N], u.as_slice()).expect("they agree"));
    let options = Options::default();
    let forward = kernel.forward(&inputs, &options).expect("it runs");
    let gradients = kernel.backward(&inputs, &forward, &rows(HQ, d_o.as_slice()), &options);
    let gradients = gradients.expect("it runs");

    let given = 4 * (q.len() + k.len() + v.len() + u.len() + d_o.len());
    let own = [&forward.o, &forward.lse, &forward.tau, &forward.expiry];
    let results = own.into_iter().chain(gradients.iter().map(|(_, t)| t));
    let returned: usize = results.map(|t| 4 * t.shape().iter().product::<usize>()).sum();
    let limit = (given + returned) as f64 * 1.3 + 64.0 * 1024.0 * 1024.0;
    let Some(peak) = peak() else {
        println!("this system does not report peak memory");
        return;
    };
    println!("peak {peak}, inputs and outputs {}, limit {limit}", given + returned);
    assert!((peak as f64) <= limit, "peak {peak} bytes, limit {limit}");
}
