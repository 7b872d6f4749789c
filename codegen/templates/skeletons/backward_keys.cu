<% include "pieces/key_tiles.cu" %>
<% include "pieces/key_gradients.cu" %>
// The key sweep: a tile of keys stays, the queries that see them stream past. Gives d_k, d_v and sums over queries.
//
// Pairs in the window are swept by blocks of consecutive keys. Selected keys are swept for spans of queries, two chunks each;
// what a span gives is left in `partial`, collected over the spans in their order, and added by the window's sweep.

struct KeysShared {
    elem k[TILE_Q * ROW];
    elem v[TILE_Q * ROW];
    elem q[STAGES][TILE_KV * ROW];
    elem d_o[STAGES][TILE_KV * ROW];
    Row rows[STAGES + 1][TILE_KV];
    // In registers these would be spilled.
    Column columns[TILE_Q];
    KeyTile keys;
    int latest_from, earliest_to;
    int range_from, range_to;
};
static_assert(sizeof(KeysShared) <= KEYS_SHARED, "the launch gives less");

template <bool FULL, int M>
__device__ __forceinline__ void sweep_rows(const Uniform& x, const KeysShared& shared, const elem* q, const elem* d_o,
                                           const Row* rows, KeyGradients<M>& sums, int warp_row, int lane) {
    float scores[M][TILE_KV / 8][4], products[M][TILE_KV / 8][4];
    product<M, TILE_KV>(scores, shared.k + warp_row * ROW, q, lane);
    product<M, TILE_KV>(products, shared.v + warp_row * ROW, d_o, lane);
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Row& r = rows[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const Column& c = shared.columns[warp_row + 16 * m + 8 * h + lane / 4];
                    const float gate = gate_of(r, c);
                    // Rows that stand for no query see nothing, in full tiles too.
                    const bool visible = (StreamTile::FILLED || r.i >= 0) && sees<FULL>(x, r, c);
                    KeyPair pair = key_pair(x, r, c, gate, scores[m][n][2 * h + e], products[m][n][2 * h + e]);
                    if (!visible) pair = {};
                    scores[m][n][2 * h + e] = pair.weight_k;
                    products[m][n][2 * h + e] = pair.weight_v;
<% for n in key_sums %>                    <% if n.is_d_gate %>if (is_fraction(gate)) <% endif %>sums.sums[m][h][${ n.index }$] += pair.sum_${ n.index }$;
<% endfor %>                }
        }
<% if has_d_v %>    add_weighted<M, TILE_KV, SLICE>(sums.d_v, products, d_o + slice_from<SLICE>(), lane);
<% endif %><% if has_d_k %>    add_weighted<M, TILE_KV, SLICE>(sums.d_k, scores, q + slice_from<SLICE>(), lane);
<% endif %>}

__device__ __forceinline__ void copy_streamed(const Arguments& a, const Tile& tile, elem* q, elem* d_o) {
    copy_query_rows<StreamTile, TILE_KV, THREADS>(q, a.q, a.q_batch, a.q_position, a.q_head, tile);
    copy_query_rows<StreamTile, TILE_KV, THREADS>(d_o, a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile);
}

// Sweeps the queries of a tile of keys, whose rows are being copied.
template <int M>
__device__ __forceinline__ void sweep_queries(const Arguments& a, const Uniform& x, KeysShared& shared, KeyGradients<M>& sums,
                                              int warp_row, int lane) {
    const KeyTile& keys = shared.keys;
    const int tiles = streamed_tiles(keys.from, keys.to);
    for (int t = 0; t < STAGES - 1; ++t) {
        if (t < tiles) copy_streamed(a, streamed_tile(keys, t), shared.q[t], shared.d_o[t]);
        commit_copies();
    }
    // A thread looks after at most one row of a tile.
    const int own = threadIdx.x;
    for (int t = 0; t < STAGES; ++t)
        if (own < TILE_KV) shared.rows[t][own] = load_row<StreamTile>(a, x, streamed_tile(keys, t), own);
    for (int t = 0; t < tiles; ++t) {
        if constexpr (STAGES > 1) wait_copies<STAGES - 2>();
        __syncthreads();
        const int coming = t + STAGES - 1;
        if (coming < tiles) copy_streamed(a, streamed_tile(keys, coming), shared.q[coming % STAGES], shared.d_o[coming % STAGES]);
        commit_copies();
        if constexpr (STAGES == 1) {
            wait_copies<0>();
            __syncthreads();
        }
        Row next = {};
        if (own < TILE_KV) next = load_row<StreamTile>(a, x, streamed_tile(keys, t + STAGES), own);
        const int from = streamed_tile(keys, t).from;
        const bool full = shared.latest_from <= from && from + StreamTile::POSITIONS <= shared.earliest_to;
        const Row* rows = shared.rows[t % (STAGES + 1)];
        const elem* q = shared.q[t % STAGES];
        const elem* d_o = shared.d_o[t % STAGES];
        if (full) sweep_rows<true>(x, shared, q, d_o, rows, sums, warp_row, lane);
        else sweep_rows<false>(x, shared, q, d_o, rows, sums, warp_row, lane);
        if (own < TILE_KV) shared.rows[(t + STAGES) % (STAGES + 1)][own] = next;
    }
    wait_copies<0>();
}

// Starts copying the keys and values of a tile.
template <bool SELECTED>
__device__ __forceinline__ void copy_stationary(const Arguments& a, const KeyTile& keys, KeysShared& shared) {
    constexpr int PER_ROW = D * sizeof(elem) / 16;
    for (int at = threadIdx.x; at < TILE_Q * PER_ROW; at += THREADS) {
        const int row = at / PER_ROW, part = at % PER_ROW * (16 / static_cast<int>(sizeof(elem)));
        const int j = key_of<SELECTED>(a, keys, row);
        const long long token = keys.s.start + max(j, 0);
        const elem* k = a.k + keys.s.row * a.k_batch + token * a.k_position + keys.g * a.k_head;
        const elem* v = a.v + keys.s.row * a.v_batch + token * a.v_position + keys.g * a.v_head;
        copy_async(shared.k + row * ROW + part, k + part, j >= 0);
        copy_async(shared.v + row * ROW + part, v + part, j >= 0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS_PER_MULTIPROCESSOR) backward_keys_selected(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    KeysShared& shared = *reinterpret_cast<KeysShared*>(memory);
    KeyTile keys;
    if (!find_selected(a, blockIdx.x / SPAN_TILES, blockIdx.x % SPAN_TILES, blockIdx.y, keys)) return;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, keys.s, keys.g);
    copy_stationary<true>(a, keys, shared);
    if (threadIdx.x == 0) shared.latest_from = 0, shared.earliest_to = 0x7fffffff, shared.range_from = 0x7fffffff, shared.range_to = 0;
    __syncthreads();
    for (int row = threadIdx.x; row < TILE_Q; row += THREADS) {
        const Column c = key_column<true>(a, x, keys, key_of<true>(a, keys, row));
        shared.columns[row] = c;
        if (c.j >= 0) {
            atomicMax(&shared.latest_from, c.from);
            atomicMin(&shared.earliest_to, c.to);
            atomicMin(&shared.range_from, c.from);
            atomicMax(&shared.range_to, c.to);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        keys.from = max(keys.from, shared.range_from);
        keys.to = min(keys.to, shared.range_to);
        shared.keys = keys;
        shared.earliest_to = min(shared.earliest_to, keys.to);
    }
    __syncthreads();
    KeyGradients<M> sums = {};
    sweep_queries(a, x, shared, sums, warp_row, lane);
    store_partials(a, shared.keys, sums, warp_row + lane / 4, lane);
}

extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS_PER_MULTIPROCESSOR) backward_keys_window(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    KeysShared& shared = *reinterpret_cast<KeysShared*>(memory);
    KeyTile keys;
    if (!find_consecutive(a, blockIdx.x, blockIdx.y, keys)) return;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, keys.s, keys.g);
    copy_stationary<false>(a, keys, shared);
    for (int row = threadIdx.x; row < TILE_Q; row += THREADS)
        shared.columns[row] = key_column<false>(a, x, keys, key_of<false>(a, keys, row));
    if (threadIdx.x == 0) {
        shared.keys = keys;
        shared.latest_from = keys.first + keys.count - 1;
        shared.earliest_to = min(keys.first + WINDOW, keys.s.length);
    }
    __syncthreads();
    KeyGradients<M> sums = {};
    sweep_queries(a, x, shared, sums, warp_row, lane);
    store_gradients(a, shared.keys, sums, warp_row + lane / 4, lane);
}
