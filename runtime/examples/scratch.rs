use sparsek::dsl::ir::*;
use sparsek::dsl::{Elem, Span};
use sparsek::*;
use std::collections::HashMap;
pub fn program(gate_kind: &str, sinks: u32, softcap: f32, slope: bool) -> Program {
    let mut b = Builder::new();
    let vec = |c| Type::new(c, Kind::Vector);
    let inp =
        |n: &str, role, ty| Input { name: n.into(), role, ty, default: None, span: Span::NONE };
    let qi = b.input(inp("q", Role::Query, vec(Class::PerQuery)));
    let ki = b.input(inp("k", Role::Key, vec(Class::PerKey)));
    let vi = b.input(inp("v", Role::Value, vec(Class::PerKey)));
    let ui = b.input(inp("u", Role::Score, Type::f32(Class::PerKey)));
    let si = slope.then(|| b.input(inp("slope", Role::Extra, Type::f32(Class::PerHead))));
    let s = Span::NONE;
    let mut p = |b: &mut Builder, op| b.try_push(op, s).unwrap();
    let q = p(&mut b, Op::Input(qi));
    let k = p(&mut b, Op::Input(ki));
    let v = p(&mut b, Op::Input(vi));
    let u = p(&mut b, Op::Input(ui));
    let gate = p(&mut b, Op::Sparsek { score: u, k: Extent::Param(ParamId(1)) });
    let seen = p(
        &mut b,
        Op::Seen(Seen {
            topk: Some(gate),
            window: Some(Extent::Param(ParamId(2))),
            sinks: (sinks > 0).then_some(Extent::Literal(sinks)),
            predicates: vec![],
        }),
    );
    let dot = p(&mut b, Op::Dot(q, k));
    let dd = p(&mut b, Op::Param(ParamId(0)));
    let df = p(&mut b, Op::ToFloat(dd));
    let sc = p(&mut b, Op::Unary(Unary::Rsqrt, df));
    let mut x = p(&mut b, Op::Binary(Binary::Mul, dot, sc));
    if gate_kind == "key" || gate_kind == "both" {
        x = p(&mut b, Op::Binary(Binary::Mul, x, gate));
    }
    if let Some(si) = si {
        let sl = p(&mut b, Op::Input(si));
        let kp = p(&mut b, Op::Coord(Coord::KeyPos));
        let kp = p(&mut b, Op::ToFloat(kp));
        let qp = p(&mut b, Op::Coord(Coord::QueryPos));
        let qp = p(&mut b, Op::ToFloat(qp));
        let dist = p(&mut b, Op::Binary(Binary::Sub, kp, qp));
        let t = p(&mut b, Op::Binary(Binary::Mul, sl, dist));
        x = p(&mut b, Op::Binary(Binary::Add, x, t));
    }
    if softcap > 0.0 {
        let c = p(&mut b, Op::Const(Real::new(softcap)));
        x = p(&mut b, Op::Binary(Binary::Div, x, c));
        x = p(&mut b, Op::Unary(Unary::Tanh, x));
        x = p(&mut b, Op::Binary(Binary::Mul, c, x));
    }
    let pr = p(&mut b, Op::Softmax { logit: x, seen, sink: None });
    let w = match gate_kind {
        "value" | "both" => p(&mut b, Op::Binary(Binary::Mul, pr, gate)),
        "straight_through" => {
            let st = p(&mut b, Op::StraightThrough(gate));
            p(&mut b, Op::Binary(Binary::Mul, pr, st))
        }
        _ => pr,
    };
    let o = p(&mut b, Op::WeightedSum { weight: w, tile: v });
    let lse = p(&mut b, Op::Lse(pr));
    let (inputs, nodes) = b.finish();
    Program {
        direction: Direction::Forward,
        name: "T".into(),
        docs: vec![],
        elem: ElemParam { name: Some("E".into()), set: Elem::ALL.to_vec() },
        head_dim: Extent::Param(ParamId(0)),
        params: vec![
            Param { name: "D".into(), set: IntSet::Multiples { of: 16, up_to: 256 } },
            Param { name: "K".into(), set: IntSet::Range { lo: 1, hi: 4096 } },
            Param { name: "W".into(), set: IntSet::Range { lo: 0, hi: 8192 } },
        ],
        inputs,
        nodes,
        seen,
        outputs: vec![
            Output { name: "o".into(), value: o, ty: vec(Class::PerQuery) },
            Output { name: "lse".into(), value: lse, ty: Type::f32(Class::PerQuery) },
        ],
        schedule: Default::default(),
    }
}
fn rnd(n: usize, seed: u64) -> Vec<f32> {
    let mut x = seed.wrapping_mul(0x9E3779B97F4A7C15) | 1;
    (0..n)
        .map(|_| {
            let mut g = 0f32;
            for _ in 0..4 {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                g += (x >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
            }
            g * 1.732
        })
        .collect()
}
fn bench(n: usize, std: f32, rising: bool) {
    let (hq, hkv, d) = (8usize, 2usize, 64usize);
    let q = rnd(n * hq * d, 1);
    let k = rnd(n * hkv * d, 2);
    let v = rnd(n * hkv * d, 3);
    let dо = rnd(n * hq * d, 4);
    let u: Vec<f32> = rnd(n * hkv, 5)
        .iter()
        .enumerate()
        .map(|(i, x)| if rising { 1e-5 * (i % n) as f32 + 0.1 * x } else { x * std })
        .collect();
    let kernel = Kernel::from_program(
        &program("value", 0, 0.0, false),
        &Spec::new(Elem::F32, d as i64).k(256).w(256),
    )
    .unwrap();
    let t = |s: &[usize], x| TensorView::new(s, x).unwrap();
    let inputs = Inputs::new()
        .with("q", t(&[1, n, hq, d], q.as_slice()))
        .with("k", t(&[1, n, hkv, d], k.as_slice()))
        .with("v", t(&[1, n, hkv, d], v.as_slice()))
        .with("u", t(&[1, hkv, n], u.as_slice()));
    let seen: f64 = (0..n).map(|i| (i + 1).min(512) as f64).sum();
    let (mut bf, mut bb) = (f64::MAX, f64::MAX);
    for _ in 0..(if n > 20000 { 1 } else { 5 }) {
        let s = std::time::Instant::now();
        let f = kernel.forward(&inputs, &Options::default()).unwrap();
        bf = bf.min(s.elapsed().as_secs_f64());
        let s = std::time::Instant::now();
        let _ = kernel
            .backward(&inputs, &f, &t(&[1, n, hq, d], dо.as_slice()), &Options::default())
            .unwrap();
        bb = bb.min(s.elapsed().as_secs_f64());
    }
    let fl = 4.0 * d as f64 * hq as f64 * seen;
    println!(
        "n {n} std {std} rising {rising}: fwd {:.1} ms {:.1} GF/s  bwd {:.1} ms {:.1} GF/s",
        bf * 1e3,
        fl / bf / 1e9,
        bb * 1e3,
        2.5 * fl / bb / 1e9
    );
}
fn main() {
    if std::env::var("BENCH").is_ok() {
        for n in [8192] {
            bench(n, 1.0, false);
            bench(n, 0.1, false);
            bench(n, 1.0, true);
        }
        return;
    }
    let prog = program("value", 0, 0.0, true);
    println!("{prog}\n{}", sparsek::dsl::backward::derive(&prog));
    for path in std::env::args().skip(1) {
        let bytes = std::fs::read(&path).unwrap();
        let st = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (_, meta) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let m = meta.metadata().clone().unwrap();
        let mut store: HashMap<
            String,
            (Vec<usize>, Vec<f32>, Vec<half::f16>, Vec<half::bf16>, Vec<i32>, safetensors::Dtype),
        > = HashMap::new();
        for (n, t) in st.tensors() {
            let d = t.data();
            let mut e = (t.shape().to_vec(), vec![], vec![], vec![], vec![], t.dtype());
            match t.dtype() {
                safetensors::Dtype::F32 => {
                    e.1 = d.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
                }
                safetensors::Dtype::F16 => {
                    e.2 = d
                        .chunks(2)
                        .map(|c| half::f16::from_le_bytes(c.try_into().unwrap()))
                        .collect()
                }
                safetensors::Dtype::BF16 => {
                    e.3 = d
                        .chunks(2)
                        .map(|c| half::bf16::from_le_bytes(c.try_into().unwrap()))
                        .collect()
                }
                safetensors::Dtype::I32 => {
                    e.4 = d.chunks(4).map(|c| i32::from_le_bytes(c.try_into().unwrap())).collect()
                }
                _ => panic!(),
            }
            store.insert(n, e);
        }
        let view = |n: &str| {
            let e = &store[n];
            match e.5 {
                safetensors::Dtype::F32 => TensorView::new(&e.0, e.1.as_slice()),
                safetensors::Dtype::F16 => TensorView::new(&e.0, e.2.as_slice()),
                safetensors::Dtype::BF16 => TensorView::new(&e.0, e.3.as_slice()),
                _ => TensorView::new(&e.0, e.4.as_slice()),
            }
            .unwrap()
        };
        let prog = program(
            &m["gate"],
            m["sinks"].parse().unwrap(),
            m["softcap"].parse().unwrap(),
            store.contains_key("slope"),
        );
        let d = store["q"].0[3] as i64;
        let spec = Spec::new(Elem::from_name(&m["elem"]).unwrap(), d)
            .k(m["k"].parse().unwrap())
            .w(m["window"].parse().unwrap());
        let kernel = Kernel::from_program(&prog, &spec).unwrap();
        let mut inputs = Inputs::new();
        for i in &prog.inputs {
            inputs = inputs.with(&i.name, view(&i.name));
        }
        let f = kernel.forward(&inputs, &Options::default()).unwrap();
        let g = kernel.backward(&inputs, &f, &view("d_o"), &Options::default()).unwrap();
        let err = |name: &str, x: Vec<f32>| {
            let e = &store[&format!("expect.{name}")].1;
            let mut num = 0f64;
            let mut den = 0f64;
            for (a, b) in x.iter().zip(e) {
                if a == b {
                    continue;
                }
                num += ((*a - *b) as f64).powi(2);
            }
            for b in e {
                if b.is_finite() {
                    den += (*b as f64).powi(2);
                }
            }
            assert_eq!(x.len(), e.len());
            if den > 0.0 { (num / den).sqrt() } else { num.sqrt() }
        };
        print!("{path}: ");
        print!(
            "o {:.1e} lse {:.1e} tau {:.1e} expiry {} ",
            err("o", f.o.to_f32()),
            err("lse", f.lse.to_f32()),
            err("tau", f.tau.to_f32()),
            f.expiry.as_i32().unwrap() == store["expect.expiry"].4
        );
        if std::env::var("TAU").is_ok() {
            for (i, (a, b)) in f.tau.to_f32().iter().zip(&store["expect.tau"].1).enumerate() {
                if (a - b).abs() > 1e-6 {
                    println!("{i} {a} {b}");
                }
            }
        }
        for (n, t) in g.iter() {
            print!("{n} {:.1e} ", err(n, t.to_f32()));
        }
        println!();
    }
}
