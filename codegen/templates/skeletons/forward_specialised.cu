<% include "pieces/header.cu" %>
<% include "arch/element.cu" %>
<% include "pieces/elementwise.cu" %>
<% include "pieces/sequence.cu" %>
<% include "pieces/score.cu" %>
<% include "arch/memory.cu" %>
<% include "arch/matmul.cu" %>
<% include "pieces/lanes.cu" %>
<% include "pieces/rows.cu" %>
<% include "pieces/columns.cu" %>
<% include "pieces/pair.cu" %>
<% include "pieces/topk_tiles.cu" %>
<% include "pieces/tile_columns.cu" %>
<% include "pieces/softmax.cu" %>
// A block stays on its multiprocessor and takes tiles of queries in turn. One warpgroup loads: it looks keys up and copies
// rows of queries, keys and values, as far ahead as shared memory allows. The others compute, 64 rows each: while the
// tensor cores multiply one tile of keys, the softmax of the one before is worked on.
constexpr int GROUPS = TILE_Q / 64;  // warpgroups that compute
constexpr int COMPUTING = 128 * GROUPS, LOADING = 128, THREADS = COMPUTING + LOADING;
constexpr int SLOTS = STAGES + 1;    // of keys' data: a tile's are read until its weights are made, after its keys are free

struct Shared {
    alignas(1024) elem q[TILE_Q * D];
    alignas(1024) elem k[STAGES][TILE_KV * D];
    alignas(1024) elem v[STAGES][TILE_KV * D];
    Column columns[SLOTS][TILE_KV];
    Barrier q_full, q_empty;
    Barrier k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
};

// How a tile of columns is treated: pairs one by one, all of them seen, or all of them seen in the window, where gates are 1.
enum Kind { MASKED, FULL, WINDOWED };

// Position in a ring of STAGES buffers.
__device__ __forceinline__ int stage_of(int step) { return step % STAGES; }
__device__ __forceinline__ unsigned full_parity(int step) { return step / STAGES & 1; }
__device__ __forceinline__ unsigned empty_parity(int step) { return step / STAGES & 1 ^ 1; }

// Tile number `id` of all key-value heads, those of one head side by side; false for an empty one.
__device__ __forceinline__ bool take_tile(const Arguments& a, long long id, Tile& tile) {
    const int blocks = block_count<POSITIONS>(a);
    return find_tile<RowTile>(a, static_cast<int>(id % blocks), static_cast<int>(id / blocks), tile);
}

__device__ __forceinline__ long long tile_count(const Arguments& a) { return block_count<POSITIONS>(a) * a.hkv; }

// The part of a tile's columns whose keys and data one warp of the loading warpgroup looks after, one to a lane.
constexpr int SHARE = TILE_KV / 4;

// Starts copying one vector of each key of the warp's share, `from` being that of the lane's own key; lanes without a key
// have none, and their rows become zero.
__device__ __forceinline__ void copy_rows(elem* to, const elem* from, int warp, int lane) {
    constexpr int PIECES = D / 8;
#pragma unroll 8
    for (int at = lane; at < SHARE * PIECES; at += 32) {
        const int row = at / PIECES, piece = at % PIECES;
        const elem* vector = reinterpret_cast<const elem*>(__shfl_sync(~0u, reinterpret_cast<unsigned long long>(from), row));
        copy_async(to + place<TILE_KV>(warp * SHARE + row, 8 * piece), vector + 8 * piece, vector != nullptr);
    }
}

__device__ __forceinline__ void copy_queries(const Arguments& a, const Tile& tile, elem* to, int own) {
    constexpr int PIECES = D / 8;
#pragma unroll 4
    for (int at = own; at < TILE_Q * PIECES; at += LOADING) {
        const int row = at / PIECES, piece = at % PIECES;
        int i, h;
        const bool valid = row_exists<RowTile>(tile, row, i, h);
        const long long offset = valid ? tile.s.row * a.q_batch + (tile.s.start + i) * a.q_position + h * a.q_head : 0;
        copy_async(to + place<TILE_Q>(row, 8 * piece), a.q + offset + 8 * piece, valid);
    }
}

__device__ __forceinline__ void load_tiles(const Arguments& a, Shared& shared) {
    const int own = threadIdx.x % LOADING, warp = own / 32, lane = own % 32, column = warp * SHARE + lane;
    int step = 0, taken = 0;
    for (long long id = blockIdx.x; id < tile_count(a); id += gridDim.x) {
        Tile tile;
        if (!take_tile(a, id, tile)) continue;
        const TileColumns all = tile_columns(a, tile);
        const int tiles = (all.total + TILE_KV - 1) / TILE_KV;
        if (tiles == 0) continue;
        const Uniform x = load_uniform(a, tile.s, tile.g);
        const elem* k = a.k + tile.s.row * a.k_batch + tile.s.start * a.k_position + tile.g * a.k_head;
        const elem* v = a.v + tile.s.row * a.v_batch + tile.s.start * a.v_position + tile.g * a.v_head;
        shared.q_empty.wait(taken & 1 ^ 1);
        copy_queries(a, tile, shared.q, own);
        shared.q_full.arrive_when_copied();
        ++taken;

        // Values come one tile after keys, which are needed first.
        bool window = false;
        int j = lane < SHARE ? column_key(all, column, window) : -1;
        const elem* values = nullptr;
#pragma unroll 1
        for (int t = 0; t <= tiles; ++t) {
            const elem* values_before = values;
            if (t < tiles) {
                const Column c = load_column(a, x, tile, j, window);
                const elem* keys = j < 0 ? nullptr : k + j * a.k_position;
                values = j < 0 ? nullptr : v + j * a.v_position;
                j = t + 1 < tiles && lane < SHARE ? column_key(all, (t + 1) * TILE_KV + column, window) : -1;
                const int slot = stage_of(step + t);
                shared.k_empty[slot].wait(empty_parity(step + t));
                copy_rows(shared.k[slot], keys, warp, lane);
                shared.k_full[slot].arrive_when_copied();
                if (lane < SHARE) shared.columns[(step + t) % SLOTS][column] = c;
                shared.k_full[slot].arrive();
            }
            if (t > 0) {
                const int slot = stage_of(step + t - 1);
                shared.v_empty[slot].wait(empty_parity(step + t - 1));
                copy_rows(shared.v[slot], values_before, warp, lane);
                shared.v_full[slot].arrive_when_copied();
            }
        }
        step += tiles;
    }
}

// Dot products become logits; unseen pairs −inf.
template <Kind KIND>
__device__ __forceinline__ void make_logits(const Uniform& x, const Row (&rows)[1][2], const Column* columns,
                                            float (&scores)[1][TILE_KV / 8][4], int lane) {
    constexpr bool ALL = KIND != MASKED;
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Column& c = columns[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[0][h];
                float& score = scores[0][n][2 * h + e];
                const float value = logit(x, r, c, KIND == WINDOWED ? 1.0f : gate_of<ALL>(r, c), score);
                score = sees<ALL>(x, r, c) ? value : -INFINITY_F;
            }
        }
}

// Shares of the softmax become weights of the values.
template <Kind KIND>
__device__ __forceinline__ void make_weights(const Uniform& x, const Row (&rows)[1][2], const Column* columns,
                                             float (&scores)[1][TILE_KV / 8][4]<% if needs_product %>, const float (&products)[1][TILE_KV / 8][4]<% endif %>, int lane) {
    constexpr bool ALL = KIND != MASKED;
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Column& c = columns[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[0][h];
                float& p = scores[0][n][2 * h + e];
                const float gate = KIND == WINDOWED ? 1.0f : gate_of<ALL>(r, c);
                const float value = weight(x, r, c, gate<% if needs_product %>, products[0][n][2 * h + e]<% endif %>, p);
                // Of an unseen pair p is 0, and its weight may be anything.
                p = SEES_ALL<ALL> || p > 0.0f ? value : 0.0f;
            }
        }
}

// One row of 64 being worked on by a warpgroup.
struct Work {
    Row rows[1][2];
    Softmax<1> softmax;
    float o[1][D / 8][4];
    Left weights[TILE_KV / 16];  // of the tile before, whose product with the values comes next
};

// Scores of one tile of keys, while the tile before it is multiplied with its values; then its softmax and weights.
template <Kind KIND, bool FIRST>
__device__ __forceinline__ void attend(const Uniform& x, Work& work, Shared& shared, int step, bool last, bool begun, int group, int lane) {
    float scores[1][TILE_KV / 8][4];
    const Column* columns = shared.columns[step % SLOTS];
    shared.k_full[stage_of(step)].wait(full_parity(step));
    start_products();
    product<TILE_Q, TILE_KV>(scores[0], shared.q, 64 * group, shared.k[stage_of(step)]);
    commit_products();
    if constexpr (!FIRST) {
        shared.v_full[stage_of(step - 1)].wait(full_parity(step - 1));
        add_weighted<TILE_KV, D>(work.o[0], work.weights, shared.v[stage_of(step - 1)], begun);
        commit_products();
    }
    wait_products<FIRST ? 0 : 1>();
    settle(scores[0]);
    if (lane == 0) {
        shared.k_empty[stage_of(step)].arrive();
        if (last) shared.q_empty.arrive();
    }
<% if needs_product %>    float products[1][TILE_KV / 8][4];
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) products[0][n][e] = scores[0][n][e];
<% endif %>    make_logits<KIND>(x, work.rows, columns, scores, lane);
    float shrink[1][2];
    const bool shrinks = work.softmax.exponentials(scores, shrink);
    make_weights<KIND>(x, work.rows, read_again(columns), scores<% if needs_product %>, products<% endif %>, lane);
    if constexpr (!FIRST) {
        settle(scores[0]);
        // Waited for on either way, behind a branch: the compiler would wait before the softmax.
        if (shrinks) {
            wait_products<0>();
            settle(work.o[0]);
            work.softmax.rescale(work.o, shrink);
        } else {
            wait_products<0>();
            settle(work.o[0]);
        }
        if (lane == 0) shared.v_empty[stage_of(step - 1)].arrive();
    }
    round_weights<TILE_KV>(work.weights, scores[0]);
}

// Rounded pairs of a row's accumulators, exchanged among the four lanes that share the row, so that each stores 16 bytes.
__device__ __forceinline__ void store_row(elem* to, const float (&o)[D / 8][4], int h, float scale, bool exists, int lane) {
    const int quarter = lane % 4;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
        const unsigned pair = pack(o[n][2 * h] * scale, o[n][2 * h + 1] * scale);
        if (exists) *reinterpret_cast<unsigned*>(to + 8 * n + 2 * quarter) = pair;
    }
}

__device__ __forceinline__ void attend_tiles(const Arguments& a, Shared& shared) {
    const int thread = threadIdx.x - LOADING, group = thread / 128, lane = thread % 32, row = 64 * group + thread % 128 / 32 * 16 + lane / 4;
    int step = 0, taken = 0;
    for (long long id = blockIdx.x; id < tile_count(a); id += gridDim.x) {
        Tile tile;
        if (!take_tile(a, id, tile)) continue;
        const TileColumns all = tile_columns(a, tile);
        const int tiles = (all.total + TILE_KV - 1) / TILE_KV;
        const Uniform x = load_uniform(a, tile.s, tile.g);
        Work work;
#pragma unroll
        for (int h = 0; h < 2; ++h) work.rows[0][h] = load_row<RowTile>(a, x, tile, row + 8 * h);
        work.softmax.start(x, work.rows);
        if (tiles > 0) {
            shared.q_full.wait(taken & 1);
            ++taken;
            // Columns that all rows see come first: the selected ones, then the window's.
            const int selected = min(tiles, (all.lasting + TILE_KV - 1) / TILE_KV), seen = max(selected, all.shared / TILE_KV);
            const int full = min(selected, all.shared / TILE_KV);
            if (full > 0) attend<FULL, true>(x, work, shared, step, tiles == 1, false, group, lane);
            else if (seen > 0 && selected == 0) attend<WINDOWED, true>(x, work, shared, step, tiles == 1, false, group, lane);
            else attend<MASKED, true>(x, work, shared, step, tiles == 1, false, group, lane);
            int t = 1;
            for (; t < full; ++t) attend<FULL, false>(x, work, shared, step + t, t + 1 == tiles, t > 1, group, lane);
            if (full == selected)
                for (; t < seen; ++t) attend<WINDOWED, false>(x, work, shared, step + t, t + 1 == tiles, t > 1, group, lane);
            for (; t < tiles; ++t) attend<MASKED, false>(x, work, shared, step + t, t + 1 == tiles, t > 1, group, lane);
            step += tiles;
            shared.v_full[stage_of(step - 1)].wait(full_parity(step - 1));
            start_products();
            add_weighted<TILE_KV, D>(work.o[0], work.weights, shared.v[stage_of(step - 1)], tiles > 1);
            commit_products();
            wait_products<0>();
            settle(work.o[0]);
            if (lane == 0) shared.v_empty[stage_of(step - 1)].arrive();
        } else {
#pragma unroll
            for (int n = 0; n < D / 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) work.o[0][n][e] = 0.0f;
        }
        work.softmax.finish();
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int i, head;
            const bool exists = row_exists<RowTile>(tile, row + 8 * h, i, head);
            elem* to = a.o + tile.s.row * a.o_batch + (tile.s.start + i) * a.o_position + head * a.o_head;
            store_row(to, work.o[0], h, work.softmax.inverse[0][h], exists, lane);
            if (exists && lane % 4 == 0) a.lse[(tile.s.row * a.hq + head) * a.n + tile.s.start + i] = work.softmax.lse[0][h];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR) forward(const __grid_constant__ Arguments a) {
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    if (threadIdx.x == 0) {
        shared.q_full.start(LOADING);
        shared.q_empty.start(COMPUTING / 32);
        for (int s = 0; s < STAGES; ++s) {
            shared.k_full[s].start(2 * LOADING);
            shared.v_full[s].start(LOADING);
            shared.k_empty[s].start(COMPUTING / 32);
            shared.v_empty[s].start(COMPUTING / 32);
        }
        fence_barriers();
    }
    __syncthreads();
    if (threadIdx.x < LOADING) {
        give_registers<LOADING_REGISTERS>();
        load_tiles(a, shared);
    } else {
        take_registers<COMPUTING_REGISTERS>();
        attend_tiles(a, shared);
    }
}
