//! [`KernelPlan`] → CUDA C: templates with the plan's values in their holes.

use crate::plan::Module;
use crate::{Error, Family, KernelPlan};
use sparsek_dsl::Elem;
use std::sync::OnceLock;
use tera::{Context, Delimiters, Tera};

/// The CUDA C of one module: what the runtime hands to NVRTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaSource {
    /// The whole source; it includes only `cuda_fp16.h` or `cuda_bf16.h`.
    pub text: String,
}

macro_rules! template {
    ($name:expr) => {
        include_str!(concat!("../../templates/", $name))
    };
}

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        &[$(($name, template!($name))),*]
    };
}

/// Templates that every module may include, by their paths.
const COMMON: &[(&str, &str)] = templates![
    "skeletons/plan.cu",
    "skeletons/forward.cu",
    "skeletons/forward_specialised.cu",
    "skeletons/backward.cu",
    "skeletons/backward_rows.cu",
    "skeletons/backward_keys.cu",
    "skeletons/backward_specialised.cu",
    "skeletons/backward_rows_specialised.cu",
    "skeletons/backward_keys_specialised.cu",
    "skeletons/finish.cu",
    "pieces/columns.cu",
    "pieces/columns_by_kind.cu",
    "pieces/columns_window_first.cu",
    "pieces/elementwise.cu",
    "pieces/elementwise_f32.cu",
    "pieces/elementwise_f64.cu",
    "pieces/header.cu",
    "pieces/key_gradients.cu",
    "pieces/key_tiles.cu",
    "pieces/lanes.cu",
    "pieces/matmul.cu",
    "pieces/pair.cu",
    "pieces/predicate_bounds.cu",
    "pieces/row_dots.cu",
    "pieces/row_values.cu",
    "pieces/rows.cu",
    "pieces/score.cu",
    "pieces/scores.cu",
    "pieces/sequence.cu",
    "pieces/softmax.cu",
    "pieces/softmax_kept.cu",
    "pieces/streamed_columns.cu",
    "pieces/steps.cu",
    "pieces/tile_columns.cu",
    "pieces/tile_loader.cu",
    "pieces/topk_bounds_lists.cu",
    "pieces/topk_bounds_kth.cu",
    "pieces/topk_bounds_sample.cu",
    "pieces/topk_bounds_scores.cu",
    "pieces/topk_earlier_lists.cu",
    "pieces/topk_earlier_scores.cu",
    "pieces/topk_expiry.cu",
    "pieces/topk_lists.cu",
    "pieces/topk_none.cu",
    "pieces/topk_order.cu",
    "pieces/topk_root.cu",
    "pieces/topk_sinks.cu",
    "pieces/topk_sort.cu",
    "pieces/topk_tau.cu",
    "pieces/topk_whole.cu",
    "pieces/topk_threshold.cu",
    "pieces/topk_tiles.cu",
    "pieces/warpgroups.cu",
];

/// Templates of one instruction generation and kind of element, under the names by which skeletons
/// include them.
fn specific(family: Family, half: bool) -> [(&'static str, &'static str); 3] {
    let element = match half {
        true => template!("pieces/element_half.cu"),
        false => template!("pieces/element_f32.cu"),
    };
    let (memory, matmul) = match (family, half) {
        (Family::Sm80, true) => {
            (template!("arch/sm80/memory.cu"), template!("arch/sm80/matmul_half.cu"))
        }
        (Family::Sm80, false) => {
            (template!("arch/sm80/memory.cu"), template!("arch/sm80/matmul_f32.cu"))
        }
        (Family::Sm90, _) => (template!("arch/sm90/memory.cu"), template!("arch/sm90/matmul.cu")),
    };
    [("arch/element.cu", element), ("arch/memory.cu", memory), ("arch/matmul.cu", matmul)]
}

fn failed(e: tera::Error) -> Error {
    Error::Template(e.to_string())
}

fn engine(family: Family, half: bool) -> Result<Tera, Error> {
    let mut tera = Tera::new();
    // The usual delimiters mean something else in C.
    let delimiters = Delimiters {
        block_start: "<%".into(),
        block_end: "%>".into(),
        variable_start: "${".into(),
        variable_end: "}$".into(),
        comment_start: "<#".into(),
        comment_end: "#>".into(),
    };
    tera.set_delimiters(delimiters).map_err(failed)?;
    let all: Vec<_> = COMMON.iter().copied().chain(specific(family, half)).collect();
    tera.add_raw_templates(all).map_err(failed)?;
    Ok(tera)
}

/// The engine of a family and kind of element, its templates parsed once.
fn shared_engine(family: Family, elem: Elem) -> Result<&'static Tera, Error> {
    static SM80: [OnceLock<Result<Tera, Error>>; 2] = [const { OnceLock::new() }; 2];
    static SM90: OnceLock<Result<Tera, Error>> = OnceLock::new();
    let half = elem != Elem::F32;
    let cell = match family {
        Family::Sm80 => &SM80[usize::from(half)],
        Family::Sm90 => &SM90,
    };
    cell.get_or_init(|| engine(family, half)).as_ref().map_err(Error::clone)
}

impl KernelPlan {
    /// The module's CUDA C.
    ///
    /// # Errors
    /// A template that cannot be rendered.
    pub fn cuda(&self) -> Result<CudaSource, Error> {
        let skeleton = match (self.module, self.family) {
            (Module::Plan, _) => "skeletons/plan.cu",
            (Module::Forward, Family::Sm80) => "skeletons/forward.cu",
            (Module::Forward, Family::Sm90) => "skeletons/forward_specialised.cu",
            (Module::Backward, Family::Sm80) => "skeletons/backward.cu",
            (Module::Backward, Family::Sm90) => "skeletons/backward_specialised.cu",
        };
        let context = Context::from_serialize(&self.values).map_err(failed)?;
        let engine = shared_engine(self.family, self.elem)?;
        let text = engine.render(skeleton, &context).map_err(failed)?;
        Ok(CudaSource { text: tidy(&text) })
    }
}

/// Without spaces at the ends of lines and without two empty lines in a row.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut empty = true;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() && empty {
            continue;
        }
        empty = line.is_empty();
        out.push_str(line);
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}
