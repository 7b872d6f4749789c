//! The modules of one kernel instance on one GPU: each compiled and loaded once.

use super::Error;
use super::cache::Cache;
use super::device::Device;
#[cfg(not(feature = "jit"))]
use super::image::Module;
use super::image::{GivenInput, Image, Specialisation};
use super::images::Images;
use super::loaded::Loaded;
use crate::tuned::program_hash;
use sparsek_codegen::Schedule;
use sparsek_dsl::ir::{Instance, Program};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

/// A module that is being made by one caller while others wait, or is there.
type Slot = Arc<Mutex<Option<Arc<Loaded>>>>;

/// A kernel instance, a GPU, and the modules that calls have needed so far.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) instance: Arc<Instance>,
    /// Every gradient.
    pub(crate) backward: Arc<Program>,
    pub(crate) device: Device,
    #[cfg_attr(not(feature = "jit"), allow(dead_code, reason = "nothing is compiled"))]
    pub(crate) cache: Option<Cache>,
    hash: OnceLock<String>,
    loaded: Mutex<HashMap<Specialisation, Slot>>,
    images: Images,
    schedules: Mutex<HashMap<(u32, Vec<GivenInput>), Schedule>>,
    warnings: Mutex<Vec<String>>,
}

/// Contents are changed by single operations: they are whole after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(crate) fn new(
        instance: Arc<Instance>,
        backward: Arc<Program>,
        device: Device,
        cache: Option<Cache>,
    ) -> Store {
        Store {
            instance,
            backward,
            device,
            cache,
            hash: OnceLock::new(),
            loaded: Mutex::default(),
            images: Images::default(),
            schedules: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// [`program_hash`]
    pub(crate) fn hash(&self) -> &str {
        self.hash.get_or_init(|| program_hash(&self.instance))
    }

    /// Name of the kernel.
    pub(crate) fn kernel(&self) -> &str {
        &self.instance.program.name
    }

    /// The modules of those specialisations, in order. What must be compiled is compiled at the
    /// same time.
    pub(crate) fn modules(
        &self,
        wanted: &[Specialisation],
    ) -> Result<Vec<Arc<Loaded>>, crate::Error> {
        if let Some(present) = wanted.iter().map(|s| self.present(s)).collect() {
            return Ok(present);
        }
        thread::scope(|scope| {
            let running: Vec<_> =
                wanted.iter().map(|s| scope.spawn(move || self.module(s))).collect();
            let joined = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
    }

    fn slot(&self, wanted: &Specialisation) -> Slot {
        lock(&self.loaded).entry(wanted.clone()).or_default().clone()
    }

    fn present(&self, wanted: &Specialisation) -> Option<Arc<Loaded>> {
        let slot = lock(&self.loaded).get(wanted)?.clone();
        lock(&slot).clone()
    }

    fn module(&self, wanted: &Specialisation) -> Result<Arc<Loaded>, crate::Error> {
        let slot = self.slot(wanted);
        let mut place = lock(&slot);
        if let Some(loaded) = place.as_ref() {
            return Ok(loaded.clone());
        }
        let image = match self.images.find(wanted) {
            Some(image) => image,
            None => self.make(wanted)?,
        };
        let loaded = Arc::new(Loaded::new(&self.device, image)?);
        *place = Some(loaded.clone());
        Ok(loaded)
    }

    #[cfg(feature = "jit")]
    pub(super) fn source(&self) -> super::emit::Source<'_> {
        let (instance, backward) = (&*self.instance, &*self.backward);
        let (hash, target) = (self.hash(), self.device.target());
        super::emit::Source { instance, backward, hash, target }
    }

    #[cfg(feature = "jit")]
    fn make(&self, wanted: &Specialisation) -> Result<Image, crate::Error> {
        super::emit::compile(self, wanted)
    }

    #[cfg(not(feature = "jit"))]
    fn make(&self, wanted: &Specialisation) -> Result<Image, crate::Error> {
        Err(self.no_image(wanted.module, wanted.to_string()).into())
    }

    #[cfg(not(feature = "jit"))]
    fn no_image(&self, module: Module, wanted: String) -> Error {
        Error::NoImage {
            module: module.name(),
            kernel: self.kernel().to_owned(),
            target: self.device.target().name(),
            wanted,
        }
    }

    /// The schedule of calls that do not say one: of a forward module that was added, or what the
    /// compiler chooses.
    pub(crate) fn schedule(
        &self,
        group: u32,
        given: &[GivenInput],
    ) -> Result<Schedule, crate::Error> {
        if let Some(schedule) = self.images.schedule(group, given) {
            return Ok(schedule);
        }
        let key = (group, given.to_vec());
        if let Some(schedule) = lock(&self.schedules).get(&key) {
            return Ok(*schedule);
        }
        let schedule = self.choose(group, given)?;
        lock(&self.schedules).insert(key, schedule);
        Ok(schedule)
    }

    #[cfg(feature = "jit")]
    fn choose(&self, group: u32, given: &[GivenInput]) -> Result<Schedule, crate::Error> {
        super::emit::choose(self, group, given)
    }

    #[cfg(not(feature = "jit"))]
    fn choose(&self, group: u32, _: &[GivenInput]) -> Result<Schedule, crate::Error> {
        let wanted = format!("{group} query heads of a key-value head, any schedule");
        Err(self.no_image(Module::Forward, wanted).into())
    }

    /// Takes an image of this instance for this GPU.
    pub(crate) fn add(&self, image: Image) -> Result<(), Error> {
        self.images.add(image, (self.kernel(), self.hash()), &self.device.target().name())
    }

    /// Every module that is loaded.
    pub(crate) fn images(&self) -> Vec<Image> {
        let slots: Vec<Slot> = lock(&self.loaded).values().cloned().collect();
        let image = |slot: &Slot| lock(slot).as_ref().map(|loaded| loaded.image.clone());
        slots.iter().filter_map(image).collect()
    }

    #[cfg_attr(not(feature = "jit"), allow(dead_code, reason = "nothing is compiled"))]
    pub(crate) fn warn(&self, warning: String) {
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.warnings))
    }
}
