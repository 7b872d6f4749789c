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
//! compiler's cost model chooses. Using a kernel never measures anything.

mod key;
mod manifest;

pub(crate) use key::program_hash;
pub use key::{Gpu, Key};
pub use manifest::{Figures, How, Manifest, ManifestError, Record, VERSION};
