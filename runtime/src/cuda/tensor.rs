//! Tensors on a GPU: borrowed with strides, and owned.

use super::device::{Device, driver};
use super::memory::{Place, PlaceMut};
use super::{Error, strides};
use crate::tensor::{Storage, View};
use crate::{DType, Data, NamedTensors, Tensor};
use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaSlice, DeviceRepr};
use half::{bf16, f16};
use std::fmt::Debug;
use std::sync::Arc;

/// Input tensors on a GPU, by name.
pub type Inputs<'a> = NamedTensors<TensorView<'a>>;

/// Tensors on a GPU that a call writes, by name.
pub type Outputs<'a> = NamedTensors<TensorViewMut<'a>>;

/// Rust types of tensor elements: f32, f16, bf16, i32.
pub trait Element: DeviceRepr + Debug + sealed::Sealed + 'static {
    /// The element type.
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($($type:ty: $dtype:ident),*) => {
        $(impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}

element!(f32: F32, f16: F16, bf16: Bf16, i32: I32);

/// Shape and element type of a tensor, without memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: DType,
}

impl TensorShape {
    /// Bytes of a contiguous tensor of that shape; `None` above `usize::MAX`.
    pub(crate) fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.bytes(), |n, d| n.checked_mul(*d))
    }
}

impl View for TensorShape {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> DType {
        self.dtype
    }
}

/// A borrowed tensor on a GPU, with strides. Strides count elements; 0 repeats an element.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    pub(crate) place: Place<'a>,
    shape: Vec<usize>,
    strides: Vec<usize>,
    dtype: DType,
    context: Arc<CudaContext>,
}

impl<'a> TensorView<'a> {
    /// A contiguous tensor at the start of a slice, the last dimension fastest.
    ///
    /// # Errors
    /// The slice holds fewer elements.
    pub fn new<T: Element>(
        slice: &'a CudaSlice<T>,
        shape: &[usize],
    ) -> Result<TensorView<'a>, crate::Error> {
        Self::strided(slice, 0, shape, &strides::contiguous(shape))
    }

    /// A tensor whose first element is element `offset` of a slice.
    ///
    /// # Errors
    /// An element lies outside the slice; the numbers of dimensions and strides differ.
    pub fn strided<T: Element>(
        slice: &'a CudaSlice<T>,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Result<TensorView<'a>, crate::Error> {
        strides::fits(shape, strides, offset, slice.len())?;
        Ok(TensorView {
            place: Place::Slice(slice, (offset * T::DTYPE.bytes()) as u64),
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            dtype: T::DTYPE,
            context: slice.context().clone(),
        })
    }

    /// A tensor whose first element is at an address.
    ///
    /// # Safety
    /// Every element lies in memory of that device, which stays allocated, and which nothing
    /// writes, until the calls that are given the view are done on their streams.
    #[allow(unsafe_code, reason = "the caller vouches for an address")]
    pub unsafe fn from_raw(
        address: u64,
        shape: &[usize],
        strides: &[usize],
        dtype: DType,
        device: &Device,
    ) -> TensorView<'a> {
        TensorView {
            place: Place::Address(address),
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            dtype,
            context: device.context().clone(),
        }
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements from one entry to the next along each dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Type of its elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }
}

impl View for TensorView<'_> {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> DType {
        self.dtype
    }
}

/// A borrowed tensor on a GPU that a call writes.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    pub(crate) place: PlaceMut<'a>,
    shape: Vec<usize>,
    strides: Vec<usize>,
    dtype: DType,
    context: Arc<CudaContext>,
}

impl<'a> TensorViewMut<'a> {
    /// A contiguous tensor at the start of a slice, the last dimension fastest.
    ///
    /// # Errors
    /// The slice holds fewer elements.
    pub fn new<T: Element>(
        slice: &'a mut CudaSlice<T>,
        shape: &[usize],
    ) -> Result<TensorViewMut<'a>, crate::Error> {
        Self::strided(slice, 0, shape, &strides::contiguous(shape))
    }

    /// A tensor whose first element is element `offset` of a slice.
    ///
    /// # Errors
    /// As [`TensorView::strided`].
    pub fn strided<T: Element>(
        slice: &'a mut CudaSlice<T>,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Result<TensorViewMut<'a>, crate::Error> {
        strides::fits(shape, strides, offset, slice.len())?;
        Ok(TensorViewMut {
            context: slice.context().clone(),
            place: PlaceMut::Slice(slice, (offset * T::DTYPE.bytes()) as u64),
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            dtype: T::DTYPE,
        })
    }

    /// A tensor whose first element is at an address.
    ///
    /// # Safety
    /// As [`TensorView::from_raw`], and nothing else reads the memory until then.
    #[allow(unsafe_code, reason = "the caller vouches for an address")]
    pub unsafe fn from_raw(
        address: u64,
        shape: &[usize],
        strides: &[usize],
        dtype: DType,
        device: &Device,
    ) -> TensorViewMut<'a> {
        TensorViewMut {
            place: PlaceMut::Address(address),
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            dtype,
            context: device.context().clone(),
        }
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements from one entry to the next along each dimension.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Type of its elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }
}

/// A contiguous tensor on a GPU with its memory. Dropping it frees the memory once the work that
/// uses it is done.
#[derive(Debug)]
pub struct OwnedTensor {
    device: Device,
    memory: CudaSlice<u8>,
    shape: TensorShape,
}

impl OwnedTensor {
    /// Uninitialised memory for a tensor, for kernels to write.
    pub(crate) fn allocate(
        device: &Device,
        name: &str,
        shape: TensorShape,
    ) -> Result<OwnedTensor, crate::Error> {
        let what = || format!("tensor `{name}`");
        let bytes = shape.bytes().ok_or_else(|| Error::TooLarge { what: what() })?;
        let memory = device.allocate(&what(), bytes)?;
        Ok(OwnedTensor { device: device.clone(), memory, shape })
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape.shape
    }

    /// Type of its elements.
    pub fn dtype(&self) -> DType {
        self.shape.dtype
    }

    /// The tensor borrowed.
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            place: Place::Slice(&self.memory, 0),
            shape: self.shape.shape.clone(),
            strides: strides::contiguous(&self.shape.shape),
            dtype: self.shape.dtype,
            context: self.memory.context().clone(),
        }
    }

    /// The tensor borrowed to be written.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        TensorViewMut {
            context: self.memory.context().clone(),
            place: PlaceMut::Slice(&mut self.memory, 0),
            strides: strides::contiguous(&self.shape.shape),
            shape: self.shape.shape.clone(),
            dtype: self.shape.dtype,
        }
    }

    /// Its elements on the host, after everything before on the device's stream.
    ///
    /// # Errors
    /// What the driver reports, also of earlier work on the stream.
    pub fn download(&self) -> Result<Tensor, crate::Error> {
        let storage = match self.shape.dtype {
            DType::F32 => Storage::F32(self.elements()?),
            DType::F16 => Storage::F16(self.elements()?),
            DType::Bf16 => Storage::Bf16(self.elements()?),
            DType::I32 => Storage::I32(self.elements()?),
        };
        Ok(Tensor::new(self.shape.shape.clone(), storage))
    }

    fn elements<T: Pod>(&self) -> Result<Vec<T>, Error> {
        let mut out = vec![T::zeroed(); self.shape.shape.iter().product()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut out);
        if !bytes.is_empty() {
            let stream = self.device.stream();
            // The memory has at least that many bytes.
            let source = self.memory.slice(..bytes.len());
            stream.memcpy_dtoh(&source, bytes).map_err(driver("copying from the GPU"))?;
            stream.synchronize().map_err(driver("waiting for the GPU"))?;
        }
        Ok(out)
    }
}

impl Device {
    /// A host tensor copied to the GPU.
    ///
    /// # Errors
    /// No memory for it; what the driver reports.
    pub fn upload(&self, view: &crate::TensorView<'_>) -> Result<OwnedTensor, crate::Error> {
        let shape = TensorShape { shape: view.shape().to_vec(), dtype: view.data().dtype() };
        let mut tensor = OwnedTensor::allocate(self, "upload", shape)?;
        let bytes: &[u8] = match view.data() {
            Data::F32(x) => bytemuck::cast_slice(x),
            Data::F16(x) => bytemuck::cast_slice(x),
            Data::Bf16(x) => bytemuck::cast_slice(x),
            Data::I32(x) => bytemuck::cast_slice(x),
        };
        if !bytes.is_empty() {
            let copied = self.stream().memcpy_htod(bytes, &mut tensor.memory);
            copied.map_err(driver("copying to the GPU"))?;
        }
        Ok(tensor)
    }
}
