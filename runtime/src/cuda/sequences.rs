//! Boundaries of packed sequences on a GPU.

use super::Error;
use super::device::{Device, driver};
use super::memory::{Place, Source};
use crate::bind;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, SyncOnDrop};
use std::sync::Arc;

/// `cu_seqlens` on a GPU: `[0, …, N]`, non-decreasing. The tensors' batch is then 1, and positions,
/// expiry and `batch` count within each sequence. Clones are the same.
#[derive(Clone, Debug)]
pub struct Sequences {
    memory: Memory,
    context: Arc<CudaContext>,
    count: usize,
}

#[derive(Clone, Debug)]
enum Memory {
    /// With the boundaries, to be checked against each call's N.
    Uploaded(Arc<CudaSlice<i32>>, Arc<[i32]>),
    Address(u64),
}

impl Sequences {
    /// Copies boundaries to a GPU. Waits for the copy.
    ///
    /// # Errors
    /// Fewer than two boundaries, a first one that is not 0, one below the one before; no memory.
    pub fn upload(device: &Device, cu_seqlens: &[i32]) -> Result<Sequences, crate::Error> {
        let n = cu_seqlens.last().map_or(0, |n| usize::try_from(*n).unwrap_or(0));
        check(cu_seqlens, n)?;
        let slice = device
            .stream()
            .clone_htod(cu_seqlens)
            .map_err(driver("copying cu_seqlens to the GPU"))?;
        Ok(Sequences {
            memory: Memory::Uploaded(Arc::new(slice), cu_seqlens.into()),
            context: device.context().clone(),
            count: cu_seqlens.len() - 1,
        })
    }

    /// `count + 1` boundaries (i32) that are at an address already. They are not checked: that
    /// would have to wait for the GPU.
    ///
    /// # Safety
    /// The boundaries are as [`Sequences`] says, with the last one N of every call that is given
    /// them; they stay as they are until those calls are done on their streams.
    #[allow(unsafe_code, reason = "the caller vouches for an address and what is there")]
    pub unsafe fn from_raw(address: u64, count: usize, device: &Device) -> Sequences {
        Sequences { memory: Memory::Address(address), context: device.context().clone(), count }
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Checks them against a call's N and the device it runs on.
    pub(crate) fn check(&self, n: usize, device: &Device) -> Result<(), crate::Error> {
        if self.context != *device.context() {
            let (name, ordinal) = ("cu_seqlens".to_owned(), device.info().ordinal);
            return Err(Error::OtherDevice { name, ordinal }.into());
        }
        match &self.memory {
            Memory::Uploaded(_, boundaries) => check(boundaries, n),
            Memory::Address(_) => Ok(()),
        }
    }

    pub(crate) fn read<'s>(&'s self, stream: &'s CudaStream) -> (u64, Option<SyncOnDrop<'s>>) {
        match &self.memory {
            Memory::Uploaded(slice, _) => {
                let source: &dyn Source = slice.as_ref();
                Place::Slice(source, 0).read(stream)
            }
            Memory::Address(address) => (*address, None),
        }
    }

    /// Whether both are the same boundaries in the same memory.
    pub(crate) fn same(&self, other: &Sequences) -> bool {
        let same_memory = match (&self.memory, &other.memory) {
            (Memory::Uploaded(_, a), Memory::Uploaded(_, b)) => a == b,
            (Memory::Address(a), Memory::Address(b)) => a == b,
            (Memory::Uploaded(..), Memory::Address(_))
            | (Memory::Address(_), Memory::Uploaded(..)) => false,
        };
        same_memory && self.count == other.count
    }
}

fn check(cu_seqlens: &[i32], n: usize) -> Result<(), crate::Error> {
    let sizes = bind::Sizes { batch: 1, n, hq: 1, hkv: 1, d: 1 };
    bind::Sequences::new(&sizes, Some(cu_seqlens)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_rise_from_0_to_n() {
        assert!(check(&[0, 3, 3, 7], 7).is_ok());
        assert!(check(&[0, 0], 0).is_ok());
        for (boundaries, n) in
            [(&[0, 3, 7][..], 8), (&[1, 7], 7), (&[0, 5, 3, 7], 7), (&[0], 0), (&[], 0)]
        {
            let message = check(boundaries, n).unwrap_err().to_string();
            assert!(message.contains("cu_seqlens"), "{message}");
        }
    }
}
