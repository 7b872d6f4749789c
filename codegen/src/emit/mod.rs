//! x
use crate::{Error, KernelPlan};
/// x
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaSource { /// x
    pub text: String }
impl KernelPlan { /// x
    pub fn cuda(&self) -> Result<CudaSource, Error> { Err(Error::Template("not emitted yet".to_owned())) } }
