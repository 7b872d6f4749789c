//! Inputs on a CUDA device as a framework may hold them: head by head, with strides.

use crate::backend::{Done, times};
use crate::tensors::file::HostTensor;
use crate::tensors::inputs::Loaded;
use cudarc::driver::{CudaSlice, DeviceRepr, DriverError};
use half::{bf16, f16};
use sparsek::cuda::{self, TensorShape, TensorView};
use sparsek::{DType, NamedTensors, Storage, Tensor};

/// What a kernel is prepared for.
pub(crate) fn shapes(loaded: &Loaded) -> NamedTensors<TensorShape> {
    let mut shapes = NamedTensors::new();
    for (name, tensor) in loaded.tensors() {
        let dtype = match &tensor.data {
            Storage::F32(_) => DType::F32,
            Storage::F16(_) => DType::F16,
            Storage::Bf16(_) => DType::Bf16,
            Storage::I32(_) => DType::I32,
        };
        shapes = shapes.with(name, TensorShape { shape: tensor.shape.clone(), dtype });
    }
    shapes
}

/// Elements of one tensor on the device, and how a kernel is to read them.
struct Uploaded {
    name: String,
    shape: Vec<usize>,
    strides: Vec<usize>,
    data: Elements,
}

enum Elements {
    F32(CudaSlice<f32>),
    F16(CudaSlice<f16>),
    Bf16(CudaSlice<bf16>),
    I32(CudaSlice<i32>),
}

/// The order in memory of a tensor's axes: heads before positions where there are heads.
fn order(rank: usize) -> Vec<usize> {
    match rank {
        4 => vec![0, 2, 1, 3],
        3 => vec![0, 2, 1],
        rank => (0..rank).collect(),
    }
}

/// The elements with axes in that order, and the stride of each axis of `shape` in them.
fn reordered<T: Copy>(values: &[T], shape: &[usize], order: &[usize]) -> (Vec<T>, Vec<usize>) {
    let rank = shape.len();
    let mut strides = vec![1; rank];
    for at in (0..rank.saturating_sub(1)).rev() {
        strides[order[at]] = strides[order[at + 1]] * shape[order[at + 1]];
    }
    let mut out = values.to_vec();
    let mut index = vec![0; rank];
    for value in values {
        let at: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        out[at] = *value;
        for axis in (0..rank).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    (out, strides)
}

impl Uploaded {
    fn new(
        device: &cuda::Device,
        name: &str,
        tensor: &HostTensor,
    ) -> Result<Uploaded, DriverError> {
        let order = order(tensor.shape.len());
        fn send<T: Copy + DeviceRepr>(
            device: &cuda::Device,
            values: &[T],
            shape: &[usize],
            order: &[usize],
        ) -> Result<(CudaSlice<T>, Vec<usize>), DriverError> {
            let (values, strides) = reordered(values, shape, order);
            Ok((device.stream().clone_htod(&values)?, strides))
        }
        let shape = &tensor.shape;
        let (data, strides) = match &tensor.data {
            Storage::F32(x) => {
                let (slice, strides) = send(device, x, shape, &order)?;
                (Elements::F32(slice), strides)
            }
            Storage::F16(x) => {
                let (slice, strides) = send(device, x, shape, &order)?;
                (Elements::F16(slice), strides)
            }
            Storage::Bf16(x) => {
                let (slice, strides) = send(device, x, shape, &order)?;
                (Elements::Bf16(slice), strides)
            }
            Storage::I32(x) => {
                let (slice, strides) = send(device, x, shape, &order)?;
                (Elements::I32(slice), strides)
            }
        };
        Ok(Uploaded { name: name.to_owned(), shape: shape.clone(), strides, data })
    }

    fn view(&self) -> Result<TensorView<'_>, sparsek::Error> {
        let (shape, strides) = (&self.shape, &self.strides);
        match &self.data {
            Elements::F32(x) => TensorView::strided(x, 0, shape, strides),
            Elements::F16(x) => TensorView::strided(x, 0, shape, strides),
            Elements::Bf16(x) => TensorView::strided(x, 0, shape, strides),
            Elements::I32(x) => TensorView::strided(x, 0, shape, strides),
        }
    }
}

/// Forward and, where there is `d_o`, backward on inputs that lie head by head.
pub(crate) fn run_strided(
    device: &cuda::Device,
    kernel: &cuda::Kernel,
    loaded: &Loaded,
) -> Result<Done, sparsek::Error> {
    let upload = |name: &str, tensor: &HostTensor| {
        Uploaded::new(device, name, tensor).map_err(|e| {
            let what = format!("copying `{name}` to the GPU");
            sparsek::Error::from(cuda::Error::Driver { what, reason: e.to_string() })
        })
    };
    let uploaded: Vec<Uploaded> =
        loaded.tensors().map(|(name, t)| upload(name, t)).collect::<Result<_, _>>()?;
    let d_o = loaded.d_o.as_ref().map(|t| upload("d_o", t)).transpose()?;
    let mut inputs = cuda::Inputs::new();
    for tensor in &uploaded {
        inputs = inputs.with(&tensor.name, tensor.view()?);
    }
    let sequences = loaded.cu_seqlens.as_ref();
    let sequences = sequences.map(|c| cuda::Sequences::upload(device, c)).transpose()?;
    let profile = cuda::Profile::new();
    let options = cuda::Options {
        sequences: sequences.as_ref(),
        profile: Some(&profile),
        ..cuda::Options::default()
    };
    let forward = kernel.forward(&inputs, &options)?;
    let mut gradients: Vec<(String, Tensor)> = Vec::new();
    if let Some(d_o) = &d_o {
        let found = kernel.backward(&inputs, &forward, &d_o.view()?, &options)?;
        for (name, tensor) in found.iter() {
            gradients.push((name.to_owned(), tensor.download()?));
        }
    }
    Ok(Done {
        o: forward.o().download()?,
        lse: forward.lse().download()?,
        tau: forward.tau().download()?,
        expiry: forward.expiry().download()?,
        gradients,
        times: times(&profile.take()?, d_o.is_some()),
    })
}

#[cfg(test)]
mod tests {
    use super::{order, reordered};

    #[test]
    fn heads_come_before_positions() {
        // [1, 2 positions, 3 heads]
        let values = [0, 1, 2, 10, 11, 12];
        let (out, strides) = reordered(&values, &[1, 2, 3], &order(3));
        assert_eq!(out, [0, 10, 1, 11, 2, 12]);
        assert_eq!(strides, [6, 1, 2]);
        let (out, strides) = reordered(&values, &[1, 3, 1, 2], &order(4));
        assert_eq!((out.as_slice(), strides.as_slice()), (&values[..], &[6, 2, 6, 1][..]));
    }
}
