//! What a compiled module expects from whoever launches it.
//!
//! Every entry of a module takes one parameter: a struct of 8-byte fields, the module's
//! [`Interface::parameters`] in order, each giving one or more fields. Launches run in order on one
//! stream. Grids and buffers are products of the call's sizes.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Sizes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of the batch, B of the tensors' shapes.
    pub rows: u64,
    /// Sequences: `rows`, or the number of packed ones.
    pub sequences: u64,
    /// Positions of a row, N.
    pub n: u64,
    /// Query heads.
    pub hq: u64,
    /// Key-value heads.
    pub hkv: u64,
    /// Whether the one row of the batch holds packed sequences (`cu_seqlens` is given).
    pub packed: bool,
    /// Multiprocessors of the GPU.
    pub multiprocessors: u64,
}

/// One factor of a [`Product`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Factor {
    /// A constant.
    Literal(u64),
    /// [`Sizes::rows`]
    Rows,
    /// [`Sizes::sequences`]
    Sequences,
    /// [`Sizes::n`]
    N,
    /// [`Sizes::hq`]
    Hq,
    /// [`Sizes::hkv`]
    Hkv,
    /// [`Sizes::multiprocessors`]: blocks that stay and take work in turn.
    Multiprocessors,
    /// Blocks of that many positions, each within one sequence: `rows · ⌈n / p⌉`; for packed
    /// sequences the bound `⌊n / p⌋ + sequences`, of which some stay empty.
    Blocks(u64),
    /// The same, but none where no sequence is longer than one block.
    BlocksOfMany(u64),
}

/// A product of factors: a length, or one dimension of a grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product(pub Cow<'static, [Factor]>);

impl Product {
    /// The product of those factors.
    pub fn new(factors: &[Factor]) -> Product {
        Product(Cow::Owned(factors.to_vec()))
    }

    /// Its value; `None` above `u64::MAX`.
    pub fn of(&self, sizes: &Sizes) -> Option<u64> {
        self.0.iter().try_fold(1u64, |product, factor| product.checked_mul(factor.of(sizes)?))
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let factors: Vec<String> = self.0.iter().map(Factor::to_string).collect();
        f.write_str(&if factors.is_empty() { "1".to_owned() } else { factors.join(" x ") })
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Factor::Literal(x) => write!(f, "{x}"),
            Factor::Rows => f.write_str("rows"),
            Factor::Sequences => f.write_str("sequences"),
            Factor::N => f.write_str("N"),
            Factor::Hq => f.write_str("Hq"),
            Factor::Hkv => f.write_str("Hkv"),
            Factor::Multiprocessors => f.write_str("multiprocessors"),
            Factor::Blocks(p) => write!(f, "blocks of {p}"),
            Factor::BlocksOfMany(p) => write!(f, "blocks of {p} if several"),
        }
    }
}

impl Factor {
    fn of(self, sizes: &Sizes) -> Option<u64> {
        Some(match self {
            Factor::Literal(x) => x,
            Factor::Rows => sizes.rows,
            Factor::Sequences => sizes.sequences,
            Factor::N => sizes.n,
            Factor::Hq => sizes.hq,
            Factor::Hkv => sizes.hkv,
            Factor::Multiprocessors => sizes.multiprocessors,
            Factor::Blocks(p) if sizes.packed => (sizes.n / p).checked_add(sizes.sequences)?,
            Factor::Blocks(p) => sizes.rows.checked_mul(sizes.n.div_ceil(p))?,
            Factor::BlocksOfMany(p) if sizes.n <= p => 0,
            Factor::BlocksOfMany(p) => return Factor::Blocks(p).of(sizes),
        })
    }
}

/// Type of the elements of a tensor or buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scalar {
    /// The kernel's element type.
    Elem,
    /// f32
    F32,
    /// f64
    F64,
    /// i32
    I32,
    /// u64
    U64,
}

impl Scalar {
    /// Bytes of one element, `elem` being those of the kernel's element type.
    pub fn bytes(self, elem: u64) -> u64 {
        match self {
            Scalar::Elem => elem,
            Scalar::F32 | Scalar::I32 => 4,
            Scalar::F64 | Scalar::U64 => 8,
        }
    }
}

/// An axis along which a tensor has a stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Axis {
    /// Rows of the batch.
    Batch,
    /// Positions.
    Position,
    /// Heads: query heads or key-value heads, as the tensor has them.
    Head,
}

/// A part of the parameter struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parameter {
    /// A tensor of the caller's: its address, then its stride in elements along each axis (0 along
    /// one that it does not have). The head dimension of q, k, v, o and their gradients is
    /// contiguous and needs no stride.
    Tensor {
        /// `q`, `o`, `d_q`, `tau`, `slope`, …
        name: String,
        /// Type of its elements.
        scalar: Scalar,
        /// Whether the module writes it.
        written: bool,
        /// Axes with strides.
        axes: Vec<Axis>,
    },
    /// A buffer of [`Interface::buffers`]: its address.
    Buffer(String),
    /// Address of `cu_seqlens` (i32), or 0.
    CuSeqlens,
    /// [`Sizes::rows`] · 1, as a 64-bit integer, and so on for the others.
    Rows,
    /// [`Sizes::sequences`]
    Sequences,
    /// [`Sizes::n`]
    N,
    /// [`Sizes::hq`]
    Hq,
    /// [`Sizes::hkv`]
    Hkv,
}

/// How long a buffer's contents are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Within one forward or backward call.
    Scratch,
    /// From the plan to the end of the backward: it belongs to what a forward call returns.
    Saved,
}

/// Device memory that a module uses beside the caller's tensors. Buffers of the same name in
/// several modules of a kernel are one buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Name, also of the field in the parameter struct.
    pub name: String,
    /// Type of its elements.
    pub scalar: Scalar,
    /// Number of elements.
    pub len: Product,
    /// Whether it must be zeroed before the first launch of the module that lists it so.
    pub zeroed: bool,
    /// How long it is needed.
    pub keep: Keep,
}

/// One kernel launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Entry of the module.
    pub entry: String,
    /// Blocks in x, y, z. Nothing is launched where one is 0.
    pub grid: [Product; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// What a module's kernels need to be launched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Fields of the parameter struct.
    pub parameters: Vec<Parameter>,
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Launches, in order.
    pub launches: Vec<Launch>,
}
