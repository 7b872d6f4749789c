//! From a file and flags to an instance of a kernel and the tensors it takes.

use crate::failure::Failure;
use crate::tensors::file::{HostTensor, TensorFile};
use crate::terminal::note;
use sparsek::dsl::ir::{Extent, Input, Kind, Program, Role, Spec};
use sparsek::{Elem, Inputs, Storage};
use sparsek_reference::Arrays;
use std::collections::BTreeMap;

/// Specialisation parameters given as flags; each wins over the file's metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// `--k`
    pub(crate) k: Option<i64>,
    /// `--window`
    pub(crate) window: Option<i64>,
    /// `--elem`
    pub(crate) elem: Option<Elem>,
    /// `--set NAME=INT`
    pub(crate) set: BTreeMap<String, i64>,
}

/// Tensors that a kernel takes, read from a file.
#[derive(Debug)]
pub(crate) struct Loaded {
    tensors: Vec<(String, HostTensor)>,
    /// Adjoint of the output, when it was asked for.
    pub(crate) d_o: Option<HostTensor>,
    /// Boundaries of packed sequences, when the file has them.
    pub(crate) cu_seqlens: Option<Vec<i32>>,
}

/// The parameters of the instance that a file and flags ask for.
pub(crate) fn spec(program: &Program, file: &TensorFile, flags: &Flags) -> Result<Spec, Failure> {
    let at = file.path().display();
    let Some(shape) = file.shape("q") else {
        let names = file.names().join(", ");
        return Err(Failure::new(format_args!("{at} has no tensor `q`")).help(format_args!(
            "kernel {} needs q as [B, N, Hq, D]; the file has {}",
            program.name,
            if names.is_empty() { "no tensors" } else { &names }
        )));
    };
    let &[_, _, _, d] = shape else {
        return Err(Failure::new(format_args!(
            "tensor `q` of {at} has shape {shape:?}, which has {} dimensions",
            shape.len()
        ))
        .help("q is [B, N, Hq, D]: batch, positions, query heads, head dimension"));
    };
    let d = i64::try_from(d).unwrap_or(i64::MAX);
    let mut spec = Spec::new(elem(file, flags)?, d);
    let gate = program.gate().map(|g| g.k);
    spec.k = extent(program, file, flags, flags.k, gate, ("k", "--k"))?;
    let window = program.seen_set().window;
    spec.w = extent(program, file, flags, flags.window, window, ("window", "--window"))?;
    spec.set = flags.set.clone();
    Ok(spec)
}

/// The element type: the flag, the metadata, or what q is stored in.
fn elem(file: &TensorFile, flags: &Flags) -> Result<Elem, Failure> {
    if let Some(elem) = flags.elem {
        return Ok(elem);
    }
    let at = file.path().display();
    if let Some(name) = file.text("elem") {
        return Elem::from_name(name).ok_or_else(|| {
            Failure::new(format_args!("metadata `elem` of {at} is {name:?}"))
                .help("it is one of bf16, f16, f32; --elem overrides it")
        });
    }
    file.elem("q").ok_or_else(|| {
        Failure::new(format_args!("tensor `q` of {at} is in no element type of sparsek"))
            .help("store q as BF16, F16 or F32")
    })
}

/// The value for an extent that the kernel leaves open.
fn extent(
    program: &Program,
    file: &TensorFile,
    flags: &Flags,
    flag: Option<i64>,
    extent: Option<Extent>,
    (metadata, option): (&str, &str),
) -> Result<Option<i64>, Failure> {
    let Some(Extent::Param(id)) = extent else { return Ok(flag) };
    let param = program.params.get(id.0 as usize).map_or("", |p| p.name.as_str());
    if flag.is_some() || flags.set.contains_key(param) {
        return Ok(flag);
    }
    match file.integer(metadata)? {
        Some(value) => Ok(Some(value)),
        None => {
            let at = file.path().display();
            Err(Failure::new(format_args!(
                "kernel {} needs {metadata}, and neither {option} nor the metadata of {at} gives it",
                program.name
            ))
            .help(format_args!("add {option} N, or metadata `{metadata}` to the file")))
        }
    }
}

impl Loaded {
    /// Reads the tensors that the kernel takes, vectors in `elem`.
    pub(crate) fn read(
        program: &Program,
        elem: Elem,
        file: &TensorFile,
        backward: bool,
    ) -> Result<Loaded, Failure> {
        mention_ignored(program, file);
        let at = file.path().display();
        if backward && !file.has("d_o") {
            return Err(Failure::new(format_args!("{at} has no tensor `d_o`"))
                .help("--backward needs d_o, the gradient of the output, of the same shape as q"));
        }
        let mut tensors = Vec::with_capacity(program.inputs.len());
        for input in &program.inputs {
            if !file.has(&input.name) {
                // The backend says which tensor is missing, unless the kernel has a default.
                continue;
            }
            let tensor = match input.role {
                Role::Query | Role::Key | Role::Value => vector(file, &input.name, elem)?,
                Role::Score => {
                    let u = widened(file.read(&input.name)?);
                    check_scores(file, &u)?;
                    u
                }
                Role::Extra | Role::Output | Role::Lse | Role::OutputGrad => {
                    widened(file.read(&input.name)?)
                }
            };
            not_empty(file, &input.name, &tensor)?;
            tensors.push((input.name.clone(), tensor));
        }
        let d_o = if backward { Some(vector(file, "d_o", elem)?) } else { None };
        let cu_seqlens = if file.has("cu_seqlens") { Some(boundaries(file)?) } else { None };
        Ok(Loaded { tensors, d_o, cu_seqlens })
    }

    /// Tensors by name, as a kernel takes them.
    pub(crate) fn new(
        tensors: Vec<(String, HostTensor)>,
        d_o: Option<HostTensor>,
        cu_seqlens: Option<Vec<i32>>,
    ) -> Loaded {
        Loaded { tensors, d_o, cu_seqlens }
    }

    /// The references' inputs of a program, `d_o` among them, as a kernel takes them.
    pub(crate) fn from_arrays(
        program: &Program,
        elem: Elem,
        arrays: &Arrays,
        cu_seqlens: Option<Vec<i32>>,
    ) -> Loaded {
        let tensor = |name: &str, elem| arrays.get(name).map(|a| HostTensor::from_array(a, elem));
        let stored = |input: &Input| match (input.role, input.ty.kind) {
            (Role::Query | Role::Key | Role::Value, _) => Some(elem),
            (_, Kind::I32) => None,
            (_, Kind::F32 | Kind::Bool | Kind::Vector) => Some(Elem::F32),
        };
        let given = program
            .inputs
            .iter()
            .filter_map(|input| Some((input.name.clone(), tensor(&input.name, stored(input))?)));
        Loaded { tensors: given.collect(), d_o: tensor("d_o", Some(elem)), cu_seqlens }
    }

    /// The tensors as a kernel takes them.
    pub(crate) fn inputs(&self) -> Result<Inputs<'_>, sparsek::Error> {
        let mut inputs = Inputs::new();
        for (name, tensor) in &self.tensors {
            inputs = inputs.with(name, tensor.view()?);
        }
        Ok(inputs)
    }

    /// The tensors as the references take them, `d_o` among them.
    pub(crate) fn arrays(&self) -> Result<Arrays, sparsek_reference::Error> {
        let d_o = self.d_o.as_ref().map(|t| ("d_o", t));
        let named = self.tensors.iter().map(|(n, t)| (n.as_str(), t)).chain(d_o);
        named.map(|(name, tensor)| Ok((name.to_owned(), tensor.array()?))).collect()
    }

    /// Every input with its name, without `d_o`.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, &HostTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Row `row` of a batch of `rows`, alone.
    pub(crate) fn row(&self, row: usize, rows: usize) -> Loaded {
        let one = |tensor: &HostTensor| tensor.row(row, rows);
        Loaded {
            tensors: self.tensors.iter().map(|(name, t)| (name.clone(), one(t))).collect(),
            d_o: self.d_o.as_ref().map(one),
            cu_seqlens: None,
        }
    }

    /// The tensor of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&HostTensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }
}

/// Names in a file that are never inputs of a kernel.
pub(crate) fn reserved(name: &str) -> bool {
    name == "cu_seqlens" || name == "d_o" || name.starts_with("expect.")
}

/// Tensors of the file that the kernel does not take, and that are not reserved.
pub(crate) fn unknown(program: &Program, file: &TensorFile) -> Vec<String> {
    let mut names = file.names();
    names.retain(|n| !reserved(n) && program.input_named(n).is_none());
    names
}

fn mention_ignored(program: &Program, file: &TensorFile) {
    for name in unknown(program, file) {
        note(format_args!(
            "tensor `{name}` of {} is ignored: kernel {} has no such input",
            file.path().display(),
            program.name
        ));
    }
}

fn vector(file: &TensorFile, name: &str, elem: Elem) -> Result<HostTensor, Failure> {
    let tensor = file.read(name)?;
    match tensor.elem() {
        Some(stored) if stored != elem => {
            note(format_args!("tensor `{name}` is stored in {stored} and rounded to {elem}"));
            Ok(tensor.into_elem(elem))
        }
        _ => Ok(tensor),
    }
}

/// The boundaries of packed sequences.
fn boundaries(file: &TensorFile) -> Result<Vec<i32>, Failure> {
    let help = "it is I32 of one dimension, the boundaries of packed sequences: 0, …, N";
    let HostTensor { shape, data } = file.read("cu_seqlens").map_err(|e| e.help(help))?;
    let at = file.path().display();
    match data {
        Storage::I32(x) if shape.len() == 1 => Ok(x),
        Storage::I32(_) => Err(Failure::new(format_args!(
            "tensor `cu_seqlens` of {at} has shape {shape:?}, which has {} dimensions",
            shape.len()
        ))
        .help(help)),
        Storage::F32(_) | Storage::F16(_) | Storage::Bf16(_) => {
            Err(Failure::new(format_args!("tensor `cu_seqlens` of {at} is not I32")).help(help))
        }
    }
}

/// A score or extra input: f32 (16-bit floats widen exactly) or i32.
fn widened(tensor: HostTensor) -> HostTensor {
    tensor.into_elem(Elem::F32)
}

fn not_empty(file: &TensorFile, name: &str, tensor: &HostTensor) -> Result<(), Failure> {
    if !tensor.shape.contains(&0) {
        return Ok(());
    }
    let at = file.path().display();
    Err(Failure::new(format_args!("tensor `{name}` of {at} is empty: shape {:?}", tensor.shape))
        .help("every dimension is at least 1"))
}

/// Scores may be −inf (never a candidate); NaN and +inf are mistakes of whoever made the file.
fn check_scores(file: &TensorFile, u: &HostTensor) -> Result<(), Failure> {
    let Storage::F32(values) = &u.data else { return Ok(()) };
    let Some(flat) = values.iter().position(|x| x.is_nan() || *x == f32::INFINITY) else {
        return Ok(());
    };
    let mut index = vec![0; u.shape.len()];
    let mut rest = flat;
    for (i, size) in index.iter_mut().zip(&u.shape).rev() {
        *i = rest % size;
        rest /= size;
    }
    let bad = values.iter().filter(|x| x.is_nan() || **x == f32::INFINITY).count();
    let what = if values[flat].is_nan() { "NaN" } else { "+inf" };
    let more = if bad > 1 { format!(" ({bad} such scores in all)") } else { String::new() };
    Err(Failure::new(format_args!(
        "tensor `u` of {} is {what} at {index:?}{more}",
        file.path().display()
    ))
    .help("a score is a finite number, or -inf for a key that is never to be selected"))
}
