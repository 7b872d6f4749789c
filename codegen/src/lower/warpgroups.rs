//! Sweeps in which one warpgroup loads and the others compute (`arch/sm90`): what their schedules need
//! of a multiprocessor.

use super::matmul::{self, Fields, Need};
use super::module::Builder;
use crate::plan::Multiply;
use crate::{Error, Family, PassSchedule, Problem, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::{Class, Op, Program, Unary, ValueId};

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
            // The loading warps take 72 to 88 registers, more where programs have more fields.
            let shares = [(104, 200), (88, 208), (72, 216)];
            shares.into_iter().find(|(_, most)| needed <= *most).unwrap_or((72, 216))
        }
        _ => (80, 144),
    }
}

/// The same for the backward's row sweep, of which `held` operands stay in registers.
fn rows_registers(problem: &Problem<'_>, s: &PassSchedule, held: u32) -> (u32, u32) {
    match computing(s) {
        1 => (120, 232),
        _ if held > 0 && problem.instance.d > 64 => (88, 208),
        _ => (104, 200),
    }
}

/// Operands of the row sweep's tile that stay in registers: queries, then their gradients. Programs of more than
/// the usual fields leave no registers for them.
fn rows_held(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> u32 {
    let usual = of_rows(problem, s, fields) == 0 && s.tile_kv <= 64;
    match problem.instance.d {
        ..=64 if usual => 2,
        ..=128 if usual => 1,
        _ => 0,
    }
}

/// The same for its key sweep, which holds two gradients. Where these and streamed tiles leave some, loading
/// warps get them: they load the fields of rows.
fn keys_registers(problem: &Problem<'_>, s: &PassSchedule, streamed: u32) -> (u32, u32) {
    match computing(s) {
        1 => (120, 232),
        _ if problem.instance.d <= 64 => (104, 200),
        _ if problem.instance.d < 128 => (88, 208),
        _ if streamed <= 32 => (72, 216),
        _ => (56, 224),
    }
}

/// Bytes of a tile of vectors in shared memory: swizzled, so without padding.
fn tile_bytes(problem: &Problem<'_>, rows: u32) -> u32 {
    rows * problem.instance.d as u32 * problem.instance.elem.bytes() as u32
}

/// Whether a warp keeps its queries in registers: the matrix units then read keys alone from shared
/// memory, whose bandwidth 64 keys at a time would take in full otherwise.
pub(crate) fn queries_in_registers(problem: &Problem<'_>, s: &PassSchedule) -> bool {
    let most = if computing(s) > 2 { 64 } else { 128 };
    problem.instance.d <= most && s.tile_kv <= 64
}

/// Tiles of queries in shared memory: the next one is there when a tile is done.
pub(crate) fn query_buffers(problem: &Problem<'_>, s: &PassSchedule) -> u32 {
    if queries_in_registers(problem, s) || problem.instance.d > 128 { 1 } else { 2 }
}

/// Whether columns of a tile of the forward begin with its window's keys. Where a tile has more positions than a
/// warpgroup has rows, each sees a part of them, and most of that part all its rows do. Two warpgroups gain less by
/// passing the others by than stretches of tiles take.
pub(crate) fn window_first(problem: &Problem<'_>, s: &PassSchedule) -> bool {
    let positions = matmul::shape("", s.tile_q, problem.group).positions;
    problem.instance.w > 0 && positions > 64 && computing(s) > 2
}

/// Whether soft caps of all tiles are worked on a few columns at a time: all at once spilled up to 20 bytes in groups of 1
/// and 2 where predicates are decided for tiles, by what ptxas said of such programs.
pub(crate) fn caps_in_turn(problem: &Problem<'_>, predicate_of_tiles: bool) -> bool {
    predicate_of_tiles && problem.instance.d > 96 && !problem.group.is_multiple_of(4)
}

/// The same of masked tiles, where logits have no caps and read gates: with the registers of three warpgroups all
/// at once spilled 4 bytes, by what ptxas said of `sparsek-both`.
pub(crate) fn gates_in_turn(problem: &Problem<'_>, s: &PassSchedule) -> bool {
    computing(s) > 2 && logit_reads_gate(&problem.instance.program)
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
    let columns = s.stages * s.tile_kv * 4 * fields.column as u32;
    // Barriers and headers of tiles of queries.
    let steps = 36 * computing(s);
    let headers = (query_buffers(problem, s) + 1) * (40 + steps);
    let small = 8 * (4 + 4 * s.stages) + headers;
    // Accumulators of the output, scores, weights of the tile before, and the products that a
    // weight reads.
    let products = if needs_product { s.tile_kv / 2 } else { 0 };
    let held = if queries_in_registers(problem, s) { d / 4 + d / 16 } else { 0 };
    // Three warpgroups make do with less, as the compiler works on fewer columns at a time, but have less room for rows.
    let (most, usual) = if computing(s) > 2 { (44, 3) } else { (56, 5) };
    // Where lists end within two tiles loading warps need more (4 bytes of 72 registers spilled at k 37, w 64).
    let short = problem.instance.k + problem.instance.w < 2 * s.tile_kv as usize;
    let own = most + 2 * (fields.row as u32).saturating_sub(usual) - if short { 4 } else { 0 };
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
    let registers = d / 2 + s.tile_kv + s.tile_kv / 4 + 44 + of_rows(problem, s, fields);
    backward_need(problem, s, tile, fields.column, registers)
}

/// The backward's key sweep: a tile of keys and streamed rows.
pub(crate) fn keys_need(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> Need {
    let tile = 2 * tile_bytes(problem, s.tile_q) + s.tile_q * 4 * fields.column as u32 + TILE_DATA;
    let (rows, _) = keys_stream(problem, s, fields);
    // Accumulators of d_k and d_v, scores and products.
    let registers = problem.instance.d as u32 + rows + keys_other(problem, fields);
    backward_need(problem, s, tile, fields.row + 1, registers)
}

/// Fields of rows and columns that the sweeps of a gate, lse and delta have.
const USUAL_FIELDS: usize = 9;

/// Registers of the row sweep for what programs read of rows and columns beyond that: two rows and two columns
/// of each, of which a part is held at a time; where the logit reads the gate too, it is held longer. By
/// what ptxas said of programs with up to 21 fields.
fn of_rows(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> u32 {
    let more = (fields.row + fields.column).saturating_sub(USUAL_FIELDS) as u32;
    let each = if reads_gate_otherwise(problem) { 6 } else { 4 };
    // One warpgroup can have 32 more, and spills as much: there the compiler works further ahead.
    let ahead = if computing(s) == 1 && more > 0 { 48 } else { 0 };
    each * more + ahead
}

/// Registers of the key sweep beside accumulators: more where the gradient of a key or of its score reads
/// gates otherwise than to weigh values, where pairs need functions beside the softmax's, for fields beyond
/// the usual and two more, and for sums of key inputs, which stay for the whole sweep. By what ptxas said of
/// the built-in kernels and of programs with up to 21 fields: a fit, not a count.
fn keys_other(problem: &Problem<'_>, fields: Fields) -> u32 {
    let more = (fields.row + fields.column).saturating_sub(USUAL_FIELDS + 2) as u32;
    let (gate, each) = if reads_gate_otherwise(problem) { (16, 6) } else { (0, 3) };
    let functions = if has_pair_functions(&problem.instance.program) { 8 } else { 0 };
    let sums = if fields.key_sums > 2 { 40 } else { 0 };
    // Rows that stand for no query are told from the others, pair by pair.
    let unfilled = if problem.group.is_power_of_two() { 0 } else { 8 };
    PLAIN + gate + functions + each * more + sums + unfilled
}

/// Registers of the key sweep beside accumulators, of programs that have none of these.
const PLAIN: u32 = 32;

/// Whether gates are read by a logit, or in the place of weights that they have no part in.
fn reads_gate_otherwise(problem: &Problem<'_>) -> bool {
    let program = &problem.instance.program;
    let straight = |v| matches!(program.node(v).op, Op::StraightThrough(_));
    logit_reads_gate(program) || program.ids().any(straight)
}

fn logit_reads_gate(program: &Program) -> bool {
    program.ids().any(|v| match program.node(v).op {
        Op::Softmax { logit, .. } => reads_gate(program, logit),
        _ => false,
    })
}

/// Whether values of pairs are made by functions that are more than one instruction.
fn has_pair_functions(program: &Program) -> bool {
    program.ids().any(|v| {
        let costly = match program.node(v).op {
            Op::Unary(f, _) => !matches!(f, Unary::Neg | Unary::Abs),
            _ => false,
        };
        costly && program.ty(v).class == Class::Pair
    })
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
pub(crate) fn keys_stream(problem: &Problem<'_>, s: &PassSchedule, fields: Fields) -> (u32, u32) {
    let (_, most) = keys_registers(problem, s, s.tile_kv);
    let other = keys_other(problem, fields);
    let needed = problem.instance.d as u32 + s.tile_kv + other;
    // From there on 64 rows spill, whatever the sum: the compiler works on more pairs at a time where it can.
    let many = problem.instance.d > 64 && other > PLAIN;
    let halve = (needed > most || many) && s.tile_kv > 32;
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
    fields: Fields,
) -> Result<(), Error> {
    let refuse = |needed, available| matmul::refused(problem, target, pass, s, needed, available);
    if !target.families().contains(&Family::Sm90) {
        return Err(refuse("instructions of sm90".to_owned(), "none".to_owned()));
    }
    matmul::check_shared(target, need, refuse)?;
    let (_, most) = match pass {
        "backward by rows" => rows_registers(problem, s, rows_held(problem, s, fields)),
        "backward by keys" => keys_registers(problem, s, keys_stream(problem, s, fields).0),
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
    pub(crate) fn backward_warpgroups(&mut self, s: &PassSchedule, fields: Fields) {
        let held = rows_held(self.problem, s, fields);
        let rows = rows_registers(self.problem, s, held);
        let (streamed, stages) = keys_stream(self.problem, s, fields);
        let keys = keys_registers(self.problem, s, streamed);
        self.constant(
            "int",
            "ROWS_HELD",
            held,
            "operands of a tile of rows that stay in registers",
        );
        self.constant("int", "ROWS_LOADING_REGISTERS", rows.0, "of a thread that loads");
        self.constant("int", "ROWS_COMPUTING_REGISTERS", rows.1, "of a thread that computes");
        self.constant("int", "KEYS_LOADING_REGISTERS", keys.0, "");
        self.constant("int", "KEYS_COMPUTING_REGISTERS", keys.1, "");
        self.constant("int", "STREAM", streamed, "rows of a streamed tile of the key sweep");
        self.constant("int", "STREAMED", stages, "of them in flight");
        let more = fields.row + fields.column > USUAL_FIELDS;
        self.constant("bool", "COLUMNS_IN_TURN", more, "whose halves of a tile are read in turn");
        self.multiplies(&[s.tile_kv, streamed, self.problem.instance.d as u32]);
    }

    fn multiplies(&mut self, widths: &[u32]) {
        let widths: std::collections::BTreeSet<u32> = widths.iter().copied().collect();
        self.values.multiplies = widths.into_iter().map(multiply).collect();
    }
}
