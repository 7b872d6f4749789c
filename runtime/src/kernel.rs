//! A kernel instance and its calls.

use crate::bind::{Bound, Sequences};
use crate::cpu::{Backward, ForwardPass};
use crate::tuned::Manifest;
use crate::{Error, Tensor, TensorView};
use sparsek_dsl::backward;
use sparsek_dsl::ir::{Direction, Instance, Program, Spec, check};
use std::fmt;
use std::sync::Arc;

/// One instance of a program: its parameters are constants, its backward is derived.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) instance: Arc<Instance>,
    pub(crate) backward: Arc<Program>,
    /// Tuned schedules that the kernel carries.
    pub(crate) manifest: Arc<Manifest>,
    forward_pass: ForwardPass,
}

/// Tensors by name.
#[derive(Clone, Debug)]
pub struct NamedTensors<T> {
    tensors: Vec<(String, T)>,
}

/// Input tensors on the host, by name.
pub type Inputs<'a> = NamedTensors<TensorView<'a>>;

impl<T> Default for NamedTensors<T> {
    fn default() -> Self {
        NamedTensors { tensors: Vec::new() }
    }
}

impl<T> NamedTensors<T> {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more tensor; a second one of the same name takes the place of the first.
    pub fn with(mut self, name: &str, tensor: T) -> Self {
        self.tensors.retain(|(n, _)| n != name);
        self.tensors.push((name.to_owned(), tensor));
        self
    }

    /// With one more tensor, if there is one.
    pub fn with_optional(self, name: &str, tensor: Option<T>) -> Self {
        match tensor {
            Some(tensor) => self.with(name, tensor),
            None => self,
        }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// The tensor of that name, to be written.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.tensors.iter_mut().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// Every tensor with its name, to be written.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut T)> {
        self.tensors.iter_mut().map(|(n, t)| (n.as_str(), t))
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(n, _)| n.as_str())
    }

    /// Every tensor with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }
}

/// What a call may say beside its tensors.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// Boundaries of packed sequences: `[0, …, N]`, non-decreasing; B is then 1. Positions, expiry
    /// and `batch` count within each sequence. `None`: every row of the batch is one sequence.
    pub cu_seqlens: Option<&'a [i32]>,
    /// The gradients to compute, as `d_q`, `d_slope`, …; `None`: of every differentiable input
    /// that was given.
    pub wanted: Option<Vec<String>>,
    /// Called with the work done and the work there is, from any thread.
    pub progress: Option<&'a (dyn Fn(usize, usize) + Sync)>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("cu_seqlens", &self.cu_seqlens)
            .field("wanted", &self.wanted)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

/// Results of a forward call: the output, and what the backward reads.
#[derive(Clone, Debug)]
pub struct Forward {
    /// o \[B, N, Hq, D\] in the kernel's element type.
    pub o: Tensor,
    /// Natural log of the softmax's denominator, \[B, Hq, N\] f32; −inf where nothing is seen.
    pub lse: Tensor,
    /// Threshold of the top-k mask, \[B, Hkv, N\] f32; −inf where a query has at most k candidates.
    pub tau: Tensor,
    /// First query that no longer sees the key, \[B, Hkv, N\] i32; the sequence's length when it is
    /// seen to the end.
    pub expiry: Tensor,
}

/// Gradients by name.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    pub(crate) tensors: Vec<(String, Tensor)>,
}

impl Gradients {
    /// The gradient of that name (`d_q`, …): in the kernel's element type for q, k and v, else f32,
    /// always of the input's own shape.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// Every gradient with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }
}

impl Kernel {
    /// An instance of a forward program.
    pub fn from_program(program: &Program, spec: &Spec) -> Result<Kernel, Error> {
        let broken = check::well_formed(program);
        if let Some(rule) = broken.first() {
            return Err(Error::IllFormed { kernel: program.name.clone(), rule: rule.to_string() });
        }
        if program.direction != Direction::Forward {
            let rule = "a kernel is made from a forward program".to_owned();
            return Err(Error::IllFormed { kernel: program.name.clone(), rule });
        }
        let instance = program.instantiate(spec)?;
        let backward = backward::derive(&instance.program);
        if let Some(rule) = check::well_formed(&backward).first() {
            let rule = format!("derived backward: {rule}");
            return Err(Error::IllFormed { kernel: program.name.clone(), rule });
        }
        let forward_pass = ForwardPass::compile(&instance)?;
        let (instance, backward) = (Arc::new(instance), Arc::new(backward));
        Ok(Kernel { instance, backward, manifest: Arc::default(), forward_pass })
    }

    /// The same kernel with tuned schedules of its own: the text of a file that `sparsek tune export`
    /// wrote. Records of other kernels, GPUs or releases are of no effect.
    ///
    /// # Errors
    /// Text that is no manifest, or one of another version.
    pub fn with_manifest(self, json: &str) -> Result<Kernel, Error> {
        let kernel = || self.instance.program.name.clone();
        let read = Manifest::from_json(json);
        let read = read.map_err(|source| Error::Manifest { kernel: kernel(), source })?;
        Ok(Kernel { manifest: Arc::new(read), ..self })
    }

    /// The tuned schedules that the kernel carries.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The program with its parameters put in.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The derived backward program.
    pub fn backward_program(&self) -> &Program {
        &self.backward
    }

    /// Computes the output. O(N (k + w) D) time, O(N) memory beside inputs and outputs.
    pub fn forward(&self, inputs: &Inputs<'_>, options: &Options<'_>) -> Result<Forward, Error> {
        let bound = Bound::new(&self.instance, &self.instance.program, inputs)?;
        let sequences = Sequences::new(&bound.sizes, options.cu_seqlens)?;
        self.forward_pass.run(&bound, &sequences, options.progress)
    }

    /// Computes the gradients. `inputs` and `options.cu_seqlens` as in the forward call that gave
    /// `forward`; `d_o` like q.
    pub fn backward(
        &self,
        inputs: &Inputs<'_>,
        forward: &Forward,
        d_o: &TensorView<'_>,
        options: &Options<'_>,
    ) -> Result<Gradients, Error> {
        let given = |name: &str| inputs.get(name).is_some();
        let names = wanted(&self.backward, given, options.wanted.as_deref())?;
        let program = self.backward.with_outputs(|n| names.iter().any(|w| w == n));
        let all = inputs
            .clone()
            .with("o", forward.o.view())
            .with("lse", forward.lse.view())
            .with("d_o", d_o.clone());
        let bound = Bound::new(&self.instance, &program, &all)?;
        let sequences = Sequences::new(&bound.sizes, options.cu_seqlens)?;
        let backward = Backward::compile(&self.instance, &program)?;
        backward.run(&bound, &sequences, forward, options.progress)
    }
}

/// The gradients to compute: those asked for, or of every input that was given. `backward` is the
/// program with every gradient.
pub(crate) fn wanted(
    backward: &Program,
    given: impl Fn(&str) -> bool,
    asked: Option<&[String]>,
) -> Result<Vec<String>, Error> {
    let all = || backward.outputs.iter().map(|o| o.name.as_str());
    match asked {
        None => Ok(all()
            .filter(|n| given(n.strip_prefix("d_").unwrap_or(n)))
            .map(str::to_owned)
            .collect()),
        Some(names) => match names.iter().find(|n| all().all(|known| known != n.as_str())) {
            Some(unknown) => Err(Error::UnknownGradient {
                kernel: backward.name.clone(),
                name: unknown.clone(),
                known: all().collect::<Vec<_>>().join(", "),
            }),
            None => Ok(names.to_vec()),
        },
    }
}
