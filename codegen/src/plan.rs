//! Kernel plans: every value that the templates of a module print.

use crate::{Family, Interface, Launch, Target};
use serde::Serialize;
use sparsek_dsl::Elem;
use std::fmt;

/// One module of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Module {
    /// Scores → tau, expiry, the keys of every chunk.
    Plan,
    /// The keys of every tile; o and lse.
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

/// Every value that the templates of a module print, and how it is launched.
#[derive(Clone, Debug)]
pub struct KernelPlan {
    /// Which module.
    pub module: Module,
    /// Kernel name, as declared.
    pub kernel: String,
    /// Compiled for.
    pub target: Target,
    /// How it is launched.
    pub interface: Interface,
    pub(crate) elem: Elem,
    pub(crate) family: Family,
    pub(crate) values: Values,
}

/// A `constexpr` of the generated code.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Constant {
    pub(crate) ty: &'static str,
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
}

/// A member of a generated struct.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) ty: String,
    pub(crate) name: String,
}

/// How the rows of a tile stand for positions and heads.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// Consecutive positions.
    pub(crate) positions: u32,
    /// Heads of one part of the group.
    pub(crate) heads: u32,
    /// Parts of the group.
    pub(crate) parts: u32,
    /// Whether every row of a tile inside a sequence stands for a query.
    pub(crate) filled: bool,
}

/// A generated function of a pair.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PairFunction {
    pub(crate) comment: String,
    pub(crate) returns: String,
    pub(crate) name: String,
    /// Parameters after x, r, c and gate, each with its comma.
    pub(crate) arguments: String,
    pub(crate) lines: Vec<String>,
}

/// Statements and the expression that is returned.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
    pub(crate) result: String,
}

/// A matrix instruction of one width, m64nNk16.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Multiply {
    /// Its columns, N.
    pub(crate) columns: u32,
    /// Blocks of eight columns, numbered.
    pub(crate) blocks: Vec<u32>,
    /// How many those are.
    pub(crate) count: u32,
    /// Accumulators of a thread: operands of the assembly from 0 on.
    pub(crate) accumulators: u32,
    /// Their names in the assembly.
    pub(crate) registers: String,
}

/// A row-wise product of two query vectors.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowDot {
    pub(crate) left: String,
    pub(crate) right: String,
    pub(crate) buffer: String,
}

/// A field of which a tile's least and greatest values decide predicates.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BoundedField {
    pub(crate) ty: String,
    pub(crate) name: String,
    /// The position itself: ascending where rows or columns are.
    pub(crate) is_position: bool,
}

/// A sum over queries.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeySum {
    pub(crate) index: usize,
    /// Whether only fractional gates count.
    pub(crate) is_d_gate: bool,
}

/// A value summed over heads before it is stored.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fold {
    pub(crate) name: String,
    pub(crate) buffer: String,
    pub(crate) store: String,
}

/// Sums of a buffer \[B, heads, N\] over the positions of each sequence.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Total {
    pub(crate) entry: String,
    pub(crate) buffer: String,
    /// `hq` or `hkv`
    pub(crate) heads: &'static str,
}

/// An output of few entries.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SmallOutput {
    pub(crate) name: String,
    pub(crate) length: String,
    pub(crate) strided: bool,
    pub(crate) function: String,
}

/// What templates print. Lists and flags that a module does not use stay empty.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Values {
    pub(crate) title: String,
    pub(crate) schedule_line: String,
    pub(crate) target_name: String,
    pub(crate) family: String,
    pub(crate) input_hash: String,
    pub(crate) include_header: String,
    pub(crate) elem_type: String,
    pub(crate) mma_type: String,
    pub(crate) to_float: String,
    pub(crate) to_elem: String,
    pub(crate) divide: String,
    pub(crate) constants: Vec<Constant>,
    pub(crate) fields: Vec<String>,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) multiplies: Vec<Multiply>,

    pub(crate) row_fields: Vec<Field>,
    pub(crate) row_lines: Vec<String>,
    pub(crate) column_fields: Vec<Field>,
    pub(crate) column_lines: Vec<String>,
    pub(crate) uniform_fields: Vec<Field>,
    pub(crate) uniform_lines: Vec<String>,

    pub(crate) has_topk: bool,
    pub(crate) plan_by_lists: bool,
    pub(crate) scores_of: &'static str,
    pub(crate) score_stride: &'static str,
    pub(crate) has_score_expression: bool,
    pub(crate) score: String,
    pub(crate) uses_gate: bool,
    pub(crate) has_predicate: bool,
    pub(crate) predicate: Function,
    /// Sweeps decide predicates for whole tiles, by bounds on these fields.
    pub(crate) predicate_of_tiles: bool,
    pub(crate) row_bounds: Vec<BoundedField>,
    pub(crate) column_bounds: Vec<BoundedField>,
    pub(crate) pair_structs: Vec<String>,
    pub(crate) pair_functions: Vec<PairFunction>,
    pub(crate) needs_product: bool,
    pub(crate) has_sink: bool,
    /// Logits end with a soft cap, which takes two at a time.
    pub(crate) has_cap: bool,
    /// Exponentials of logits are numbers that f32 and the element type hold.
    pub(crate) bounded_logits: bool,
    pub(crate) sink: String,
    /// Columns of a tile begin with its window's keys, of which a warpgroup passes by those that it does not see.
    pub(crate) window_first: bool,
    /// Tiles of keys are worked on by stretches of one kind.
    pub(crate) by_stretches: bool,

    pub(crate) row_dots: Vec<RowDot>,
    pub(crate) has_rows: bool,
    /// The rows' sweep needs nothing of the launch before it, and waits for it in the end.
    pub(crate) rows_wait_last: bool,
    /// The same of the ranges of the threshold, of the lists of tiles, and of products of rows.
    pub(crate) ranges_wait_last: bool,
    pub(crate) tiles_wait_last: bool,
    pub(crate) row_dots_wait_last: bool,
    /// The windows' sweep needs what the launch before it wrote only to store.
    pub(crate) window_waits_late: bool,
    pub(crate) has_keys: bool,
    pub(crate) has_threshold: bool,
    pub(crate) has_d_q: bool,
    pub(crate) has_d_k: bool,
    pub(crate) has_d_v: bool,
    pub(crate) row_sums: Vec<usize>,
    pub(crate) key_sums: Vec<KeySum>,
    pub(crate) row_late_lines: Vec<String>,
    pub(crate) key_outputs: bool,
    pub(crate) key_folds: Vec<Fold>,
    pub(crate) key_late_lines: Vec<String>,
    pub(crate) row_folds: Vec<Fold>,
    pub(crate) totals: Vec<Total>,
    pub(crate) small_functions: Vec<Function>,
    pub(crate) small_outputs: Vec<SmallOutput>,
}

impl fmt::Display for KernelPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.values;
        writeln!(
            f,
            "{} of {} for {}, {}",
            self.module.name(),
            self.kernel,
            self.target,
            self.elem
        )?;
        writeln!(f, "schedule {}", v.schedule_line)?;
        for c in &v.constants {
            writeln!(f, "  {} = {}", c.name, c.value)?;
        }
        for s in &v.shapes {
            let Shape { name, positions, heads, parts, filled } = s;
            let rest = if *filled { "" } else { ", some rows empty" };
            writeln!(f, "  {name} = {positions} positions x {heads} heads, {parts} part(s){rest}")?;
        }
        for (name, fields) in
            [("uniform", &v.uniform_fields), ("row", &v.row_fields), ("column", &v.column_fields)]
        {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{} {}", f.ty, f.name)).collect();
            if !fields.is_empty() {
                writeln!(f, "  {name} values: {}", fields.join(", "))?;
            }
        }
        for function in &v.pair_functions {
            writeln!(f, "  {}(x, r, c, gate{}):", function.name, function.arguments)?;
            for line in &function.lines {
                writeln!(f, "    {line}")?;
            }
        }
        writeln!(f, "buffers")?;
        for b in &self.interface.buffers {
            let keep = format!("{:?}", b.keep).to_lowercase();
            let zeroed = if b.zeroed { ", zeroed" } else { "" };
            writeln!(f, "  {} [{}] {:?}, {keep}{zeroed}", b.name, b.len, b.scalar)?;
        }
        writeln!(f, "launches")?;
        for Launch { entry, grid: [x, y, z], threads, shared } in &self.interface.launches {
            writeln!(f, "  {entry}: grid {x}, {y}, {z}; {threads} threads; {shared} bytes shared")?;
        }
        Ok(())
    }
}
