//! Compiled modules that the user gave.

use super::Error;
use super::image::{GivenInput, Image, Module, Specialisation};
use sparsek_codegen::Schedule;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Modules of one kernel instance for one target, to be used in the place of compiled ones.
#[derive(Debug, Default)]
pub(crate) struct Images {
    all: Mutex<Vec<Image>>,
}

impl Images {
    fn lock(&self) -> MutexGuard<'_, Vec<Image>> {
        // Single operations change it: it is whole after a panic elsewhere.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a module of the instance with that name and hash for that target.
    pub(crate) fn add(
        &self,
        image: Image,
        (kernel, hash): (&str, &str),
        target: &str,
    ) -> Result<(), Error> {
        if image.header.instance != hash {
            let theirs = image.kernel();
            return Err(Error::Image(format!(
                "it is of another instance ({theirs}) than this one ({kernel})"
            )));
        }
        if image.target() != target {
            return Err(Error::Image(format!("it is for {}; this is {target}", image.target())));
        }
        self.lock().push(image);
        Ok(())
    }

    /// The module of that specialisation.
    pub(crate) fn find(&self, wanted: &Specialisation) -> Option<Image> {
        self.lock().iter().find(|image| image.header.specialisation == *wanted).cloned()
    }

    /// The schedules of forward modules that fit calls, in the order in which they were added.
    pub(crate) fn schedules(&self, group: u32, given: &[GivenInput]) -> Vec<Schedule> {
        let fits = |image: &&Image| {
            let found = &image.header.specialisation;
            found.module == Module::Forward && found.group == group && found.given == given
        };
        self.lock().iter().filter(fits).map(Image::schedule).collect()
    }
}
