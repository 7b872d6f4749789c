//! Sweeps in which one warpgroup loads and the others compute (`arch/sm90`): what their schedules need
//! of a multiprocessor.

use super::matmul::{self, Fields, Need};
use super::module::Builder;
use crate::plan::Multiply;
use crate::{Error, Family, PassSchedule, Problem, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Op, Program, ValueId};

/// Threads of the warpgroup that loads.
const LOADING: u32 = 128;

/// Warpgroups that compute.
fn computing(s: &PassSchedule) -> u32 {
    s.tile_q / 64
}

/// Registers of a thread that loads and of one that computes, which needs so many: `setmaxnreg` hands
/// registers of the first to the second, and all of a multiprocessor are shared out.
fn registers(s: &PassSchedule, needed: u32) -> (u32, u32) {
    match computing(s) {
        1 => (88, 168),
        2 => {
            // Addresses of the loading warps need about 72 registers.
            let shares = [(104, 200), (88, 208), (72, 216)];
            shares.into_iter().find(|(_, most)| needed <= *most).unwrap_or((72, 216))
        }
        _ => (80, 144),
    }
}

/// The same for the backward's row sweep, and for its key sweep, which holds two gradients.
fn backward_registers(problem: &Problem<'_>, s: &PassSchedule) -> [(u32, u32); 2] {
    match computing(s) {
        1 => [(120, 232), (120, 232)],
        _ if problem.instance.d <= 64 => [(104, 200), (104, 200)],
        _ => [(104, 200), (56, 224)],
    }
}

/// Bytes of a tile of vectors in shared memory: swizzled, so without padding.
fn tile_bytes(problem: &Problem<'_>, rows: u32) -> u32 {
    rows * problem.instance.d as u32 * problem.instance.elem.bytes() as u32
}

/// Whether a warp keeps its queries in registers: the matrix units then read keys alone from shared
/// memory, whose bandwidth 64 keys at a time would take in full otherwise.
pub(crate) fn queries_in_registers(problem: &Problem<'_>, s: &PassSchedule) -> bool {
    problem.instance.d <= 128 && s.tile_kv <= 64
}

/// Tiles of queries in shared memory: the next one is there when a tile is done.
pub(crate) fn query_buffers(problem: &Problem<'_>, s: &PassSchedule) -> u32 {
    if queries_in_registers(problem, s) || problem.instance.d > 128 { 1 } else { 2 }
}

/// The forward sweep; fields are those of the structs `Row` and `Column`.
pub(crate) fn forward_need(
    problem: &Problem<'_>,
    s: &PassSchedule,
    fields: Fields,
    needs_product: bool,
) -> Need {
    let d = problem.instance.d as u32;
    let queries = query_buffers(problem, s)
        * (tile_bytes(problem, s.tile_q) + s.tile_q * 4 * fields.row as u32);
    let tiles = 2 * s.stages * tile_bytes(problem, s.tile_kv);
    let columns = (s.stages + 1) * s.tile_kv * 4 * fields.column as u32;
    // Barriers and headers of tiles of queries.
    let small = 8 * (4 + 4 * s.stages) + 3 * 48;
    // Accumulators of the output, scores, weights of the tile before, and the products that a
    // weight reads.
    let products = if needs_product { s.tile_kv / 2 } else { 0 };
    let held = if queries_in_registers(problem, s) { d / 4 + d / 16 } else { 0 };
    let own = 56 + 2 * (fields.row as u32).saturating_sub(3);
    let registers = d / 2 + held + s.tile_kv / 2 + s.tile_kv / 4 + products + own;
    // The struct is aligned to 1024 bytes.
    let shared = (queries + tiles + columns + small).next_multiple_of(1024);
    Need { shared, registers, threads: LOADING + 128 * computing(s) }
}

/// What is said of a tile that stays, with what aligns it.
const TILE_DATA: u32 = 128;

/// The backward's row sweep: a tile of queries and what is known of two, and streamed keys.
pub(crate) fn rows_need(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> Need {
    let header = s.tile_q * 4 * (fields.row as u32 + 1) + TILE_DATA;
    let tile = 2 * tile_bytes(problem, s.tile_q) + 2 * header;
    let d = problem.instance.d as u32;
    // Accumulators of d_q, scores and products, and weights.
    let registers = d / 2 + s.tile_kv + s.tile_kv / 4 + 44 + of_fields(fields);
    backward_need(problem, s, tile, fields.column, registers)
}

/// The backward's key sweep: a tile of keys and streamed rows.
pub(crate) fn keys_need(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> Need {
    let tile = 2 * tile_bytes(problem, s.tile_q) + s.tile_q * 4 * fields.column as u32 + TILE_DATA;
    let (rows, _) = keys_stream(problem, s);
    // Accumulators of d_k and d_v, scores and products.
    let registers = problem.instance.d as u32 + rows + keys_other(problem) + of_fields(fields);
    backward_need(problem, s, tile, fields.row + 1, registers)
}

/// Programs that read more of rows and keys than a gate, lse and delta were seen to spill: compilers load
/// those of all columns ahead. Until that is dealt with they are refused.
fn of_fields(fields: Fields) -> u32 {
    64 * (fields.row + fields.column).saturating_sub(9) as u32
}

/// Registers of the key sweep beside accumulators, where gates are read to weigh values alone, and where
/// the gradient of a key or of its score reads them otherwise: the latter spill with less, by what ptxas said
/// of the built-in kernels.
fn keys_other(problem: &Problem<'_>) -> u32 {
    let program = &problem.instance.program;
    let otherwise = program.ids().any(|v| match &program.node(v).op {
        Op::StraightThrough(_) => true,
        Op::Softmax { logit, .. } => reads_gate(program, *logit),
        _ => false,
    });
    if otherwise { 48 } else { 32 }
}

/// Whether a value is made of a gate.
fn reads_gate(program: &Program, value: ValueId) -> bool {
    let mut stack = vec![value];
    while let Some(v) = stack.pop() {
        match &program.node(v).op {
            Op::Sparsek { .. } => return true,
            op => stack.extend(op.operands()),
        }
    }
    false
}

/// Rows of a streamed tile of the key sweep and how many such tiles are in flight: those of the schedule,
/// or twice as many of half their rows, for which there are registers beside two gradients.
pub(crate) fn keys_stream(problem: &Problem<'_>, s: &PassSchedule) -> (u32, u32) {
    let [_, (_, most)] = backward_registers(problem, s);
    let halve =
        problem.instance.d as u32 + s.tile_kv + keys_other(problem) > most && s.tile_kv > 32;
    if halve { (s.tile_kv / 2, 2 * s.stages) } else { (s.tile_kv, s.stages) }
}

/// Bytes of what stays, fields of a streamed row or column.
fn backward_need(
    problem: &Problem<'_>,
    s: &PassSchedule,
    stays: u32,
    fields: usize,
    registers: u32,
) -> Need {
    let streamed = s.stages * (2 * tile_bytes(problem, s.tile_kv) + s.tile_kv * 4 * fields as u32);
    let barriers = 16 + 8 * (4 + 4 * s.stages) + 16 * s.stages;
    let shared = (stays + streamed + barriers).next_multiple_of(1024);
    Need { shared, registers, threads: LOADING + 128 * computing(s) }
}

/// Rules that schedules of the family keep, whatever the target.
pub(crate) fn check_shape(
    problem: &Problem<'_>,
    pass: &str,
    s: &PassSchedule,
) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Schedule(format!("{pass}: {why}")));
    if problem.instance.elem == Elem::F32 {
        return refuse("sm90 multiplies 16-bit elements, and these are f32".to_owned());
    }
    let PassSchedule { tile_q, tile_kv, warps, stages, .. } = *s;
    if tile_q % 64 != 0 || tile_q == 0 || tile_q > 192 || warps != tile_q / 16 + 4 {
        return refuse(format!(
            "with sm90, 64 rows of a tile take four warps and loading takes four more: tile q 64, \
             128 or 192 and warps 8, 12 or 16, not tile q {tile_q} and warps {warps}; other shapes \
             are of family sm80"
        ));
    }
    if pass == "backward" && tile_q > 128 {
        return refuse(format!(
            "with sm90, tile q is 64 or 128, not {tile_q}: a lane that loads has one row"
        ));
    }
    if pass == "backward" && stages < 2 {
        return refuse(
            "with sm90, stages is at least 2, not 1: the products of the next keys start before \
             these are done with"
                .to_owned(),
        );
    }
    // A warp that loads copies a quarter of the keys, 16 bytes a lane.
    let pieces = tile_kv / 4 * (problem.instance.d as u32 / 8);
    if ![32, 64, 128].contains(&tile_kv) || !pieces.is_multiple_of(32) {
        return refuse(format!(
            "with sm90, tile kv is 64 or 128, or 32 from D 32 on, not {tile_kv}"
        ));
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
    let refuse = |needed, available| matmul::refused(problem, target, pass, s, needed, available);
    if !target.families().contains(&Family::Sm90) {
        return Err(refuse("instructions of sm90".to_owned(), "none".to_owned()));
    }
    matmul::check_shared(target, need, refuse)?;
    let [rows, keys] = backward_registers(problem, s);
    let (_, most) = match pass {
        "backward by rows" => rows,
        "backward by keys" => keys,
        _ => registers(s, need.registers),
    };
    if need.registers > most {
        return Err(refuse(matmul::registers(need.registers), matmul::registers(most)));
    }
    Ok(())
}

/// Blocks of a multiprocessor.
pub(crate) fn blocks(s: &PassSchedule, target: &Target, need: Need) -> u32 {
    let fits = target.shared_per_multiprocessor >= 2 * (need.shared + 1024);
    if computing(s) == 1 && fits { 2 } else { 1 }
}

/// What a matrix instruction of that many columns is called with.
fn multiply(columns: u32) -> Multiply {
    let registers: Vec<String> = (0..columns / 2).map(|n| format!("%{n}")).collect();
    Multiply {
        columns,
        blocks: (0..columns / 8).collect(),
        count: columns / 8,
        accumulators: columns / 2,
        registers: registers.join(", "),
    }
}

impl Builder<'_> {
    /// Constants of a sweep beside those that every sweep has, and the instructions it uses.
    pub(crate) fn warpgroup_constants(
        &mut self,
        s: &PassSchedule,
        need: Need,
        widths: &[u32],
        blocks: u32,
    ) {
        let (loading, computing) = registers(s, need.registers);
        self.constant("int", "BLOCKS_PER_MULTIPROCESSOR", blocks, "");
        self.constant("int", "LOADING_REGISTERS", loading, "of a thread that loads");
        self.constant("int", "COMPUTING_REGISTERS", computing, "of a thread that computes");
        self.multiplies(widths);
    }

    /// The same for the backward, whose blocks have a multiprocessor for themselves.
    pub(crate) fn backward_warpgroups(&mut self, s: &PassSchedule) {
        let [rows, keys] = backward_registers(self.problem, s);
        self.constant("int", "ROWS_LOADING_REGISTERS", rows.0, "of a thread that loads");
        self.constant("int", "ROWS_COMPUTING_REGISTERS", rows.1, "of a thread that computes");
        self.constant("int", "KEYS_LOADING_REGISTERS", keys.0, "");
        self.constant("int", "KEYS_COMPUTING_REGISTERS", keys.1, "");
        let (rows, stages) = keys_stream(self.problem, s);
        self.constant("int", "STREAM", rows, "rows of a streamed tile of the key sweep");
        self.constant("int", "STREAMED", stages, "of them in flight");
        self.multiplies(&[s.tile_kv, rows, self.problem.instance.d as u32]);
    }

    fn multiplies(&mut self, widths: &[u32]) {
        let widths: std::collections::BTreeSet<u32> = widths.iter().copied().collect();
        self.values.multiplies = widths.into_iter().map(multiply).collect();
    }
}
