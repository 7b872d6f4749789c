//! Backward calls of known shapes.

use super::Error;
use super::call::{Call, check_shape};
use super::image::{Image, Module};
use super::loaded::Loaded;
use super::memory::{Memory, MemoryMut};
use super::prepared::{Prepared, Shapes, interface, writes};
use super::profile::Profile;
use super::sequences::Sequences;
use super::tensor::{Inputs, Outputs, TensorShape, TensorView};
use super::workspace::{Bases, Workspace};
use crate::{NamedTensors, bind, kernel};
use cudarc::driver::CudaStream;
use sparsek_codegen::Schedule;
use sparsek_dsl::ir::Kind;
use std::sync::Arc;

/// Backward calls of one set of shapes and gradients. Clones are the same.
#[derive(Clone, Debug)]
pub struct PreparedBackward {
    call: Arc<Shapes>,
    /// What the forward's outputs are.
    outputs: NamedTensors<TensorShape>,
    gradients: NamedTensors<TensorShape>,
    /// Gradients that are zero whatever the inputs.
    zero: Vec<String>,
    /// `None` when no gradient is wanted.
    module: Option<Arc<Loaded>>,
    workspace: Workspace,
    schedule: Schedule,
}

/// What a backward call reads and writes.
#[derive(Debug)]
pub struct BackwardCall<'c, 'a> {
    /// The inputs of the forward call.
    pub inputs: &'c Inputs<'a>,
    /// `o`, `lse`, `tau` and `expiry` as the forward call left them.
    pub outputs: &'c Inputs<'a>,
    /// Gradient of the output, of the shape of `q`.
    pub d_o: &'c TensorView<'a>,
    /// The gradients to write, as [`PreparedBackward::gradients`] lists them.
    pub gradients: &'c mut Outputs<'a>,
    /// What the forward call saved.
    pub saved: Memory<'c>,
    /// [`PreparedBackward::scratch_bytes`] bytes, free again when the call is done on its stream;
    /// at a multiple of 256 bytes.
    pub scratch: MemoryMut<'c>,
    /// The sequences of the forward call.
    pub sequences: Option<&'c Sequences>,
    /// Where to note the time of each kernel.
    pub profile: Option<&'c Profile>,
}

impl PreparedBackward {
    pub(crate) fn new(
        forward: &Prepared,
        wanted: Option<&[String]>,
        schedule: Option<Schedule>,
    ) -> Result<PreparedBackward, crate::Error> {
        let call = forward.call.clone();
        let schedule = schedule.unwrap_or(call.schedule);
        if schedule.chunk != call.schedule.chunk {
            let (ours, theirs) = (schedule.chunk, call.schedule.chunk);
            let why = format!("chunk {ours} of the schedule, and the plan was made with {theirs}");
            return Err(Error::Mismatch(why).into());
        }
        let store = &call.store;
        let given = |name: &str| call.inputs.get(name).is_some();
        let names = kernel::wanted(&store.backward, given, wanted)?;
        let gradients = gradients(&call, &names);
        let elem_bytes = call.elem().bytes() as u64;
        let mut out = PreparedBackward {
            outputs: forward.outputs().clone(),
            zero: Vec::new(),
            module: None,
            workspace: Workspace::default(),
            gradients,
            schedule,
            call: call.clone(),
        };
        if names.is_empty() {
            return Ok(out);
        }
        let wanted = call.specialisation(Module::Backward, names.clone(), schedule);
        let Some(module) = store.modules(&[wanted])?.pop() else { return Ok(out) };
        let (name, interface) = interface(&module);
        out.workspace =
            Workspace::backward((name, interface), elem_bytes, &call.sizes, &forward.workspace)?;
        out.zero = names.into_iter().filter(|name| !writes(interface, name)).collect();
        out.module = Some(module.clone());
        Ok(out)
    }

    /// What a backward call writes: gradients with shapes and element types.
    pub fn gradients(&self) -> &NamedTensors<TensorShape> {
        &self.gradients
    }

    /// Bytes that a backward call needs while it runs.
    pub fn scratch_bytes(&self) -> u64 {
        self.workspace.scratch_bytes()
    }

    /// The schedule of the module.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// The backward module; `None` when no gradient is wanted.
    pub fn image(&self) -> Option<&Image> {
        self.module.as_ref().map(|module| &module.image)
    }

    /// Queues a backward call on a stream, like [`Prepared::forward_into`].
    ///
    /// # Safety
    /// `outputs` and `saved` hold what a forward call left there that was prepared by the same
    /// [`Prepared`] and given the same sequences: kernels use them as indices.
    ///
    /// # Errors
    /// As [`Prepared::forward_into`].
    #[allow(unsafe_code, reason = "the caller vouches for indices in device memory")]
    pub unsafe fn backward_into(
        &self,
        stream: &Arc<CudaStream>,
        call: BackwardCall<'_, '_>,
    ) -> Result<(), crate::Error> {
        self.queue(stream, call)
    }

    /// [`Self::backward_into`] of a call whose forward results are known to be such.
    pub(crate) fn queue(
        &self,
        stream: &Arc<CudaStream>,
        mut call: BackwardCall<'_, '_>,
    ) -> Result<(), crate::Error> {
        let shapes = &*self.call;
        shapes.check_inputs(call.inputs)?;
        shapes.check_outputs(call.gradients, &self.gradients)?;
        shapes.check_sequences(call.sequences)?;
        let q = self.outputs.get("o");
        if let Some(expected) = q {
            check_shape("d_o", call.d_o.shape(), call.d_o.dtype(), expected)?;
        }
        let mut running = Call::new(&shapes.store.device, stream, &shapes.store.backward)?;
        for (name, expected) in self.outputs.iter() {
            let view = call.outputs.get(name).ok_or_else(|| crate::Error::MissingInput {
                kernel: shapes.store.kernel().to_owned(),
                name: name.to_owned(),
                expected: format!("the forward's, {:?}", expected.shape),
            })?;
            check_shape(name, view.shape(), view.dtype(), expected)?;
            running.input(name, view)?;
        }
        for (name, view) in call.inputs.iter() {
            running.input(name, view)?;
        }
        running.input("d_o", call.d_o)?;
        for (name, view) in call.gradients.iter_mut() {
            running.output(name, view)?;
        }
        running.sequences(call.sequences);
        let saved = self.workspace.saved_bytes();
        let saved = running.memory("memory saved by the forward", saved, &call.saved)?;
        let scratch =
            running.memory_mut("scratch memory", self.scratch_bytes(), &mut call.scratch)?;
        if shapes.is_empty() {
            // Those that sum over positions have elements all the same.
            self.gradients.names().try_for_each(|name| running.zero(name))?;
            return Ok(());
        }
        self.zero.iter().try_for_each(|name| running.zero(name))?;
        if let Some(module) = &self.module {
            let (bases, sizes) = (Bases { saved, scratch }, &shapes.sizes);
            running.run(module, shapes.elem(), sizes, &self.workspace, bases, call.profile)?;
        }
        Ok(())
    }
}

/// Shapes and element types of gradients: the input's own shape; the kernel's element type for
/// vectors, else f32.
fn gradients(call: &Shapes, names: &[String]) -> NamedTensors<TensorShape> {
    let program = &call.store.backward;
    let mut out = NamedTensors::new();
    for name in names {
        let of = name.strip_prefix("d_").unwrap_or(name);
        let Some(input) = program.input_named(of).map(|id| program.input(id)) else { continue };
        let dtype = match input.ty.kind {
            Kind::Vector => call.elem(),
            Kind::F32 | Kind::I32 | Kind::Bool => crate::DType::F32,
        };
        let own = call.inputs.get(of).map(|t| t.shape.clone());
        let largest = || bind::shapes(input.role, input.ty.class, &call.bound).pop();
        let shape = own.or_else(largest).unwrap_or_default();
        out = out.with(name, TensorShape { shape, dtype });
    }
    out
}
