//! Device memory that a call borrows.
//!
//! Memory in a cudarc slice keeps cudarc's ordering between streams: a call waits for the slice's
//! pending writes and records its own use. Of memory given by address the caller keeps the order.

use super::device::Device;
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop,
};
use std::fmt::Debug;
use std::sync::Arc;

/// A slice whose element type is forgotten.
pub(crate) trait Source: Debug + Sync {
    fn read<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>);
}

impl<T: DeviceRepr + Debug + 'static> Source for CudaSlice<T> {
    fn read<'s>(&'s self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
        self.device_ptr(stream)
    }
}

/// A slice to be written whose element type is forgotten.
pub(crate) trait Sink: Debug + Send {
    fn write<'s>(&'s mut self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>);
}

impl<T: DeviceRepr + Debug + 'static> Sink for CudaSlice<T> {
    fn write<'s>(&'s mut self, stream: &'s CudaStream) -> (u64, SyncOnDrop<'s>) {
        self.device_ptr_mut(stream)
    }
}

/// Where memory lies: in a slice, that many bytes from its start, or at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Slice(&'a (dyn Source + 'static), u64),
    Address(u64),
}

impl<'a> Place<'a> {
    /// The address, for reads on a stream. The guard is dropped after the last of them is queued.
    pub(crate) fn read<'s>(&self, stream: &'s CudaStream) -> (u64, Option<SyncOnDrop<'s>>)
    where
        'a: 's,
    {
        match *self {
            Place::Slice(slice, offset) => {
                let (address, guard) = slice.read(stream);
                (address + offset, Some(guard))
            }
            Place::Address(address) => (address, None),
        }
    }
}

/// [`Place`] of memory that is written.
#[derive(Debug)]
pub(crate) enum PlaceMut<'a> {
    Slice(&'a mut (dyn Sink + 'static), u64),
    Address(u64),
}

impl PlaceMut<'_> {
    /// The address, for writes on a stream. The guard is dropped after the last of them is queued.
    pub(crate) fn write<'s>(&'s mut self, stream: &'s CudaStream) -> (u64, Option<SyncOnDrop<'s>>) {
        match self {
            PlaceMut::Slice(slice, offset) => {
                let (address, guard) = slice.write(stream);
                (address + *offset, Some(guard))
            }
            PlaceMut::Address(address) => (*address, None),
        }
    }
}

/// Borrowed device memory that calls only read: what a forward call saved.
#[derive(Clone, Debug)]
pub struct Memory<'a> {
    pub(crate) place: Place<'a>,
    pub(crate) bytes: u64,
    pub(crate) context: Arc<CudaContext>,
}

impl<'a> Memory<'a> {
    /// All of a slice.
    pub fn new(slice: &'a CudaSlice<u8>) -> Memory<'a> {
        Memory {
            place: Place::Slice(slice, 0),
            bytes: slice.len() as u64,
            context: slice.context().clone(),
        }
    }

    /// `bytes` bytes at an address.
    ///
    /// # Safety
    /// The memory is of that device and as large as said; it stays allocated, and nothing else
    /// writes it, until the calls that are given it are done on their streams.
    #[allow(unsafe_code, reason = "the caller vouches for an address")]
    pub unsafe fn from_raw(address: u64, bytes: u64, device: &Device) -> Memory<'a> {
        Memory { place: Place::Address(address), bytes, context: device.context().clone() }
    }
}

/// Borrowed device memory that a call writes: its workspace.
#[derive(Debug)]
pub struct MemoryMut<'a> {
    pub(crate) place: PlaceMut<'a>,
    pub(crate) bytes: u64,
    pub(crate) context: Arc<CudaContext>,
}

impl<'a> MemoryMut<'a> {
    /// All of a slice.
    pub fn new(slice: &'a mut CudaSlice<u8>) -> MemoryMut<'a> {
        MemoryMut {
            bytes: slice.len() as u64,
            context: slice.context().clone(),
            place: PlaceMut::Slice(slice, 0),
        }
    }

    /// `bytes` bytes at an address.
    ///
    /// # Safety
    /// As [`Memory::from_raw`], and nothing else reads the memory until then.
    #[allow(unsafe_code, reason = "the caller vouches for an address")]
    pub unsafe fn from_raw(address: u64, bytes: u64, device: &Device) -> MemoryMut<'a> {
        MemoryMut { place: PlaceMut::Address(address), bytes, context: device.context().clone() }
    }
}
