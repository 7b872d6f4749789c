//! Tensors: contiguous, row-major, on the host.

use crate::Error;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use sparsek_dsl::Elem;

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// f32
    F32,
    /// f16
    F16,
    /// bf16
    Bf16,
    /// i32
    I32,
}

impl DType {
    /// Its name: `f32`, `f16`, `bf16`, `i32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I32 => "i32",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The floating-point element type; `None` for i32.
    pub fn elem(self) -> Option<Elem> {
        match self {
            DType::F32 => Some(Elem::F32),
            DType::F16 => Some(Elem::F16),
            DType::Bf16 => Some(Elem::Bf16),
            DType::I32 => None,
        }
    }
}

impl From<Elem> for DType {
    fn from(elem: Elem) -> DType {
        match elem {
            Elem::F32 => DType::F32,
            Elem::F16 => DType::F16,
            Elem::Bf16 => DType::Bf16,
        }
    }
}

/// A tensor as far as shapes are checked.
pub(crate) trait View: Clone {
    /// Its dimensions, outermost first.
    fn shape(&self) -> &[usize];
    /// Type of its elements.
    fn dtype(&self) -> DType;
}

impl View for TensorView<'_> {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn dtype(&self) -> DType {
        self.data.dtype()
    }
}

/// Borrowed elements of a tensor.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// f32
    F32(&'a [f32]),
    /// f16
    F16(&'a [f16]),
    /// bf16
    Bf16(&'a [bf16]),
    /// i32
    I32(&'a [i32]),
}

impl Data<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(x) => x.len(),
            Data::F16(x) => x.len(),
            Data::Bf16(x) => x.len(),
            Data::I32(x) => x.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::Bf16(_) => DType::Bf16,
            Data::I32(_) => DType::I32,
        }
    }

    /// The element type's name.
    pub fn type_name(&self) -> &'static str {
        self.dtype().name()
    }

    /// The floating-point element type; `None` for i32.
    pub fn elem(&self) -> Option<Elem> {
        self.dtype().elem()
    }

    /// Writes elements `start..start + out.len()` as f32.
    pub(crate) fn read(&self, start: usize, out: &mut [f32]) {
        let range = start..start + out.len();
        match self {
            Data::F32(x) => out.copy_from_slice(&x[range]),
            Data::F16(x) => x[range].convert_to_f32_slice(out),
            Data::Bf16(x) => x[range].convert_to_f32_slice(out),
            Data::I32(x) => out.iter_mut().zip(&x[range]).for_each(|(o, x)| *o = *x as f32),
        }
    }

    /// One element as f32.
    pub(crate) fn at(&self, index: usize) -> f32 {
        match self {
            Data::F32(x) => x[index],
            Data::F16(x) => x[index].to_f32(),
            Data::Bf16(x) => x[index].to_f32(),
            Data::I32(x) => x[index] as f32,
        }
    }
}

impl<'a> From<&'a [f32]> for Data<'a> {
    fn from(x: &'a [f32]) -> Self {
        Data::F32(x)
    }
}

impl<'a> From<&'a [f16]> for Data<'a> {
    fn from(x: &'a [f16]) -> Self {
        Data::F16(x)
    }
}

impl<'a> From<&'a [bf16]> for Data<'a> {
    fn from(x: &'a [bf16]) -> Self {
        Data::Bf16(x)
    }
}

impl<'a> From<&'a [i32]> for Data<'a> {
    fn from(x: &'a [i32]) -> Self {
        Data::I32(x)
    }
}

/// A borrowed tensor: shape and elements, the last dimension fastest.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    shape: Vec<usize>,
    data: Data<'a>,
}

impl<'a> TensorView<'a> {
    /// A view of `data` as a tensor of that shape; an error unless the numbers of elements agree.
    pub fn new(shape: &[usize], data: impl Into<Data<'a>>) -> Result<TensorView<'a>, Error> {
        let data = data.into();
        let expected = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if expected != Some(data.len()) {
            return Err(Error::Length {
                shape: shape.to_vec(),
                expected: expected.unwrap_or(usize::MAX),
                found: data.len(),
            });
        }
        Ok(TensorView { shape: shape.to_vec(), data })
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements.
    pub fn data(&self) -> Data<'a> {
        self.data
    }
}

/// Owned elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// f32
    F32(Vec<f32>),
    /// f16
    F16(Vec<f16>),
    /// bf16
    Bf16(Vec<bf16>),
    /// i32
    I32(Vec<i32>),
}

impl Storage {
    /// Zeros of a floating-point element type.
    pub(crate) fn zeros(elem: Elem, len: usize) -> Storage {
        match elem {
            Elem::F32 => Storage::F32(vec![0.0; len]),
            Elem::F16 => Storage::F16(vec![f16::ZERO; len]),
            Elem::Bf16 => Storage::Bf16(vec![bf16::ZERO; len]),
        }
    }

    /// The elements, rounded to nearest even in the element type.
    pub(crate) fn rounded(elem: Elem, values: Vec<f32>) -> Storage {
        match elem {
            Elem::F32 => Storage::F32(values),
            Elem::F16 => {
                let mut out = vec![f16::ZERO; values.len()];
                out.convert_from_f32_slice(&values);
                Storage::F16(out)
            }
            Elem::Bf16 => {
                let mut out = vec![bf16::ZERO; values.len()];
                out.convert_from_f32_slice(&values);
                Storage::Bf16(out)
            }
        }
    }

    /// Mutable parts of those lengths, one after the other.
    pub(crate) fn split_mut(&mut self, lens: &[usize]) -> Vec<StorageMut<'_>> {
        match self {
            Storage::F32(x) => split_mut(x, lens).into_iter().map(StorageMut::F32).collect(),
            Storage::F16(x) => split_mut(x, lens).into_iter().map(StorageMut::F16).collect(),
            Storage::Bf16(x) => split_mut(x, lens).into_iter().map(StorageMut::Bf16).collect(),
            Storage::I32(_) => Vec::new(),
        }
    }
}

/// Mutable parts of a slice, of those lengths, one after the other.
pub(crate) fn split_mut<'a, T>(mut all: &'a mut [T], lens: &[usize]) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(lens.len());
    for len in lens {
        let (part, rest) = all.split_at_mut((*len).min(all.len()));
        parts.push(part);
        all = rest;
    }
    parts
}

/// A mutable part of a floating-point [`Storage`].
#[derive(Debug)]
pub(crate) enum StorageMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
}

impl StorageMut<'_> {
    /// Stores `values` from `start` on, rounded to nearest even.
    pub(crate) fn write(&mut self, start: usize, values: &[f32]) {
        let range = start..start + values.len();
        match self {
            StorageMut::F32(x) => x[range].copy_from_slice(values),
            StorageMut::F16(x) => x[range].convert_from_f32_slice(values),
            StorageMut::Bf16(x) => x[range].convert_from_f32_slice(values),
        }
    }
}

/// An owned tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Storage,
}

impl Tensor {
    pub(crate) fn new(shape: Vec<usize>, data: Storage) -> Tensor {
        Tensor { shape, data }
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements, the last dimension fastest.
    pub fn storage(&self) -> &Storage {
        &self.data
    }

    /// The tensor borrowed.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { shape: self.shape.clone(), data: self.data() }
    }

    /// The elements borrowed.
    pub fn data(&self) -> Data<'_> {
        match &self.data {
            Storage::F32(x) => Data::F32(x),
            Storage::F16(x) => Data::F16(x),
            Storage::Bf16(x) => Data::Bf16(x),
            Storage::I32(x) => Data::I32(x),
        }
    }

    /// The elements converted to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.data().len()];
        self.data().read(0, &mut out);
        out
    }

    /// The elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Storage::F32(x) => Some(x),
            Storage::F16(_) | Storage::Bf16(_) | Storage::I32(_) => None,
        }
    }

    /// The elements, if they are i32.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Storage::I32(x) => Some(x),
            Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) => None,
        }
    }
}
