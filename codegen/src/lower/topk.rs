//! Top-k selection: buffers and launches of the plan, of the tiles' key lists, and of the
//! threshold's share of the score gradient. The CUDA is in `templates/pieces/topk_*.cu`.

use crate::{Buffer, Error, Factor, Keep, Launch, Product, Scalar};

/// Shared memory that a block can have on every target, in bytes.
const SHARED: u32 = 99 * 1024;

/// Most positions of a merged list: what a block sorts in shared memory.
pub(crate) const MERGED: u32 = 8192;

/// Scores of a list of `plan_bounds` at most, as shared memory allows.
const MOST_LISTED: u32 = 46 * 256;

/// Selected keys of a thread of `plan_expiry` at most: 32 spill on sm_100a and sm_120a.
const MEMBERS: u32 = 16;

/// Positions of a block of `threshold_ranges`.
const RANGE_KEYS: u32 = 256;

/// Queries and threads of a block of `threshold_counts`, `threshold_sums` and `threshold_prefixes`.
const SUM_QUERIES: u32 = 2048;
const SUM_THREADS: u32 = 512;

/// Whether a plan of such chunks searches sorted lists of scores. Short chunks are for short sequences,
/// of which every block goes over all scores.
pub(crate) fn has_lists(chunk: u32) -> bool {
    chunk > 256
}

/// Whether a plan can have such chunks: powers of two from 128 to 2048. One of 4096 has more events than 48 KiB of static
/// shared memory hold.
pub(crate) fn is_chunk(chunk: u32) -> bool {
    chunk.is_power_of_two() && (128..=2048).contains(&chunk)
}

/// What selects keys, as the templates' constants `K`, `SINKS`, `CHUNK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopK {
    /// Keys kept; `None` without a top-k mask.
    pub(crate) k: Option<u32>,
    /// Sinks.
    pub(crate) sinks: u32,
    /// Queries of a chunk.
    pub(crate) chunk: u32,
}

/// Device memory of a step, and its launches in order.
pub(crate) type Step = (Vec<Buffer>, Vec<Launch>);

impl TopK {
    /// Capacity of a chunk's list of keys: K + SINKS + CHUNK.
    pub(crate) fn chunk_capacity(&self) -> u64 {
        self.kept_keys() + u64::from(self.chunk)
    }

    /// Queries of a span, of which the backward sums a selected key's gradients together.
    pub(crate) fn span(&self) -> u64 {
        2 * u64::from(self.chunk)
    }

    /// Capacity of a span's list of keys: K + SINKS + 2 · CHUNK.
    pub(crate) fn span_capacity(&self) -> u64 {
        self.kept_keys() + self.span()
    }

    /// Capacity of the list of keys of a tile of `positions` queries: K + SINKS, and one that leaves the window at
    /// every query after the first.
    pub(crate) fn tile_capacity(&self, positions: u32) -> u64 {
        self.kept_keys() + u64::from(positions) - 1
    }

    /// Keys that a query sees past its window, at most.
    fn kept_keys(&self) -> u64 {
        u64::from(self.kept()) + u64::from(self.sinks)
    }

    /// `chunk_keys` and `chunk_counts`, by which the plan hands its keys to the other modules.
    ///
    /// `chunk_keys` is i32 [Hkv, blocks of CHUNK, K + SINKS + CHUNK], ascending; `chunk_counts` is
    /// i32 [Hkv, blocks of CHUNK, 2]: the keys that were selected before the chunk, which come first,
    /// and all.
    pub(crate) fn chunk_lists(&self) -> Vec<Buffer> {
        let blocks = Factor::Blocks(u64::from(self.chunk));
        let capacity = Factor::Literal(self.chunk_capacity());
        vec![
            saved("chunk_keys", Scalar::I32, &[Factor::Hkv, blocks, capacity]),
            saved("chunk_counts", Scalar::I32, &[Factor::Hkv, blocks, Factor::Literal(2)]),
        ]
    }

    /// Scores → tau, expiry and the keys of every chunk.
    ///
    /// # Errors
    /// What is no chunk, or sizes that shared memory does not hold.
    pub(crate) fn plan(&self) -> Result<Step, Error> {
        self.check_chunk()?;
        let chunk = u64::from(self.chunk);
        let (chunks, hkv) = (Factor::Blocks(chunk), Factor::Hkv);
        let mut buffers = self.chunk_lists();
        if self.k.is_none() {
            return Ok((buffers, vec![launch("plan_sinks", chunks, 256, 0)]));
        }
        let mut launches = Vec::new();
        if has_lists(self.chunk) {
            let (lists, sorting) = self.lists()?;
            buffers.extend(lists);
            launches.extend(sorting);
        }
        buffers.extend([
            scratch("bound_kth", Scalar::U64, &[hkv, chunks]),
            scratch("bound_tau", Scalar::F64, &[hkv, chunks]),
            scratch("bound_arrived", Scalar::I32, &[hkv, chunks]),
            scratch("kth_score", Scalar::F32, &[Factor::Rows, hkv, Factor::N]),
        ]);
        // The members of a chunk: the best before it, as many as threads sort, and its arrivals with
        // the scores and indices of those who leave.
        let threads = self.expiry_threads();
        let kept = self.kept().max(threads).next_power_of_two();
        let members = self.fits("plan", 8 * u64::from(kept) + 14 * chunk)?;
        if kept > MEMBERS * threads {
            let each = kept / threads;
            return Err(self.infeasible(
                "plan",
                format!("places for {each} selected keys in each of {threads} threads"),
                format!("{MEMBERS}"),
                "; a smaller k or a larger chunk needs fewer",
            ));
        }
        let (listed, bounds) = self.bounds()?;
        buffers.extend(listed);
        launches.extend(bounds);
        launches.extend([
            launch("plan_expiry", chunks, threads, members),
            launch("plan_tau", chunks, self.chunk.min(256), 0),
        ]);
        Ok((buffers, launches))
    }

    /// The state after every chunk, by a warp that searches sorted lists, or by a block that lists the scores above a
    /// bound, which the next chunk's launches go over: pairs of a score and its key.
    fn bounds(&self) -> Result<Step, Error> {
        let (chunks, listed) = (Factor::Blocks(u64::from(self.chunk)), u64::from(self.listed()));
        if has_lists(self.chunk) {
            return Ok((Vec::new(), vec![launch("plan_bounds", chunks, 32, 0)]));
        }
        let buffers = vec![
            scratch("listed", Scalar::U64, &[Factor::Hkv, chunks, Factor::Literal(listed)]),
            scratch("listed_count", Scalar::I32, &[Factor::Hkv, chunks]),
        ];
        // A list's scores, the same as whole numbers, few candidates, their number and what a sample says.
        let shared = self.fits("plan", 8 * listed + 8 * 64 + 24)?;
        Ok((buffers, vec![launch("plan_bounds", chunks, 128, shared)]))
    }

    /// Scores that `plan_bounds` of short chunks lists at most: of normal ones with deviation 1 up to 2.4 · K are above
    /// tau, and some are taken that are not.
    pub(crate) fn listed(&self) -> u32 {
        let usual = (self.kept().saturating_mul(5) / 2).saturating_add(1024);
        usual.min(MOST_LISTED).next_multiple_of(256)
    }

    /// Threads of a block of `plan_expiry`: one for each query of short chunks, of which a block works on few, one for
    /// four of long ones, and more where k needs them.
    pub(crate) fn expiry_threads(&self) -> u32 {
        let usual = if has_lists(self.chunk) { self.chunk / 4 } else { self.chunk };
        let needed = self.kept().next_power_of_two() / MEMBERS;
        usual.max(needed).min(self.chunk).min(512)
    }

    /// Sorted lists of arrivals, those of every chunk and those of `MERGED`.
    fn lists(&self) -> Result<Step, Error> {
        let (chunk, merged, hkv) = (u64::from(self.chunk), u64::from(MERGED), Factor::Hkv);
        let (chunks, merges) = (Factor::Blocks(chunk), Factor::Blocks(merged));
        // Only what others follow is merged.
        let followed = Factor::BlocksOfMany(merged);
        // Prefix sums are one more than what they sum up, and one that keeps the lists aligned.
        let prefixes = |size: u64| Factor::Literal(size + 2);
        let sorted = |name, blocks, size| scratch(name, Scalar::U64, &[hkv, blocks, size]);
        let prefix = |name, blocks, size| scratch(name, Scalar::F64, &[hkv, blocks, size]);
        let buffers = vec![
            sorted("sorted", chunks, Factor::Literal(chunk)),
            prefix("prefix", chunks, prefixes(chunk)),
            sorted("merged_sorted", merges, Factor::Literal(merged)),
            prefix("merged_prefix", merges, prefixes(merged)),
        ];
        let launches = vec![
            launch("plan_sort", chunks, (self.chunk / 2).min(1024), 0),
            launch("plan_merge", followed, MERGED / 8, self.fits("plan", 8 * merged)?),
        ];
        Ok((buffers, launches))
    }

    /// The keys of every chunk → those of every tile of `positions` queries, before a sweep.
    ///
    /// `tile_keys` is i32 [Hkv, blocks of `positions`, K + SINKS + `positions` − 1]; `tile_counts` is i32 [Hkv, blocks
    /// of `positions`, 2]: the keys seen up to the tile's end, which come first, and all.
    ///
    /// # Errors
    /// A chunk that is shorter than a tile, or sizes that shared memory does not hold.
    pub(crate) fn tiles(&self, positions: u32) -> Result<Step, Error> {
        self.check_chunk()?;
        if positions == 0 || positions > self.chunk {
            let chunk = self.chunk;
            return Err(Error::Schedule(format!(
                "a tile of {positions} positions, in chunks of {chunk}"
            )));
        }
        let tiles = Factor::Blocks(u64::from(positions));
        let capacity = Factor::Literal(self.tile_capacity(positions));
        let mut buffers = self.chunk_lists();
        buffers.extend([
            scratch("tile_keys", Scalar::I32, &[Factor::Hkv, tiles, capacity]),
            scratch("tile_counts", Scalar::I32, &[Factor::Hkv, tiles, Factor::Literal(2)]),
        ]);
        let shared = self.fits("tiles", 8 * self.chunk_capacity())?;
        let chunks = Factor::Blocks(u64::from(self.chunk));
        // A warp makes a tile's list; large groups have short tiles, too many for the warps of a block.
        let in_chunk = self.chunk.div_ceil(positions);
        let threads = self.chunk.min(if in_chunk > self.chunk.min(512) / 32 { 256 } else { 512 });
        let parts = u64::from(in_chunk.div_ceil(threads / 32));
        let mut launch = launch("tiles", chunks, threads, shared);
        launch.grid[2] = Product::new(&[Factor::Literal(parts)]);
        Ok((buffers, vec![launch]))
    }

    /// The threshold's share of the score gradient: after the sweep that writes `threshold_rows`, the
    /// sum of every row's gate gradients, and before whoever calls `threshold_share`.
    ///
    /// `threshold_rows` and `threshold_prefix` are f64 [rows, Hkv, N]; `fraction_range` is i32 [rows,
    /// Hkv, N, 2], `fraction_count` i32 [rows, Hkv, N].
    ///
    /// # Errors
    /// Without a top-k mask there is no threshold.
    pub(crate) fn threshold(&self) -> Result<Step, Error> {
        if self.k.is_none() {
            return Err(Error::Schedule("a threshold without a top-k mask".to_owned()));
        }
        let positions = [Factor::Rows, Factor::Hkv, Factor::N];
        let pairs = [Factor::Rows, Factor::Hkv, Factor::N, Factor::Literal(2)];
        let mut count = scratch("fraction_count", Scalar::I32, &positions);
        count.zeroed = true;
        let blocks = Factor::Blocks(u64::from(SUM_QUERIES));
        let buffers = vec![
            scratch("threshold_rows", Scalar::F64, &positions),
            scratch("threshold_prefix", Scalar::F64, &positions),
            scratch("threshold_block_count", Scalar::I32, &[Factor::Hkv, blocks]),
            scratch("threshold_block_sum", Scalar::F64, &[Factor::Hkv, blocks]),
            scratch("fraction_range", Scalar::I32, &pairs),
            count,
        ];
        let ranges = Factor::Blocks(u64::from(RANGE_KEYS));
        let launches = vec![
            launch("threshold_ranges", ranges, RANGE_KEYS, 0),
            launch("threshold_counts", blocks, SUM_THREADS, 0),
            launch("threshold_sums", blocks, SUM_THREADS, 0),
            launch("threshold_prefixes", blocks, SUM_THREADS, 0),
        ];
        Ok((buffers, launches))
    }

    fn kept(&self) -> u32 {
        self.k.unwrap_or(0)
    }

    fn check_chunk(&self) -> Result<(), Error> {
        let chunk = self.chunk;
        if is_chunk(chunk) {
            return Ok(());
        }
        Err(Error::Schedule(format!("chunk {chunk} is not a power of two from 128 to 2048")))
    }

    fn fits(&self, what: &str, bytes: u64) -> Result<u32, Error> {
        match u32::try_from(bytes) {
            Ok(bytes) if bytes <= SHARED => Ok(bytes),
            _ => Err(self.infeasible(
                what,
                format!("{bytes} bytes of shared memory"),
                format!("{SHARED} bytes"),
                "; a smaller k, fewer sinks or a smaller chunk need less",
            )),
        }
    }

    fn infeasible(&self, what: &str, needed: String, available: String, help: &str) -> Error {
        let (k, sinks, chunk) = (self.kept(), self.sinks, self.chunk);
        Error::Infeasible {
            what: format!("{what} with k {k}, sinks {sinks}, chunk {chunk}"),
            target: "any target".to_owned(),
            needed,
            available,
            help: help.to_owned(),
        }
    }
}

fn buffer(name: &str, scalar: Scalar, len: &[Factor], keep: Keep) -> Buffer {
    Buffer { name: name.to_owned(), scalar, len: Product::new(len), zeroed: false, keep }
}

fn scratch(name: &str, scalar: Scalar, len: &[Factor]) -> Buffer {
    buffer(name, scalar, len, Keep::Scratch)
}

fn saved(name: &str, scalar: Scalar, len: &[Factor]) -> Buffer {
    buffer(name, scalar, len, Keep::Saved)
}

/// A launch over those in x and key-value heads in y.
fn launch(entry: &str, x: Factor, threads: u32, shared: u32) -> Launch {
    let grid = [x, Factor::Hkv, Factor::Literal(1)].map(|factor| Product::new(&[factor]));
    Launch { entry: entry.to_owned(), grid, threads, shared }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_k_and_chunk_of_the_range_fits() -> Result<(), Error> {
        for chunk in [128, 256, 512, 1024, 2048] {
            for k in [1, 512, 2048, 4095, 4096] {
                if k > 16 * chunk {
                    continue;
                }
                let topk = TopK { k: Some(k), sinks: 4, chunk };
                for launch in topk.plan()?.1.iter().chain(&topk.tiles(128)?.1) {
                    assert!((32..=1024).contains(&launch.threads) && launch.shared <= SHARED);
                }
            }
        }
        Ok(())
    }

    #[test]
    fn short_chunks_need_no_sorted_lists() -> Result<(), Error> {
        let launches = |chunk| -> Result<_, Error> {
            let topk = TopK { k: Some(512), sinks: 4, chunk };
            let (buffers, launches) = topk.plan()?;
            let sorted = buffers.iter().any(|b| b.name.contains("sorted"));
            Ok((sorted, launches.into_iter().map(|l| l.entry).collect::<Vec<_>>()))
        };
        let short = ["plan_bounds", "plan_expiry", "plan_tau"].map(str::to_owned);
        let long = ["plan_sort", "plan_merge"].map(str::to_owned).into_iter().chain(short.clone());
        assert_eq!(launches(256)?, (false, short.to_vec()));
        assert_eq!(launches(512)?, (true, long.collect()));
        Ok(())
    }

    #[test]
    fn lists_hold_more_than_is_kept() {
        let listed = |k| TopK { k: Some(k), sinks: 0, chunk: 256 }.listed();
        for k in [1, 64, 512, 1024, 4096] {
            // Whole rows of what a warp takes at a time.
            assert!(listed(k) > k + 1000 && listed(k) % 256 == 0, "k {k}: {}", listed(k));
        }
        assert_eq!(listed(512), 2304);
        assert_eq!(listed(8192), MOST_LISTED);
    }

    #[test]
    fn tiles_may_straddle_chunks_but_not_exceed_them() -> Result<(), Error> {
        let topk = TopK { k: Some(64), sinks: 4, chunk: 128 };
        topk.tiles(42)?;
        let message = topk.tiles(192).map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("192") && m.contains("128")));
        Ok(())
    }

    #[test]
    fn many_keys_need_threads_for_them() -> Result<(), Error> {
        let plan = |chunk| TopK { k: Some(8192), sinks: 0, chunk }.plan();
        for chunk in [512, 1024, 2048] {
            plan(chunk)?;
        }
        let message = plan(256).map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("32 selected keys in each of 256 threads")));
        Ok(())
    }

    #[test]
    fn what_does_not_fit_is_told_with_numbers() {
        let topk = TopK { k: Some(20_000), sinks: 4, chunk: 512 };
        let message = topk.plan().map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("269312") && m.contains("101376")));
        for chunk in [64, 500, 4096] {
            assert!(TopK { k: Some(64), chunk, ..topk }.plan().is_err());
        }
    }
}
