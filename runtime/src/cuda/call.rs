//! The tensors and memory of one call, checked and at their addresses.

use super::Error;
use super::arguments::{Arguments, Placed, axes};
use super::device::{Device, driver};
use super::image::Module;
use super::launch;
use super::loaded::{Loaded, OnStream, zero};
use super::memory::{Memory, MemoryMut};
use super::profile::Profile;
use super::sequences::Sequences;
use super::strides::Laid;
use super::tensor::{TensorShape, TensorView, TensorViewMut};
use super::workspace::{Bases, Workspace, check_memory};
use crate::DType;
use cudarc::driver::{CudaContext, CudaStream, SyncOnDrop};
use sparsek_codegen::{Axis, Sizes};
use sparsek_dsl::ir::{Class, Kind, Program, Role};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a tensor of a kernel may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) axes: &'static [Axis],
    /// Vectors over the head dimension, which are loaded in pieces of 16 bytes.
    vectors: bool,
    /// Without gaps, the last dimension fastest.
    contiguous: bool,
}

/// The rule for a tensor of that name: an input of the backward program (which has the forward's
/// too), a gradient of one, tau or expiry.
pub(crate) fn rule(backward: &Program, name: &str) -> Option<Rule> {
    if name == "tau" || name == "expiry" {
        let axes = axes(Role::Lse, Class::PerQuery);
        return Some(Rule { axes, vectors: false, contiguous: true });
    }
    let input = backward.input_named(name).map(|id| backward.input(id));
    if let Some(input) = input {
        return Some(Rule {
            axes: axes(input.role, input.ty.class),
            vectors: input.ty.kind == Kind::Vector,
            contiguous: input.role == Role::Lse,
        });
    }
    rule(backward, name.strip_prefix("d_")?)
}

/// A call under way: guards of what it borrows live as long.
pub(crate) struct Call<'c> {
    device: &'c Device,
    stream: &'c CudaStream,
    program: &'c Program,
    tensors: BTreeMap<String, Placed>,
    guards: Vec<SyncOnDrop<'c>>,
    cu_seqlens: u64,
}

impl<'c> Call<'c> {
    /// A call on a stream of the device's context. `program` is the backward program.
    pub(crate) fn new(
        device: &'c Device,
        stream: &'c CudaStream,
        program: &'c Program,
    ) -> Result<Call<'c>, Error> {
        let call = Call {
            device,
            stream,
            program,
            tensors: BTreeMap::new(),
            guards: Vec::new(),
            cu_seqlens: 0,
        };
        call.same_context("stream", stream.context())?;
        stream.context().bind_to_thread().map_err(driver("using the context of the GPU"))?;
        Ok(call)
    }

    fn same_context(&self, name: &str, context: &Arc<CudaContext>) -> Result<(), Error> {
        match context == self.device.context() {
            true => Ok(()),
            false => {
                let ordinal = self.device.info().ordinal;
                Err(Error::OtherDevice { name: name.to_owned(), ordinal })
            }
        }
    }

    fn hold(&mut self, (address, guard): (u64, Option<SyncOnDrop<'c>>)) -> u64 {
        self.guards.extend(guard);
        address
    }

    fn place(&mut self, laid: Laid<'_>, written: bool) -> Result<(), Error> {
        laid.check()?;
        let rule = rule(self.program, laid.name).ok_or_else(|| Error::Layout {
            name: laid.name.to_owned(),
            reason: "the kernel has no such tensor".to_owned(),
        })?;
        if rule.vectors {
            laid.check_vectors()?;
        }
        if rule.contiguous {
            laid.check_contiguous()?;
        }
        if written {
            laid.check_written()?;
        }
        let placed = Placed {
            address: laid.address,
            shape: laid.shape.to_vec(),
            strides: laid.strides.to_vec(),
            dtype: laid.dtype,
            axes: rule.axes,
            written,
        };
        self.tensors.insert(laid.name.to_owned(), placed);
        Ok(())
    }

    /// A tensor that the call reads.
    pub(crate) fn input(&mut self, name: &str, view: &'c TensorView<'_>) -> Result<(), Error> {
        self.same_context(name, view.context())?;
        let address = self.hold(view.place.read(self.stream));
        let (shape, strides, dtype) = (view.shape(), view.strides(), view.dtype());
        self.place(Laid { name, address, shape, strides, dtype }, false)
    }

    /// A tensor that the call writes.
    pub(crate) fn output(
        &mut self,
        name: &str,
        view: &'c mut TensorViewMut<'_>,
    ) -> Result<(), Error> {
        self.same_context(name, view.context())?;
        let (shape, strides) = (view.shape().to_vec(), view.strides().to_vec());
        let dtype = view.dtype();
        let address = self.hold(view.place.write(self.stream));
        self.place(Laid { name, address, shape: &shape, strides: &strides, dtype }, true)
    }

    /// The sequences of the call.
    pub(crate) fn sequences(&mut self, sequences: Option<&'c Sequences>) {
        if let Some(sequences) = sequences {
            self.cu_seqlens = self.hold(sequences.read(self.stream));
        }
    }

    /// Memory that the call writes, checked: its address.
    pub(crate) fn memory_mut(
        &mut self,
        what: &'static str,
        needed: u64,
        memory: &'c mut MemoryMut<'_>,
    ) -> Result<u64, Error> {
        self.same_context(what, &memory.context)?;
        let bytes = memory.bytes;
        let address = self.hold(memory.place.write(self.stream));
        check_memory(what, needed, address, bytes).map(|()| address)
    }

    /// Memory that the call reads, checked: its address.
    pub(crate) fn memory(
        &mut self,
        what: &'static str,
        needed: u64,
        memory: &'c Memory<'_>,
    ) -> Result<u64, Error> {
        self.same_context(what, &memory.context)?;
        let address = self.hold(memory.place.read(self.stream));
        check_memory(what, needed, address, memory.bytes).map(|()| address)
    }

    /// Queues a module.
    pub(crate) fn run(
        &self,
        loaded: &Loaded,
        elem: DType,
        sizes: &Sizes,
        workspace: &Workspace,
        bases: Bases,
        profile: Option<&Profile>,
    ) -> Result<(), Error> {
        let interface = loaded.image.interface();
        let address = |name: &str| workspace.at(name, bases).map(|(address, _)| address);
        let buffers = interface
            .buffers
            .iter()
            .filter_map(|b| Some((b.name.clone(), address(&b.name)?)))
            .collect();
        let arguments = Arguments {
            module: loaded.image.module().name(),
            elem,
            sizes,
            tensors: &self.tensors,
            buffers: &buffers,
            cu_seqlens: self.cu_seqlens,
        };
        let (whole, each) = match profile {
            Some(profile) if profile.is_of_modules() => (Some(profile), None),
            profile => (None, profile),
        };
        let mut queue = OnStream { loaded, stream: self.stream, profile: each };
        let start = whole.map(|p| p.begin(self.stream)).transpose()?;
        launch::run(interface, &arguments, workspace, bases, &mut queue)?;
        match (whole, start) {
            (Some(p), Some(start)) => p.end(loaded.image.module(), "", start, self.stream),
            _ => Ok(()),
        }
    }

    /// Sets an output to zero.
    pub(crate) fn zero(&self, name: &str) -> Result<(), Error> {
        let Some(placed) = self.tensors.get(name).filter(|t| t.written) else {
            let reason = format!("the call has no output `{name}`");
            return Err(Error::Interface { module: Module::Backward.name(), reason });
        };
        let Placed { address, shape, strides, dtype, .. } = placed;
        let laid = Laid { name, address: *address, shape, strides, dtype: *dtype };
        laid.runs().into_iter().try_for_each(|(at, bytes)| zero(self.stream, at, bytes))
    }
}

/// Checks a tensor's shape and element type against what a call was prepared for.
pub(crate) fn check_shape(
    name: &str,
    shape: &[usize],
    dtype: DType,
    expected: &TensorShape,
) -> Result<(), crate::Error> {
    if shape != expected.shape {
        return Err(crate::Error::Shape {
            name: name.to_owned(),
            found: shape.to_vec(),
            expected: format!("{:?} is needed", expected.shape),
        });
    }
    if dtype != expected.dtype {
        return Err(crate::Error::Type {
            name: name.to_owned(),
            found: dtype.name(),
            expected: expected.dtype.name().to_owned(),
        });
    }
    Ok(())
}
