//! A kernel on a GPU: calls that allocate what they return.

use super::Error;
use super::cache::Cache;
use super::device::Device;
use super::image::Image;
use super::memory::{Memory, MemoryMut};
use super::prepared::{ForwardCall, Prepared};
use super::prepared_backward::BackwardCall;
use super::profile::Profile;
use super::sequences::Sequences;
use super::store::{Store, Tuned};
use super::tensor::{Inputs, Outputs, OwnedTensor, TensorShape, TensorView};
use crate::{NamedTensors, tuned};
use cudarc::driver::CudaSlice;
use sparsek_codegen::Schedule;
use std::sync::Arc;

/// A kernel instance on a GPU. The code for a call's number of heads, inputs and gradients is
/// compiled when it is first needed, kept in the cubin cache, and loaded once. Clones are the same.
#[derive(Clone, Debug)]
pub struct Kernel {
    store: Arc<Store>,
}

/// What a call may say beside its tensors.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// Packed sequences; `None`: every row of the batch is one sequence. A backward call has those
    /// of its forward call; others are an error.
    pub sequences: Option<&'a Sequences>,
    /// The gradients to compute, as `d_q`, `d_slope`, …; `None`: of every differentiable input
    /// that was given.
    pub wanted: Option<Vec<String>>,
    /// Tile sizes and pipeline shapes; `None`: tuned ones ([`crate::tuned`]), else the compiler's choice,
    /// in a backward call those of its forward call.
    pub schedule: Option<Schedule>,
    /// Where to note the time of each kernel.
    pub profile: Option<&'a Profile>,
}

/// Results of a forward call, on the GPU: the output, and what the backward reads.
#[derive(Debug)]
pub struct Forward {
    o: OwnedTensor,
    lse: OwnedTensor,
    tau: OwnedTensor,
    expiry: OwnedTensor,
    saved: CudaSlice<u8>,
    prepared: Prepared,
    sequences: Option<Sequences>,
}

/// Gradients by name, on the GPU.
#[derive(Debug)]
pub struct Gradients {
    tensors: NamedTensors<OwnedTensor>,
}

impl crate::Kernel {
    /// This kernel on a GPU. Cheap: compiling waits for the first call. Compiled code is kept in
    /// the folder of [`super::cache::folder`]; [`Kernel::with_cache`] chooses another.
    pub fn cuda(&self, device: &Device) -> Kernel {
        let (instance, backward) = (self.instance.clone(), self.backward.clone());
        let tuned = Tuned {
            store: tuned::Store::from_environment(),
            manifest: self.manifest.clone(),
            on: tuned::is_on(),
        };
        let cache = Cache::from_environment();
        let store = Store::new(instance, backward, device.clone(), cache, tuned);
        Kernel { store: Arc::new(store) }
    }
}

impl Kernel {
    /// The same kernel with another cubin cache, or none. Nothing is loaded yet.
    pub fn with_cache(&self, cache: Option<Cache>) -> Kernel {
        self.with(cache, self.store.tuned.clone())
    }

    /// The same kernel with another store of tuned schedules, or none. Nothing is loaded yet.
    pub fn with_tuned(&self, store: Option<tuned::Store>) -> Kernel {
        let Tuned { manifest, on, .. } = self.store.tuned.clone();
        self.with(self.store.cache.clone(), Tuned { store, manifest, on })
    }

    fn with(&self, cache: Option<Cache>, tuned: Tuned) -> Kernel {
        let Store { instance, backward, device, .. } = &*self.store;
        let (instance, backward) = (instance.clone(), backward.clone());
        Kernel { store: Arc::new(Store::new(instance, backward, device.clone(), cache, tuned)) }
    }

    /// The GPU that it runs on.
    pub fn device(&self) -> &Device {
        &self.store.device
    }

    /// Gets forward calls of those shapes ready: compiles and loads what they need. `sequences` is
    /// the number of packed sequences, `None` when each row of the batch is one.
    ///
    /// # Errors
    /// Shapes that do not fit the kernel; no schedule that fits the GPU; no NVRTC; what the driver
    /// reports.
    pub fn prepare(
        &self,
        inputs: &NamedTensors<TensorShape>,
        sequences: Option<usize>,
        schedule: Option<Schedule>,
    ) -> Result<Prepared, crate::Error> {
        Prepared::new(&self.store, inputs, sequences, schedule)
    }

    /// Computes the output. The call returns when its work is queued on the device's stream.
    ///
    /// # Errors
    /// As [`Kernel::prepare`]; tensors that cannot be addressed (vectors at multiples of 16 bytes,
    /// the last dimension contiguous); no memory.
    pub fn forward(
        &self,
        inputs: &Inputs<'_>,
        options: &Options<'_>,
    ) -> Result<Forward, crate::Error> {
        let sequences = options.sequences;
        let count = sequences.map(Sequences::count);
        let prepared = self.prepare(&shapes(inputs), count, options.schedule)?;
        let device = &self.store.device;
        let [o, lse, tau, expiry] = prepared.output_shapes();
        let mut o = OwnedTensor::allocate(device, "o", o)?;
        let mut lse = OwnedTensor::allocate(device, "lse", lse)?;
        let mut tau = OwnedTensor::allocate(device, "tau", tau)?;
        let mut expiry = OwnedTensor::allocate(device, "expiry", expiry)?;
        let mut saved = memory(device, "the plan", prepared.saved_bytes())?;
        let mut scratch = memory(device, "the forward's scratch", prepared.scratch_bytes())?;
        let call = ForwardCall {
            inputs,
            outputs: &mut NamedTensors::new()
                .with("o", o.view_mut())
                .with("lse", lse.view_mut())
                .with("tau", tau.view_mut())
                .with("expiry", expiry.view_mut()),
            saved: MemoryMut::new(&mut saved),
            scratch: MemoryMut::new(&mut scratch),
            sequences,
            profile: options.profile,
        };
        prepared.forward_into(device.stream(), call)?;
        let sequences = sequences.cloned();
        Ok(Forward { o, lse, tau, expiry, saved, prepared, sequences })
    }

    /// Computes the gradients. `inputs` as in the forward call that gave `forward`; `d_o` like q.
    /// The call returns when its work is queued on the device's stream.
    ///
    /// # Errors
    /// As [`Kernel::forward`]; a gradient that the kernel does not have; a `forward` of another
    /// kernel or of other sequences.
    pub fn backward(
        &self,
        inputs: &Inputs<'_>,
        forward: &Forward,
        d_o: &TensorView<'_>,
        options: &Options<'_>,
    ) -> Result<Gradients, crate::Error> {
        let theirs = &forward.prepared.call.store;
        if !Arc::ptr_eq(theirs, &self.store) && !self.same_instance(theirs) {
            let why = format!("it is of {}, another instance or GPU", theirs.kernel());
            return Err(Error::Mismatch(why).into());
        }
        let same = |ours: &&Sequences| forward.sequences.as_ref().is_some_and(|s| s.same(ours));
        if options.sequences.is_some() && options.sequences.filter(same).is_none() {
            let why = "cu_seqlens are not those of the forward call".to_owned();
            return Err(Error::Mismatch(why).into());
        }
        let prepared = forward.prepared.backward(options.wanted.as_deref(), options.schedule)?;
        let device = &self.store.device;
        let mut gradients = allocate(device, prepared.gradients())?;
        let mut scratch = memory(device, "the backward's scratch", prepared.scratch_bytes())?;
        let call = BackwardCall {
            inputs,
            outputs: &NamedTensors::new()
                .with("o", forward.o.view())
                .with("lse", forward.lse.view())
                .with("tau", forward.tau.view())
                .with("expiry", forward.expiry.view()),
            d_o,
            gradients: &mut borrowed_mut(&mut gradients),
            saved: Memory::new(&forward.saved),
            scratch: MemoryMut::new(&mut scratch),
            sequences: forward.sequences.as_ref(),
            profile: options.profile,
        };
        prepared.queue(device.stream(), call)?;
        Ok(Gradients { tensors: gradients })
    }

    fn same_instance(&self, other: &Store) -> bool {
        self.store.device.context() == other.device.context() && self.store.hash() == other.hash()
    }

    /// What calls had to say that is no error: that the cubin cache cannot be written, that a tuned
    /// schedule cannot be read or used. Each is given once.
    pub fn take_warnings(&self) -> Vec<String> {
        self.store.take_warnings()
    }

    /// The modules that calls have loaded so far, to be kept in files.
    pub fn images(&self) -> Vec<Image> {
        self.store.images()
    }

    /// Takes a compiled module, which calls then use in the place of compiling one.
    ///
    /// # Errors
    /// An image of another kernel instance or for another target.
    pub fn add_image(&self, image: Image) -> Result<(), crate::Error> {
        Ok(self.store.add(image)?)
    }
}

impl Forward {
    /// o \[B, N, Hq, D\] in the kernel's element type.
    pub fn o(&self) -> &OwnedTensor {
        &self.o
    }

    /// Natural log of the softmax's denominator, \[B, Hq, N\] f32; −inf where nothing is seen.
    pub fn lse(&self) -> &OwnedTensor {
        &self.lse
    }

    /// Threshold of the top-k mask, \[B, Hkv, N\] f32; −inf where a query has at most k candidates.
    pub fn tau(&self) -> &OwnedTensor {
        &self.tau
    }

    /// First query that no longer sees the key, \[B, Hkv, N\] i32; the sequence's length when it is
    /// seen to the end.
    pub fn expiry(&self) -> &OwnedTensor {
        &self.expiry
    }

    /// The output alone; what only the backward reads is freed.
    pub fn into_o(self) -> OwnedTensor {
        self.o
    }

    /// The schedule of the call.
    pub fn schedule(&self) -> Schedule {
        self.prepared.schedule()
    }

    /// Where it came from: the caller, a tuned schedule with its id, the cost model.
    pub fn schedule_source(&self) -> &tuned::Source {
        self.prepared.schedule_source()
    }
}

impl Gradients {
    /// The gradient of that name (`d_q`, …): in the kernel's element type for q, k and v, else f32,
    /// always of the input's own shape.
    pub fn get(&self, name: &str) -> Option<&OwnedTensor> {
        self.tensors.get(name)
    }

    /// Every gradient with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OwnedTensor)> {
        self.tensors.iter()
    }
}

/// Shapes and element types of tensors: what [`Kernel::prepare`] takes.
pub fn shapes(inputs: &Inputs<'_>) -> NamedTensors<TensorShape> {
    let shape =
        |view: &TensorView<'_>| TensorShape { shape: view.shape().to_vec(), dtype: view.dtype() };
    inputs.iter().fold(NamedTensors::new(), |all, (name, view)| all.with(name, shape(view)))
}

fn allocate(
    device: &Device,
    shapes: &NamedTensors<TensorShape>,
) -> Result<NamedTensors<OwnedTensor>, crate::Error> {
    let mut out = NamedTensors::new();
    for (name, shape) in shapes.iter() {
        out = out.with(name, OwnedTensor::allocate(device, name, shape.clone())?);
    }
    Ok(out)
}

fn memory(device: &Device, what: &str, bytes: u64) -> Result<CudaSlice<u8>, crate::Error> {
    let bytes = usize::try_from(bytes).map_err(|_| Error::TooLarge { what: what.to_owned() })?;
    device.allocate(what, bytes)
}

fn borrowed_mut(tensors: &mut NamedTensors<OwnedTensor>) -> Outputs<'_> {
    tensors.iter_mut().fold(NamedTensors::new(), |all, (name, t)| all.with(name, t.view_mut()))
}
