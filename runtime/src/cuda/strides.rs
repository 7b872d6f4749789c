//! Rules about strides and addresses.

use super::Error;
use crate::DType;

/// Vectors are loaded 16 bytes at a time.
const VECTOR_BYTES: u64 = 16;

/// Kernels count vectors of a row of the batch in 32 bits.
const MOST_VECTORS: u64 = u32::MAX as u64;

/// Strides of a contiguous tensor, the last dimension fastest.
pub(crate) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut next = 1usize;
    for (stride, dim) in strides.iter_mut().zip(shape).rev() {
        *stride = next;
        // A shape of more elements than there are addresses fits no memory: `fits` says so.
        next = next.saturating_mul(*dim);
    }
    strides
}

/// Whether a tensor lies as [`contiguous`] says. Strides of dimensions of length 1 do not matter.
pub(crate) fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let wanted = contiguous(shape);
    let same = |((dim, stride), wanted): ((&usize, &usize), &usize)| *dim == 1 || stride == wanted;
    shape.contains(&0) || shape.iter().zip(strides).zip(&wanted).all(same)
}

/// Checks that every element lies within a slice of `len` elements.
pub(crate) fn fits(
    shape: &[usize],
    strides: &[usize],
    offset: usize,
    len: usize,
) -> Result<(), crate::Error> {
    if shape.len() != strides.len() {
        let reason = format!("{} dimensions and {} strides", shape.len(), strides.len());
        return Err(Error::Layout { name: "view".to_owned(), reason }.into());
    }
    if shape.contains(&0) {
        return Ok(());
    }
    let last = shape.iter().zip(strides).try_fold(offset, |at, (dim, stride)| {
        (dim - 1).checked_mul(*stride).and_then(|step| at.checked_add(step))
    });
    match last {
        Some(last) if last < len => Ok(()),
        _ => Err(crate::Error::Length {
            shape: shape.to_vec(),
            expected: last.map_or(usize::MAX, |last| last.saturating_add(1)),
            found: len,
        }),
    }
}

/// A tensor whose strides and address are to be checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Laid<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: u64,
    pub(crate) shape: &'a [usize],
    pub(crate) strides: &'a [usize],
    pub(crate) dtype: DType,
}

impl Laid<'_> {
    fn error(&self, reason: String) -> Error {
        Error::Layout { name: self.name.to_owned(), reason }
    }

    /// As many strides as dimensions, and an address that is a multiple of the elements' size.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.shape.len() != self.strides.len() {
            let (dims, strides) = (self.shape.len(), self.strides.len());
            return Err(self.error(format!("{dims} dimensions and {strides} strides")));
        }
        let bytes = self.dtype.bytes() as u64;
        match self.address.is_multiple_of(bytes) {
            true => Ok(()),
            false => Err(self.error(format!(
                "address {:#x} is not a multiple of the {bytes} bytes of a {}",
                self.address,
                self.dtype.name()
            ))),
        }
    }

    /// Vectors along the last dimension: contiguous, and each at a multiple of 16 bytes.
    pub(crate) fn check_vectors(&self) -> Result<(), Error> {
        if self.shape.contains(&0) {
            return Ok(());
        }
        let outer = self.shape.len().saturating_sub(1);
        if self.strides.last().is_some_and(|s| *s != 1) {
            return Err(self.error(format!(
                "the last dimension must be contiguous (stride 1); strides are {:?}",
                self.strides
            )));
        }
        if !self.address.is_multiple_of(VECTOR_BYTES) {
            let address = self.address;
            return Err(self.error(format!(
                "vectors must lie at multiples of {VECTOR_BYTES} bytes; the address is {address:#x}"
            )));
        }
        let elem = self.dtype.bytes() as u64;
        if self.reach() > MOST_VECTORS {
            return Err(self.error(format!(
                "a row of the batch spans more than the 64 GiB that kernels address in it; strides are {:?} \
                 elements of {elem} bytes",
                self.strides
            )));
        }
        let aligned = |(dim, stride): (&usize, &usize)| {
            *dim == 1 || (*stride as u64 * elem).is_multiple_of(VECTOR_BYTES)
        };
        match self.shape.iter().zip(self.strides).take(outer).all(aligned) {
            true => Ok(()),
            false => Err(self.error(format!(
                "vectors must lie at multiples of {VECTOR_BYTES} bytes; strides are {:?} elements of \
                 {elem} bytes",
                self.strides
            ))),
        }
    }

    /// How far the last vector of a row of the batch, the first dimension, lies from its first one, in units
    /// of 16 bytes.
    fn reach(&self) -> u64 {
        let steps = self.shape.iter().zip(self.strides).skip(1);
        let elements = steps
            .map(|(dim, stride)| (dim.saturating_sub(1) as u64).saturating_mul(*stride as u64));
        let elements = elements.fold(0, u64::saturating_add);
        elements.saturating_mul(self.dtype.bytes() as u64) / VECTOR_BYTES
    }

    /// No two entries at one place: each dimension steps over everything inside it.
    pub(crate) fn check_written(&self) -> Result<(), Error> {
        if self.shape.contains(&0) {
            return Ok(());
        }
        let mut dims: Vec<(usize, usize)> =
            self.strides.iter().copied().zip(self.shape.iter().copied()).collect();
        dims.retain(|(_, dim)| *dim > 1);
        dims.sort_unstable();
        let mut inside = 0usize;
        for (stride, dim) in dims {
            if stride <= inside {
                return Err(self.error(format!(
                    "an output's elements must not overlap; strides are {:?} for shape {:?}",
                    self.strides, self.shape
                )));
            }
            inside = inside.saturating_add((dim - 1).saturating_mul(stride));
        }
        Ok(())
    }

    /// Contiguous, the last dimension fastest.
    pub(crate) fn check_contiguous(&self) -> Result<(), Error> {
        match is_contiguous(self.shape, self.strides) {
            true => Ok(()),
            false => Err(self.error(format!(
                "it must be contiguous; strides are {:?} for shape {:?}",
                self.strides, self.shape
            ))),
        }
    }

    /// Runs of bytes, as address and length, that cover the elements and nothing else. The tensor
    /// has passed [`Laid::check_written`].
    pub(crate) fn runs(&self) -> Vec<(u64, u64)> {
        if self.shape.contains(&0) {
            return Vec::new();
        }
        let elem = self.dtype.bytes() as u64;
        let inner = (0..=self.shape.len())
            .find(|at| is_contiguous(&self.shape[*at..], &self.strides[*at..]))
            .unwrap_or(self.shape.len());
        let run = self.shape[inner..].iter().map(|d| *d as u64).product::<u64>() * elem;
        let mut starts = vec![self.address];
        for (dim, stride) in self.shape.iter().zip(self.strides).take(inner) {
            let steps = |start: &u64| {
                let start = *start;
                (0..*dim).map(move |i| start + (i * stride) as u64 * elem)
            };
            starts = starts.iter().flat_map(steps).collect();
        }
        starts.into_iter().map(|start| (start, run)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid<'a>(shape: &'a [usize], strides: &'a [usize]) -> Laid<'a> {
        Laid { name: "x", address: 4096, shape, strides, dtype: DType::Bf16 }
    }

    #[test]
    fn contiguity() {
        assert_eq!(contiguous(&[2, 3, 4]), [12, 4, 1]);
        assert!(is_contiguous(&[2, 3, 4], &[12, 4, 1]));
        assert!(is_contiguous(&[1, 3, 4], &[77, 4, 1]));
        assert!(!is_contiguous(&[2, 3, 4], &[12, 1, 3]));
        assert!(is_contiguous(&[0, 3], &[5, 5]));
        assert!(is_contiguous(&[], &[]));
    }

    #[test]
    fn elements_outside_the_slice_are_refused() {
        assert!(fits(&[2, 3], &[3, 1], 0, 6).is_ok());
        assert!(fits(&[2, 3], &[3, 1], 1, 6).is_err());
        assert!(fits(&[2, 3], &[0, 1], 3, 6).is_ok());
        assert!(fits(&[2, 0], &[9, 9], 100, 6).is_ok());
        assert!(fits(&[usize::MAX, 2], &[usize::MAX, 1], 0, 6).is_err());
        assert!(fits(&[2, 3], &[1], 0, 6).is_err());
    }

    #[test]
    fn vectors_are_contiguous_and_aligned() {
        assert!(laid(&[2, 5, 4, 16], &[320, 64, 16, 1]).check_vectors().is_ok());
        assert!(laid(&[2, 5, 4, 16], &[0, 16, 80, 1]).check_vectors().is_ok(), "a permutation");
        let inner = laid(&[2, 5, 4, 16], &[320, 64, 1, 4]).check_vectors().unwrap_err();
        assert!(inner.to_string().contains("last dimension must be contiguous"), "{inner}");
        let odd = laid(&[2, 5, 4, 16], &[320, 68, 16, 1]).check_vectors().unwrap_err();
        assert!(odd.to_string().contains("16 bytes") && odd.to_string().contains("`x`"), "{odd}");
        assert!(laid(&[2, 1, 4, 16], &[320, 68, 16, 1]).check_vectors().is_ok(), "one position");
        let far = 1 << 35; // elements: 64 GiB of bf16
        assert!(laid(&[2, 2, 1, 16], &[16, far - 32, 16, 1]).check_vectors().is_ok());
        let beyond = laid(&[2, 2, 1, 16], &[16, far, 16, 1]).check_vectors().unwrap_err();
        assert!(beyond.to_string().contains("64 GiB"), "{beyond}");
        assert!(laid(&[2, 1, 1, 16], &[far, 16, 16, 1]).check_vectors().is_ok(), "between rows");
        let shifted = Laid { address: 4104, ..laid(&[2, 16], &[16, 1]) };
        assert!(shifted.check_vectors().is_err());
        assert!(Laid { address: 4097, ..laid(&[1], &[1]) }.check().is_err());
    }

    #[test]
    fn outputs_do_not_overlap() {
        assert!(laid(&[2, 3, 4], &[12, 4, 1]).check_written().is_ok());
        assert!(laid(&[2, 3, 4], &[4, 8, 1]).check_written().is_ok(), "a permutation");
        assert!(laid(&[2, 3, 4], &[0, 4, 1]).check_written().is_err());
        assert!(laid(&[2, 3, 4], &[9, 4, 1]).check_written().is_err());
        assert!(laid(&[1, 3, 4], &[0, 4, 1]).check_written().is_ok());
        assert!(laid(&[0, 3], &[0, 0]).check_written().is_ok());
    }

    #[test]
    fn runs_cover_every_element_once() {
        assert_eq!(laid(&[2, 3, 4], &[12, 4, 1]).runs(), [(4096, 48)]);
        assert_eq!(laid(&[2, 3, 4], &[20, 4, 1]).runs(), [(4096, 24), (4136, 24)]);
        assert_eq!(laid(&[2, 2], &[1, 2]).runs(), [(4096, 2), (4100, 2), (4098, 2), (4102, 2)]);
        assert_eq!(laid(&[3, 0], &[1, 1]).runs(), []);
    }
}
