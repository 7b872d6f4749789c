//! GPUs: which there are, and one to run on.

use super::{Error, Version};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError, result, sys};
use sparsek_codegen::Target;
use std::sync::Arc;

/// Cubins of NVRTC 13 load in drivers of this release on.
const OLDEST_DRIVER: Version = Version { major: 13, minor: 0 };

/// A GPU that the driver sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, from 0, among those that the driver shows.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory: usize,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// What code is generated for; `None` for a GPU that is not supported.
    pub target: Option<Target>,
}

/// The CUDA release of the installed driver.
///
/// # Errors
/// [`Error::NoDriver`] without the driver's library.
#[allow(unsafe_code, reason = "asks the driver's library")]
pub fn driver_version() -> Result<Version, crate::Error> {
    // SAFETY: opening libcuda runs its initialisers, which expect nothing of the caller.
    if !unsafe { sys::is_culib_present() } {
        let library = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
        return Err(Error::NoDriver { library, needed: OLDEST_DRIVER }.into());
    }
    let mut version = 0;
    // SAFETY: the library is there, every release of it has the function, and the pointer is to a
    // local integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(driver("cuDriverGetVersion"))?;
    let version = u32::try_from(version).unwrap_or(0);
    Ok(Version { major: version / 1000, minor: version % 1000 / 10 })
}

/// Every GPU that the driver sees, supported or not.
///
/// # Errors
/// No driver, a driver too old for the compiled code, no GPU.
pub fn devices() -> Result<Vec<DeviceInfo>, crate::Error> {
    (0..count()?).map(describe).collect()
}

/// How many GPUs there are: at least one.
fn count() -> Result<usize, crate::Error> {
    let found = driver_version()?;
    if found < OLDEST_DRIVER {
        return Err(Error::DriverTooOld { found, needed: OLDEST_DRIVER }.into());
    }
    let count = match result::init().and_then(|()| result::device::get_count()) {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
        other => other.map_err(driver("initialising the CUDA driver"))?,
    };
    match usize::try_from(count) {
        Ok(0) | Err(_) => Err(Error::NoDevice.into()),
        Ok(count) => Ok(count),
    }
}

#[allow(unsafe_code, reason = "asks the driver")]
fn describe(ordinal: usize) -> Result<DeviceInfo, crate::Error> {
    use sys::CUdevice_attribute_enum as Attribute;
    let asking = |what: &str| driver(format!("asking GPU {ordinal} for its {what}"));
    let number = i32::try_from(ordinal).unwrap_or(i32::MAX);
    let device = result::device::get(number).map_err(asking("handle"))?;
    let attribute = |what, attribute| -> Result<u32, crate::Error> {
        // SAFETY: `device` is a handle that the driver just gave.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        Ok(u32::try_from(value.map_err(asking(what))?).unwrap_or(0))
    };
    let capability = |part| attribute("compute capability", part);
    let major = capability(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = capability(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let multiprocessors =
        attribute("multiprocessors", Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(asking("memory"))?;
    Ok(DeviceInfo {
        ordinal,
        name: result::device::get_name(device).map_err(asking("name"))?,
        capability: (major, minor),
        memory,
        multiprocessors,
        target: Target::for_capability(major, minor),
    })
}

/// A GPU, with the stream on which calls run that do not name one. Clones are the same.
#[derive(Clone, Debug)]
pub struct Device {
    stream: Arc<CudaStream>,
    info: Arc<DeviceInfo>,
    target: Target,
}

impl Device {
    /// The GPU of that number, its primary context and that context's default stream.
    ///
    /// # Errors
    /// As [`devices`]; no GPU of that number; one that no code is generated for.
    pub fn new(ordinal: usize) -> Result<Device, crate::Error> {
        let count = count()?;
        if ordinal >= count {
            return Err(Error::NoSuchDevice { ordinal, count }.into());
        }
        // Before a context is made: making one costs 0.3 s and some memory of the GPU.
        supported(&describe(ordinal)?)?;
        let context = CudaContext::new(ordinal)
            .map_err(driver(format!("making a context on GPU {ordinal}")))?;
        Device::from_stream(context.default_stream())
    }

    /// The GPU of a stream that the caller has; calls run on that stream. A stream to be captured
    /// into a graph must not be the default one.
    ///
    /// # Errors
    /// A driver too old for the compiled code; a GPU that no code is generated for; what the driver
    /// reports.
    pub fn from_stream(stream: Arc<CudaStream>) -> Result<Device, crate::Error> {
        count()?;
        let info = describe(stream.context().ordinal())?;
        let target = supported(&info)?;
        Ok(Device { stream, info: Arc::new(info), target })
    }

    /// What the GPU is.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// What code is generated for it.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Its context.
    pub fn context(&self) -> &Arc<CudaContext> {
        self.stream.context()
    }

    /// The stream on which calls run that do not name one.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Bytes of memory that are free, and of all of it.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn memory(&self) -> Result<(usize, usize), crate::Error> {
        Ok(self.context().mem_get_info().map_err(driver("asking for free memory"))?)
    }

    /// Waits until everything on the stream is done.
    ///
    /// # Errors
    /// What went wrong on the GPU since the last time it was waited for.
    pub fn synchronize(&self) -> Result<(), crate::Error> {
        Ok(self.stream.synchronize().map_err(driver("waiting for the GPU"))?)
    }

    /// Uninitialised memory, for `what`. At least one byte, so that it has an address.
    #[allow(unsafe_code, reason = "memory that kernels write before anything reads it")]
    pub(crate) fn allocate(&self, what: &str, bytes: usize) -> Result<CudaSlice<u8>, crate::Error> {
        // SAFETY: any bytes are valid u8; callers write before they read.
        let allocated = unsafe { self.stream.alloc::<u8>(bytes.max(1)) };
        allocated.map_err(|e| match (e.0, self.context().mem_get_info()) {
            (sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY, Ok((free, total))) => {
                Error::OutOfMemory { what: what.to_owned(), asked: bytes, free, total }.into()
            }
            _ => driver(format!("allocating {bytes} bytes for {what}"))(e).into(),
        })
    }
}

fn supported(info: &DeviceInfo) -> Result<Target, Error> {
    info.target.ok_or_else(|| Error::Architecture {
        name: info.name.clone(),
        capability: info.capability,
        supported: Target::ALL.map(|t| t.name()).join(", "),
    })
}

/// An error of the driver in words. Only called with the library loaded: the driver's own texts
/// come from it.
pub(crate) fn driver(what: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    let what = what.into();
    move |e| Error::Driver { what, reason: reason(e) }
}

/// The driver's text for an error, with its name.
pub(crate) fn reason(e: DriverError) -> String {
    let text = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| "unknown error".to_owned(), |t| t.to_string_lossy().into_owned())
    };
    format!("{} ({})", text(e.error_string()), text(e.error_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a driver there are devices or a reason; without one, the reason says so.
    #[test]
    fn discovery_never_panics() {
        match (driver_version(), devices()) {
            (Err(a), Err(b)) => {
                assert!(a.to_string().contains("no CUDA driver"), "{a}");
                assert_eq!(a.to_string(), b.to_string());
                assert_eq!(Device::new(0).unwrap_err().to_string(), a.to_string());
            }
            (Ok(_), Ok(all)) => {
                assert!(!all.is_empty());
                let beyond = Device::new(all.len()).unwrap_err().to_string();
                assert!(beyond.contains("there is no GPU"), "{beyond}");
            }
            (Ok(_), Err(e)) => assert!(!e.to_string().is_empty()),
            (Err(e), Ok(_)) => panic!("devices without a driver: {e}"),
        }
    }

    #[test]
    fn an_unsupported_gpu_is_named() {
        let info = DeviceInfo {
            ordinal: 0,
            name: "Tesla V100".to_owned(),
            capability: (7, 0),
            memory: 16 << 30,
            multiprocessors: 80,
            target: Target::for_capability(7, 0),
        };
        let message = supported(&info).unwrap_err().to_string();
        assert!(message.contains("Tesla V100") && message.contains("7.0"), "{message}");
        assert!(message.contains("sm_90a"), "{message}");
    }
}
