<% include "pieces/header.cu" %>
<% include "arch/element.cu" %>
<% include "pieces/elementwise.cu" %>
<% include "pieces/sequence.cu" %>
<% include "pieces/score.cu" %>
<% include "arch/memory.cu" %>
<% include "arch/matmul.cu" %>
<% include "pieces/matmul.cu" %>
<% include "pieces/rows.cu" %>
<% include "pieces/columns.cu" %>
<% include "pieces/pair.cu" %>
<% include "pieces/topk_tiles.cu" %>
<% include "pieces/tile_columns.cu" %>
<% include "pieces/softmax.cu" %>
constexpr int THREADS = 32 * WARPS;
constexpr int M = TILE_Q / (16 * WARPS);  // 16-row parts of one warp's rows

// Shared memory: the tile of queries, and a ring of streamed tiles of keys and values with the keys' data.
struct Shared {
    TileData data;
    elem q[TILE_Q * ROW];
    elem k[STAGES][TILE_KV * ROW];
    elem v[STAGES][TILE_KV * ROW];
    Column columns[STAGES + 1][TILE_KV];
    int keys[STAGES + 1][TILE_KV];
};
static_assert(sizeof(Shared) <= SHARED, "the launch gives less");

// STEP keys: scores, softmax, weighted values.
template <bool FULL>
__device__ __forceinline__ void attend(const Uniform& x, const Tile& tile, const Row (&rows)[M][2], const elem* k, const elem* v,
                                       const Column* columns, const Left (&q)[M][D / 16],
                                       const elem* q_tile, Softmax<M>& softmax, float (&o)[M][SLICE / 8][4], int warp_row, int lane) {
    float scores[M][STEP / 8][4];
    if constexpr (QUERIES_IN_REGISTERS) product<M, STEP>(scores, q, k, lane);
    else product<M, STEP>(scores, q_tile, k, lane);
<% if needs_product %>    float products[M][STEP / 8][4];
<% endif %>
<% if has_cap %>#pragma unroll
    for (int n = 0; n < STEP / 8; ++n)
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                // Rows that do not exist may see what they will. Positions are cheaper computed than kept.
                Row r = rows[m][h];
                if (!FULL) r.i = row_position<RowTile>(tile, warp_row + 16 * m + 8 * h + lane / 4);
                const Column* c = columns + 8 * n + lane % 4 * 2;
                float value[2];
                // An unseen pair, which may be NaN, does not reach the other one.
#pragma unroll
                for (int e = 0; e < 2; ++e) {
<% if needs_product %>                    products[m][n][2 * h + e] = scores[m][n][2 * h + e];
<% endif %>                    value[e] = logit(x, r, c[e], gate_of(r, c[e]), scores[m][n][2 * h + e]);
                    if (!sees<FULL>(x, r, c[e])) value[e] = 0.0f;
                }
                cap_two(value[0], value[1]);
#pragma unroll
                for (int e = 0; e < 2; ++e) scores[m][n][2 * h + e] = sees<FULL>(x, r, c[e]) ? value[e] : -INFINITY_F;
            }
<% else %>#pragma unroll
    for (int n = 0; n < STEP / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Column& c = columns[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    float& score = scores[m][n][2 * h + e];
                    // Rows that do not exist may see what they will. Positions are cheaper computed than kept.
                    Row r = rows[m][h];
                    if (!FULL) r.i = row_position<RowTile>(tile, warp_row + 16 * m + 8 * h + lane / 4);
<% if needs_product %>                    products[m][n][2 * h + e] = score;
<% endif %>                    const float value = logit(x, r, c, gate_of(r, c), score);
                    score = sees<FULL>(x, r, c) ? value : -INFINITY_F;
                }
        }
<% endif %>    softmax.update(scores, o);
#pragma unroll
    for (int n = 0; n < STEP / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Column& c = columns[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    float& p = scores[m][n][2 * h + e];
                    Row r = rows[m][h];
                    if (!FULL) r.i = row_position<RowTile>(tile, warp_row + 16 * m + 8 * h + lane / 4);
                    const float value = weight(x, r, c, gate_of(r, c)<% if needs_product %>, products[m][n][2 * h + e]<% endif %>, p);
                    // Of an unseen pair p is 0, and its weight may be anything.
                    p = SEES_ALL<FULL> || p > 0.0f ? value : 0.0f;
                }
        }
    add_weighted<M, STEP, SLICE>(o, scores, v + slice_from<SLICE>(), lane);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR) forward(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(16) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    Tile found;
    if (!find_tile<RowTile>(a, blockIdx.x, blockIdx.y, found)) return;
    if (threadIdx.x == 0) shared.data = tile_data(a, found);
    __syncthreads();
    const Tile& tile = shared.data.tile;
    const TileColumns& all = shared.data.columns;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, tile.s, tile.g);
    const int tiles = (all.total + TILE_KV - 1) / TILE_KV;

    copy_query_rows<RowTile, TILE_Q, THREADS>(shared.q, a.q, a.q_batch, a.q_position, a.q_head, tile);
    // Keys are looked up two tiles before their rows are copied, their data one tile before.
    bool window = false;
    for (int t = 0; t < STAGES; ++t) {
        for (int c = threadIdx.x; c < TILE_KV; c += THREADS) {
            const int j = column_key(all, t * TILE_KV + c, window);
            shared.columns[t][c] = load_column(a, x, tile, j, window);
            shared.keys[t][c] = j;
        }
    }
    __syncthreads();
    for (int t = 0; t < STAGES - 1; ++t) {
        if (t < tiles) copy_key_rows<THREADS>(a, shared.data, shared.keys[t], shared.k[t], shared.v[t]);
        commit_copies();
    }
    Row rows[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) rows[m][h] = load_row<RowTile>(a, x, tile, warp_row + 16 * m + 8 * h + lane / 4);

    Softmax<M> softmax;
    softmax.start(x, rows);
    float o[M][SLICE / 8][4] = {};
    Left q[M][D / 16];
    // A thread looks after at most one column of a tile.
    const int own = threadIdx.x;
    int key = own < TILE_KV ? column_key(all, STAGES * TILE_KV + own, window) : -1;
    for (int t = 0; t < tiles; ++t) {
        if constexpr (STAGES > 1) wait_copies<STAGES - 2>();
        __syncthreads();
        const int coming = t + STAGES - 1, slot = coming % STAGES;
        if (coming < tiles) copy_key_rows<THREADS>(a, shared.data, shared.keys[coming % (STAGES + 1)], shared.k[slot], shared.v[slot]);
        commit_copies();
        if constexpr (STAGES == 1) {
            wait_copies<0>();
            __syncthreads();
        }
        Column next = {};
        const int next_key = key;
        if (own < TILE_KV) {
            next = load_column(a, x, tile, next_key, window);
            key = column_key(all, (t + STAGES + 1) * TILE_KV + own, window);
        }
        if constexpr (QUERIES_IN_REGISTERS) {
            if (t == 0) {
#pragma unroll
                for (int m = 0; m < M; ++m)
#pragma unroll
                    for (int d = 0; d < D / 16; ++d) q[m][d] = load_left<ROW>(shared.q + warp_row * ROW, 16 * m, 16 * d, lane);
            }
        }
#pragma unroll 1
        for (int c = 0; c < TILE_KV; c += STEP) {
            const Column* columns = shared.columns[t % (STAGES + 1)] + c;
            const elem* k = shared.k[t % STAGES] + c * ROW;
            const elem* v = shared.v[t % STAGES] + c * ROW;
            const elem* q_tile = shared.q + warp_row * ROW;
            const bool full = t * TILE_KV + c + STEP <= all.shared;
            if (full) attend<true>(x, tile, rows, k, v, columns, q, q_tile, softmax, o, warp_row, lane);
            else attend<false>(x, tile, rows, k, v, columns, q, q_tile, softmax, o, warp_row, lane);
        }
        if (own < TILE_KV) {
            shared.columns[(t + STAGES) % (STAGES + 1)][own] = next;
            shared.keys[(t + STAGES) % (STAGES + 1)][own] = next_key;
        }
    }
    wait_copies<0>();
    softmax.finish();
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            int i, head;
            if (!row_exists<RowTile>(tile, warp_row + 16 * m + 8 * h + lane / 4, i, head)) continue;
            elem* to = a.o + tile.s.row * a.o_batch + (tile.s.start + i) * a.o_position + head * a.o_head;
#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const float scale = softmax.inverse[m][h];
                store_pair(to + slice_from<SLICE>() + 8 * n + lane % 4 * 2, o[m][n][2 * h] * scale, o[m][n][2 * h + 1] * scale);
            }
            if (lane % 4 == 0 && blockIdx.z == 0) a.lse[(tile.s.row * a.hq + head) * a.n + tile.s.start + i] = softmax.lse[m][h];
        }
}
