//! Tensors checked against a program's inputs.

use crate::error::elem_needed;
use crate::tensor::View;
use crate::{DType, Data, Error, NamedTensors, TensorView};
use sparsek_dsl::ir::{Class, Input, InputId, Instance, Kind, Program, Role};

/// Sizes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Rows of the batch.
    pub(crate) batch: usize,
    /// Positions of a row.
    pub(crate) n: usize,
    /// Query heads.
    pub(crate) hq: usize,
    /// Key-value heads.
    pub(crate) hkv: usize,
    /// Head dimension.
    pub(crate) d: usize,
}

impl Sizes {
    /// Query heads of one key-value head.
    pub(crate) fn group(&self) -> usize {
        self.hq / self.hkv
    }
}

/// One sequence: a range of positions of one row of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// Its index: the coordinate `batch`.
    pub(crate) index: usize,
    /// The row of the batch it lies in.
    pub(crate) row: usize,
    /// Its first position in the row.
    pub(crate) start: usize,
    /// Its length.
    pub(crate) len: usize,
}

/// The sequences of one call, in the order in which their positions are stored.
#[derive(Clone, Debug)]
pub(crate) struct Sequences {
    pub(crate) all: Vec<Sequence>,
}

impl Sequences {
    pub(crate) fn new(sizes: &Sizes, cu_seqlens: Option<&[i32]>) -> Result<Sequences, Error> {
        let Some(cu) = cu_seqlens else {
            let row = |row| Sequence { index: row, row, start: 0, len: sizes.n };
            return Ok(Sequences { all: (0..sizes.batch).map(row).collect() });
        };
        if sizes.batch != 1 {
            let why = format!("packed sequences need a batch of 1, and it is {}", sizes.batch);
            return Err(Error::Sequences(why));
        }
        let ends = (cu.first().copied(), cu.last().copied());
        if cu.len() < 2 || ends.0 != Some(0) || ends.1 != i32::try_from(sizes.n).ok() {
            let found = match (cu, ends) {
                ([_, _, ..], (Some(first), Some(last))) => format!("goes from {first} to {last}"),
                _ => format!("has {} entries", cu.len()),
            };
            let why = format!("must go from 0 to N = {}, and it {found}", sizes.n);
            return Err(Error::Sequences(why));
        }
        if let Some(at) = cu.windows(2).position(|w| w[1] < w[0]) {
            let why = format!("entry {} is {}, below entry {at}, {}", at + 1, cu[at + 1], cu[at]);
            return Err(Error::Sequences(why));
        }
        let sequence = |(index, w): (usize, &[i32])| Sequence {
            index,
            row: 0,
            start: w[0] as usize,
            len: (w[1] - w[0]) as usize,
        };
        Ok(Sequences { all: cu.windows(2).enumerate().map(sequence).collect() })
    }
}

/// An input tensor that fits its declaration.
#[derive(Clone, Debug)]
pub(crate) struct BoundInput<V> {
    pub(crate) view: V,
    /// For PerQuery and PerKey extras: whether the tensor has a head axis.
    pub(crate) per_head: bool,
}

impl<'a> BoundInput<TensorView<'a>> {
    pub(crate) fn data(&self) -> Data<'a> {
        self.view.data()
    }
}

/// The tensors of one call, checked.
#[derive(Clone, Debug)]
pub(crate) struct Bound<V> {
    pub(crate) sizes: Sizes,
    inputs: Vec<Option<BoundInput<V>>>,
}

/// The tensors of one call on the host.
pub(crate) type HostBound<'a> = Bound<TensorView<'a>>;

impl<V: View> Bound<V> {
    /// Checks every tensor's shape and type against the program's inputs.
    pub(crate) fn new(
        instance: &Instance,
        program: &Program,
        inputs: &NamedTensors<V>,
    ) -> Result<Bound<V>, Error> {
        if let Some(name) = inputs.names().find(|n| program.input_named(n).is_none()) {
            let known: Vec<&str> = program.inputs.iter().map(|i| i.name.as_str()).collect();
            return Err(Error::UnknownInput {
                kernel: program.name.clone(),
                name: name.to_owned(),
                known: known.join(", "),
            });
        }
        let sizes = sizes(instance, program, inputs)?;
        let mut bound = Vec::with_capacity(program.inputs.len());
        for input in &program.inputs {
            bound.push(match inputs.get(&input.name) {
                Some(view) => Some(check(instance, input, view, &sizes)?),
                None if input.default.is_some() => None,
                None => return Err(missing(program, input)),
            });
        }
        Ok(Bound { sizes, inputs: bound })
    }

    /// The tensor of an input; `None` when it takes its default.
    pub(crate) fn get(&self, id: InputId) -> Option<&BoundInput<V>> {
        self.inputs.get(id.index()).and_then(Option::as_ref)
    }
}

fn missing(program: &Program, input: &Input) -> Error {
    Error::MissingInput {
        kernel: program.name.clone(),
        name: input.name.clone(),
        expected: format!("{} {}", input.ty, layout(input)),
    }
}

/// Axes of an input's tensor, for messages.
fn layout(input: &Input) -> &'static str {
    match (input.role, input.ty.class) {
        (Role::Query | Role::Output | Role::OutputGrad, _) => "[B, N, Hq, D]",
        (Role::Key | Role::Value, _) => "[B, N, Hkv, D]",
        (Role::Score, _) => "[B, Hkv, N]",
        (Role::Lse, _) => "[B, Hq, N]",
        (Role::Extra, Class::PerHead) => "[Hq]",
        (Role::Extra, Class::PerQuery) => "[B, N] or [B, N, Hq]",
        (Role::Extra, Class::PerKey) => "[B, N] or [B, N, Hkv]",
        (Role::Extra, Class::Scalar | Class::PerBatch | Class::Pair) => "[1]",
    }
}

/// The sizes that q and k give.
fn sizes<V: View>(
    instance: &Instance,
    program: &Program,
    inputs: &NamedTensors<V>,
) -> Result<Sizes, Error> {
    let shape_of = |role: Role| -> Result<[usize; 4], Error> {
        let Some(input) = program.inputs.iter().find(|i| i.role == role) else {
            let rule = format!("no input in the role {role:?}");
            return Err(Error::IllFormed { kernel: program.name.clone(), rule });
        };
        let view = inputs.get(&input.name).ok_or_else(|| missing(program, input))?;
        view.shape().try_into().map_err(|_| Error::Shape {
            name: input.name.clone(),
            found: view.shape().to_vec(),
            expected: format!("it needs 4 dimensions, {}", layout(input)),
        })
    };
    let [batch, n, hq, d] = shape_of(Role::Query)?;
    let [_, _, hkv, _] = shape_of(Role::Key)?;
    if hkv == 0 || hq == 0 || hq % hkv != 0 {
        return Err(Error::Heads { query_heads: hq, kv_heads: hkv });
    }
    if d != instance.d {
        let expected = format!("its last dimension must be the head dimension D = {}", instance.d);
        return Err(Error::Shape { name: "q".to_owned(), found: vec![batch, n, hq, d], expected });
    }
    if i32::try_from(n).is_err() {
        let expected = "positions are 32-bit: N is at most 2147483647".to_owned();
        return Err(Error::Shape { name: "q".to_owned(), found: vec![batch, n, hq, d], expected });
    }
    Ok(Sizes { batch, n, hq, hkv, d })
}

/// The shapes that fit an input, the one with a head axis last.
pub(crate) fn shapes(role: Role, class: Class, sizes: &Sizes) -> Vec<Vec<usize>> {
    let Sizes { batch, n, hq, hkv, d } = *sizes;
    match (role, class) {
        (Role::Query | Role::Output | Role::OutputGrad, _) => vec![vec![batch, n, hq, d]],
        (Role::Key | Role::Value, _) => vec![vec![batch, n, hkv, d]],
        (Role::Score, _) => vec![vec![batch, hkv, n]],
        (Role::Lse, _) => vec![vec![batch, hq, n]],
        (Role::Extra, Class::PerHead) => vec![vec![hq]],
        (Role::Extra, Class::PerQuery) => vec![vec![batch, n], vec![batch, n, hq]],
        (Role::Extra, Class::PerKey) => vec![vec![batch, n], vec![batch, n, hkv]],
        (Role::Extra, Class::Scalar | Class::PerBatch | Class::Pair) => vec![vec![1]],
    }
}

fn check<V: View>(
    instance: &Instance,
    input: &Input,
    view: &V,
    sizes: &Sizes,
) -> Result<BoundInput<V>, Error> {
    let allowed = shapes(input.role, input.ty.class, sizes);
    if !allowed.iter().any(|s| s == view.shape()) {
        let listed: Vec<String> = allowed.iter().map(|s| format!("{s:?}")).collect();
        let axes = layout(input);
        return Err(Error::Shape {
            name: input.name.clone(),
            found: view.shape().to_vec(),
            expected: format!("{axes} = {} is needed, as q and k have it", listed.join(" or ")),
        });
    }
    let found = view.dtype();
    let expected = match input.ty.kind {
        Kind::Vector => (found.elem() != Some(instance.elem)).then(|| elem_needed(instance.elem)),
        Kind::I32 => (found != DType::I32).then(|| "i32".to_owned()),
        Kind::F32 | Kind::Bool => (found != DType::F32).then(|| "f32".to_owned()),
    };
    match expected {
        Some(expected) => {
            Err(Error::Type { name: input.name.clone(), found: found.name(), expected })
        }
        None => Ok(BoundInput {
            view: view.clone(),
            per_head: allowed.len() == 2 && view.shape().len() == 3,
        }),
    }
}
