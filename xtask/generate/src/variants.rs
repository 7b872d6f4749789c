//! The files: one for each variant.

use crate::constants::{self, Constants};
use crate::grid::{Emitted, Kernel};
use crate::lowering;
use sparsek::cuda::Module;
use std::collections::BTreeMap;

/// Sources that differ by constants alone.
pub(crate) struct Variant {
    /// Its file, below the package's folder.
    pub(crate) file: String,
    pub(crate) module: Module,
    /// The constants of the instance that stands for it.
    pub(crate) constants: Constants,
    /// Index of that instance among the emitted ones.
    pub(crate) shown: usize,
    /// How many instances there are.
    pub(crate) instances: usize,
}

/// A module of an instance.
pub(crate) struct Member {
    /// Index of its variant.
    pub(crate) variant: usize,
    /// Hash of its whole source.
    pub(crate) hash: String,
    /// Hash of its code without comments.
    pub(crate) code: String,
    pub(crate) constants: Constants,
}

/// Every variant, and for every instance its modules in order.
pub(crate) struct Variants {
    pub(crate) variants: Vec<Variant>,
    pub(crate) members: Vec<Vec<Member>>,
}

/// Finds the variants.
pub(crate) fn find(kernels: &[Kernel], emitted: &[Emitted]) -> Variants {
    let mut forms: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut groups: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut members: Vec<Vec<Member>> = Vec::new();
    for (instance, e) in emitted.iter().enumerate() {
        let mut modules = Vec::new();
        for (at, source) in e.sources.iter().enumerate() {
            let split = constants::split(&source.text, e.point.d);
            let next = groups.len();
            let variant = *forms.entry((source.module.name(), split.form)).or_insert(next);
            if variant == next {
                groups.push(Vec::new());
            }
            groups[variant].push((instance, at));
            let hash = blake3::hash(source.text.as_bytes()).to_hex()[..16].to_owned();
            let code = lowering::code(&source.text);
            modules.push(Member { variant, hash, code, constants: split.constants });
        }
        members.push(modules);
    }
    let shown: Vec<(usize, usize)> = groups
        .iter()
        .filter_map(|all| all.iter().copied().min_by_key(|(i, _)| emitted[*i].point.distance()))
        .collect();
    let variants = shown.iter().zip(&groups).map(|(&(instance, at), all)| Variant {
        file: name(kernels, emitted, &shown, (instance, at)),
        module: emitted[instance].sources[at].module,
        constants: members[instance][at].constants.clone(),
        shown: instance,
        instances: all.len(),
    });
    Variants { variants: variants.collect(), members }
}

/// `cuda/FAMILY/MODULE_KERNEL.cu`; where two variants would have that name, all but the kernel's
/// nearest to the headline case say which instance they show.
fn name(
    kernels: &[Kernel],
    emitted: &[Emitted],
    shown: &[(usize, usize)],
    (instance, at): (usize, usize),
) -> String {
    let stem = |(instance, at): (usize, usize)| {
        let (e, source) = (&emitted[instance], &emitted[instance].sources[at]);
        let kernel = &kernels[e.point.kernel].name;
        format!("cuda/{}/{}_{kernel}", source.family, source.module.name())
    };
    let own = stem((instance, at));
    let point = &emitted[instance].point;
    let nearer = |other: &&(usize, usize)| {
        stem(**other) == own && emitted[other.0].point.distance() < point.distance()
    };
    match shown.iter().find(nearer) {
        Some(_) => format!("{own}_{}_d{}_k{}_w{}.cu", point.target, point.d, point.k, point.w),
        None => format!("{own}.cu"),
    }
}
