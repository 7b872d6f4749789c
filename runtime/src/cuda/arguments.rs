//! The parameter struct of a module's entries.

use super::Error;
use super::strides::is_contiguous;
use crate::DType;
use sparsek_codegen::{Axis, Interface, Parameter, Scalar, Sizes};
use sparsek_dsl::ir::{Class, Role};
use std::collections::BTreeMap;

/// A tensor of a call, at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) address: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) dtype: DType,
    /// What its first dimensions are; the rest is contiguous.
    pub(crate) axes: &'static [Axis],
    /// Whether the call may write it.
    pub(crate) written: bool,
}

/// What the dimensions of a tensor of that role are. The head dimension of vectors and the one
/// entry of scalars are not listed; a tensor without a head axis ends before it.
pub(crate) fn axes(role: Role, class: Class) -> &'static [Axis] {
    match (role, class) {
        (Role::Query | Role::Key | Role::Value | Role::Output | Role::OutputGrad, _)
        | (Role::Extra, Class::PerQuery | Class::PerKey) => {
            &[Axis::Batch, Axis::Position, Axis::Head]
        }
        (Role::Score | Role::Lse, _) => &[Axis::Batch, Axis::Head, Axis::Position],
        (Role::Extra, Class::PerHead) => &[Axis::Head],
        (Role::Extra, Class::Scalar | Class::PerBatch | Class::Pair) => &[],
    }
}

impl Placed {
    /// Elements from one entry to the next along an axis; 0 along one that it does not have.
    fn stride(&self, axis: Axis) -> u64 {
        let at = self.axes.iter().position(|a| *a == axis);
        at.and_then(|at| self.strides.get(at)).map_or(0, |stride| *stride as u64)
    }

    /// Whether a kernel that is given the strides along `axes` reaches every element.
    fn is_reached_by(&self, axes: &[Axis]) -> bool {
        let unseen = |(axis, dim): (&Axis, &usize)| *dim > 1 && !axes.contains(axis);
        is_contiguous(&self.shape, &self.strides) || !self.axes.iter().zip(&self.shape).any(unseen)
    }
}

/// Everything that the words of a parameter struct are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arguments<'a> {
    pub(crate) module: &'static str,
    /// Element type of the kernel.
    pub(crate) elem: DType,
    pub(crate) sizes: &'a Sizes,
    pub(crate) tensors: &'a BTreeMap<String, Placed>,
    /// Addresses of the buffers.
    pub(crate) buffers: &'a BTreeMap<String, u64>,
    /// Address of cu_seqlens; 0 when not packed.
    pub(crate) cu_seqlens: u64,
}

/// How many words the parameter struct has.
pub(crate) fn word_count(interface: &Interface) -> usize {
    let words = |p: &Parameter| match p {
        Parameter::Tensor { axes, .. } => 1 + axes.len(),
        Parameter::Buffer(_)
        | Parameter::CuSeqlens
        | Parameter::Rows
        | Parameter::Sequences
        | Parameter::N
        | Parameter::Hq
        | Parameter::Hkv => 1,
    };
    interface.parameters.iter().map(words).sum()
}

impl Arguments<'_> {
    /// The parameter struct, as 64-bit words.
    pub(crate) fn words(&self, interface: &Interface) -> Result<Vec<u64>, Error> {
        let mut words = Vec::with_capacity(word_count(interface));
        for parameter in &interface.parameters {
            match parameter {
                Parameter::Tensor { name, scalar, written, axes } => {
                    let tensor = self.tensor(name, *scalar, *written, axes)?;
                    words.push(tensor.address);
                    words.extend(axes.iter().map(|axis| tensor.stride(*axis)));
                }
                Parameter::Buffer(name) => {
                    let address = self.buffers.get(name).copied();
                    words.push(address.ok_or_else(|| self.error(format!("no buffer `{name}`")))?);
                }
                Parameter::CuSeqlens => words.push(self.cu_seqlens),
                Parameter::Rows => words.push(self.sizes.rows),
                Parameter::Sequences => words.push(self.sizes.sequences),
                Parameter::N => words.push(self.sizes.n),
                Parameter::Hq => words.push(self.sizes.hq),
                Parameter::Hkv => words.push(self.sizes.hkv),
            }
        }
        Ok(words)
    }

    /// A tensor as a module wants it, or why it cannot have it so: a mistake in its generator.
    fn tensor(
        &self,
        name: &str,
        scalar: Scalar,
        written: bool,
        axes: &[Axis],
    ) -> Result<&Placed, Error> {
        let missing = || self.error(format!("the call has no tensor `{name}`"));
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let wanted = match scalar {
            Scalar::Elem => Some(self.elem),
            Scalar::F32 => Some(DType::F32),
            Scalar::I32 => Some(DType::I32),
            Scalar::F64 | Scalar::U64 => None,
        };
        if wanted != Some(tensor.dtype) {
            let found = tensor.dtype.name();
            return Err(self.error(format!("it takes `{name}` as {scalar:?}, and it is {found}")));
        }
        if written && !tensor.written {
            return Err(self.error(format!("it writes `{name}`, which is an input")));
        }
        if !tensor.is_reached_by(axes) {
            let reason = format!(
                "it takes `{name}` with strides along {axes:?} only, and strides are {:?}",
                tensor.strides
            );
            return Err(self.error(reason));
        }
        Ok(tensor)
    }

    fn error(&self, reason: String) -> Error {
        Error::Interface { module: self.module, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes =
        Sizes { rows: 2, sequences: 3, n: 100, hq: 4, hkv: 1, packed: false, multiprocessors: 4 };

    fn placed(role: Role, class: Class, shape: &[usize], dtype: DType) -> Placed {
        Placed {
            address: 0x1000,
            strides: crate::cuda::strides::contiguous(shape),
            shape: shape.to_vec(),
            dtype,
            axes: axes(role, class),
            written: false,
        }
    }

    fn tensor(name: &str, scalar: Scalar, axes: &[Axis]) -> Parameter {
        let axes = axes.to_vec();
        Parameter::Tensor { name: name.to_owned(), scalar, written: false, axes }
    }

    fn words(tensors: &[(&str, Placed)], parameters: Vec<Parameter>) -> Result<Vec<u64>, Error> {
        let tensors = tensors.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
        let buffers = BTreeMap::from([("keys".to_owned(), 0x9000)]);
        let interface = Interface { parameters, buffers: Vec::new(), launches: Vec::new() };
        let arguments = Arguments {
            module: "plan",
            elem: DType::Bf16,
            sizes: &SIZES,
            tensors: &tensors,
            buffers: &buffers,
            cu_seqlens: 0x7000,
        };
        let words = arguments.words(&interface)?;
        assert_eq!(words.len(), word_count(&interface));
        Ok(words)
    }

    #[test]
    fn addresses_then_strides_in_order() {
        use Axis::{Batch, Head, Position};
        let q = placed(Role::Query, Class::PerQuery, &[2, 100, 4, 16], DType::Bf16);
        let u = placed(Role::Score, Class::PerKey, &[2, 1, 100], DType::F32);
        let document = placed(Role::Extra, Class::PerKey, &[2, 100], DType::I32);
        let slope = placed(Role::Extra, Class::PerHead, &[4], DType::F32);
        let scale = placed(Role::Extra, Class::Scalar, &[1], DType::F32);
        let tensors =
            [("q", q), ("u", u), ("document", document), ("slope", slope), ("scale", scale)];
        let found = words(
            &tensors,
            vec![
                tensor("q", Scalar::Elem, &[Batch, Position, Head]),
                tensor("u", Scalar::F32, &[Batch, Head, Position]),
                tensor("document", Scalar::I32, &[Batch, Position, Head]),
                tensor("slope", Scalar::F32, &[Head]),
                tensor("scale", Scalar::F32, &[]),
                Parameter::Buffer("keys".to_owned()),
                Parameter::CuSeqlens,
                Parameter::Rows,
                Parameter::Sequences,
                Parameter::N,
                Parameter::Hq,
                Parameter::Hkv,
            ],
        );
        let expected = [
            &[0x1000, 6400, 64, 16][..],
            &[0x1000, 100, 100, 1],
            &[0x1000, 100, 1, 0],
            &[0x1000, 1],
            &[0x1000],
            &[0x9000, 0x7000, 2, 3, 100, 4, 1],
        ];
        assert_eq!(found.unwrap(), expected.concat());
    }

    #[test]
    fn what_a_module_cannot_have_is_an_error() {
        use Axis::{Batch, Head, Position};
        let u = placed(Role::Score, Class::PerKey, &[2, 3, 100], DType::F32);
        let refused = |u: &Placed, parameter: Parameter| {
            words(&[("u", u.clone())], vec![parameter]).unwrap_err().to_string()
        };
        let all = [Batch, Head, Position];
        assert!(refused(&u, tensor("v", Scalar::F32, &all)).contains("no tensor `v`"));
        assert!(refused(&u, tensor("u", Scalar::I32, &all)).contains("it is f32"));
        assert!(refused(&u, Parameter::Buffer("x".to_owned())).contains("no buffer `x`"));
        let written = Parameter::Tensor {
            name: "u".to_owned(),
            scalar: Scalar::F32,
            written: true,
            axes: all.to_vec(),
        };
        assert!(refused(&u, written).contains("which is an input"));
        // Contiguous tensors need no strides; others need every one.
        assert!(words(&[("u", u.clone())], vec![tensor("u", Scalar::F32, &[])]).is_ok());
        let strided = Placed { strides: vec![1000, 200, 1], ..u };
        assert!(refused(&strided, tensor("u", Scalar::F32, &[Batch])).contains("along [Batch]"));
    }
}
