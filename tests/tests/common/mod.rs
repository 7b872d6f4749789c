//! Kernels that several tests use.
#![allow(dead_code, reason = "each test uses some of them")]

/// A kernel that uses most of the language.
pub(crate) const FULL: &str = "\
/// SPARSEK attention with a sliding window, sinks and ALiBi; soft gate on the values.
pub kernel SparsekWindow<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192, C in [1, 2]>(
    q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    slope: PerHead = 0.0, doc_q: PerQuery<i32>, doc_k: PerKey<i32>, scale: Scalar = rsqrt(D),
) -> Output<E, D> {
    let gate = sparsek(u, K);
    let seen = causal & (topk(gate) | window(W) | sinks(4)) & (doc_q == doc_k);
    let s = softcap(dot(q, k) * scale + slope * (k.pos - q.pos), 30.0 * C);
    let p = softmax(s, seen);
    dot(p * gate, v)
}
schedule { forward { tile q in [64, 128], kv in [32, 64, 128]; warps in [4, 8, 12]; stages in [1, 2, 3, 4]; } }
";

/// The signature that the bodies of [`SAMPLES`] stand in.
pub(crate) fn kernel(body: &str) -> String {
    let extra: String = [
        ("slope", "slope: PerHead = -0.25"),
        ("bias", "bias: PerKey"),
        ("temperature", "temperature: PerQuery = rsqrt(D) * 2.0"),
        ("scale", "scale: Scalar = rsqrt(D)"),
        ("doc_q", "doc_q: PerQuery<i32>"),
        ("doc_k", "doc_k: PerKey<i32> = -1"),
        ("lag", "lag: PerHead<i32> = 3"),
        ("u", "u: PerKey"),
    ]
    .iter()
    .filter(|(name, _)| {
        body.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name)
    })
    .map(|(_, declaration)| format!("{declaration}, "))
    .collect();
    let has = |name: &str| body.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
    let k = if has("K") { ", K in 1..=4096" } else { "" };
    let w = if has("W") { ", W in [0, 16, 512]" } else { "" };
    let c = if has("C") { ", C in -4..=4" } else { "" };
    format!(
        "kernel Sample<E in [bf16, f32], D in multiples_of(16) up to 256{k}{w}{c}>(\
         q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, {extra}) -> Output<E, D> {{ {body} }}"
    )
}

/// Bodies of kernels that are right.
pub(crate) const SAMPLES: &[&str] = &[
    // Gate on the values, on the keys, on both, nowhere, straight through.
    "let gate = sparsek(u, K); dot(softmax(dot(q, k), causal & (topk(gate) | window(W))) * gate, v)",
    "let gate = sparsek(u, K); dot(softmax(dot(q, k) * gate, causal & (topk(gate) | window(W))), v)",
    "let m = sparsek(u, K); dot(m * softmax(m * dot(k, q), causal & (window(W) | topk(m))) / 2.0, v)",
    "dot(softmax(dot(q, k), causal & topk(sparsek(u, 8))), v)",
    "let g = sparsek(u, K); let p = softmax(dot(q, k), (topk(g) | sinks(2)) & causal);
     dot(v, p * straight_through(g))",
    // Scores that are expressions.
    "let g = sparsek(u * scale + k.pos * 0.001 - bias, 7); dot(softmax(dot(q, k), causal & topk(g)) * g, v)",
    "let g = sparsek(sigmoid(bias) / max(abs(u), 1e-3) + k.head + batch, K);
     dot(softmax(dot(q, k), causal & topk(g)) * g, v)",
    // Every function, signs and associativity.
    "let x = dot(q, k) - (temperature - (bias - 1.0)) - 2.0;
     let y = -x * -1.5 / (x * x / (bias * 2.0)) + --x;
     let z = select((x > 0.0) | !(bias < 1.0) & (lag != q.pos), clamp(y, -1.0, 1.0), softcap(y, 3));
     let s = exp(-abs(z)) + log(1.0 + z * z) * tanh(z) - sigmoid(z) + min(z, 1) - max(z, x) + rsqrt(1 + z * z);
     dot(softmax(s, causal & window(0)), v)",
    // Predicates of every form, flattened through names.
    "let near = (q.pos - k.pos < 64.0) & (doc_q == doc_k);
     let seen = near & causal & (window(W) | sinks(0)) & ((q.head < C) | (k.head == q.head)) & !(doc_k == -1);
     let s = dot(q, k) + select(near, 1.0, -0.0);
     dot(softmax(s, seen, sink = slope * q.head), v)",
    // A sink that is zero, linear weights in every form.
    "let p = softmax(dot(q, k), causal & window(9), sink = 0);
     dot(select(bias > 0.0, p, 0.0) - p * slope / (1.0 + bias * bias) + -p, v)",
    // Integers in arithmetic and in comparisons.
    "let n = 3; let s = dot(q, k) * n + C * 2 - lag;
     dot(softmax(s, causal & window(4) & (lag <= n) & (doc_q + 1 > doc_k) & (D >= 32)), v)",
    // A default that shares an operation with a named value of the body.
    "let root = rsqrt(D); let twice = root * 2.0;
     dot(softmax(dot(q, k) * twice * root + temperature, causal & window(4)), v)",
    // Names that the printer would choose itself.
    "let t = dot(q, k); let seen = t * t; let gate = seen + t; let t2 = gate * gate + exp(gate * seen);
     let p = t2 + exp(gate * seen); let r = softmax(p, causal & window(3)); let out = dot(r, v); out",
];
