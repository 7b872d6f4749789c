//! Calls of known shapes, with their modules loaded: what is left is to queue the kernels.

use super::Error;
use super::call::{Call, check_shape};
use super::device::Device;
use super::image::{GivenInput, Image, Module, Specialisation};
use super::loaded::Loaded;
use super::memory::MemoryMut;
use super::prepared_backward::PreparedBackward;
use super::profile::Profile;
use super::sequences::Sequences;
use super::store::{Asked, Chosen, Store};
use super::tensor::{Inputs, Outputs, TensorShape};
use super::workspace::{Bases, Workspace};
use crate::bind::{self, Bound};
use crate::tuned::{self, Source};
use crate::{DType, NamedTensors};
use cudarc::driver::CudaStream;
use sparsek_codegen::{Interface, Parameter, Schedule, Sizes};
use std::sync::Arc;

/// Forward calls of one set of shapes. Clones are the same.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) call: Arc<Shapes>,
    plan: Arc<Loaded>,
    forward: Arc<Loaded>,
    pub(crate) workspace: Workspace,
}

/// What the calls of a [`Prepared`] have in common.
#[derive(Debug)]
pub(crate) struct Shapes {
    pub(crate) store: Arc<Store>,
    pub(crate) inputs: NamedTensors<TensorShape>,
    pub(crate) bound: bind::Sizes,
    pub(crate) sizes: Sizes,
    pub(crate) given: Vec<GivenInput>,
    pub(crate) schedule: Schedule,
    source: Source,
    outputs: NamedTensors<TensorShape>,
}

/// What a forward call reads and writes.
#[derive(Debug)]
pub struct ForwardCall<'c, 'a> {
    /// The inputs, of the shapes that the call was prepared for.
    pub inputs: &'c Inputs<'a>,
    /// `o`, `lse`, `tau` and `expiry`, as [`Prepared::outputs`] lists them.
    pub outputs: &'c mut Outputs<'a>,
    /// [`Prepared::saved_bytes`] bytes, for the backward; at a multiple of 256 bytes.
    pub saved: MemoryMut<'c>,
    /// [`Prepared::scratch_bytes`] bytes, free again when the call is done on its stream; at a
    /// multiple of 256 bytes.
    pub scratch: MemoryMut<'c>,
    /// Packed sequences, as many as the call was prepared for.
    pub sequences: Option<&'c Sequences>,
    /// Where to note the time of each kernel.
    pub profile: Option<&'c Profile>,
}

impl Shapes {
    /// Whether there is no position at all: nothing is launched then.
    pub(crate) fn is_empty(&self) -> bool {
        self.sizes.rows == 0 || self.sizes.n == 0
    }

    /// Element type of the kernel.
    pub(crate) fn elem(&self) -> DType {
        self.store.instance.elem.into()
    }

    /// Checks the sequences of a call.
    pub(crate) fn check_sequences(
        &self,
        sequences: Option<&Sequences>,
    ) -> Result<(), crate::Error> {
        let prepared = self.sizes.packed.then_some(self.sizes.sequences);
        let found = sequences.map(|s| s.count() as u64);
        if prepared != found {
            let words = |n: Option<u64>| match n {
                Some(n) => format!("{n} packed sequences"),
                None => "no packed sequences".to_owned(),
            };
            let (prepared, found) = (words(prepared), words(found));
            let why = format!("the call has {found} and was prepared for {prepared}");
            return Err(crate::Error::Sequences(why));
        }
        match sequences {
            Some(sequences) => sequences.check(self.bound.n, &self.store.device),
            None => Ok(()),
        }
    }

    /// Checks the inputs of a call.
    pub(crate) fn check_inputs(&self, inputs: &Inputs<'_>) -> Result<(), crate::Error> {
        for (name, expected) in self.inputs.iter() {
            let view = inputs.get(name).ok_or_else(|| crate::Error::MissingInput {
                kernel: self.store.kernel().to_owned(),
                name: name.to_owned(),
                expected: format!("{} {:?}", expected.dtype.name(), expected.shape),
            })?;
            check_shape(name, view.shape(), view.dtype(), expected)?;
        }
        self.check_known(inputs.names(), &self.inputs)
    }

    fn check_known<'n>(
        &self,
        mut names: impl Iterator<Item = &'n str>,
        known: &NamedTensors<TensorShape>,
    ) -> Result<(), crate::Error> {
        match names.find(|name| known.get(name).is_none()) {
            None => Ok(()),
            Some(name) => Err(crate::Error::UnknownInput {
                kernel: self.store.kernel().to_owned(),
                name: name.to_owned(),
                known: known.names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Checks tensors that a call writes.
    pub(crate) fn check_outputs(
        &self,
        outputs: &Outputs<'_>,
        expected: &NamedTensors<TensorShape>,
    ) -> Result<(), crate::Error> {
        for (name, expected) in expected.iter() {
            let view = outputs.get(name).ok_or_else(|| crate::Error::MissingInput {
                kernel: self.store.kernel().to_owned(),
                name: name.to_owned(),
                expected: format!("an output, {} {:?}", expected.dtype.name(), expected.shape),
            })?;
            check_shape(name, view.shape(), view.dtype(), expected)?;
        }
        self.check_known(outputs.names(), expected)
    }

    /// What a module of these calls is specialised for.
    pub(crate) fn specialisation(
        &self,
        module: Module,
        mut wanted: Vec<String>,
        schedule: Schedule,
    ) -> Specialisation {
        wanted.sort();
        wanted.dedup();
        let group = u32::try_from(self.bound.group()).unwrap_or(u32::MAX);
        Specialisation { module, group, given: self.given.clone(), wanted, schedule }
    }
}

impl Prepared {
    /// Checks shapes and gets the plan and forward modules ready.
    pub(crate) fn new(
        store: &Arc<Store>,
        inputs: &NamedTensors<TensorShape>,
        sequences: Option<usize>,
        schedule: Option<Schedule>,
    ) -> Result<Prepared, crate::Error> {
        let instance = &store.instance;
        let bound = Bound::new(instance, &instance.program, inputs)?;
        let sizes = call_sizes(&bound.sizes, sequences, &store.device)?;
        let given = GivenInput::all(&instance.program, &bound, inputs);
        let chosen = match schedule {
            Some(schedule) => Chosen { schedule, source: Source::Given },
            None => store.schedule(wanted_schedule(&bound.sizes, &sizes, &given))?,
        };
        let schedule = chosen.schedule;
        let call = Shapes {
            store: store.clone(),
            inputs: inputs.clone(),
            outputs: ["o", "lse", "tau", "expiry"]
                .into_iter()
                .zip(output_shapes(&bound.sizes, instance.elem.into()))
                .fold(NamedTensors::new(), |all, (name, shape)| all.with(name, shape)),
            bound: bound.sizes,
            sizes,
            given,
            schedule,
            source: chosen.source,
        };
        let wanted = [Module::Plan, Module::Forward]
            .map(|module| call.specialisation(module, Vec::new(), schedule));
        let modules = store.modules(&wanted)?;
        let [plan, forward] = <[Arc<Loaded>; 2]>::try_from(modules).map_err(|_| {
            let reason = "the plan and forward modules were not made".to_owned();
            Error::Interface { module: Module::Plan.name(), reason }
        })?;
        let interfaces = [interface(&plan), interface(&forward)];
        check_written(&call.outputs, &interfaces)?;
        let workspace = Workspace::forward(&interfaces, call.elem().bytes() as u64, &sizes)?;
        Ok(Prepared { call: Arc::new(call), plan, forward, workspace })
    }

    /// What a forward call writes: `o`, `lse`, `tau` and `expiry` with shapes and element types.
    /// `lse`, `tau` and `expiry` must be contiguous.
    pub fn outputs(&self) -> &NamedTensors<TensorShape> {
        &self.call.outputs
    }

    /// Shapes of o, lse, tau and expiry.
    pub(crate) fn output_shapes(&self) -> [TensorShape; 4] {
        output_shapes(&self.call.bound, self.call.elem())
    }

    /// Bytes that a forward call leaves to its backward.
    pub fn saved_bytes(&self) -> u64 {
        self.workspace.saved_bytes()
    }

    /// Bytes that a forward call needs while it runs.
    pub fn scratch_bytes(&self) -> u64 {
        self.workspace.scratch_bytes()
    }

    /// The schedule of the modules.
    pub fn schedule(&self) -> Schedule {
        self.call.schedule
    }

    /// Where the schedule came from.
    pub fn schedule_source(&self) -> &Source {
        &self.call.source
    }

    /// The plan and forward modules.
    pub fn images(&self) -> [&Image; 2] {
        [&self.plan.image, &self.forward.image]
    }

    /// Queues a forward call on a stream. Nothing is allocated and nothing waited for, so the call
    /// can be captured into a graph (on a stream that is not the default one; cudarc's event
    /// tracking must be off then, or every tensor and memory be given by address).
    ///
    /// # Errors
    /// Tensors that are not as prepared, cannot be addressed, or lie elsewhere; memory that is too
    /// small; more work than a grid holds; what the driver reports.
    pub fn forward_into(
        &self,
        stream: &Arc<CudaStream>,
        mut call: ForwardCall<'_, '_>,
    ) -> Result<(), crate::Error> {
        let shapes = &*self.call;
        shapes.check_inputs(call.inputs)?;
        shapes.check_outputs(call.outputs, &shapes.outputs)?;
        shapes.check_sequences(call.sequences)?;
        let mut running = Call::new(&shapes.store.device, stream, &shapes.store.backward)?;
        for (name, view) in call.inputs.iter() {
            running.input(name, view)?;
        }
        for (name, view) in call.outputs.iter_mut() {
            running.output(name, view)?;
        }
        running.sequences(call.sequences);
        let saved = running.memory_mut(
            "memory saved for the backward",
            self.saved_bytes(),
            &mut call.saved,
        )?;
        let scratch =
            running.memory_mut("scratch memory", self.scratch_bytes(), &mut call.scratch)?;
        if shapes.is_empty() {
            return Ok(());
        }
        let bases = Bases { saved, scratch };
        for module in [&self.plan, &self.forward] {
            let (elem, sizes) = (shapes.elem(), &shapes.sizes);
            running.run(module, elem, sizes, &self.workspace, bases, call.profile)?;
        }
        Ok(())
    }

    /// Gets the backward of these calls ready. `wanted` are gradients as in
    /// [`super::Options::wanted`]; the schedule is the forward's, or one of the same chunk.
    ///
    /// # Errors
    /// A gradient that the kernel does not have; a schedule of another chunk; as
    /// [`super::Kernel::prepare`].
    pub fn backward(
        &self,
        wanted: Option<&[String]>,
        schedule: Option<Schedule>,
    ) -> Result<PreparedBackward, crate::Error> {
        PreparedBackward::new(self, wanted, schedule)
    }
}

/// What a schedule is looked up by. Only the GPU knows how long packed sequences are: as long as all of
/// them together at most.
fn wanted_schedule(bound: &bind::Sizes, sizes: &Sizes, given: &[GivenInput]) -> Asked {
    Asked {
        group: u32::try_from(bound.group()).unwrap_or(u32::MAX),
        given: given.to_vec(),
        sequence: tuned::bucket(sizes.n),
        kv_heads: sizes.hkv,
    }
}

/// A module's name and interface.
pub(crate) fn interface(loaded: &Loaded) -> (&'static str, &Interface) {
    (loaded.image.module().name(), loaded.image.interface())
}

/// Whether a module writes a tensor.
pub(crate) fn writes(interface: &Interface, wanted: &str) -> bool {
    let is_it = |p: &Parameter| match p {
        Parameter::Tensor { name, written, .. } => *written && name == wanted,
        _ => false,
    };
    interface.parameters.iter().any(is_it)
}

/// Checks that every output is written by some module: a mistake in their generator otherwise.
fn check_written(
    outputs: &NamedTensors<TensorShape>,
    modules: &[(&'static str, &Interface)],
) -> Result<(), Error> {
    let unwritten = |name: &&str| !modules.iter().any(|(_, i)| writes(i, name));
    match outputs.names().find(unwritten) {
        None => Ok(()),
        Some(name) => {
            let reason = format!("neither it nor the plan module writes `{name}`");
            Err(Error::Interface { module: Module::Forward.name(), reason })
        }
    }
}

/// o, lse, tau and expiry.
fn output_shapes(sizes: &bind::Sizes, elem: DType) -> [TensorShape; 4] {
    let bind::Sizes { batch, n, hq, hkv, d } = *sizes;
    [
        TensorShape { shape: vec![batch, n, hq, d], dtype: elem },
        TensorShape { shape: vec![batch, hq, n], dtype: DType::F32 },
        TensorShape { shape: vec![batch, hkv, n], dtype: DType::F32 },
        TensorShape { shape: vec![batch, hkv, n], dtype: DType::I32 },
    ]
}

fn call_sizes(
    sizes: &bind::Sizes,
    sequences: Option<usize>,
    device: &Device,
) -> Result<Sizes, crate::Error> {
    if sequences.is_some() && sizes.batch != 1 {
        let why = format!("packed sequences need a batch of 1, and it is {}", sizes.batch);
        return Err(crate::Error::Sequences(why));
    }
    Ok(Sizes {
        rows: sizes.batch as u64,
        sequences: sequences.unwrap_or(sizes.batch) as u64,
        n: sizes.n as u64,
        hq: sizes.hq as u64,
        hkv: sizes.hkv as u64,
        packed: sequences.is_some(),
        multiprocessors: u64::from(device.info().multiprocessors),
    })
}
