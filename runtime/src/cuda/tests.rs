//! What codegen says about its modules against what launching them takes, without a GPU.

use super::arguments::{Arguments, Placed, word_count};
use super::call::rule;
use super::code::CallShape;
use super::image::{GivenInput, Header, Specialisation};
use super::images::Images;
use super::launch::{Command, Queue, run};
use super::prepared::writes;
use super::strides::contiguous;
use super::workspace::{Bases, Workspace};
use super::{Error, Image, Kernel, TensorShape};
use crate::bind::Bound;
use crate::tuned::program_hash;
use crate::{DType, Elem, NamedTensors, Spec, bind};
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Given, Interface, KernelPlan, Module, Problem, Schedule, Sizes, Target};
use sparsek_dsl::ir::Kind;
use std::collections::BTreeMap;

crate::sparsek_kernel! {
    kernel Plain<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let p = softmax(dot(q, k) * rsqrt(D), causal & (topk(gate) | window(W)));
        dot(p * gate, v)
    }

    kernel Rich<E in [bf16, f16, f32], D in multiples_of(16) up to 256, K in 1..=4096, W in 0..=8192>(
        q: Query<E, D>, k: Key<E, D>, v: Key<E, D>, u: PerKey,
        slope: PerHead = 0.0, scale: Scalar = rsqrt(D), fade: PerKey = 1.0, warmth: PerQuery = 1.0,
    ) -> Output<E, D> {
        let gate = sparsek(u, K);
        let s = softcap(dot(q, k) * scale * warmth + slope * (k.pos - q.pos), 30.0);
        let p = softmax(s, causal & (topk(gate) | window(W) | sinks(4)));
        dot(p * gate * fade, v)
    }
}

const BASES: Bases = Bases { saved: 1 << 32, scratch: 1 << 33 };

/// Counts what it is told to run.
struct Counter {
    words: usize,
    launches: usize,
}

impl Queue for Counter {
    fn zero(&mut self, address: u64, bytes: u64) -> Result<(), Error> {
        assert!(address >= BASES.saved && bytes > 0);
        Ok(())
    }

    fn launch(&mut self, command: &Command<'_>) -> Result<(), Error> {
        assert_eq!(command.words.len(), self.words, "{}", command.entry);
        assert!((1..=1024).contains(&command.threads), "{}", command.entry);
        self.launches += 1;
        Ok(())
    }
}

/// Every tensor of a forward and a backward call, with heads on extras.
fn tensors(kernel: &crate::Kernel, sizes: &bind::Sizes) -> BTreeMap<String, Placed> {
    let program = kernel.backward_program();
    let elem = DType::from(kernel.instance().elem);
    let mut shapes: Vec<(String, Vec<usize>, DType)> = Vec::new();
    for input in &program.inputs {
        let shape = bind::shapes(input.role, input.ty.class, sizes).pop().unwrap();
        let dtype = match input.ty.kind {
            Kind::Vector => elem,
            Kind::I32 => DType::I32,
            Kind::F32 | Kind::Bool => DType::F32,
        };
        shapes.push((format!("d_{}", input.name), shape.clone(), dtype));
        shapes.push((input.name.clone(), shape, dtype));
    }
    let plan = vec![sizes.batch, sizes.hkv, sizes.n];
    shapes.push(("tau".to_owned(), plan.clone(), DType::F32));
    shapes.push(("expiry".to_owned(), plan, DType::I32));
    let place = |(name, shape, dtype): (String, Vec<usize>, DType)| {
        let axes = rule(program, &name)?.axes;
        let strides = contiguous(&shape);
        let is_result = ["o", "lse", "tau", "expiry"].contains(&name.as_str());
        let written = is_result || (name.starts_with("d_") && name != "d_o");
        Some((name, Placed { address: 4096, shape, strides, dtype, axes, written }))
    };
    shapes.into_iter().filter_map(place).collect()
}

fn launches(
    interface: &Interface,
    workspace: &Workspace,
    tensors: &BTreeMap<String, Placed>,
    elem: DType,
    sizes: &Sizes,
) -> usize {
    let address = |name: &str| workspace.at(name, BASES).map(|(address, _)| address);
    let buffers = interface
        .buffers
        .iter()
        .filter_map(|b| Some((b.name.clone(), address(&b.name)?)))
        .collect();
    let arguments =
        Arguments { module: "test", elem, sizes, tensors, buffers: &buffers, cu_seqlens: 64 };
    let mut counter = Counter { words: word_count(interface), launches: 0 };
    run(interface, &arguments, workspace, BASES, &mut counter).unwrap();
    counter.launches
}

fn check(kernel: &crate::Kernel, target: Target, packed: bool) {
    let sizes = match packed {
        true => bind::Sizes { batch: 1, n: 1500, hq: 8, hkv: 2, d: kernel.instance().d },
        false => bind::Sizes { batch: 3, n: 1000, hq: 8, hkv: 2, d: kernel.instance().d },
    };
    let of_call = Sizes {
        rows: sizes.batch as u64,
        sequences: if packed { 4 } else { sizes.batch as u64 },
        n: sizes.n as u64,
        hq: 8,
        hkv: 2,
        packed,
        multiprocessors: 132,
    };
    let inputs = &kernel.instance().program.inputs;
    let given = inputs.iter().map(|i| Given {
        name: i.name.clone(),
        per_head: bind::shapes(i.role, i.ty.class, &sizes).len() == 2,
    });
    let problem = Problem {
        instance: kernel.instance(),
        backward: kernel.backward_program(),
        group: 4,
        given: given.collect(),
    };
    let schedule =
        Schedule::choose(&problem, &target, &Machine::of(&target), &Workload::default()).unwrap();
    let interface =
        |module| KernelPlan::new(module, &problem, &schedule, &target).unwrap().interface;
    let [plan, forward, backward] = Module::ALL.map(interface);
    for name in ["o", "lse", "tau", "expiry"] {
        assert!(writes(&plan, name) || writes(&forward, name), "nothing writes {name}");
    }
    let elem = DType::from(kernel.instance().elem);
    let bytes = elem.bytes() as u64;
    let tensors = tensors(kernel, &sizes);
    let modules = [("plan", &plan), ("forward", &forward)];
    let workspace = Workspace::forward(&modules, bytes, &of_call).unwrap();
    for (_, interface) in modules {
        assert!(launches(interface, &workspace, &tensors, elem, &of_call) > 0);
    }
    let of_backward =
        Workspace::backward(("backward", &backward), bytes, &of_call, &workspace).unwrap();
    assert!(launches(&backward, &of_backward, &tensors, elem, &of_call) > 0);
}

#[test]
fn modules_ask_for_what_calls_have() {
    for elem in [Elem::Bf16, Elem::F32] {
        let spec = || Spec::new(elem, 64).k(32).w(64);
        for packed in [false, true] {
            for target in Target::ALL {
                check(Plain::new(spec()).unwrap().kernel(), target, packed);
                check(Rich::new(spec()).unwrap().kernel(), target, packed);
            }
        }
    }
}

#[test]
fn kernels_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Kernel>();
    shared::<super::TensorView<'_>>();
    shared::<super::Forward>();
}

/// What a call looks for among the images that it was given is what was compiled ahead for its shape:
/// NVRTC is asked for nothing then.
#[test]
fn calls_find_what_was_compiled_ahead_for_them() {
    let target = Target::named("sm_80").unwrap();
    let kernel = Rich::new(Spec::new(Elem::Bf16, 64).k(32).w(48)).unwrap();
    let kernel = kernel.kernel();
    let shape = CallShape::group(2).without("scale").shared("warmth").wanted(&["d_q", "d_u"]);
    let code = kernel.code(&shape, target).unwrap();
    let hash = program_hash(kernel.instance());
    let images = Images::default();
    for module in super::Module::ALL {
        let header = Header {
            instance: hash.clone(),
            kernel: "Rich".to_owned(),
            target: target.name(),
            specialisation: code.specialisation(module),
            interface: code.plan(module).unwrap().interface,
            resources: Vec::new(),
        };
        let image = Image { header, cubin: vec![1, 2, 3] };
        let image = Image::from_bytes(&image.to_bytes().unwrap()).unwrap();
        images.add(image, ("Rich", &hash), "sm_80").unwrap();
    }
    let tensors = |warmth: &[usize]| {
        let tensor = |shape: &[usize], dtype| TensorShape { shape: shape.to_vec(), dtype };
        let (elem, float) = (DType::Bf16, DType::F32);
        NamedTensors::new()
            .with("q", tensor(&[1, 100, 4, 64], elem))
            .with("k", tensor(&[1, 100, 2, 64], elem))
            .with("v", tensor(&[1, 100, 2, 64], elem))
            .with("u", tensor(&[1, 2, 100], float))
            .with("slope", tensor(&[4], float))
            .with("fade", tensor(&[1, 100, 2], float))
            .with("warmth", tensor(warmth, float))
    };
    let given = |tensors: &NamedTensors<TensorShape>| {
        let instance = kernel.instance();
        let bound = Bound::new(instance, &instance.program, tensors).unwrap();
        GivenInput::all(&instance.program, &bound, tensors)
    };
    let found = given(&tensors(&[1, 100]));
    let schedule = code.schedule();
    assert_eq!(images.schedules(2, &found), [schedule]);
    let specialisation = |module, given: &[GivenInput], wanted: &[&str]| Specialisation {
        module,
        group: 2,
        given: given.to_vec(),
        wanted: wanted.iter().map(|w| (*w).to_owned()).collect(),
        schedule,
    };
    for (module, wanted) in super::Module::ALL.into_iter().zip([&[][..], &[], &["d_q", "d_u"]]) {
        let image = images.find(&specialisation(module, &found, wanted)).expect("it was added");
        assert_eq!((image.module(), image.cubin()), (module, &[1, 2, 3][..]));
    }
    // Other calls have none: of other heads, other inputs, other gradients.
    assert!(images.schedules(4, &found).is_empty());
    assert!(images.schedules(2, &given(&tensors(&[1, 100, 4]))).is_empty());
    let all = specialisation(super::Module::Backward, &found, &["d_q"]);
    assert!(images.find(&all).is_none());
    // Nor does another instance or target take them.
    let image = images.find(&specialisation(super::Module::Plan, &found, &[])).unwrap();
    let refused = images.add(image.clone(), ("Other", "00"), "sm_80").unwrap_err().to_string();
    assert!(refused.contains("another instance"), "{refused}");
    let refused = images.add(image, ("Rich", &hash), "sm_90a").unwrap_err().to_string();
    assert!(refused.contains("it is for sm_80"), "{refused}");
}

#[test]
fn shapes_of_calls_that_a_kernel_does_not_have() {
    let target = Target::named("sm_90a").unwrap();
    let kernel = Rich::new(Spec::new(Elem::Bf16, 64).k(32).w(48)).unwrap();
    let refused = |shape: &CallShape| kernel.kernel().code(shape, target).unwrap_err().to_string();
    for (shape, words) in [
        (CallShape::group(0), &["Rich", "at least one query head"][..]),
        (CallShape::group(1).without("q"), &["`q`", "slope, scale, fade, warmth"]),
        (CallShape::group(1).without("bias"), &["`bias`", "left out"]),
        (CallShape::group(1).shared("slope"), &["`slope`", "fade, warmth"]),
        (CallShape::group(1).wanted(&["d_bias"]), &["`d_bias`", "d_q"]),
        (CallShape::group(2048), &["2048 heads of a group"]),
    ] {
        let message = refused(&shape);
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}
