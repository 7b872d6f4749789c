//! Calls on tensors of the host: copied to the GPU, computed, copied back.

use super::kernel::{Kernel, Options};
use super::profile::Profile;
use super::sequences::Sequences;
use super::tensor::{Inputs, OwnedTensor};
use crate::{NamedTensors, TensorView};
use sparsek_codegen::Schedule;

/// What [`Kernel::run_host`] may be told beside its tensors.
#[derive(Clone, Debug, Default)]
pub struct HostOptions<'a> {
    /// As [`crate::Options::cu_seqlens`].
    pub cu_seqlens: Option<&'a [i32]>,
    /// As [`crate::Options::wanted`].
    pub wanted: Option<Vec<String>>,
    /// As [`Options::schedule`].
    pub schedule: Option<Schedule>,
    /// As [`Options::profile`].
    pub profile: Option<&'a Profile>,
}

impl Kernel {
    /// A forward call, and a backward one if there is a gradient of the output, on tensors of the
    /// host: what [`crate::Kernel::forward`] and [`crate::Kernel::backward`] give on the CPU. Waits
    /// for the results.
    ///
    /// # Errors
    /// As [`Kernel::forward`] and [`Kernel::backward`].
    pub fn run_host(
        &self,
        inputs: &crate::Inputs<'_>,
        d_o: Option<&TensorView<'_>>,
        options: &HostOptions<'_>,
    ) -> Result<(crate::Forward, Option<crate::Gradients>), crate::Error> {
        let device = self.device();
        let mut uploaded: NamedTensors<OwnedTensor> = NamedTensors::new();
        for (name, view) in inputs.iter() {
            uploaded = uploaded.with(name, device.upload(view)?);
        }
        let views = uploaded
            .iter()
            .fold(Inputs::new(), |all, (name, tensor)| all.with(name, tensor.view()));
        let sequences = options.cu_seqlens.map(|cu| Sequences::upload(device, cu)).transpose()?;
        let options = Options {
            sequences: sequences.as_ref(),
            wanted: options.wanted.clone(),
            schedule: options.schedule,
            profile: options.profile,
        };
        let forward = self.forward(&views, &options)?;
        let gradients = match d_o {
            None => None,
            Some(d_o) => {
                let d_o = device.upload(d_o)?;
                let gradients = self.backward(&views, &forward, &d_o.view(), &options)?;
                let mut tensors = Vec::new();
                for (name, tensor) in gradients.iter() {
                    tensors.push((name.to_owned(), tensor.download()?));
                }
                Some(crate::Gradients { tensors })
            }
        };
        let forward = crate::Forward {
            o: forward.o().download()?,
            lse: forward.lse().download()?,
            tau: forward.tau().download()?,
            expiry: forward.expiry().download()?,
        };
        // Work that gave nothing to download, as a backward without gradients, is waited for too.
        device.synchronize()?;
        Ok((forward, gradients))
    }
}
