//! The cost model: how long a schedule is expected to take.
//!
//! A sweep is a number of tiles, each of `rows` rows past a number of columns:
//!
//! * tiles: ⌈N / positions⌉ · Hkv · batch, each for its own rows; rows that stand for no query are in it;
//! * columns of a tile: the union of what its positions see, min(k, …) selected keys and those of k / i for
//!   every further position i that are selected there, min(w, …) + positions − 1 of the window, and half a
//!   streamed tile for the last one, which is seldom full. Near the start of a sequence fewer keys are there:
//!   the mean of min(x, i) over i < N is in it. In the forward of sm90 a warpgroup leaves out keys that come
//!   after its own positions, and with the window's keys first those that have left before them.
//!
//! A column costs cycles of a multiprocessor: matrix products at the rate of the instructions, arithmetic
//! on pairs, operands read from shared memory (once for every warp, or for every warpgroup), and keys
//! gathered out of the L2 cache. These overlap in part: each counts with a weight between 0 (hidden by the
//! others) and about 1. What few resident warps, few stages and spilled registers cost multiplies that; a
//! fixed cost for each tile comes on top. Tiles come in waves: a multiprocessor that has the last one
//! alone makes all wait. A sweep takes no less than its tensors' bytes at the memory's rate.
//!
//! The weights are fitted to times on one H200 (`docs/performance.md`): 128 × 64 and 128 × 128 with 12
//! warps of sm90; 128 × 32 with 4 warps, 64 × 64 with 4 and 128 × 64 with 8 of sm80; the backward's sweeps.
//! What is far from these, other GPUs above all, is a guess; only ratios decide a choice.

use super::space::Sweep;
use crate::lower::matmul::{self, Need};
use crate::lower::topk::{MERGED, has_lists, is_chunk};
use crate::lower::warpgroups;
use crate::{Family, PassSchedule, Problem, Schedule, Target};
use sparsek_dsl::Elem;
use sparsek_dsl::ir::Class;

/// What a GPU does in a cycle or a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Cycles of a multiprocessor in a nanosecond, in long runs of matrix products.
    pub gigahertz: f64,
    /// Bytes a nanosecond that copies move in its memory, reads and writes counted.
    pub memory: f64,
    /// Operations a cycle of a multiprocessor by `mma.sync`, on 16-bit elements.
    pub warp_products: f64,
    /// The same by `wgmma`, where there is one.
    pub group_products: f64,
}

impl Machine {
    /// The GPU that a target is most often: A100, RTX 3090, RTX 4090, H200, B200, RTX 5090.
    pub fn of(target: &Target) -> Machine {
        // 4096 operations a cycle of wgmma are 949 TFLOP/s of an H200, of which large products were seen to
        // reach 784; mma.sync reaches 62 % of wgmma there. Copies: 4.27 TB/s measured on an H200, else 85 %
        // of the memory's rate.
        let of = |multiprocessors, gigahertz, memory, warp_products, group_products| Machine {
            multiprocessors,
            gigahertz,
            memory,
            warp_products,
            group_products,
        };
        match target.capability {
            80 => of(108, 1.41, 1_700.0, 2048.0, 2048.0),
            86 => of(82, 1.7, 800.0, 512.0, 512.0),
            89 => of(128, 2.5, 860.0, 512.0, 512.0),
            90 => of(132, 1.755, 4_270.0, 2540.0, 4096.0),
            100 => of(148, 1.85, 6_500.0, 2540.0, 2540.0),
            _ => of(170, 2.4, 1_500.0, 512.0, 512.0),
        }
    }

    /// Operations a cycle of a multiprocessor.
    fn products(&self, family: Family, elem: Elem) -> f64 {
        match (elem, family) {
            // Three products of halves of half the width.
            (Elem::F32, _) => self.warp_products / 6.0,
            (_, Family::Sm80) => self.warp_products,
            (_, Family::Sm90) => self.group_products,
        }
    }

    /// Operations a second of all multiprocessors, by the fastest instructions of a target.
    pub fn peak(&self, target: &Target, elem: Elem) -> f64 {
        let of = |family: &Family| self.products(*family, elem);
        let most = target.families().iter().map(of).fold(0.0, f64::max);
        most * f64::from(self.multiprocessors) * self.gigahertz * 1e9
    }
}

/// The calls that a schedule is chosen for, beside the kernel. The batch is not among it: a sequence's
/// results are the same bits whatever is computed beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Positions of a sequence.
    pub n: u64,
    /// Key-value heads.
    pub kv_heads: u64,
}

impl Default for Workload {
    /// One sequence of 65,536 positions with 8 key-value heads.
    fn default() -> Workload {
        Workload { n: 65_536, kv_heads: 8 }
    }
}

impl Workload {
    /// Sequences shorter than this are not told apart: launches take most of their time.
    const SHORTEST: u64 = 4096;

    /// With sizes rounded up to powers of two: calls of nearly the same sizes have the same code.
    pub fn rounded(self) -> Workload {
        let up = |x: u64| x.clamp(1, 1 << 40).next_power_of_two();
        Workload { n: up(self.n).max(Workload::SHORTEST), kv_heads: self.kv_heads.max(1) }
    }

    fn sequences(&self) -> f64 {
        self.kv_heads.max(1) as f64
    }
}

/// Cycles of arithmetic lanes for a pair, beside the kernel's own expressions.
const FORWARD_PAIR: f64 = 14.0;
const BACKWARD_PAIR: f64 = 18.0;

/// Weights of products, arithmetic, shared memory and gathered keys in the cycles of a column.
struct Weights {
    products: f64,
    pairs: f64,
    shared: f64,
    gathered: f64,
    /// Cycles of a tile beside its columns.
    tile: f64,
}

/// sm80 forward: 1.2 · 826 + 1.24 · 448 + 0.31 · 512 + 0.32 · 320 cycles for 128 × 32 with 4 warps.
/// sm90: two warpgroups overlap, and so do two blocks of one; one alone does not.
fn weights(sweep: Sweep, s: &PassSchedule, blocks: u32) -> Weights {
    match (s.family, sweep) {
        (Family::Sm80, sweep) => {
            let tile = if sweep == Sweep::Forward { 24.0 } else { 40.0 } * f64::from(s.tile_q);
            Weights { products: 1.2, pairs: 1.24, shared: 0.31, gathered: 0.32, tile }
        }
        (Family::Sm90, sweep) => {
            let alone = s.tile_q <= 64 && blocks == 1;
            let pairs = match (sweep, alone) {
                (Sweep::Forward, false) => 0.45,
                (Sweep::Forward, true) => 0.9,
                (Sweep::Rows | Sweep::Keys, false) => 0.55,
                (Sweep::Rows | Sweep::Keys, true) => 1.0,
            };
            let tile = 31.0 * f64::from(s.tile_q);
            Weights { products: 1.0, pairs, shared: 0.15, gathered: 0.15, tile }
        }
    }
}

/// Everything that predictions read.
pub(super) struct Model<'a> {
    pub(super) problem: &'a Problem<'a>,
    pub(super) target: &'a Target,
    pub(super) machine: &'a Machine,
    pub(super) workload: &'a Workload,
}

/// The mean of min(x, i) over i from 0 to n.
fn mean_min(x: f64, n: f64) -> f64 {
    if n <= 0.0 {
        0.0
    } else if x >= n {
        n / 2.0
    } else {
        x - x * x / (2.0 * n)
    }
}

/// How many of so many candidates are among the best k when they come, in no order: the sum of min(1, k / i).
fn selected_anew(k: f64, candidates: f64) -> f64 {
    let first = candidates.min(k);
    if first > 0.0 { first * (1.0 + (candidates / first).ln()) } else { 0.0 }
}

impl Model<'_> {
    fn n(&self) -> f64 {
        self.workload.n.max(1) as f64
    }

    /// Selected keys, and keys of window and sinks, that a query sees on average.
    fn seen(&self) -> (f64, f64) {
        let (n, i) = (self.n(), self.problem.instance);
        let (k, w) = (i.k as f64, (i.w as f64).min(n));
        // Candidates of query i are those before i − w.
        let selected = mean_min(k, n - w) * (n - w) / n;
        (selected, mean_min(w, n) + (i.sinks as f64).min(n))
    }

    /// How often a query selects a key that the one before did not.
    fn coming(&self) -> f64 {
        let (k, w) = (self.problem.instance.k as f64, self.problem.instance.w as f64);
        selected_anew(k, (self.n() - w).max(0.0)) / self.n()
    }

    /// Arithmetic of a pair beyond the softmax and its derivative: the kernel's own expressions.
    fn own_pairs(&self, sweep: Sweep) -> f64 {
        let program = match sweep {
            Sweep::Forward => &self.problem.instance.program,
            Sweep::Rows | Sweep::Keys => self.problem.backward,
        };
        let live = program.live();
        let pairs =
            program.ids().filter(|v| live[v.index()] && program.ty(*v).class == Class::Pair);
        // dot, softmax, gate and weight are in the numbers above.
        let own = (pairs.count() as f64 - 6.0).max(0.0);
        if sweep == Sweep::Forward { own } else { own / 2.0 }
    }

    /// Milliseconds of one sweep with what it needs.
    pub(super) fn sweep(&self, sweep: Sweep, s: &PassSchedule, need: Need) -> f64 {
        match sweep {
            Sweep::Forward | Sweep::Rows => self.row_sweep(sweep, s, need),
            Sweep::Keys => self.key_sweep(s, need),
        }
    }

    fn row_sweep(&self, sweep: Sweep, s: &PassSchedule, need: Need) -> f64 {
        let shape = matmul::shape("", s.tile_q, self.problem.group);
        let positions = f64::from(shape.positions);
        let tiles =
            (self.n() / positions).ceil() * f64::from(shape.parts) * self.workload.sequences();
        let (selected, local) = self.seen();
        let further = positions - 1.0;
        let later = if local > 0.0 { further } else { 0.0 };
        // The weights of sm80 were fitted with a further selected key for every further position.
        let (coming, left_out) = match (s.family, sweep) {
            (Family::Sm80, _) => (if selected > 0.0 { further } else { 0.0 }, 0.0),
            (Family::Sm90, Sweep::Forward) => {
                let before_last = 0.5 * (1.0 - 64.0 / f64::from(s.tile_q));
                let ends = if warpgroups::window_first(self.problem, s) { 2.0 } else { 1.0 };
                (further * self.coming(), ends * later * before_last)
            }
            (Family::Sm90, _) => (further * self.coming(), 0.0),
        };
        let columns = selected + coming + local + later - left_out + f64::from(s.tile_kv) / 2.0;
        let products = if sweep == Sweep::Forward { 2.0 } else { 3.0 };
        let cycles = columns * self.column(sweep, s, need, products);
        self.total(tiles, cycles + weights(sweep, s, 1).tile, s, need).max(self.bytes(sweep))
    }

    /// Tiles of keys: those selected, once for every chunk, and each once for its window.
    fn key_sweep(&self, s: &PassSchedule, need: Need) -> f64 {
        let (selected, local) = self.seen();
        let (rows, keys) = (f64::from(self.problem.group), f64::from(s.tile_q));
        let mut ms = 0.0;
        // A column here is a row of the streamed tile: a query of one head.
        let column = self.column(Sweep::Keys, s, need, 4.0);
        let tile = weights(Sweep::Keys, s, 1).tile;
        if selected > 0.0 {
            // Work items of a usual chunk; the chunk's own choice is another axis.
            let chunk = 512.0f64.min(self.n());
            let tiles = (selected / keys).ceil() * (self.n() / chunk).ceil();
            let cycles = (chunk * rows + f64::from(s.tile_kv) / 2.0) * column;
            ms += self.total(tiles * self.workload.sequences(), cycles + tile, s, need);
        }
        if local > 0.0 {
            let tiles = (self.n() / keys).ceil() * self.workload.sequences();
            let cycles = ((local + keys - 1.0) * rows + f64::from(s.tile_kv) / 2.0) * column;
            ms += self.total(tiles, cycles + tile, s, need);
        }
        ms.max(self.bytes(Sweep::Keys))
    }

    /// Blocks of a multiprocessor whose warpgroups compute side by side.
    fn blocks(&self, sweep: Sweep, s: &PassSchedule, need: Need) -> u32 {
        match (s.family, sweep) {
            (Family::Sm90, Sweep::Forward) => warpgroups::blocks(s, self.target, need),
            _ => 1,
        }
    }

    /// Cycles of a multiprocessor for one column past a tile's rows.
    fn column(&self, sweep: Sweep, s: &PassSchedule, need: Need, products: f64) -> f64 {
        let instance = self.problem.instance;
        let (d, rows) = (instance.d as f64, f64::from(s.tile_q));
        let bytes = instance.elem.bytes() as f64;
        let weights = weights(sweep, s, self.blocks(sweep, s, need));
        let rate = self.machine.products(s.family, instance.elem);
        let matrix = 2.0 * products * rows * d / rate;
        let pair = if sweep == Sweep::Forward { FORWARD_PAIR } else { BACKWARD_PAIR };
        let pairs = rows * (pair + self.own_pairs(sweep)) / 128.0;
        // 128 bytes a cycle: right operands once for each warp, or for each warpgroup.
        let readers = match s.family {
            Family::Sm80 => f64::from(s.warps),
            Family::Sm90 => rows / 64.0,
        };
        let shared = readers * products * d * bytes / 128.0;
        // About 50 bytes a cycle of a multiprocessor out of the L2 cache.
        let gathered = 2.0 * d * bytes / 50.0;
        let cycles = weights.products * matrix
            + weights.pairs * pairs
            + weights.shared * shared
            + weights.gathered * gathered;
        cycles * self.factors(sweep, s, need)
    }

    /// What a schedule's shape multiplies the cycles of a column by.
    fn factors(&self, sweep: Sweep, s: &PassSchedule, need: Need) -> f64 {
        let tile_kv = f64::from(s.tile_kv);
        if s.family == Family::Sm90 {
            // Keys in flight behind those that are worked on; more than three tiles of them are of no use, or four in
            // the forward, whose keys stay until their softmax is done.
            let d = self.problem.instance.d;
            let most = if sweep == Sweep::Forward || d <= 64 { 5 } else { 4 };
            let waiting = 1.0 + 8.0 / (f64::from(s.stages.clamp(2, most) - 1) * tile_kv);
            // Queries are read from shared memory at 128 keys, and by three warpgroups; barriers are as many for 32
            // as for 64. Where heads are short the softmax is what a step waits for, and a third warpgroup
            // multiplies meanwhile. Two blocks of one warpgroup gather keys apart.
            let short = sweep == Sweep::Forward && d <= 64;
            let steps = match (short, s.tile_q > 128, s.tile_kv) {
                (false, false, 64) => 1.0,
                (false, true, 64) => 1.2,
                (false, _, _) => 1.1,
                (true, true, 64) => 0.96,
                (true, false, 64) if s.tile_q <= 64 => 1.155,
                (true, _, 64 | 128) => 1.11,
                (true, _, _) => 1.35,
            };
            return waiting * steps;
        }
        let blocks = need.blocks(self.target);
        // A second block computes while the first one waits at a barrier.
        let alone = if blocks == 1 { 0.1 } else { 0.0 };
        let idle = 1.0 + alone + 0.5 * (1.0 - f64::from(blocks * s.warps) / 8.0).max(0.0);
        let waiting = match s.stages {
            1 => 1.15,
            2 => 1.0,
            _ => 1.01,
        };
        // For sm_100a alone ptxas spills of what is 248 registers by the estimate.
        let fewer = if self.target.capability == 100 { 10 } else { 0 };
        let spilled = (need.registers + fewer).saturating_sub(need.most_registers(self.target));
        // The estimate is low where it is beyond the limit: f32 at D 48 spilled 240 bytes for 9 registers.
        let spilling = 1.0 + 0.05 * f64::from(spilled);
        // Barriers and masks of a streamed tile.
        let steps = match sweep {
            Sweep::Forward => (1.0 + 8.0 / tile_kv) / 1.25,
            Sweep::Rows | Sweep::Keys => (1.0 + 4.0 / tile_kv) / 1.0625,
        };
        // What is known of a key is looked up for all rows of a tile.
        let looked_up = (1.0 + 8.0 / f64::from(s.tile_q)) / 1.0625;
        idle * waiting * spilling * steps * looked_up
    }

    /// Milliseconds of tiles that take so many cycles each, in waves.
    fn total(&self, tiles: f64, cycles: f64, s: &PassSchedule, need: Need) -> f64 {
        let multiprocessors = f64::from(self.machine.multiprocessors);
        let blocks = match s.family {
            Family::Sm80 => f64::from(need.blocks(self.target)),
            Family::Sm90 => 1.0,
        };
        let slots = multiprocessors * blocks;
        let full = (tiles / slots).floor();
        // Blocks of the last wave share a multiprocessor only where there are more of them.
        let last = ((tiles - full * slots) / multiprocessors).ceil();
        (full * blocks + last) * cycles / (self.machine.gigahertz * 1e6)
    }

    /// The least milliseconds of a sweep: its tensors once at the memory's rate.
    fn bytes(&self, sweep: Sweep) -> f64 {
        let instance = self.problem.instance;
        let vector = instance.d as f64 * instance.elem.bytes() as f64;
        let (group, positions) =
            (f64::from(self.problem.group), self.n() * self.workload.sequences());
        let vectors = match sweep {
            Sweep::Forward => 2.0 * group + 2.0,
            Sweep::Rows => 3.0 * group + 2.0,
            Sweep::Keys => 2.0 * group + 4.0,
        };
        positions * vectors * vector / (self.machine.memory * 1e6)
    }

    /// Milliseconds of everything whose time depends on the chunk: the plan, the sweep of selected keys
    /// for spans of two chunks, and the partial sums that those leave. Fitted to the tables of chunks
    /// in `docs/performance.md`.
    pub(super) fn chunk(&self, chunk: u32) -> f64 {
        let instance = self.problem.instance;
        if instance.k == 0 {
            return 0.0;
        }
        let n = self.n();
        let heads = self.workload.sequences();
        let (selected, _) = self.seen();
        let pairs = n * heads * f64::from(self.problem.group) * selected;
        let rate = self.machine.peak(self.target, instance.elem);
        let swept = 2.1 * 8.0 * pairs * instance.d as f64 / rate * 1e3;
        self.plan(n, chunk, heads) + self.spans(n, 2.0 * f64::from(chunk), heads, swept)
    }

    /// The plan: launches, a block that walks its chunk query by query; and for short chunks every block going
    /// over all scores before it, several times where its list does not hold what is above tau, for others
    /// sorted lists that every chunk searches, and merging them where they are many.
    fn plan(&self, n: f64, chunk: u32, heads: f64) -> f64 {
        let (by_lists, chunk) = (has_lists(chunk), f64::from(chunk));
        if !by_lists {
            let overflowing = 0.085 * (n / 16_384.0 - 1.0).max(0.0) * heads / 8.0;
            return 0.035
                + 2e-5 * chunk.min(n)
                + 1.5e-7 * n * heads
                + 1.8e-9 * n * n * heads / chunk
                + overflowing;
        }
        let merged = f64::from(MERGED);
        let lists = (n / chunk).min(merged / chunk) + (n / merged).floor();
        let merging = if n > merged { 0.04 } else { 0.0 };
        let searches = 8e-7 * (n / chunk) * heads * lists;
        0.035 + 1.17e-4 * chunk.min(n) + 8e-4 * lists + merging + 1.2e-7 * n * heads + searches
    }

    /// The sweep's time beyond that of evenly shared work, and partial d_k and d_v of a span's keys in
    /// f32, written and read.
    fn spans(&self, n: f64, span: f64, heads: f64, swept: f64) -> f64 {
        let instance = self.problem.instance;
        let (k, d) = ((instance.k as f64).min(n), instance.d as f64);
        let spans = (n / span).ceil() * heads;
        let collected = 1.9 * spans * k * 2.0 * d * 4.0 * 2.0 / (self.machine.memory * 1e6);
        // Items of 128 keys, one to a multiprocessor; what comes in the span begins one more.
        let waves = spans * ((k / 128.0).floor() + 1.0) / f64::from(self.machine.multiprocessors);
        // Keys are alive for a part of a long span.
        let dead = 0.1 * (span / 1024.0).log2().max(0.0);
        collected + swept * (waves.ceil() / waves - 1.0 + dead)
    }

    /// Milliseconds of a backward's launches that no schedule changes: products of rows, their lists.
    pub(super) fn row_products(&self) -> f64 {
        let instance = self.problem.instance;
        let rows = self.n() * self.workload.sequences() * f64::from(self.problem.group);
        let bytes = 2.0 * rows * instance.d as f64 * instance.elem.bytes() as f64;
        0.05 + bytes / (self.machine.memory * 1e6)
    }
}

/// The chunk's range: powers of two.
pub(super) fn chunks() -> impl Iterator<Item = u32> {
    (0..32).map(|x| 1 << x).filter(|chunk| is_chunk(*chunk))
}

/// A schedule with the same chunk for both passes.
pub(super) fn schedule(chunk: u32, forward: PassSchedule, backward: PassSchedule) -> Schedule {
    Schedule { chunk, forward, backward }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_what_is_there() {
        assert_eq!(mean_min(3.0, 0.0), 0.0);
        assert_eq!(mean_min(200.0, 100.0), 50.0);
        assert_eq!(mean_min(50.0, 100.0), 37.5);
        assert!((mean_min(512.0, 1e9) - 512.0).abs() < 1e-3);
    }

    #[test]
    fn few_candidates_are_selected_when_they_come() {
        let sum = |k: f64, n: u32| (1..=n).map(|i| (k / f64::from(i)).min(1.0)).sum::<f64>();
        for (k, n) in [(1.0, 1000), (64.0, 8192), (512.0, 65_536), (512.0, 300)] {
            let (found, exact) = (selected_anew(k, f64::from(n)), sum(k, n));
            assert!((found - exact).abs() < 1.0, "k {k}, n {n}: {found} and {exact}");
        }
        assert!(selected_anew(0.0, 100.0) == 0.0 && selected_anew(5.0, 0.0) == 0.0);
    }

    #[test]
    fn peaks() {
        let target = Target::named("sm_90a").unwrap();
        let machine = Machine::of(&target);
        let peak = machine.peak(&target, Elem::Bf16) / 1e12;
        assert!((900.0..1000.0).contains(&peak), "{peak}");
        assert!(machine.peak(&target, Elem::F32) < machine.peak(&target, Elem::Bf16) / 8.0);
    }

    #[test]
    fn nearby_sizes_are_one_workload() {
        let of = |n| Workload { n, kv_heads: 8 }.rounded();
        assert_eq!(of(60_000), Workload::default());
        assert_eq!(of(1), of(4096));
        assert_eq!(of(5000), of(8192));
    }
}
