//! The golden cases of `tests/data`.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sparsek_dsl::Elem;
use sparsek_reference::brute::{Attention, Gate};
use sparsek_reference::{Array, Arrays};
use std::collections::HashMap;
use std::path::PathBuf;

/// One golden case.
#[derive(Clone, Debug)]
pub struct Golden {
    /// File name without its ending.
    pub name: String,
    /// k, window, gate and so on.
    pub form: Attention,
    /// Element type of the stored vectors.
    pub elem: Elem,
    /// `q` `k` `v` `u` `d_o`, and `slope` where the case has one.
    pub inputs: Arrays,
    /// `o` `lse` `tau` `expiry` `d_q` …: the names without `expect.`.
    pub expected: Arrays,
}

/// Where the cases lie.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Paths of every case, in alphabetical order.
pub fn paths() -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder().join("golden")).expect("the golden folder is there");
    let mut paths: Vec<PathBuf> = files
        .map(|f| f.expect("its entries can be read").path())
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .chain([folder().join("real_text.safetensors")])
        .collect();
    paths.sort();
    paths
}

/// Every case, in alphabetical order.
pub fn all() -> Vec<Golden> {
    paths().iter().map(load).collect()
}

fn load(path: &PathBuf) -> Golden {
    let bytes = std::fs::read(path).expect("a golden file can be read");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("its header holds");
    let text = header.metadata().clone().expect("it has metadata");
    let tensors = SafeTensors::deserialize(&bytes).expect("its tensors hold");
    let (mut inputs, mut expected) = (Arrays::new(), Arrays::new());
    for (name, view) in tensors.tensors() {
        match name.strip_prefix("expect.") {
            Some(name) => expected.insert(name.to_owned(), array(&view)),
            None => inputs.insert(name, array(&view)),
        };
    }
    let name = path.file_stem().expect("a file name").to_string_lossy().into_owned();
    let elem = Elem::from_name(&text["elem"]).expect("a known element type");
    Golden { name, form: form(&text), elem, inputs, expected }
}

fn form(text: &HashMap<String, String>) -> Attention {
    let number = |name: &str| text[name].parse::<usize>().expect("a number");
    let softcap = text["softcap"].parse::<f64>().expect("a number");
    Attention {
        k: number("k"),
        window: number("window"),
        sinks: number("sinks"),
        gate: Gate::from_name(&text["gate"]).expect("a known gate"),
        scale: None,
        softcap: (softcap != 0.0).then_some(softcap),
    }
}

fn array(view: &TensorView) -> Array {
    let four = |b: &[u8]| [b[0], b[1], b[2], b[3]];
    let bytes = view.data();
    let data: Vec<f64> = match view.dtype() {
        Dtype::F32 => bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(four(b)))).collect(),
        Dtype::I32 => bytes.chunks(4).map(|b| f64::from(i32::from_le_bytes(four(b)))).collect(),
        Dtype::F16 => bytes.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        Dtype::BF16 => {
            bytes.chunks(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f64()).collect()
        }
        other => panic!("no golden case stores {other:?}"),
    };
    Array::new(view.shape(), data).expect("a tensor fills its shape")
}
