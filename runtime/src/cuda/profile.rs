//! How long the kernels of a call take, each alone or those of a module together.

use super::Error;
use super::device::driver;
use super::image::Module;
use cudarc::driver::{CudaEvent, CudaStream, sys::CUevent_flags};
use std::sync::{Mutex, PoisonError};

/// The time of one kernel, or of a module's together.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Module of the kernel.
    pub module: Module,
    /// Entry; empty for all of a module.
    pub entry: String,
    /// Milliseconds from before the launch to after it, as the GPU's clock counts them.
    pub ms: f32,
}

/// Collects the time of every kernel of the calls that are given it. Two events around each kernel
/// add a few microseconds, and a kernel does not begin before the one before it has ended, as it
/// may otherwise; calls that are captured into a graph cannot be profiled.
#[derive(Debug, Default)]
pub struct Profile {
    spans: Mutex<Vec<Span>>,
    of_modules: bool,
}

#[derive(Debug)]
struct Span {
    module: Module,
    entry: String,
    start: CudaEvent,
    end: CudaEvent,
}

impl Profile {
    /// Nothing collected.
    pub fn new() -> Profile {
        Profile::default()
    }

    /// The same for modules: the kernels of one are timed together, overlapping as they do in a call
    /// that is not profiled.
    pub fn of_modules() -> Profile {
        Profile { of_modules: true, ..Profile::default() }
    }

    /// The kernels or modules since the last call of this function, in the order of their launches. Waits for
    /// them.
    ///
    /// # Errors
    /// What went wrong on the GPU meanwhile.
    pub fn take(&self) -> Result<Vec<Timing>, crate::Error> {
        let spans = std::mem::take(&mut *self.spans.lock().unwrap_or_else(PoisonError::into_inner));
        let time = |span: Span| {
            let ms = span.start.elapsed_ms(&span.end);
            let ms = ms.map_err(driver(format!("waiting for {}", span.entry)))?;
            Ok(Timing { module: span.module, entry: span.entry, ms })
        };
        spans.into_iter().map(time).collect()
    }

    pub(crate) fn is_of_modules(&self) -> bool {
        self.of_modules
    }

    pub(crate) fn begin(&self, stream: &CudaStream) -> Result<CudaEvent, Error> {
        record(stream)
    }

    pub(crate) fn end(
        &self,
        module: Module,
        entry: &str,
        start: CudaEvent,
        stream: &CudaStream,
    ) -> Result<(), Error> {
        let span = Span { module, entry: entry.to_owned(), start, end: record(stream)? };
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        Ok(())
    }
}

fn record(stream: &CudaStream) -> Result<CudaEvent, Error> {
    let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
    stream.record_event(flags).map_err(driver("recording an event"))
}
