//! A problem run on the CPU backend and by the dense f64 interpreter.

use half::{bf16, f16};
use sparsek::{
    Elem, Error, Forward, Gradients, Inputs, Kernel, Options, Program, Spec, Tensor, TensorView,
};
use sparsek_dsl::ir::Kind;
use sparsek_reference::dense::{self, Arithmetic};
use sparsek_reference::rule::{self, Measurement};
use sparsek_reference::{Array, Arrays, generate};

/// Elements of one tensor as the library takes them.
pub(crate) enum Elements {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I32(Vec<i32>),
}

/// Inputs of one call, owned, and d_o.
pub(crate) struct Call {
    pub(crate) tensors: Vec<(String, Vec<usize>, Elements)>,
    pub(crate) cu_seqlens: Option<Vec<i32>>,
}

impl Call {
    /// The arrays of `inputs` in the types that the kernel takes.
    pub(crate) fn new(kernel: &Kernel, inputs: &Arrays, cu_seqlens: Option<Vec<i32>>) -> Call {
        let elem = kernel.instance().elem;
        let vector = |x: &Array| match elem {
            Elem::F32 => Elements::F32(x.to_f32()),
            Elem::F16 => Elements::F16(x.data().iter().map(|x| f16::from_f64(*x)).collect()),
            Elem::Bf16 => Elements::Bf16(x.data().iter().map(|x| bf16::from_f64(*x)).collect()),
        };
        let program = &kernel.instance().program;
        let tensors = inputs.iter().map(|(name, x)| {
            let kind = program.input_named(name).map(|id| program.input(id).ty.kind);
            let elements = match kind {
                // d_o, the only name that is not an input.
                None | Some(Kind::Vector) => vector(x),
                Some(Kind::I32) => Elements::I32(x.to_i32()),
                Some(_) => Elements::F32(x.to_f32()),
            };
            (name.clone(), x.shape().to_vec(), elements)
        });
        Call { tensors: tensors.collect(), cu_seqlens }
    }

    pub(crate) fn view(&self, name: &str) -> TensorView<'_> {
        let found = self.tensors.iter().find(|(n, ..)| n == name);
        let (_, shape, elements) = found.expect("a tensor of that name");
        match elements {
            Elements::F32(x) => TensorView::new(shape, x.as_slice()),
            Elements::F16(x) => TensorView::new(shape, x.as_slice()),
            Elements::Bf16(x) => TensorView::new(shape, x.as_slice()),
            Elements::I32(x) => TensorView::new(shape, x.as_slice()),
        }
        .expect("shape and data agree")
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        let names = self.tensors.iter().map(|(n, ..)| n.as_str()).filter(|n| *n != "d_o");
        names.fold(Inputs::new(), |inputs, n| inputs.with(n, self.view(n)))
    }

    pub(crate) fn options(&self) -> Options<'_> {
        Options { cu_seqlens: self.cu_seqlens.as_deref(), ..Options::default() }
    }

    /// Forward and backward.
    pub(crate) fn run(&self, kernel: &Kernel) -> Result<(Forward, Gradients), Error> {
        let inputs = self.inputs();
        let forward = kernel.forward(&inputs, &self.options())?;
        let gradients = kernel.backward(&inputs, &forward, &self.view("d_o"), &self.options())?;
        Ok((forward, gradients))
    }
}

pub(crate) fn array(t: &Tensor) -> Array {
    match t.as_i32() {
        Some(x) => Array::from_i32(t.shape(), x),
        None => Array::from_f32(t.shape(), &t.to_f32()),
    }
    .expect("a tensor's data fits its shape")
}

/// A program, the reference program it is held against, and inputs without kinks.
pub(crate) struct Problem {
    pub(crate) kernel: Kernel,
    reference: Program,
    reference_backward: Program,
    pub(crate) inputs: Arrays,
    pub(crate) cu_seqlens: Option<Vec<i32>>,
}

impl Problem {
    /// `reference` is evaluated by the interpreter, `program` runs on the CPU backend.
    pub(crate) fn new(
        program: &Program,
        reference: &Program,
        spec: &Spec,
        mut inputs: Arrays,
        cu_seqlens: Option<Vec<i32>>,
    ) -> Problem {
        let kernel =
            Kernel::from_program(program, spec).expect("the spec is of the program's sets");
        let instance = |p: &Program| p.instantiate(spec).expect("the same sets").program;
        let forward = instance(reference);
        let backward = instance(&sparsek_dsl::backward::derive(reference));
        let options = dense::Options {
            arithmetic: Arithmetic::F32Scores,
            cu_seqlens: cu_seqlens.as_deref(),
            ..Default::default()
        };
        let plan = dense::run(&forward, &inputs, &options).expect("the reference runs").plan;
        let d_o = inputs.get_mut("d_o").expect("d_o is generated");
        rule::zero_kinks(d_o, &plan, rule::KINK).expect("shapes agree");
        Problem { kernel, reference: forward, reference_backward: backward, inputs, cu_seqlens }
    }

    /// Every error of the CPU backend, by the rule.
    pub(crate) fn measure(&self) -> Vec<Measurement> {
        let call = Call::new(&self.kernel, &self.inputs, self.cu_seqlens.clone());
        let (forward, gradients) = call.run(&self.kernel).expect("the CPU backend runs it");
        let run = |arithmetic| {
            let cu_seqlens = self.cu_seqlens.as_deref();
            let options = dense::Options { arithmetic, cu_seqlens, ..Default::default() };
            dense::run_both(&self.reference, &self.reference_backward, &self.inputs, &options)
                .expect("the reference runs")
        };
        let exact = run(Arithmetic::F32Scores);
        let plain = run(Arithmetic::Plain(self.kernel.instance().elem));
        let mut got = Arrays::new();
        got.insert("o".to_owned(), array(&forward.o));
        got.insert("lse".to_owned(), array(&forward.lse));
        got.extend(gradients.iter().map(|(n, t)| (n.to_owned(), array(t))));
        let mut want = exact.0.outputs.clone();
        want.extend(exact.1.outputs);
        let mut rough = plain.0.outputs.clone();
        rough.extend(plain.1.outputs);
        // Gradients of inputs that take their default are not computed.
        want.retain(|n, _| !n.starts_with("d_") || self.inputs.contains_key(&n[2..]));
        let mut all = rule::tensors(&got, &want, Some(&rough));
        let (tau, expiry) = (array(&forward.tau), array(&forward.expiry));
        let selection = rule::selection(&tau, &expiry, &exact.0.plan).expect("shapes agree");
        all.extend(selection.into_iter().map(|m| self.of_computed_scores(m, &plain.0)));
        all
    }

    /// A threshold moves by no more than the scores do. Where the kernel computes its scores, they have
    /// the error of any f32 computation: the thresholds' limit takes it in as the other limits do.
    fn of_computed_scores(&self, m: Measurement, plain: &dense::Run) -> Measurement {
        if m.name != "tau (ulp)" || generate::score_is_input(&self.reference) {
            return m;
        }
        let cu_seqlens = self.cu_seqlens.as_deref();
        let options = dense::Options { cu_seqlens, ..Default::default() };
        let exact =
            dense::run(&self.reference, &self.inputs, &options).expect("the reference runs");
        let pairs = plain.plan.tau.data().iter().zip(exact.plan.tau.data());
        let ulps = pairs.filter(|(a, b)| a.is_finite() && b.is_finite());
        let worst = ulps.map(|(a, b)| (a - b).abs() / rule::ulp(*b)).fold(0.0, f64::max);
        Measurement::new(&m.name, m.error, m.limit + 2.0 * worst)
    }

    /// Panics with everything that is needed to look at a failure.
    pub(crate) fn check(&self, what: &str) {
        let failed: Vec<Measurement> = self.measure().into_iter().filter(|m| !m.ok).collect();
        assert!(
            failed.is_empty(),
            "{what}: {failed:#?}\nshape of q {:?}, cu_seqlens {:?}\n{}\n{}",
            self.inputs["q"].shape(),
            self.cu_seqlens,
            self.kernel.instance().program,
            self.kernel.backward_program(),
        );
    }
}
