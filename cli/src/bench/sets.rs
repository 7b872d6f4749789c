//! Inputs on a GPU that take turns, and clocks on its stream.

use super::data;
use crate::commands::failure;
use crate::failure::Failure;
use crate::tensors::file::HostTensor;
use crate::tensors::inputs::Loaded;
use cudarc::driver::{CudaEvent, DriverError, sys::CUevent_flags};
use sparsek::cuda;
use sparsek::dsl::ir::Instance;

/// Bytes of inputs beyond which they do not stay in the cache from call to call.
const CACHED: usize = 192 << 20;

/// Most sets of inputs that take turns.
const MOST_SETS: usize = 8;

/// Bytes that a forward and a backward read and write at least: every tensor once.
pub(crate) fn least_bytes(sizes: &data::Sizes, instance: &Instance) -> (f64, f64) {
    let positions = (sizes.batch * sizes.n) as f64;
    let width = instance.elem.bytes() as f64 * instance.d as f64;
    let (q, kv) = (positions * sizes.hq as f64 * width, positions * sizes.hkv as f64 * width);
    let rows = positions * 4.0 * (sizes.hq + 3 * sizes.hkv) as f64;
    // q k v → o; q k v o d_o → d_q d_k d_v.
    (2.0 * q + 2.0 * kv + rows, 4.0 * q + 4.0 * kv + rows)
}

/// One set of inputs on the device.
pub(crate) struct Set {
    tensors: Vec<(String, cuda::OwnedTensor)>,
    /// Where there is a backward.
    pub(crate) d_o: Option<cuda::OwnedTensor>,
}

impl Set {
    /// Uploads inputs, and the gradient of the output where there is to be a backward.
    pub(crate) fn upload(
        device: &cuda::Device,
        loaded: &Loaded,
        backward: bool,
    ) -> Result<Set, sparsek::Error> {
        let up = |tensor: &HostTensor| device.upload(&tensor.view()?);
        let tensors = loaded.tensors().map(|(name, t)| Ok((name.to_owned(), up(t)?)));
        let tensors: Result<Vec<_>, sparsek::Error> = tensors.collect();
        let d_o = loaded.d_o.as_ref().filter(|_| backward).map(up).transpose()?;
        Ok(Set { tensors: tensors?, d_o })
    }

    /// Another tensor in the place of one.
    pub(crate) fn replace(
        &mut self,
        device: &cuda::Device,
        name: &str,
        with: &HostTensor,
    ) -> Result<(), sparsek::Error> {
        let with = device.upload(&with.view()?)?;
        if let Some((_, tensor)) = self.tensors.iter_mut().find(|(of, _)| of == name) {
            *tensor = with;
        }
        Ok(())
    }

    /// The inputs of a call.
    pub(crate) fn inputs(&self) -> cuda::Inputs<'_> {
        let empty = cuda::Inputs::new();
        self.tensors.iter().fold(empty, |inputs, (name, t)| inputs.with(name, t.view()))
    }
}

/// A failure of the driver.
pub(crate) fn driver(error: DriverError) -> Failure {
    Failure::new(format_args!("the CUDA driver failed while timing: {error}"))
}

/// A failure of a call.
pub(crate) fn failed(error: sparsek::Error) -> Failure {
    failure(error, None)
}

/// An event on the device's stream, that knows when it was passed.
pub(crate) fn mark(device: &cuda::Device) -> Result<CudaEvent, Failure> {
    let event = device.stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
    event.map_err(driver)
}

/// How many sets take turns, so that a set of so many bytes is not in the cache any more when its turn comes.
pub(crate) fn sets_that_take_turns(bytes: f64) -> usize {
    (CACHED as f64 / bytes.max(1.0)).ceil().clamp(1.0, MOST_SETS as f64) as usize
}
