//! Where the buffers of a call lie in its memory.
//!
//! A call has two pieces of memory: `saved`, which a forward call leaves to its backward, and
//! `scratch`. Buffers of one name are one buffer, wherever a module lists it.

use super::Error;
use sparsek_codegen::{Interface, Keep, Sizes};
use std::collections::BTreeMap;

/// Buffers begin at multiples of this many bytes.
const ALIGNMENT: u64 = 256;

/// A buffer's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) keep: Keep,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// The places of all buffers of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workspace {
    slots: BTreeMap<String, Slot>,
    saved: u64,
    scratch: u64,
}

/// Start of each piece of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bases {
    pub(crate) saved: u64,
    pub(crate) scratch: u64,
}

impl Workspace {
    /// Of a forward call, which runs those modules.
    pub(crate) fn forward(
        modules: &[(&'static str, &Interface)],
        elem_bytes: u64,
        sizes: &Sizes,
    ) -> Result<Workspace, Error> {
        let mut wanted: BTreeMap<&str, (Keep, u64)> = BTreeMap::new();
        for (_, interface) in modules {
            for (name, keep, bytes) in buffers(interface, elem_bytes, sizes)? {
                let entry = wanted.entry(name).or_insert((keep, bytes));
                entry.1 = entry.1.max(bytes);
                if keep == Keep::Saved {
                    entry.0 = Keep::Saved;
                }
            }
        }
        Workspace::default().with(wanted)
    }

    /// Of a backward call: what `forward` saved is where it is.
    pub(crate) fn backward(
        module: (&'static str, &Interface),
        elem_bytes: u64,
        sizes: &Sizes,
        forward: &Workspace,
    ) -> Result<Workspace, Error> {
        let (module, interface) = module;
        let mut workspace = Workspace { saved: forward.saved, ..Workspace::default() };
        let mut scratch = BTreeMap::new();
        for (name, keep, bytes) in buffers(interface, elem_bytes, sizes)? {
            if keep == Keep::Scratch {
                scratch.insert(name, (keep, bytes));
                continue;
            }
            let saved = forward.slots.get(name).filter(|s| s.keep == Keep::Saved);
            match saved.filter(|s| s.bytes >= bytes) {
                Some(slot) => workspace.slots.insert(name.to_owned(), *slot),
                None => {
                    let reason = format!("no forward module saves {bytes} bytes of `{name}`");
                    return Err(Error::Interface { module, reason });
                }
            };
        }
        workspace.with(scratch)
    }

    fn with(mut self, wanted: BTreeMap<&str, (Keep, u64)>) -> Result<Workspace, Error> {
        for (name, (keep, bytes)) in wanted {
            let end = match keep {
                Keep::Saved => &mut self.saved,
                Keep::Scratch => &mut self.scratch,
            };
            let next = end.checked_add(bytes).and_then(|n| n.checked_next_multiple_of(ALIGNMENT));
            let offset = *end;
            *end = next.ok_or_else(too_large)?;
            self.slots.insert(name.to_owned(), Slot { keep, offset, bytes });
        }
        Ok(self)
    }

    /// Bytes that a forward call leaves to its backward.
    pub(crate) fn saved_bytes(&self) -> u64 {
        self.saved
    }

    /// Bytes needed during the call.
    pub(crate) fn scratch_bytes(&self) -> u64 {
        self.scratch
    }

    /// Address and bytes of a buffer.
    pub(crate) fn at(&self, name: &str, bases: Bases) -> Option<(u64, u64)> {
        let slot = self.slots.get(name)?;
        let base = match slot.keep {
            Keep::Saved => bases.saved,
            Keep::Scratch => bases.scratch,
        };
        Some((base + slot.offset, slot.bytes))
    }
}

fn too_large() -> Error {
    Error::TooLarge { what: "the workspace".to_owned() }
}

/// The buffers of a module, with their bytes.
fn buffers<'a>(
    interface: &'a Interface,
    elem_bytes: u64,
    sizes: &Sizes,
) -> Result<Vec<(&'a str, Keep, u64)>, Error> {
    let one = |buffer: &'a sparsek_codegen::Buffer| {
        let len = buffer.len.of(sizes).ok_or_else(too_large)?;
        let bytes = len.checked_mul(buffer.scalar.bytes(elem_bytes)).ok_or_else(too_large)?;
        Ok((buffer.name.as_str(), buffer.keep, bytes))
    };
    interface.buffers.iter().map(one).collect()
}

/// Checks memory that a caller gives for a workspace.
pub(crate) fn check_memory(
    what: &'static str,
    needed: u64,
    address: u64,
    bytes: u64,
) -> Result<(), Error> {
    if bytes < needed {
        let (needed, found) = (format!("{needed} bytes"), format!("{bytes}"));
        return Err(Error::Workspace { what, needed, found });
    }
    if needed > 0 && !address.is_multiple_of(ALIGNMENT) {
        let needed = format!("an address that is a multiple of {ALIGNMENT}");
        return Err(Error::Workspace { what, needed, found: format!("{address:#x}") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsek_codegen::{Buffer, Factor, Product, Scalar};

    const SIZES: Sizes =
        Sizes { rows: 2, sequences: 2, n: 100, hq: 4, hkv: 2, packed: false, multiprocessors: 4 };

    fn module(buffers: &[(&str, Scalar, Factor, Keep)]) -> Interface {
        let buffers = buffers.iter().map(|(name, scalar, len, keep)| Buffer {
            name: (*name).to_owned(),
            scalar: *scalar,
            len: Product::new(&[*len]),
            zeroed: false,
            keep: *keep,
        });
        Interface { parameters: Vec::new(), buffers: buffers.collect(), launches: Vec::new() }
    }

    #[test]
    fn buffers_are_apart_aligned_and_shared_by_name() {
        let plan = module(&[
            ("keys", Scalar::I32, Factor::N, Keep::Saved),
            ("sorted", Scalar::U64, Factor::N, Keep::Scratch),
            ("tiny", Scalar::F32, Factor::Literal(1), Keep::Scratch),
        ]);
        let forward = module(&[
            ("keys", Scalar::I32, Factor::N, Keep::Saved),
            ("rows", Scalar::Elem, Factor::Blocks(16), Keep::Scratch),
        ]);
        let workspace =
            Workspace::forward(&[("plan", &plan), ("forward", &forward)], 2, &SIZES).unwrap();
        assert_eq!(workspace.saved_bytes(), 512);
        // rows: 2 · ⌈100 / 16⌉ elements of 2 bytes; sorted: 800 bytes; tiny: 4.
        assert_eq!(workspace.scratch_bytes(), 256 + 1024 + 256);
        let bases = Bases { saved: 1 << 20, scratch: 1 << 30 };
        assert_eq!(workspace.at("keys", bases), Some((1 << 20, 400)));
        assert_eq!(workspace.at("rows", bases), Some((1 << 30, 28)));
        assert_eq!(workspace.at("sorted", bases), Some(((1 << 30) + 256, 800)));
        assert_eq!(workspace.at("tiny", bases), Some(((1 << 30) + 1280, 4)));
        assert_eq!(workspace.at("other", bases), None);

        let backward = module(&[
            ("keys", Scalar::I32, Factor::N, Keep::Saved),
            ("delta", Scalar::F32, Factor::Hq, Keep::Scratch),
        ]);
        let back = Workspace::backward(("backward", &backward), 2, &SIZES, &workspace).unwrap();
        assert_eq!((back.saved_bytes(), back.scratch_bytes()), (512, 256));
        assert_eq!(back.at("keys", bases), Some((1 << 20, 400)));
    }

    #[test]
    fn a_backward_reads_only_what_was_saved() {
        let plan = module(&[("keys", Scalar::I32, Factor::N, Keep::Scratch)]);
        let forward = Workspace::forward(&[("plan", &plan)], 2, &SIZES).unwrap();
        let backward = module(&[("keys", Scalar::I32, Factor::N, Keep::Saved)]);
        let e = Workspace::backward(("backward", &backward), 2, &SIZES, &forward).unwrap_err();
        assert!(e.to_string().contains("no forward module saves 400 bytes of `keys`"), "{e}");
    }

    #[test]
    fn sizes_that_overflow_are_an_error() {
        let huge = Sizes { n: u64::MAX / 4, ..SIZES };
        let plan = module(&[("keys", Scalar::U64, Factor::N, Keep::Scratch)]);
        assert!(Workspace::forward(&[("plan", &plan)], 2, &huge).is_err());
    }

    #[test]
    fn memory_is_large_enough_and_aligned() {
        assert!(check_memory("scratch", 300, 512, 300).is_ok());
        assert!(check_memory("scratch", 300, 512, 299).is_err());
        assert!(check_memory("scratch", 300, 520, 300).is_err());
        assert!(check_memory("scratch", 0, 520, 0).is_ok());
    }
}
