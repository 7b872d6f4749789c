// The key sweep: a tile of keys stays, the queries that see them stream past. Gives d_k, d_v and sums over queries.
//
// Pairs in the window are swept by blocks of consecutive keys. Selected keys are swept chunk by chunk of queries; what a
// chunk gives is left in `partial`, collected over the chunks in their order, and added by the window's sweep.

// A tile of keys and the queries that see some of them.
struct KeyTile {
    Sequence s;
    int g;
    int from, to;  // queries
    int chunk;     // id of the chunk and first slot of the tile in its list, for selected keys
    int slot;
};

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

// Accumulators of 16 M keys: columns SLICE_FROM.. of d_k and d_v, and sums over queries.
template <int M>
struct KeyGradients {
    float d_k[M][SLICE / 8][4];
    float d_v[M][SLICE / 8][4];
    float sums[M][2][KEY_SUMS + 1];
};

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
                    const float gate = gate_of<true>(r, c);
                    // Rows that stand for no query see nothing, in full tiles too.
                    const bool visible = (StreamTile::FILLED || r.i >= 0) && sees<FULL>(x, r, c);
                    KeyPair pair = key_pair(x, r, c, gate, scores[m][n][2 * h + e], products[m][n][2 * h + e]);
                    if (!visible) pair = {};
                    scores[m][n][2 * h + e] = pair.weight_k;
                    products[m][n][2 * h + e] = pair.weight_v;
<% for n in key_sums %>                    sums.sums[m][h][${ n.index }$] += <% if n.is_d_gate %>gate > 0.0f && gate < 1.0f ? pair.sum_${ n.index }$ : 0.0f<% else %>pair.sum_${ n.index }$<% endif %>;
<% endfor %>                }
        }
<% if has_d_v %>    add_weighted<M, TILE_KV, SLICE>(sums.d_v, products, d_o + slice_from<SLICE>(), lane);
<% endif %><% if has_d_k %>    add_weighted<M, TILE_KV, SLICE>(sums.d_k, scores, q + slice_from<SLICE>(), lane);
<% endif %>}

// Streamed tile t: a block of positions of [from, to) and one part of the group's heads.
__device__ __forceinline__ Tile streamed_tile(const KeyTile& keys, int t) {
    Tile tile;
    tile.s = keys.s;
    tile.id = 0;
    tile.from = keys.from / StreamTile::POSITIONS * StreamTile::POSITIONS + t / StreamTile::PARTS * StreamTile::POSITIONS;
    tile.to = min(tile.from + StreamTile::POSITIONS, keys.s.length);
    tile.g = keys.g;
    tile.part = t % StreamTile::PARTS;
    return tile;
}

__device__ __forceinline__ void copy_streamed(const Arguments& a, const Tile& tile, elem* q, elem* d_o) {
    copy_query_rows<StreamTile, TILE_KV, THREADS>(q, a.q, a.q_batch, a.q_position, a.q_head, tile);
    copy_query_rows<StreamTile, TILE_KV, THREADS>(d_o, a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile);
}

// Sweeps the queries of a tile of keys, whose rows are being copied.
template <int M>
__device__ __forceinline__ void sweep_queries(const Arguments& a, const Uniform& x, KeysShared& shared, KeyGradients<M>& sums,
                                              int warp_row, int lane) {
    const KeyTile& keys = shared.keys;
    const int blocks = keys.to > keys.from
        ? (keys.to + StreamTile::POSITIONS - 1) / StreamTile::POSITIONS - keys.from / StreamTile::POSITIONS : 0;
    const int tiles = blocks * StreamTile::PARTS;
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

__device__ __forceinline__ void copy_stationary(const Arguments& a, const KeyTile& keys, int row, int j, KeysShared& shared, int part) {
    const long long token = keys.s.start + max(j, 0);
    const elem* k = a.k + keys.s.row * a.k_batch + token * a.k_position + keys.g * a.k_head;
    const elem* v = a.v + keys.s.row * a.v_batch + token * a.v_position + keys.g * a.v_head;
    copy_async(shared.k + row * ROW + part, k + part, j >= 0);
    copy_async(shared.v + row * ROW + part, v + part, j >= 0);
}

// A selected key: seen from where it has left the window until it expires.
__device__ __forceinline__ Column selected_column(const Arguments& a, const Uniform& x, const KeyTile& keys, int j) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    c.from = j + WINDOW;
    c.to = a.expiry[(keys.s.row * a.hkv + keys.g) * a.n + keys.s.start + j];
<% if uses_gate %>    c.score = gate_score(a, keys.s, keys.g, j);
<% endif %>    load_column_values(a, x, keys.s, keys.g, c);
    return c;
}

// A key for the queries that have it in their window, where its gate is 1.
__device__ __forceinline__ Column window_column(const Arguments& a, const Uniform& x, const KeyTile& keys, int j) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    c.from = j;
    c.to = min(j + WINDOW, keys.s.length);
<% if uses_gate %>    c.score = INFINITY_F;
<% endif %>    load_column_values(a, x, keys.s, keys.g, c);
    return c;
}

__device__ __forceinline__ float* partial_of(const Arguments& a, int g, int chunk, int slot) {
    return a.partial + ((static_cast<long long>(g) * block_count<CHUNK>(a) + chunk) * CHUNK_KEYS + slot) * PARTIAL;
}

extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS_PER_MULTIPROCESSOR) backward_keys_selected(const __grid_constant__ Arguments a) {
    constexpr int M = TILE_Q / (16 * WARPS), TILES = (CHUNK_KEYS + TILE_Q - 1) / TILE_Q;
    extern __shared__ __align__(16) unsigned char memory[];
    KeysShared& shared = *reinterpret_cast<KeysShared*>(memory);
    KeyTile keys = {};
    int block;
    keys.chunk = blockIdx.x / TILES;
    keys.slot = blockIdx.x % TILES * TILE_Q;
    keys.g = blockIdx.y;
    if (!find_block<CHUNK>(a, keys.chunk, keys.s, block)) return;
    const long long at = static_cast<long long>(keys.g) * block_count<CHUNK>(a) + keys.chunk;
    const int* list = a.chunk_keys + at * CHUNK_KEYS;
    const int count = a.chunk_counts[at];
    if (keys.slot >= count) return;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, keys.s, keys.g);
    constexpr int PER_ROW = D * sizeof(elem) / 16;
    for (int p = threadIdx.x; p < TILE_Q * PER_ROW; p += THREADS) {
        const int row = p / PER_ROW;
        const int j = keys.slot + row < count ? list[keys.slot + row] : -1;
        copy_stationary(a, keys, row, j, shared, p % PER_ROW * (16 / static_cast<int>(sizeof(elem))));
    }
    if (threadIdx.x == 0) shared.latest_from = 0, shared.earliest_to = 0x7fffffff, shared.range_from = 0x7fffffff, shared.range_to = 0;
    __syncthreads();
    for (int row = threadIdx.x; row < TILE_Q; row += THREADS) {
        const int slot = keys.slot + row;
        const Column c = selected_column(a, x, keys, slot < count ? list[slot] : -1);
        shared.columns[row] = c;
        if (slot < count) {
            atomicMax(&shared.latest_from, c.from);
            atomicMin(&shared.earliest_to, c.to);
            atomicMin(&shared.range_from, c.from);
            atomicMax(&shared.range_to, c.to);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        keys.from = max(block * CHUNK, shared.range_from);
        keys.to = min((block + 1) * CHUNK, shared.range_to);
        shared.keys = keys;
    }
    __syncthreads();
    KeyGradients<M> sums = {};
    sweep_queries(a, x, shared, sums, warp_row, lane);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = warp_row + 16 * m + 8 * h + lane / 4;
            float sum[KEY_SUMS + 1];
#pragma unroll
            for (int n = 0; n < KEY_SUMS; ++n) sum[n] = row_sum(sums.sums[m][h][n]);
            if (shared.columns[row].j < 0) continue;
            float* to = partial_of(a, shared.keys.g, shared.keys.chunk, shared.keys.slot + row);
#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const int d = slice_from<SLICE>() + 8 * n + lane % 4 * 2;
<% if has_d_k %>                *reinterpret_cast<float2*>(to + d) = make_float2(sums.d_k[m][n][2 * h], sums.d_k[m][n][2 * h + 1]);
<% endif %><% if has_d_v %>                *reinterpret_cast<float2*>(to + PARTIAL_V + d) = make_float2(sums.d_v[m][n][2 * h], sums.d_v[m][n][2 * h + 1]);
<% endif %>            }
            if (lane % 4 == 0 && blockIdx.z == 0) {
#pragma unroll
                for (int n = 0; n < KEY_SUMS; ++n) to[PARTIAL_SUMS + n] = sum[n];
            }
        }
}

// The slot of a key in a chunk's ascending list, which holds it.
__device__ __forceinline__ int find_slot(const Arguments& a, int g, int chunk, int j) {
    const long long at = static_cast<long long>(g) * block_count<CHUNK>(a) + chunk;
    const int* list = a.chunk_keys + at * CHUNK_KEYS;
    int low = 0, high = a.chunk_counts[at];
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (list[middle] <= j) low = middle;
        else high = middle;
    }
    return low;
}

// Adds what later chunks gave to a key to what its first chunk gave. One warp for each key.
extern "C" __global__ void __launch_bounds__(256) backward_keys_collect(const __grid_constant__ Arguments a) {
    constexpr int WARPS_HERE = 8, BLOCKS = (CHUNK_KEYS + WARPS_HERE - 1) / WARPS_HERE, PER_LANE = (PARTIAL + 31) / 32;
    const int chunk = blockIdx.x / BLOCKS, slot = blockIdx.x % BLOCKS * WARPS_HERE + threadIdx.x / 32, lane = threadIdx.x % 32;
    const int g = blockIdx.y;
    Sequence s;
    int block;
    if (!find_block<CHUNK>(a, chunk, s, block)) return;
    const long long at = static_cast<long long>(g) * block_count<CHUNK>(a) + chunk;
    if (slot >= a.chunk_counts[at]) return;
    const int j = a.chunk_keys[at * CHUNK_KEYS + slot];
    if ((j + WINDOW) / CHUNK != block) return;
    const int last = (a.expiry[(s.row * a.hkv + g) * a.n + s.start + j] - 1) / CHUNK;
    float* own = partial_of(a, g, chunk, slot);
    double total[PER_LANE];
#pragma unroll
    for (int n = 0; n < PER_LANE; ++n) total[n] = 32 * n + lane < PARTIAL ? own[32 * n + lane] : 0.0f;
    for (int later = block + 1; later <= last; ++later) {
        const int id = chunk + later - block;
        const float* from = partial_of(a, g, id, find_slot(a, g, id, j));
#pragma unroll
        for (int n = 0; n < PER_LANE; ++n)
            if (32 * n + lane < PARTIAL) total[n] += from[32 * n + lane];
    }
    if (last > block) {
#pragma unroll
        for (int n = 0; n < PER_LANE; ++n)
            if (32 * n + lane < PARTIAL) own[32 * n + lane] = static_cast<float>(total[n]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS_PER_MULTIPROCESSOR) backward_keys_window(const __grid_constant__ Arguments a) {
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    KeysShared& shared = *reinterpret_cast<KeysShared*>(memory);
    KeyTile keys = {};
    int block;
    keys.g = blockIdx.y;
    if (!find_block<TILE_Q>(a, blockIdx.x, keys.s, block)) return;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M, first = block * TILE_Q;
    const int count = min(TILE_Q, keys.s.length - first);
    const Uniform x = load_uniform(a, keys.s, keys.g);
    constexpr int PER_ROW = D * sizeof(elem) / 16;
    for (int p = threadIdx.x; p < TILE_Q * PER_ROW; p += THREADS) {
        const int row = p / PER_ROW;
        copy_stationary(a, keys, row, row < count ? first + row : -1, shared, p % PER_ROW * (16 / static_cast<int>(sizeof(elem))));
    }
    for (int row = threadIdx.x; row < TILE_Q; row += THREADS)
        shared.columns[row] = window_column(a, x, keys, row < count ? first + row : -1);
    if (threadIdx.x == 0) {
        keys.from = first;
        keys.to = WINDOW == 0 ? first : min(first + count - 1 + WINDOW, keys.s.length);
        shared.keys = keys;
        shared.latest_from = first + count - 1, shared.earliest_to = min(first + WINDOW, keys.s.length);
    }
    __syncthreads();
    KeyGradients<M> sums = {};
    sweep_queries(a, x, shared, sums, warp_row, lane);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int j = shared.columns[warp_row + 16 * m + 8 * h + lane / 4].j;
            float sum[KEY_SUMS + 1];
#pragma unroll
            for (int n = 0; n < KEY_SUMS; ++n) sum[n] = row_sum(sums.sums[m][h][n]);
            if (j < 0) continue;
            const KeyTile& keys = shared.keys;
            const long long token = keys.s.start + j, entry = (keys.s.row * a.hkv + keys.g) * a.n + token;
            // What the key was given while selected.
            const float* selected = nullptr;
            if (a.expiry[entry] > j + WINDOW) {
                const int chunk = first_block<CHUNK>(a, keys.s) + (j + WINDOW) / CHUNK;
                selected = partial_of(a, keys.g, chunk, find_slot(a, keys.g, chunk, j));
            }
<% if has_d_k %>            elem* d_k = a.d_k + keys.s.row * a.d_k_batch + token * a.d_k_position + keys.g * a.d_k_head;
<% endif %><% if has_d_v %>            elem* d_v = a.d_v + keys.s.row * a.d_v_batch + token * a.d_v_position + keys.g * a.d_v_head;
<% endif %>#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const int d = slice_from<SLICE>() + 8 * n + lane % 4 * 2;
<% if has_d_k %>                const float2 more_k = selected ? *reinterpret_cast<const float2*>(selected + d) : float2{};
                store_pair(d_k + d, sums.d_k[m][n][2 * h] + more_k.x, sums.d_k[m][n][2 * h + 1] + more_k.y);
<% endif %><% if has_d_v %>                const float2 more_v = selected ? *reinterpret_cast<const float2*>(selected + PARTIAL_V + d) : float2{};
                store_pair(d_v + d, sums.d_v[m][n][2 * h] + more_v.x, sums.d_v[m][n][2 * h + 1] + more_v.y);
<% endif %>            }
<% if key_sums %>            if (lane % 4 == 0 && blockIdx.z == 0) {
#pragma unroll
                for (int n = 0; n < KEY_SUMS; ++n)
                    a.key_sums[n * a.rows * a.hkv * a.n + entry] = sum[n] + (selected ? selected[PARTIAL_SUMS + n] : 0.0f);
            }
<% endif %>        }
}
