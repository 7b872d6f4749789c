//! Sweeps: shapes of tiles, and what a schedule needs of a multiprocessor.

use super::module::Builder;
use super::topk::is_chunk;
use super::warpgroups;
use crate::plan::{Shape, Values};
use crate::{Error, Family, PassSchedule, Problem, Schedule, Target};

/// How many rows of a tile stand for how many positions and heads.
pub(crate) fn shape(name: &'static str, rows: u32, group: u32) -> Shape {
    let heads = group.min(rows);
    let parts = group.div_ceil(heads);
    let positions = rows / heads;
    let filled = positions * heads == rows && parts * heads == group;
    Shape { name, positions, heads, parts, filled }
}

/// How many fields of four bytes the structs `Row` and `Column` have, and how many sums over queries a key has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) key_sums: usize,
}

impl Fields {
    pub(crate) fn of(values: &Values) -> Fields {
        Fields {
            row: 2 + values.row_fields.len(),
            column: 3 + usize::from(values.uses_gate) + values.column_fields.len(),
            key_sums: values.key_sums.len(),
        }
    }
}

/// What one sweep needs of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Bytes of dynamic shared memory of a block.
    pub(crate) shared: u32,
    /// Registers of a thread, estimated.
    pub(crate) registers: u32,
    /// Threads of a block.
    pub(crate) threads: u32,
}

impl Need {
    /// Registers that a thread can have.
    pub(crate) fn most_registers(&self, target: &Target) -> u32 {
        255.min(target.registers / self.threads)
    }

    /// Blocks of a multiprocessor that the code is compiled for: several where shared memory and
    /// registers allow it, so that one computes while the others wait.
    pub(crate) fn blocks(&self, target: &Target) -> u32 {
        let by_shared = target.shared_per_multiprocessor / (self.shared + 1024);
        let by_threads = target.threads / self.threads;
        // The estimate may be low, and a cap below what is needed spills.
        let registers =
            (self.registers * 9 / 8).next_multiple_of(8).min(self.most_registers(target));
        let by_registers = target.registers / (registers * self.threads);
        by_shared.min(by_threads).min(by_registers).clamp(1, 4)
    }
}

/// Bytes of a tile of vectors in shared memory, its padding among them.
fn tile_bytes(problem: &Problem<'_>, rows: u32) -> u32 {
    rows * (problem.instance.d as u32 + 8) * problem.instance.elem.bytes() as u32
}

/// Bytes of `TileData` and of `KeyTile` in shared memory, with what aligns them: they depend on nothing.
const TILE_DATA: u32 = 128;

/// Rows of a warp's part of the stationary tile, in units of 16.
pub(crate) fn parts(s: &PassSchedule) -> u32 {
    s.tile_q / (16 * s.warps)
}

/// The width of the slices of d_k and d_v that one block accumulates, and their number: registers
/// hold 128 columns of both, beside operands of 16-bit types.
pub(crate) fn slice(problem: &Problem<'_>) -> (u32, u32) {
    slices_of(problem, if is_half(problem) { 128 } else { 64 })
}

/// The same of the output, and of d_q: sweeps over rows accumulate one of them.
pub(crate) fn rows_slice(problem: &Problem<'_>) -> (u32, u32) {
    slices_of(problem, if is_half(problem) { 256 } else { 128 })
}

fn slices_of(problem: &Problem<'_>, most: u32) -> (u32, u32) {
    let d = problem.instance.d as u32;
    let slices = d.div_ceil(most);
    (d.div_ceil(slices).next_multiple_of(16), slices)
}

fn is_half(problem: &Problem<'_>) -> bool {
    problem.instance.elem.bytes() == 2
}

/// Steps of 16 of the head dimension that a product is unrolled by: compilers load the operands of all of
/// them ahead, into registers that are spilled where there are too few. Operands of f32 are split into
/// twice as many, and `parts` of rows with values of their own leave few.
pub(crate) fn unrolled(problem: &Problem<'_>, parts: u32, fields: Fields) -> u32 {
    match is_half(problem) {
        false => 1,
        true if parts > 1 && fields.row > 3 => 4,
        true => 8,
    }
}

/// Whether a warp keeps its queries in registers: they are loaded once, and take a quarter of the
/// head dimension in 16-bit types.
pub(crate) fn queries_in_registers(problem: &Problem<'_>, s: &PassSchedule) -> bool {
    is_half(problem) && parts(s) == 1 && problem.instance.d <= 128
}

/// Registers that compilers were seen to need beyond accumulators and operands: for the parts into
/// which f32 operands are split, and where a warp has several 16-row parts.
fn split(problem: &Problem<'_>, s: &PassSchedule) -> u32 {
    let f32 =
        if problem.instance.elem.bytes() == 4 { 48 + 32 * parts(s) + s.tile_kv / 2 } else { 0 };
    let several = if parts(s) > 1 && problem.instance.d < 128 { 24 * parts(s) } else { 0 };
    f32 + several + s.tile_kv.saturating_sub(64) / 2
}

/// Rows of a streamed tile that the forward works on at a time: few enough for a warp's registers.
pub(crate) fn forward_step(s: &PassSchedule) -> u32 {
    let most = if parts(s) == 1 { 64 } else { 32 };
    let fits = |x: &u32| *x <= most && s.tile_kv.is_multiple_of(*x);
    [64, 32].into_iter().find(fits).unwrap_or(16)
}

/// The forward sweep.
pub(crate) fn forward_need(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> Need {
    let d = problem.instance.d as u32;
    let (width, _) = rows_slice(problem);
    let shared = tile_bytes(problem, s.tile_q)
        + 2 * s.stages * tile_bytes(problem, s.tile_kv)
        + (s.stages + 1) * s.tile_kv * 4 * (fields.column as u32 + 1)
        + TILE_DATA;
    let q = if queries_in_registers(problem, s) { d / 4 } else { 0 };
    let registers = parts(s) * (width / 2 + forward_step(s) / 2 + 16) + q + 40 + split(problem, s);
    Need { shared: shared.next_multiple_of(16), registers, threads: 32 * s.warps }
}

/// The backward's row sweep.
pub(crate) fn rows_need(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> Need {
    let shared = 2 * tile_bytes(problem, s.tile_q)
        + 2 * s.stages * tile_bytes(problem, s.tile_kv)
        + (s.stages + 1) * s.tile_kv * 4 * (fields.column as u32 + 1)
        + 4 * s.tile_q
        + TILE_DATA;
    let (width, _) = rows_slice(problem);
    let registers = parts(s) * (width / 2 + s.tile_kv + 24) + 48 + split(problem, s) + more(fields);
    Need { shared: shared.next_multiple_of(16), registers, threads: 32 * s.warps }
}

/// Registers for values of rows and columns beyond those of a gate, lse and delta; of many, only some
/// are held at a time.
fn more(fields: Fields) -> u32 {
    (8 * (fields.row + fields.column).saturating_sub(9) as u32).min(32)
}

/// The backward's key sweep.
pub(crate) fn keys_need(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> Need {
    let shared = 2 * tile_bytes(problem, s.tile_q)
        + 2 * s.stages * tile_bytes(problem, s.tile_kv)
        + (s.stages + 1) * s.tile_kv * 4 * fields.row as u32
        + 4 * s.tile_q * fields.column as u32
        + TILE_DATA;
    let (width, _) = slice(problem);
    let operands = if is_half(problem) { split(problem, s) } else { 32 * parts(s) + 3 * s.tile_kv };
    let registers = parts(s) * (width + s.tile_kv + 16) + 40 + operands + more(fields);
    Need { shared: shared.next_multiple_of(16), registers, threads: 32 * s.warps }
}

/// Rules that every schedule keeps, whatever the target.
pub(crate) fn check_shape(
    problem: &Problem<'_>,
    schedule: &Schedule,
    pass: &str,
    s: &PassSchedule,
) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Schedule(format!("{pass}: {why}")));
    let PassSchedule { family, tile_q, tile_kv, warps, stages } = *s;
    if warps == 0 || stages == 0 || tile_q == 0 || tile_kv == 0 {
        return refuse("every quantity is at least 1".to_owned());
    }
    if warps > 16 || stages > 8 {
        return refuse(format!("{warps} warps and {stages} stages; at most 16 and 8 are possible"));
    }
    if family == Family::Sm90 {
        warpgroups::check_shape(problem, pass, s)?;
    } else if tile_q % (16 * warps) != 0 {
        return refuse(format!("tile q {tile_q} is no multiple of 16 x {warps} warps"));
    }
    if tile_kv % 16 != 0 {
        return refuse(format!("tile kv {tile_kv} is no multiple of 16"));
    }
    if tile_kv > 32 * warps {
        return refuse(format!("tile kv {tile_kv} is more than the {} threads", 32 * warps));
    }
    if problem.group > tile_q {
        let group = problem.group;
        return refuse(format!("tile q {tile_q} does not hold the {group} heads of a group"));
    }
    if !is_chunk(schedule.chunk) {
        return refuse(format!("chunk {} is no power of two from 128 to 2048", schedule.chunk));
    }
    if shape("", tile_q.max(tile_kv), problem.group).positions > schedule.chunk {
        return refuse(format!("its tiles hold more than a chunk of {} positions", schedule.chunk));
    }
    Ok(())
}

/// Refuses a sweep that needs more than a block can have.
pub(crate) fn check_fits(
    problem: &Problem<'_>,
    target: &Target,
    pass: &str,
    s: &PassSchedule,
    need: Need,
) -> Result<(), Error> {
    // The estimate is rough, and a few spilled registers cost little: far above the limit it is hopeless.
    let most = need.most_registers(target);
    let refuse = |needed, available| refused(problem, target, pass, s, needed, available);
    check_shared(target, need, refuse)?;
    if need.registers > most + most / 4 {
        return Err(refuse(registers(need.registers), registers(most)));
    }
    Ok(())
}

/// Shared memory that a block needs and can have.
pub(crate) fn check_shared(
    target: &Target,
    need: Need,
    refuse: impl Fn(String, String) -> Error,
) -> Result<(), Error> {
    let bytes = |x: u32| format!("{x} bytes of shared memory");
    if need.shared > target.shared_per_block {
        return Err(refuse(bytes(need.shared), bytes(target.shared_per_block)));
    }
    Ok(())
}

/// Registers of a thread, in words.
pub(crate) fn registers(count: u32) -> String {
    format!("{count} registers a thread")
}

/// The refusal of a sweep, with what it needs and what there is.
pub(crate) fn refused(
    problem: &Problem<'_>,
    target: &Target,
    pass: &str,
    s: &PassSchedule,
    needed: String,
    available: String,
) -> Error {
    Error::Infeasible {
        what: format!("{}, {pass} with {s}", problem.instance.program.name),
        target: target.name(),
        needed,
        available,
        help: "; smaller tiles or fewer stages need less".to_owned(),
    }
}

impl Builder<'_> {
    /// Constants of a sweep.
    pub(crate) fn sweep_constants(&mut self, s: &PassSchedule) {
        self.constant("int", "TILE_Q", s.tile_q, "rows of the tile that stays");
        self.constant("int", "TILE_KV", s.tile_kv, "rows of a streamed tile");
        self.constant("int", "WARPS", s.warps, "");
        self.constant("int", "STAGES", s.stages, "streamed tiles in flight");
        let shape = shape("RowTile", s.tile_q, self.problem.group);
        self.constant("int", "POSITIONS", shape.positions, "positions of a tile of rows");
        self.values.shapes.push(shape);
    }
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn a_tile_has_as_many_positions_as_its_rows_hold() {
        for (rows, group, positions, parts, filled) in [
            (128, 4, 32, 1, true),
            (192, 4, 48, 1, true),
            (128, 5, 25, 1, false),
            (128, 7, 18, 1, false),
            (64, 128, 1, 2, true),
        ] {
            let found = shape("Tile", rows, group);
            let expected = (positions, parts, filled);
            assert_eq!((found.positions, found.parts, found.filled), expected, "{rows} {group}");
        }
    }
}
