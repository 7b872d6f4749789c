// The row sweep: a tile of queries stays, the keys it sees stream past. Gives d_q and sums over keys, which
// are those of the first slice.
struct RowsShared {
    TileData data;
    elem q[TILE_Q * ROW];
    elem d_o[TILE_Q * ROW];
    elem k[STAGES][TILE_KV * ROW];
    elem v[STAGES][TILE_KV * ROW];
    Column columns[STAGES + 1][TILE_KV];
    int keys[STAGES + 1][TILE_KV];
    float threshold[TILE_Q];
};
static_assert(sizeof(RowsShared) <= ROWS_SHARED, "the launch gives less");

// Sums over keys of the rows that a lane holds, a quarter of each.
template <int M>
struct RowSums {
    float threshold[M][2];
    float sums[M][2][ROW_SUMS + 1];
};

template <bool FULL, int M>
__device__ __forceinline__ void sweep_keys(const Uniform& x, const Row (&rows)[M][2], const RowsShared& shared, const elem* k,
                                           const elem* v, const Column* columns, RowSums<M>& sums, float (&d_q)[M][ROWS_SLICE / 8][4],
                                           int warp_row, int lane) {
    float scores[M][TILE_KV / 8][4], products[M][TILE_KV / 8][4];
    product<M, TILE_KV>(scores, shared.q + warp_row * ROW, k, lane);
    product<M, TILE_KV>(products, shared.d_o + warp_row * ROW, v, lane);
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Column& c = columns[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const Row& r = rows[m][h];
                    const float gate = gate_of(r, c);
                    RowPair pair = row_pair(x, r, c, gate, scores[m][n][2 * h + e], products[m][n][2 * h + e]);
                    if (!sees<FULL>(x, r, c)) pair = {};
                    scores[m][n][2 * h + e] = pair.weight_q;
<% for n in row_sums %>                    sums.sums[m][h][${ n }$] += pair.sum_${ n }$;
<% endfor %><% if has_threshold %>                    if (is_fraction(gate)) sums.threshold[m][h] += pair.d_gate;
<% endif %>                }
        }
<% if has_d_q %>    add_weighted<M, TILE_KV, ROWS_SLICE>(d_q, scores, k + slice_from<ROWS_SLICE>(), lane);
<% endif %>}

extern "C" __global__ void __launch_bounds__(THREADS, ROWS_BLOCKS_PER_MULTIPROCESSOR) backward_rows(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    RowsShared& shared = *reinterpret_cast<RowsShared*>(memory);
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
    copy_query_rows<RowTile, TILE_Q, THREADS>(shared.d_o, a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile);
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

    RowSums<M> sums = {};
    float d_q[M][ROWS_SLICE / 8][4] = {};
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
        const Column* columns = shared.columns[t % (STAGES + 1)];
        const elem* k = shared.k[t % STAGES];
        const elem* v = shared.v[t % STAGES];
        if ((t + 1) * TILE_KV <= all.shared) sweep_keys<true>(x, rows, shared, k, v, columns, sums, d_q, warp_row, lane);
        else sweep_keys<false>(x, rows, shared, k, v, columns, sums, d_q, warp_row, lane);
        if (own < TILE_KV) {
            shared.columns[(t + STAGES) % (STAGES + 1)][own] = next;
            shared.keys[(t + STAGES) % (STAGES + 1)][own] = next_key;
        }
    }
    wait_copies<0>();
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const Row& r = rows[m][h];
            const long long token = tile.s.start + r.i;
            float sum[ROW_SUMS + 1];
#pragma unroll
            for (int n = 0; n < ROW_SUMS; ++n) sum[n] = row_sum(sums.sums[m][h][n]);
            const float threshold = row_sum(sums.threshold[m][h]);
            if (lane % 4 == 0) shared.threshold[warp_row + 16 * m + 8 * h + lane / 4] = r.i < 0 ? 0.0f : threshold;
            if (r.i < 0) continue;
<% if has_d_q %>            elem* to = a.d_q + tile.s.row * a.d_q_batch + token * a.d_q_position + r.head * a.d_q_head;
#pragma unroll
            for (int n = 0; n < ROWS_SLICE / 8; ++n)
                store_pair(to + slice_from<ROWS_SLICE>() + 8 * n + lane % 4 * 2, FACTOR_Q * d_q[m][n][2 * h],
                           FACTOR_Q * d_q[m][n][2 * h + 1]);
<% endif %>            if (lane % 4 == 0 && blockIdx.z == 0) store_row_values(a, x, tile.s, tile.g, r, sum);
        }
<% if has_threshold %>    // The threshold's gradient of a query is summed over the heads of the group.
    __syncthreads();
    if (blockIdx.z > 0) return;
    for (int i = threadIdx.x; i < tile.to - tile.from; i += THREADS) {
        double total = 0.0;
        for (int h = 0; h < GROUP; ++h) total += shared.threshold[i * GROUP + h];
        a.threshold_rows[(tile.s.row * a.hkv + tile.g) * a.n + tile.s.start + tile.from + i] = total;
    }
<% endif %>}
