//! (program, schedule, target) → [`KernelPlan`].
//!
//! * [`elementwise`] turns expressions into C, by what they vary over, [`factors`] gathers their constant
//!   factors before;
//! * [`module`] declares constants, parameters and the structs of rows, columns and uniform values;
//! * [`predicate`] holds the user's predicates;
//! * [`topk`] holds the plan, the lists and the threshold's gradient, [`selection`] the plan module;
//! * [`matmul`] holds the sweeps' shapes and needs, [`forward`] and [`backward`] their modules,
//!   [`reduce`] and [`small`] the sums;
//! * [`warpgroups`] holds the needs of sweeps whose warpgroups load or compute.

mod backward;
#[cfg(test)]
mod cases;
mod elementwise;
mod factors;
mod forward;
pub(crate) mod matmul;
mod module;
mod names;
mod predicate;
mod reduce;
mod selection;
mod small;
pub(crate) mod topk;
pub(crate) mod warpgroups;

use crate::{Error, KernelPlan, Module, Problem, Schedule, Target};

impl KernelPlan {
    /// Lowers one module of a kernel.
    ///
    /// # Errors
    /// A schedule that does not fit the target, with numbers; a program outside what templates do.
    pub fn new(
        module: Module,
        problem: &Problem<'_>,
        schedule: &Schedule,
        target: &Target,
    ) -> Result<KernelPlan, Error> {
        match module {
            Module::Plan => selection::lower(problem, schedule, target),
            Module::Forward => forward::lower(problem, schedule, target),
            Module::Backward => backward::lower(problem, schedule, target),
        }
    }
}
