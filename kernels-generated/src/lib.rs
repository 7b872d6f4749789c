//! Built-in SPARSEK attention kernels, and their names on the command line.
//!
//! The kernels around [`SparsekValue`] select keys beside a sliding window and differ in where the gate
//! goes; the others add sinks, or a slope and a soft cap. Each is a type like any that
//! [`sparsek::sparsek_kernel!`] makes, to be used as it is or as the text to start one's own from. What they
//! become on a GPU can be read in [`generated`].
//!
//! ```
//! use sparsek::{Elem, Spec, TensorView};
//! use sparsek_kernels::{SparsekValue, SparsekValueInputs};
//!
//! # fn main() -> Result<(), sparsek::Error> {
//! # let (batch, n, query_heads, kv_heads, d) = (1, 40, 4, 2, 16);
//! # let (q, k, v) = (vec![0.5f32; n * 4 * d], vec![0.1f32; n * 2 * d], vec![0.2f32; n * 2 * d]);
//! # let (u, d_o) = ((0..2 * n).map(|i| (i as f32).sin()).collect::<Vec<f32>>(), q.clone());
//! let kernel = SparsekValue::new(Spec::new(Elem::F32, d as i64).k(64).w(32))?;
//! let inputs = SparsekValueInputs {
//!     q: TensorView::new(&[batch, n, query_heads, d], q.as_slice())?,
//!     k: TensorView::new(&[batch, n, kv_heads, d], k.as_slice())?,
//!     v: TensorView::new(&[batch, n, kv_heads, d], v.as_slice())?,
//!     u: TensorView::new(&[batch, kv_heads, n], u.as_slice())?,
//! };
//! let forward = kernel.forward(&inputs)?; // o, lse, tau, expiry
//! let d_o = TensorView::new(&[batch, n, query_heads, d], d_o.as_slice())?;
//! let gradients = kernel.backward(&inputs, &forward, &d_o)?;
//! let d_u = gradients.get("d_u");
//! # assert_eq!(d_u.map(|t| t.shape()), Some(&[batch, kv_heads, n][..]));
//! # Ok(())
//! # }
//! ```

mod extras;
pub mod generated;
mod window;

pub use extras::{
    SparsekSlopeSoftcap, SparsekSlopeSoftcapInputs, SparsekValueSinks, SparsekValueSinksInputs,
};
pub use window::{
    SparsekBoth, SparsekBothInputs, SparsekHard, SparsekHardInputs, SparsekKey, SparsekKeyInputs,
    SparsekStraightThrough, SparsekStraightThroughInputs, SparsekValue, SparsekValueInputs,
};

use sparsek::Program;
use sparsek::dsl::ir::LoadError;

/// Schedules that were measured for these kernels: each of them carries it, and runs on them without
/// a store of the user's.
pub const TUNED: &str = include_str!("../tuned.json");

/// A kernel that goes by a name.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// Its name, such as `sparsek-value`.
    pub name: &'static str,
    /// Where the gate goes: `value`, `key`, `both`, `hard` (nowhere) or `straight_through`.
    pub gate: &'static str,
    /// What it is, in one line.
    pub doc: &'static str,
    /// Its forward program in serialised form.
    pub json: &'static str,
    /// The tuned schedules that it carries.
    pub manifest: Option<&'static str>,
}

impl Builtin {
    /// Its forward program.
    ///
    /// # Errors
    /// A program of another format version; it is of this build's own, so none in practice.
    pub fn program(&self) -> Result<Program, LoadError> {
        Program::from_json(self.json)
    }
}

static BUILTINS: [Builtin; 7] = [
    Builtin {
        name: "sparsek-value",
        gate: "value",
        doc: "top-k and a window; the gate multiplies the values",
        json: SparsekValue::PROGRAM,
        manifest: SparsekValue::MANIFEST,
    },
    Builtin {
        name: "sparsek-key",
        gate: "key",
        doc: "top-k and a window; the gate multiplies the keys",
        json: SparsekKey::PROGRAM,
        manifest: SparsekKey::MANIFEST,
    },
    Builtin {
        name: "sparsek-both",
        gate: "both",
        doc: "top-k and a window; the gate multiplies keys and values",
        json: SparsekBoth::PROGRAM,
        manifest: SparsekBoth::MANIFEST,
    },
    Builtin {
        name: "sparsek-hard",
        gate: "hard",
        doc: "top-k and a window; no gate",
        json: SparsekHard::PROGRAM,
        manifest: SparsekHard::MANIFEST,
    },
    Builtin {
        name: "sparsek-straight-through",
        gate: "straight_through",
        doc: "top-k and a window; gate 1 forward, its own derivative backward",
        json: SparsekStraightThrough::PROGRAM,
        manifest: SparsekStraightThrough::MANIFEST,
    },
    Builtin {
        name: "sparsek-value-sinks",
        gate: "value",
        doc: "as sparsek-value, with four sinks",
        json: SparsekValueSinks::PROGRAM,
        manifest: SparsekValueSinks::MANIFEST,
    },
    Builtin {
        name: "sparsek-slope-softcap",
        gate: "value",
        doc: "as sparsek-value, with a slope for each head and logits capped softly at 5",
        json: SparsekSlopeSoftcap::PROGRAM,
        manifest: SparsekSlopeSoftcap::MANIFEST,
    },
];

/// Every built-in kernel.
pub fn all() -> &'static [Builtin] {
    &BUILTINS
}

/// The built-in kernel of that name.
pub fn builtin(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|b| b.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsek::tuned::Manifest;
    use std::collections::HashSet;

    #[test]
    fn every_program_loads_under_its_own_name() {
        let names: HashSet<&str> = all().iter().map(|b| b.name).collect();
        assert_eq!(names.len(), all().len());
        for b in all() {
            let program = b.program().unwrap();
            assert!(program.name.starts_with("Sparsek"), "{}", b.name);
            assert_eq!(builtin(b.name).map(|found| found.json), Some(b.json));
        }
        assert!(builtin("sparsek-nothing").is_none());
    }

    #[test]
    fn every_kernel_carries_the_tuned_schedules() {
        let carried = [
            SparsekValue::MANIFEST,
            SparsekKey::MANIFEST,
            SparsekBoth::MANIFEST,
            SparsekHard::MANIFEST,
            SparsekStraightThrough::MANIFEST,
            SparsekValueSinks::MANIFEST,
            SparsekSlopeSoftcap::MANIFEST,
        ];
        assert_eq!(carried.len(), all().len());
        assert!(carried.iter().all(|manifest| *manifest == Some(TUNED)));
        Manifest::from_json(TUNED).unwrap();
    }

    /// What the README points at is there.
    #[test]
    fn the_readme_names_what_the_files_hold() {
        let readme = include_str!("../README.md");
        let file = |path: &str| {
            let found = generated::files().iter().find(|file| file.path == path);
            found.unwrap_or_else(|| panic!("{path} is not among the files")).text
        };
        let named =
            readme.split('`').filter(|word| word.ends_with(".cu") && !word.contains("FAMILY"));
        assert_eq!(named.map(file).count(), 4);
        let forward = file("cuda/sm90/forward_sparsek-value.cu");
        for word in ["load_tile(", "struct Softmax", "float weight(", "forward("] {
            assert!(forward.contains(word), "{word}");
        }
    }

    #[test]
    fn generated_files_say_which_instance_they_show() {
        for file in generated::files() {
            let (first, rest) = file.text.split_once('\n').unwrap();
            let (_, name) = file.path.rsplit_once('/').unwrap();
            let (module, kernel) = name.trim_end_matches(".cu").split_once('_').unwrap();
            let program = builtin(kernel).unwrap().program().unwrap();
            let start = format!("// {}, {module}: bf16, head dimension", program.name);
            assert!(first.starts_with(&start), "{}: {first}", file.path);
            assert!(rest.contains("__global__"), "{}", file.path);
            assert!(generated::MANIFEST.contains(&format!("\"{}\"", file.path)), "{}", file.path);
        }
        assert!(generated::files().is_sorted_by_key(|file| file.path));
    }
}
