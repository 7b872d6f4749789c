//! A problem run on the CPU backend and by the dense f64 interpreter.

use half::{bf16, f16};
use sparsek::{
    Elem, Error, Forward, Gradients, Inputs, Kernel, Options, Program, Spec, Tensor, TensorView,
};
use sparsek_dsl::backward::derive;
use sparsek_dsl::ir::Kind;
use sparsek_reference::rule::Measurement;
use sparsek_reference::{Array, Arrays, Expected};

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

/// A program on the CPU backend, and what its results are held against.
pub(crate) struct Problem {
    pub(crate) kernel: Kernel,
    pub(crate) call: Call,
    expected: Expected,
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
        let (forward, backward) = (instance(reference), instance(&derive(reference)));
        let cu = cu_seqlens.as_deref();
        let expected = Expected::new(&forward, &backward, &mut inputs, spec.elem, cu)
            .expect("the reference runs");
        let call = Call::new(&kernel, &inputs, cu_seqlens);
        Problem { kernel, call, expected }
    }

    /// Panics with everything that is needed to look at a failure.
    pub(crate) fn check(&self, what: &str) {
        let (forward, gradients) = self.call.run(&self.kernel).expect("the CPU backend runs it");
        let mut got = Arrays::new();
        for (name, t) in [
            ("o", &forward.o),
            ("lse", &forward.lse),
            ("tau", &forward.tau),
            ("expiry", &forward.expiry),
        ] {
            got.insert(name.to_owned(), array(t));
        }
        got.extend(gradients.iter().map(|(n, t)| (n.to_owned(), array(t))));
        let all = self.expected.measure(&got).expect("shapes agree");
        let failed: Vec<Measurement> = all.into_iter().filter(|m| !m.ok).collect();
        assert!(
            failed.is_empty(),
            "{what}: {failed:#?}\nshape of q {:?}, cu_seqlens {:?}\n{}\n{}",
            forward.o.shape(),
            self.call.cu_seqlens,
            self.kernel.instance().program,
            self.kernel.backward_program(),
        );
    }
}

/// Picks elements by index.
fn pick(elements: &Elements, at: impl Iterator<Item = usize>) -> Elements {
    match elements {
        Elements::F32(x) => Elements::F32(at.map(|i| x[i]).collect()),
        Elements::F16(x) => Elements::F16(at.map(|i| x[i]).collect()),
        Elements::Bf16(x) => Elements::Bf16(at.map(|i| x[i]).collect()),
        Elements::I32(x) => Elements::I32(at.map(|i| x[i]).collect()),
    }
}

impl Call {
    /// The call of one entry of the batch.
    pub(crate) fn row(&self, b: usize, batch: usize) -> Call {
        let one = |(name, shape, elements): &(String, Vec<usize>, Elements)| {
            // Scalar and PerHead tensors have no batch.
            if shape.len() < 2 {
                let all = 0..shape.iter().product();
                return (name.clone(), shape.clone(), pick(elements, all));
            }
            let size = shape.iter().product::<usize>() / batch;
            let shape = [&[1], &shape[1..]].concat();
            (name.clone(), shape, pick(elements, b * size..(b + 1) * size))
        };
        Call { tensors: self.tensors.iter().map(one).collect(), cu_seqlens: None }
    }

    /// The call of tokens `[from, to)` of a batch of one.
    pub(crate) fn tokens(&self, from: usize, to: usize) -> Call {
        let one = |(name, shape, elements): &(String, Vec<usize>, Elements)| {
            // Tokens are the last dimension of u and the second of everything else.
            let axis = if name == "u" { 2 } else { 1 };
            if shape.len() < 2 {
                let all = 0..shape.iter().product();
                return (name.clone(), shape.clone(), pick(elements, all));
            }
            let inner: usize = shape[axis + 1..].iter().product();
            let outer: usize = shape[..axis].iter().product();
            let n = shape[axis];
            let rows = (0..outer).flat_map(|o| (from..to).map(move |t| o * n + t));
            let mut cut = shape.clone();
            cut[axis] = to - from;
            let at = rows.flat_map(|r| (0..inner).map(move |x| r * inner + x));
            (name.clone(), cut, pick(elements, at))
        };
        Call { tensors: self.tensors.iter().map(one).collect(), cu_seqlens: None }
    }
}
