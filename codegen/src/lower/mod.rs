//! x
use crate::{Error, KernelPlan, Module, Problem, Schedule, Target};
#[allow(missing_docs)]
impl KernelPlan {
    pub fn new(module: Module, problem: &Problem<'_>, schedule: &Schedule, target: &Target) -> Result<KernelPlan, Error> {
        let _ = (module, schedule, target);
        Err(Error::Unsupported { kernel: problem.instance.program.name.clone(), reason: "not lowered yet".to_owned() })
    }
}
#[allow(missing_docs)]
impl Schedule {
    pub fn choose(problem: &Problem<'_>, target: &Target) -> Result<Schedule, Error> {
        let _ = target;
        Err(Error::Unsupported { kernel: problem.instance.program.name.clone(), reason: "no schedule yet".to_owned() })
    }
}
