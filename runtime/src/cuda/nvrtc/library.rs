//! The functions of NVRTC's library.
//!
//! They are looked up in the library that was chosen, by path where it has one: cudarc's own bindings
//! take whichever NVRTC the system finds first, of any release.
#![allow(unsafe_code, reason = "calls of a C library")]

use crate::cuda::{Error, Version};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

type Program = *mut c_void;
type Status = c_int;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> Status;
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> Status;

/// Entry points of NVRTC, of a library that is never unloaded.
#[derive(Debug)]
pub(super) struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: GetSize,
    log: GetBytes,
    cubin_size: GetSize,
    cubin: GetBytes,
    ptx_size: GetSize,
    ptx: GetBytes,
}

/// What a program is compiled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Cubin,
    Ptx,
}

/// What a compilation gave: the bytes, unless the source has errors, and what NVRTC printed.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) log: String,
}

impl Functions {
    /// Loads NVRTC, after its builtins where they have a path: NVRTC opens them by name only.
    pub(super) fn load(library: &Path, builtins: Option<&Path>) -> Result<Functions, String> {
        if let Some(builtins) = builtins {
            open(builtins)?;
        }
        let library = open(library)?;
        // SAFETY: the names are NVRTC's, whose interface has had these signatures since CUDA 11.1,
        // and the library stays loaded.
        unsafe {
            Ok(Functions {
                version: get(library, c"nvrtcVersion")?,
                error_string: get(library, c"nvrtcGetErrorString")?,
                create: get(library, c"nvrtcCreateProgram")?,
                destroy: get(library, c"nvrtcDestroyProgram")?,
                compile: get(library, c"nvrtcCompileProgram")?,
                log_size: get(library, c"nvrtcGetProgramLogSize")?,
                log: get(library, c"nvrtcGetProgramLog")?,
                cubin_size: get(library, c"nvrtcGetCUBINSize")?,
                cubin: get(library, c"nvrtcGetCUBIN")?,
                ptx_size: get(library, c"nvrtcGetPTXSize")?,
                ptx: get(library, c"nvrtcGetPTX")?,
            })
        }
    }

    /// Release of the library.
    pub(super) fn version(&self) -> Result<Version, String> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: pointers to local integers.
        self.check(unsafe { (self.version)(&mut major, &mut minor) })?;
        let part = |x: c_int| u32::try_from(x).unwrap_or(0);
        Ok(Version { major: part(major), minor: part(minor) })
    }

    /// Compiles a source. Calls from several threads run at the same time.
    pub(super) fn compile(
        &self,
        name: &str,
        source: &str,
        options: &[String],
        product: Product,
    ) -> Result<Output, String> {
        let text = |s: &str| CString::new(s).map_err(|_| format!("{name}: a NUL in the text"));
        let (source, name) = (text(source)?, text(name)?);
        let options = options.iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let program = OpenProgram::new(self, &source, &name)?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(0);
        // SAFETY: an open program, and `count` pointers to strings that outlive the call.
        let status = unsafe { (self.compile)(program.handle, count, pointers.as_ptr()) };
        let log = program.read(self.log_size, self.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned();
        if status != 0 {
            // With an empty log the failure was not the source's.
            return match log.is_empty() {
                true => self.check(status).map(|()| Output { bytes: None, log }),
                false => Ok(Output { bytes: None, log }),
            };
        }
        let bytes = match product {
            Product::Cubin => program.read(self.cubin_size, self.cubin)?,
            Product::Ptx => program.read(self.ptx_size, self.ptx)?,
        };
        Ok(Output { bytes: Some(bytes), log })
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function takes any number and gives a string constant.
        let text = unsafe { CStr::from_ptr((self.error_string)(status)) };
        Err(format!("NVRTC: {}", text.to_string_lossy()))
    }
}

/// A program between its creation and its destruction.
struct OpenProgram<'a> {
    functions: &'a Functions,
    handle: Program,
}

impl<'a> OpenProgram<'a> {
    fn new(functions: &'a Functions, source: &CStr, name: &CStr) -> Result<Self, String> {
        let mut handle = ptr::null_mut();
        let (headers, names) = (ptr::null(), ptr::null());
        // SAFETY: strings that end in NUL, no headers; NVRTC copies the source.
        let status = unsafe {
            (functions.create)(&mut handle, source.as_ptr(), name.as_ptr(), 0, headers, names)
        };
        functions.check(status)?;
        Ok(OpenProgram { functions, handle })
    }

    fn read(&self, size: GetSize, bytes: GetBytes) -> Result<Vec<u8>, String> {
        let mut len = 0usize;
        // SAFETY: an open program and a pointer to a local integer.
        self.functions.check(unsafe { size(self.handle, &mut len) })?;
        let mut out = vec![0u8; len];
        if len > 0 {
            // SAFETY: an open program, and as many bytes as it said that it writes.
            self.functions.check(unsafe { bytes(self.handle, out.as_mut_ptr().cast()) })?;
        }
        Ok(out)
    }
}

impl Drop for OpenProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: a handle from `create` that was not destroyed. There is nothing to do about a
        // failure.
        let _ = unsafe { (self.functions.destroy)(&mut self.handle) };
    }
}

/// A library that stays loaded: NVRTC keeps threads and handlers that unloading would cut off.
fn open(path: &Path) -> Result<&'static Library, String> {
    // SAFETY: NVRTC's initialisers expect nothing of the caller.
    let library = unsafe { Library::new(path) }.map_err(|e| with_causes(&e))?;
    Ok(Box::leak(Box::new(library)))
}

/// # Safety
/// `T` must be the type of the function pointer of that name.
unsafe fn get<T: Copy>(library: &'static Library, name: &CStr) -> Result<T, String> {
    // SAFETY: the caller vouches for the type.
    let symbol = unsafe { library.get::<T>(name.to_bytes_with_nul()) };
    symbol.map(|s| *s).map_err(|_| format!("it has no function {}", name.to_string_lossy()))
}

fn with_causes(e: &dyn std::error::Error) -> String {
    match e.source() {
        Some(cause) => format!("{e}: {}", with_causes(cause)),
        None => e.to_string(),
    }
}

/// An error about one library.
pub(super) fn failed(path: &Path, reason: String) -> Error {
    Error::Nvrtc { path: path.to_owned(), reason }
}
