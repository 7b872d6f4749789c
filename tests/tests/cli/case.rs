//! Input files for tests.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A tensor of a test case.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// An input file in memory.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) tensors: BTreeMap<String, Stored>,
    pub(crate) metadata: HashMap<String, String>,
}

impl Case {
    /// A small sound case: 2 sequences of 40 positions, 4 query and 2 key-value heads, D = 16.
    pub(crate) fn sound() -> Case {
        let mut case = Case { tensors: BTreeMap::new(), metadata: HashMap::new() };
        case.f32("q", &[2, 40, 4, 16]);
        case.f32("k", &[2, 40, 2, 16]);
        case.f32("v", &[2, 40, 2, 16]);
        case.f32("u", &[2, 2, 40]);
        case.f32("d_o", &[2, 40, 4, 16]);
        case.text("k", "6").text("window", "4").text("elem", "f32");
        case
    }

    /// A tensor of f32 with values that repeat no pattern of the shape.
    pub(crate) fn f32(&mut self, name: &str, shape: &[usize]) -> &mut Case {
        let n: usize = shape.iter().product();
        let seed = name.bytes().map(f32::from).sum::<f32>();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7321 + seed).sin()).collect();
        self.values(name, shape, &values)
    }

    /// A tensor of these f32 values.
    pub(crate) fn values(&mut self, name: &str, shape: &[usize], values: &[f32]) -> &mut Case {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.raw(name, Dtype::F32, shape, bytes)
    }

    /// A tensor of these i32 values.
    pub(crate) fn i32(&mut self, name: &str, shape: &[usize], values: &[i32]) -> &mut Case {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.raw(name, Dtype::I32, shape, bytes)
    }

    /// A tensor of these bytes.
    pub(crate) fn raw(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> &mut Case {
        let stored = Stored { dtype, shape: shape.to_vec(), bytes };
        self.tensors.insert(name.to_owned(), stored);
        self
    }

    /// A metadata entry.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Case {
        self.metadata.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let views: Vec<(&String, TensorView<'_>)> = self
            .tensors
            .iter()
            .map(|(name, t)| {
                let view = TensorView::new(t.dtype, t.shape.clone(), &t.bytes);
                (name, view.expect("shape and bytes agree"))
            })
            .collect();
        serialize(views, Some(self.metadata.clone())).expect("the case can be written")
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).expect("the case can be written");
    }
}

/// Tensors of a result, as f64.
#[derive(Debug)]
pub(crate) struct Results {
    bytes: Vec<u8>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> Results {
        Results { bytes: std::fs::read(path).expect("the results are there") }
    }

    fn open(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("the results are a safetensors file")
    }

    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).expect("there is a header");
        metadata.metadata().clone().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.open().names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.open().tensor(name).expect("the tensor is there").shape().to_vec()
    }

    pub(crate) fn dtype(&self, name: &str) -> Dtype {
        self.open().tensor(name).expect("the tensor is there").dtype()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        let file = self.open();
        let tensor = file.tensor(name).expect("the tensor is there");
        let words = tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        match tensor.dtype() {
            Dtype::F32 => words.map(|b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::I32 => words.map(|b| f64::from(i32::from_le_bytes(b))).collect(),
            other => panic!("results are f32 and i32, not {other:?}"),
        }
    }
}
