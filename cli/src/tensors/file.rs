//! Reading a safetensors file one tensor at a time, straight into memory of the right type.

use crate::failure::Failure;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use sparsek::{Elem, Storage, TensorView};
use sparsek_reference::Array;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Longest header that is read: far beyond any real one, and far below memory.
const LONGEST_HEADER: u64 = 16 << 20;

/// Elements converted at a time when a tensor is streamed.
const CHUNK: usize = 1 << 14;

/// An open safetensors file whose header has been read and checked against the file's length.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    data_start: u64,
    text: HashMap<String, String>,
}

/// A tensor read from a file.
#[derive(Debug)]
pub(crate) struct HostTensor {
    /// Dimensions, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Elements.
    pub(crate) data: Storage,
}

impl TensorFile {
    /// Opens a file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<TensorFile, Failure> {
        let at = path.display();
        let io = |error: std::io::Error| Failure::new(format_args!("cannot read {at}: {error}"));
        let kind = std::fs::metadata(path).map_err(|error| {
            let failure = Failure::new(format_args!("cannot read the input file {at}: {error}"));
            match error.kind() {
                std::io::ErrorKind::NotFound => failure.help("give --input a file that exists"),
                _ => failure,
            }
        })?;
        if !kind.is_file() {
            let what = if kind.is_dir() { "a folder" } else { "not a regular file" };
            return Err(Failure::new(format_args!("the input {at} is {what}"))
                .help("give --input a safetensors file"));
        }
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let broken = |reason: String| {
            Failure::new(format_args!("{at} is not a usable safetensors file: {reason}"))
                .help("it may be cut short or damaged; write it again")
        };
        if length < 8 {
            return Err(broken(format!("it has {length} bytes and a header needs at least 8")));
        }
        let mut size = [0u8; 8];
        file.read_exact(&mut size).map_err(io)?;
        let size = u64::from_le_bytes(size);
        if size > length - 8 || size > LONGEST_HEADER {
            return Err(broken(format!(
                "its first 8 bytes announce a header of {size} bytes and the file has {length}"
            )));
        }
        let mut header = vec![0u8; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(format!("its header does not hold: {error}")))?;
        let (announced, present) = (header.data_len() as u64, length - 8 - size);
        if announced != present {
            return Err(broken(format!(
                "its tensors need {announced} bytes and {present} follow the header"
            )));
        }
        let text = header.metadata().clone().unwrap_or_default();
        Ok(TensorFile { path: path.to_owned(), file, header, data_start: 8 + size, text })
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor's name, in alphabetical order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort();
        names
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// A tensor's dimensions.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// The floating-point type a tensor is stored in.
    pub(crate) fn elem(&self, name: &str) -> Option<Elem> {
        match self.header.info(name)?.dtype {
            Dtype::F32 => Some(Elem::F32),
            Dtype::F16 => Some(Elem::F16),
            Dtype::BF16 => Some(Elem::Bf16),
            _ => None,
        }
    }

    /// A metadata entry.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.text.get(name).map(String::as_str)
    }

    /// A metadata entry that is an integer.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| {
            let at = self.path.display();
            Failure::new(format_args!("metadata `{name}` of {at} is {text:?}, not an integer"))
                .help(format_args!("write it as a whole number, such as {name} = \"64\""))
        })
    }

    fn missing(&self, name: &str) -> Failure {
        let names = self.names().join(", ");
        Failure::new(format_args!("{} has no tensor `{name}`", self.path.display()))
            .help(format_args!("it has {names}"))
    }

    fn io(&self, name: &str, error: std::io::Error) -> Failure {
        Failure::new(format_args!("cannot read `{name}` from {}: {error}", self.path.display()))
    }

    fn seek(&self, name: &str, info: &TensorInfo) -> Result<&File, Failure> {
        let start = self.data_start + info.data_offsets.0 as u64;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start)).map_err(|e| self.io(name, e))?;
        Ok(&self.file)
    }

    /// Reads a whole tensor in the type it is stored in.
    pub(crate) fn read(&self, name: &str) -> Result<HostTensor, Failure> {
        let info = self.header.info(name).ok_or_else(|| self.missing(name))?;
        let len: usize = info.shape.iter().product();
        let mut data = match info.dtype {
            Dtype::F32 => Storage::F32(vec![0.0; len]),
            Dtype::F16 => Storage::F16(vec![f16::ZERO; len]),
            Dtype::BF16 => Storage::Bf16(vec![bf16::ZERO; len]),
            Dtype::I32 => Storage::I32(vec![0; len]),
            other => {
                let at = self.path.display();
                return Err(Failure::new(format_args!("tensor `{name}` of {at} holds {other}"))
                    .help("store it as F32, F16, BF16 or I32"));
            }
        };
        let bytes: &mut [u8] = match &mut data {
            Storage::F32(x) => bytemuck::cast_slice_mut(x),
            Storage::F16(x) => bytemuck::cast_slice_mut(x),
            Storage::Bf16(x) => bytemuck::cast_slice_mut(x),
            Storage::I32(x) => bytemuck::cast_slice_mut(x),
        };
        let mut file = self.seek(name, info)?;
        file.read_exact(bytes).map_err(|e| self.io(name, e))?;
        Ok(HostTensor { shape: info.shape.clone(), data })
    }

    /// Calls `f` with consecutive parts of a tensor as f32, without holding it whole.
    pub(crate) fn stream(&self, name: &str, mut f: impl FnMut(&[f32])) -> Result<(), Failure> {
        let info = self.header.info(name).ok_or_else(|| self.missing(name))?;
        let (width, convert): (usize, fn(&[u8]) -> f32) = match info.dtype {
            Dtype::F32 => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Dtype::I32 => (4, |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32),
            Dtype::F16 => (2, |b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
            Dtype::BF16 => (2, |b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            other => {
                let at = self.path.display();
                return Err(Failure::new(format_args!("tensor `{name}` of {at} holds {other}"))
                    .help("store it as F32, F16, BF16 or I32"));
            }
        };
        let mut left = info.shape.iter().product::<usize>();
        let mut bytes = vec![0u8; CHUNK * width];
        let mut values = Vec::with_capacity(CHUNK);
        let mut file = self.seek(name, info)?;
        while left > 0 {
            let n = left.min(CHUNK);
            file.read_exact(&mut bytes[..n * width]).map_err(|e| self.io(name, e))?;
            values.clear();
            values.extend(bytes[..n * width].chunks_exact(width).map(convert));
            f(&values);
            left -= n;
        }
        Ok(())
    }
}

impl HostTensor {
    /// The tensor borrowed.
    pub(crate) fn view(&self) -> Result<TensorView<'_>, sparsek::Error> {
        match &self.data {
            Storage::F32(x) => TensorView::new(&self.shape, x.as_slice()),
            Storage::F16(x) => TensorView::new(&self.shape, x.as_slice()),
            Storage::Bf16(x) => TensorView::new(&self.shape, x.as_slice()),
            Storage::I32(x) => TensorView::new(&self.shape, x.as_slice()),
        }
    }

    /// Row `row` of a tensor whose first dimension is a batch of `rows`; what has no batch stays whole.
    pub(crate) fn row(&self, row: usize, rows: usize) -> HostTensor {
        fn part<T: Copy>(x: &[T], range: std::ops::Range<usize>) -> Vec<T> {
            x.get(range).map(<[T]>::to_vec).unwrap_or_default()
        }
        let size: usize = self.shape.iter().product();
        let (range, shape) = match self.shape.as_slice() {
            [first, rest @ ..] if *first == rows && !rest.is_empty() => {
                let one = size / rows.max(1);
                (row * one..(row + 1) * one, [&[1], rest].concat())
            }
            whole => (0..size, whole.to_vec()),
        };
        let data = match &self.data {
            Storage::F32(x) => Storage::F32(part(x, range)),
            Storage::F16(x) => Storage::F16(part(x, range)),
            Storage::Bf16(x) => Storage::Bf16(part(x, range)),
            Storage::I32(x) => Storage::I32(part(x, range)),
        };
        HostTensor { shape, data }
    }

    /// A tensor of the references' numbers, rounded to `elem`; as integers without one.
    pub(crate) fn from_array(array: &Array, elem: Option<Elem>) -> HostTensor {
        let shape = array.shape().to_vec();
        match elem {
            None => HostTensor { shape, data: Storage::I32(array.to_i32()) },
            Some(elem) => HostTensor { shape, data: Storage::F32(array.to_f32()) }.into_elem(elem),
        }
    }

    /// The tensor as the references take it.
    pub(crate) fn array(&self) -> Result<Array, sparsek_reference::Error> {
        let data = match &self.data {
            Storage::F32(x) => x.iter().map(|x| f64::from(*x)).collect(),
            Storage::F16(x) => x.iter().map(|x| x.to_f64()).collect(),
            Storage::Bf16(x) => x.iter().map(|x| x.to_f64()).collect(),
            Storage::I32(x) => x.iter().map(|x| f64::from(*x)).collect(),
        };
        Array::new(&self.shape, data)
    }

    /// The type the elements are in; `None` for integers.
    pub(crate) fn elem(&self) -> Option<Elem> {
        match &self.data {
            Storage::F32(_) => Some(Elem::F32),
            Storage::F16(_) => Some(Elem::F16),
            Storage::Bf16(_) => Some(Elem::Bf16),
            Storage::I32(_) => None,
        }
    }

    /// The elements rounded to nearest even in another floating-point type; integers stay.
    pub(crate) fn into_elem(self, elem: Elem) -> HostTensor {
        let values = match (self.data, elem) {
            (data @ Storage::I32(_), _)
            | (data @ Storage::F32(_), Elem::F32)
            | (data @ Storage::F16(_), Elem::F16)
            | (data @ Storage::Bf16(_), Elem::Bf16) => {
                return HostTensor { shape: self.shape, data };
            }
            (Storage::F32(x), _) => x,
            (Storage::F16(x), _) => x.to_f32_vec(),
            (Storage::Bf16(x), _) => x.to_f32_vec(),
        };
        let data = match elem {
            Elem::F32 => Storage::F32(values),
            Elem::F16 => Storage::F16(Vec::<f16>::from_f32(&values)),
            Elem::Bf16 => Storage::Bf16(Vec::<bf16>::from_f32(&values)),
        };
        HostTensor { shape: self.shape, data }
    }
}

/// Rounding a slice of f32 into a new vector.
trait FromF32: Sized {
    fn from_f32(values: &[f32]) -> Self;
}

impl FromF32 for Vec<f16> {
    fn from_f32(values: &[f32]) -> Self {
        let mut out = vec![f16::ZERO; values.len()];
        out.convert_from_f32_slice(values);
        out
    }
}

impl FromF32 for Vec<bf16> {
    fn from_f32(values: &[f32]) -> Self {
        let mut out = vec![bf16::ZERO; values.len()];
        out.convert_from_f32_slice(values);
        out
    }
}
