//! Tuned schedules: what measuring found, where it is kept, and how calls find it.
//!
//! A [`Key`] names what a schedule was measured for: a kernel instance and the code that is generated
//! for it, the shape of its calls and a GPU. A [`Record`] is a key with the schedule that won. Records
//! come from two places:
//!
//! * a [`Manifest`] that a kernel carries ([`crate::Kernel::with_manifest`], or `#[tuned("file.json")]`
//!   on a kernel in `sparsek_kernel!`);
//! * the user's own store, a folder that `sparsek tune` writes.
//!
//! A call that says no schedule takes that of the store, else that of the manifest, else what the
//! compiler's cost model chooses: [`find`]. A record of that choice, measured alone ([`How::Baseline`]), comes
//! behind what a search found, wherever it is. Using a kernel never measures anything. With `SPARSEK_TUNED=off`
//! in the environment the cost model alone chooses.

mod entry;
mod key;
mod manifest;
mod store;

pub use entry::{Entry, Kept, Winner};
pub use key::{Gpu, Key};
pub(crate) use key::{bucket, program_hash};
pub use manifest::{Figures, How, Manifest, ManifestError, Record, VERSION};
pub use store::{Broken, Merged, Store, folder};

use sparsek_codegen::Schedule;
use std::fmt;

/// Where the schedule of a call came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The caller said it.
    Given,
    /// A compiled module that was added.
    Image,
    /// The user's store; the record's id.
    Store(String),
    /// The manifest that the kernel carries; the record's id.
    Manifest(String),
    /// A record of the user's store or of the kernel's manifest that no search found: what the cost model chose
    /// when it was measured alone ([`How::Baseline`]); the record's id.
    Baseline(String),
    /// The cost model's guess.
    Model,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Given => f.write_str("given by the caller"),
            Source::Image => f.write_str("of a compiled module"),
            Source::Store(id) => write!(f, "tuned, {id} of the store"),
            Source::Manifest(id) => write!(f, "tuned, {id} of the kernel's manifest"),
            Source::Baseline(id) => write!(f, "the cost model's guess, measured as {id}"),
            Source::Model => f.write_str("the cost model's guess"),
        }
    }
}

/// Whether tuned schedules are used: not where the environment variable `SPARSEK_TUNED` is `off`.
pub fn is_on() -> bool {
    std::env::var_os("SPARSEK_TUNED").is_none_or(|v| v != "off")
}

/// Looks a key up: in a store, then in a manifest; what no search found only where there is nothing else. A
/// schedule that `fits` refuses is none. What is wrong with a file or a schedule goes to `warn`.
pub fn find(
    key: &Key,
    store: Option<&Store>,
    manifest: &Manifest,
    fits: impl Fn(&Schedule) -> Result<(), String>,
    mut warn: impl FnMut(String),
) -> Option<(Record, Source)> {
    let stored = store.and_then(|store| match store.get(key) {
        Ok(entry) => entry?.record(),
        Err(broken) => {
            warn(broken.to_string());
            None
        }
    });
    let of_store = stored.map(|record| (Source::Store(record.id()), record));
    let of_manifest =
        manifest.get(key).map(|record| (Source::Manifest(record.id()), record.clone()));
    let mut found: Vec<(Source, Record)> = of_store.into_iter().chain(of_manifest).collect();
    // Stable: the store stays before the manifest.
    found.sort_by_key(|(_, record)| !record.how.is_searched());
    for (source, record) in found {
        let id = record.id();
        match fits(&record.schedule) {
            Ok(()) if record.how == How::Baseline => return Some((record, Source::Baseline(id))),
            Ok(()) => return Some((record, source)),
            Err(e) => {
                warn(format!("the tuned schedule {id} of {} is not used: {e}", record.kernel))
            }
        }
    }
    None
}
