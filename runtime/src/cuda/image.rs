//! Compiled modules: code for one target, and all that is needed to launch it.

use super::Error;
use super::resources::Resources;
use super::sealed::Sealed;
use crate::NamedTensors;
use crate::bind::Bound;
use crate::tensor::View;
use serde::{Deserialize, Serialize};
use sparsek_codegen::{Interface, Schedule};
use sparsek_dsl::ir::Program;
use std::fmt;

const MAGIC: &[u8; 8] = b"SPARSEKI";

/// Changes with the format of images and with what launching one means.
const VERSION: u32 = 3;

/// One of the three modules of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Module {
    /// Scores → tau, expiry, the keys of every chunk.
    Plan,
    /// o and lse.
    Forward,
    /// Gradients.
    Backward,
}

impl Module {
    /// Every module, in the order in which they run.
    pub const ALL: [Module; 3] = [Module::Plan, Module::Forward, Module::Backward];

    /// `plan`, `forward`, `backward`
    pub fn name(self) -> &'static str {
        match self {
            Module::Plan => "plan",
            Module::Forward => "forward",
            Module::Backward => "backward",
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An input that a call gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GivenInput {
    pub(crate) name: String,
    pub(crate) per_head: bool,
}

impl GivenInput {
    /// The inputs that a call with those tensors gives, sorted.
    pub(crate) fn all<V: View>(
        program: &Program,
        bound: &Bound<V>,
        inputs: &NamedTensors<V>,
    ) -> Vec<GivenInput> {
        let given = |name: &str| {
            let input = program.input_named(name).and_then(|id| bound.get(id));
            GivenInput { name: name.to_owned(), per_head: input.is_some_and(|i| i.per_head) }
        };
        let mut all: Vec<GivenInput> = inputs.names().map(given).collect();
        all.sort();
        all
    }
}

/// What a module is specialised for, beside its kernel instance and target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Specialisation {
    pub(crate) module: Module,
    /// Query heads of a key-value head.
    pub(crate) group: u32,
    /// Sorted.
    pub(crate) given: Vec<GivenInput>,
    /// Gradients, sorted; none but for the backward.
    pub(crate) wanted: Vec<String>,
    pub(crate) schedule: Schedule,
}

impl fmt::Display for Specialisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given: Vec<String> = self
            .given
            .iter()
            .map(|g| format!("{}{}", g.name, if g.per_head { " of heads" } else { "" }))
            .collect();
        write!(f, "{} query heads of a key-value head, given {}", self.group, given.join(", "))?;
        if !self.wanted.is_empty() {
            write!(f, ", wanted {}", self.wanted.join(", "))?;
        }
        write!(f, "; {}", self.schedule.to_string().replace('\n', "; "))
    }
}

/// A compiled module of one kernel instance for one target. Images of [`super::Kernel::images`] can
/// be kept in files and loaded by [`super::Kernel::add_image`], also without the feature `jit`.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub(crate) header: Header,
    pub(crate) cubin: Vec<u8>,
}

/// All of an image but its code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// [`program_hash`](crate::tuned::program_hash) of the kernel instance.
    pub(crate) instance: String,
    /// The kernel's name, for people.
    pub(crate) kernel: String,
    /// Name of the target.
    pub(crate) target: String,
    pub(crate) specialisation: Specialisation,
    pub(crate) interface: Interface,
    pub(crate) resources: Vec<Resources>,
}

impl Image {
    /// Which module it is.
    pub fn module(&self) -> Module {
        self.header.specialisation.module
    }

    /// The kernel that it is of.
    pub fn kernel(&self) -> &str {
        &self.header.kernel
    }

    /// Name of the target that it runs on, as `sm_90a`.
    pub fn target(&self) -> &str {
        &self.header.target
    }

    /// The schedule that it was generated with.
    pub fn schedule(&self) -> Schedule {
        self.header.specialisation.schedule
    }

    /// How it is launched.
    pub fn interface(&self) -> &Interface {
        &self.header.interface
    }

    /// Resources of its entries.
    pub fn resources(&self) -> &[Resources] {
        &self.header.resources
    }

    /// Its code, an ELF file.
    pub fn cubin(&self) -> &[u8] {
        &self.cubin
    }

    /// The image as a file, with a digest.
    ///
    /// # Errors
    /// A header that cannot be written as text.
    pub fn to_bytes(&self) -> Result<Vec<u8>, crate::Error> {
        let header =
            serde_json::to_string(&self.header).map_err(|e| Error::Image(e.to_string()))?;
        let sealed = Sealed { key: [0; 32], header: &header, body: &self.cubin };
        Ok(sealed.to_bytes(MAGIC, VERSION))
    }

    /// The image in a file.
    ///
    /// # Errors
    /// Anything but one whole image of this version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Image, crate::Error> {
        let refused = |why: &str| Error::Image(why.to_owned());
        Image::unsealed(&Sealed::open(bytes, MAGIC, VERSION).map_err(refused)?)
    }

    /// Every image of a file that holds one after the other, as `sparsek emit --image` writes the
    /// modules of a kernel.
    ///
    /// ```no_run
    /// # fn load(kernel: &sparsek::cuda::Kernel) -> Result<(), Box<dyn std::error::Error>> {
    /// for image in sparsek::cuda::Image::all_from_bytes(&std::fs::read("local.image")?)? {
    ///     kernel.add_image(image)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Anything but whole images of this version, at least one.
    pub fn all_from_bytes(bytes: &[u8]) -> Result<Vec<Image>, crate::Error> {
        let (mut images, mut rest) = (Vec::new(), bytes);
        loop {
            let numbered = |why: &str| match images.len() {
                0 => Error::Image(why.to_owned()),
                n => Error::Image(format!("after {n} of them: {why}")),
            };
            let (sealed, behind) = Sealed::first(rest, MAGIC, VERSION).map_err(numbered)?;
            images.push(Image::unsealed(&sealed)?);
            if behind.is_empty() {
                return Ok(images);
            }
            rest = behind;
        }
    }

    fn unsealed(sealed: &Sealed<'_>) -> Result<Image, crate::Error> {
        let header =
            serde_json::from_str(sealed.header).map_err(|e| Error::Image(e.to_string()))?;
        Ok(Image { header, cubin: sealed.body.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsek_codegen::{Factor, Family, Launch, Parameter, PassSchedule, Product};

    #[test]
    fn an_image_survives_its_file() {
        let family = Family::Sm80;
        let pass = PassSchedule { family, tile_q: 64, tile_kv: 32, warps: 4, stages: 2 };
        let one = || Product::new(&[Factor::Literal(1)]);
        let image = Image {
            header: Header {
                instance: "00".to_owned(),
                kernel: "Test".to_owned(),
                target: "sm_90a".to_owned(),
                specialisation: Specialisation {
                    module: Module::Forward,
                    group: 4,
                    given: vec![GivenInput { name: "q".to_owned(), per_head: false }],
                    wanted: Vec::new(),
                    schedule: Schedule { chunk: 512, forward: pass, backward: pass },
                },
                interface: Interface {
                    parameters: vec![Parameter::N],
                    buffers: Vec::new(),
                    launches: vec![Launch {
                        entry: "f".to_owned(),
                        grid: [one(), Product::new(&[Factor::Blocks(64), Factor::Hkv]), one()],
                        threads: 128,
                        shared: 1024,
                    }],
                },
                resources: vec![Resources::default()],
            },
            cubin: vec![1, 2, 3],
        };
        let bytes = image.to_bytes().unwrap();
        assert_eq!(Image::from_bytes(&bytes).unwrap(), image);
        let refused = Image::from_bytes(&bytes[1..]).unwrap_err().to_string();
        assert!(refused.contains("not a compiled module"), "{refused}");
        let twice = [bytes.as_slice(), bytes.as_slice()].concat();
        assert_eq!(Image::all_from_bytes(&twice).unwrap(), [image.clone(), image]);
        assert!(Image::from_bytes(&twice).is_err() && Image::all_from_bytes(&[]).is_err());
        let cut = Image::all_from_bytes(&twice[..twice.len() - 1]).unwrap_err().to_string();
        assert!(cut.contains("after 1 of them: cut short"), "{cut}");
    }
}
