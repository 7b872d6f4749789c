//! One file for each subcommand, and the arguments that several of them share.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod check;
pub(crate) mod doctor;
mod doctor_kernels;
pub(crate) mod emit;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod tune;
pub(crate) mod verify;

use crate::failure::Failure;
use crate::tensors::file::TensorFile;
use crate::tensors::inputs::Flags;
use clap::Args;
use sparsek::dsl::ir::SpecError;
use sparsek::{Elem, Error};
use std::collections::BTreeMap;

/// Specialisation parameters of a kernel.
#[derive(Args, Clone, Debug)]
pub(crate) struct Parameters {
    /// Keys that the top-k mask keeps [default: metadata `k` of the input]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub(crate) k: Option<i64>,
    /// Length of the sliding window [default: metadata `window` of the input]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub(crate) window: Option<i64>,
    /// Element type: bf16, f16 or f32 [default: metadata `elem`, else what q is stored in]
    #[arg(long, value_name = "TYPE", value_parser = parse_elem)]
    pub(crate) elem: Option<Elem>,
    /// Another integer parameter of the kernel; may be repeated
    #[arg(long, value_name = "NAME=INT", value_parser = parse_setting)]
    pub(crate) set: Vec<(String, i64)>,
}

impl Parameters {
    /// As flags that win over metadata.
    pub(crate) fn flags(&self) -> Result<Flags, Failure> {
        let mut set = BTreeMap::new();
        for (name, value) in &self.set {
            if set.insert(name.clone(), *value).is_some_and(|before| before != *value) {
                return Err(Failure::new(format_args!("--set gives {name} two values"))
                    .help("give each parameter once"));
            }
        }
        Ok(Flags { k: self.k, window: self.window, elem: self.elem, set })
    }
}

fn parse_elem(text: &str) -> Result<Elem, String> {
    Elem::from_name(text).ok_or_else(|| "an element type is bf16, f16 or f32".to_owned())
}

fn parse_setting(text: &str) -> Result<(String, i64), String> {
    let named = text.split_once('=').filter(|(name, _)| !name.trim().is_empty());
    let (name, value) = named.ok_or("write it as NAME=INT")?;
    let value = value.trim().parse().map_err(|_| format!("`{value}` is not an integer"))?;
    Ok((name.trim().to_owned(), value))
}

/// What a kernel's error means to whoever wrote the command line.
pub(crate) fn failure(error: Error, file: Option<&TensorFile>) -> Failure {
    let help = match &error {
        Error::Spec(SpecError::Elem { .. }) => "choose another with --elem".to_owned(),
        Error::Spec(SpecError::Missing { name, .. } | SpecError::Conflict { name, .. }) => {
            format!("give it with --k, --window or --set {name}=INT")
        }
        Error::Spec(SpecError::OutOfSet { .. }) => {
            "choose a member of the set (--k, --window, --set), or widen the set in the kernel"
                .to_owned()
        }
        Error::Spec(SpecError::Fixed { .. }) => {
            "leave the flag out, or make it a parameter of the kernel".to_owned()
        }
        Error::Spec(SpecError::Unknown { .. }) => "check the name after --set".to_owned(),
        Error::MissingInput { .. } => match file {
            Some(file) => format!("the file has {}", file.names().join(", ")),
            None => String::new(),
        },
        Error::Shape { .. } | Error::Heads { .. } => {
            "q is [B, N, Hq, D], k and v [B, N, Hkv, D], u [B, Hkv, N]; Hq is a multiple of Hkv"
                .to_owned()
        }
        Error::Sequences(_) => {
            "it holds the boundaries of packed sequences: 0, …, N, none below the one before"
                .to_owned()
        }
        Error::Type { .. } => "store the tensor in that type".to_owned(),
        _ => String::new(),
    };
    let message = match file {
        Some(file) if !matches!(error, Error::Spec(_)) => {
            format!("{}: {error}", file.path().display())
        }
        _ => error.to_string(),
    };
    let failure = Failure::new(message);
    if help.is_empty() { failure } else { failure.help(help) }
}
