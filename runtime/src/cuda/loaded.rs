//! Modules on a GPU, and the stream that runs their commands.
#![allow(unsafe_code, reason = "calls of the CUDA driver")]

use super::Error;
use super::arguments::word_count;
use super::device::{Device, driver, reason};
use super::image::{Image, Module};
use super::launch::{Command, Queue};
use super::profile::Profile;
use cudarc::driver::{CudaFunction, CudaStream, result, sys};
use cudarc::nvrtc::Ptx;
use sparsek_codegen::Target;
use std::ffi::c_void;

/// Bytes of dynamic shared memory that a kernel may have without asking.
const SHARED_UNASKED: u32 = 48 * 1024;

/// A module in a context.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) image: Image,
    /// The entry of each launch.
    functions: Vec<CudaFunction>,
    /// Whether entries may be launched while those before them still run.
    overlaps: bool,
}

impl Loaded {
    /// Loads an image's code and gets its entries ready.
    pub(crate) fn new(device: &Device, image: Image) -> Result<Loaded, Error> {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let name = format!("the {} module of {}", image.module(), image.kernel());
        let code = Ptx::from_binary(image.cubin.clone());
        let module =
            device.context().load_module(code).map_err(driver(format!("loading {name}")))?;
        let words = word_count(image.interface());
        let mut functions = Vec::with_capacity(image.interface().launches.len());
        for launch in &image.interface().launches {
            let function = module
                .load_function(&launch.entry)
                .map_err(driver(format!("looking for {} in {name}", launch.entry)))?;
            check_parameter(&function, &launch.entry, words, image.module())?;
            if launch.shared > SHARED_UNASKED {
                let shared = i32::try_from(launch.shared).unwrap_or(i32::MAX);
                function
                    .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
                    .map_err(driver(format!("asking {shared} bytes for {}", launch.entry)))?;
            }
            functions.push(function);
        }
        let overlaps = Target::named(image.target()).is_some_and(|t| t.overlaps_launches());
        Ok(Loaded { image, functions, overlaps })
    }
}

/// Checks that an entry takes one parameter of that many words: launching reads as much.
fn check_parameter(
    function: &CudaFunction,
    entry: &str,
    words: usize,
    module: Module,
) -> Result<(), Error> {
    let (mut offset, mut size) = (0usize, 0usize);
    // SAFETY: a function of a loaded module and pointers to local integers; a function without
    // parameters is an error.
    let status =
        unsafe { sys::cuFuncGetParamInfo(function.cu_function(), 0, &mut offset, &mut size) };
    let found = status.result().ok().map(|()| size);
    if found == Some(words * 8) {
        return Ok(());
    }
    let reason =
        format!("{entry} should take a struct of {words} words; its parameter has {found:?} bytes");
    Err(Error::Interface { module: module.name(), reason })
}

/// A stream that runs the commands of one module.
pub(crate) struct OnStream<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) stream: &'a CudaStream,
    pub(crate) profile: Option<&'a Profile>,
}

impl Queue for OnStream<'_> {
    fn zero(&mut self, address: u64, bytes: u64) -> Result<(), Error> {
        zero(self.stream, address, bytes)
    }

    fn launch(&mut self, command: &Command<'_>) -> Result<(), Error> {
        let Command { index, entry, grid, threads, shared, words } = *command;
        let module = self.loaded.image.module();
        let failed =
            |reason| Error::Launch { module: module.name(), entry: entry.to_owned(), reason };
        let function = self.loaded.functions.get(index);
        let function = function.ok_or_else(|| failed("no such launch".to_owned()))?;
        let span = self.profile.map(|p| p.begin(self.stream)).transpose()?;
        let mut parameters = [words.as_ptr().cast_mut().cast::<c_void>()];
        let mut attributes = [overlapping()];
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared,
            hStream: self.stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: self.loaded.overlaps.into(),
        };
        // SAFETY: the function belongs to a module that `loaded` keeps; it takes one parameter of
        // `words.len()` words (checked when it was loaded), which the driver copies before it
        // returns, as it does the configuration and its attribute. The addresses in the words are of
        // memory that the call borrows, with the sizes that the interface gives, and stay valid until
        // the stream is done: their owners free them in stream order, or the caller vouched for them.
        // A kernel that may begin before the one before it has ended waits for it before it reads what that
        // one writes, and before it ends itself, in some block at least; it lets the next begin only after
        // that, so what was before that one has ended. Lists of tiles follow the plan in every call.
        let status = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                function.cu_function(),
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        status.result().map_err(|e| failed(reason(e)))?;
        match (self.profile, span) {
            (Some(profile), Some(start)) => profile.end(module, entry, start, self.stream),
            _ => Ok(()),
        }
    }
}

/// Lets a kernel begin before the one before it in the stream has ended.
fn overlapping() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    }
}

/// Sets bytes to zero, in the order of a stream.
pub(crate) fn zero(stream: &CudaStream, address: u64, bytes: u64) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    let count = usize::try_from(bytes)
        .map_err(|_| Error::TooLarge { what: "memory to be zeroed".to_owned() })?;
    // SAFETY: memory that the call borrows for writing, of at least that many bytes.
    unsafe { result::memset_d8_async(address, 0, count, stream.cu_stream()) }
        .map_err(driver(format!("zeroing {bytes} bytes")))
}
