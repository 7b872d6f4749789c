// The row sweep: a tile of queries stays, the keys it sees stream past. Gives d_q and sums over keys. One warpgroup works on
// pairs while the tensor cores multiply for the other.

// The data of a streamed tile's columns, value by value: those of neighbouring columns are read together.
struct StreamedColumns {
    int from[TILE_KV], to[TILE_KV];
    int j[TILE_KV];
<% if uses_gate %>    float score[TILE_KV];
<% endif %><% for f in column_fields %>    ${ f.ty }$ ${ f.name }$[TILE_KV];
<% endfor %>
    __device__ __forceinline__ void write(int at, const Column& c) {
        from[at] = c.from;
        to[at] = c.to;
        j[at] = c.j;
<% if uses_gate %>        score[at] = c.score;
<% endif %><% for f in column_fields %>        ${ f.name }$[at] = c.${ f.name }$;
<% endfor %>    }

    // Columns `at`, which is even, and `at` + 1.
    __device__ __forceinline__ void read(int at, Column (&c)[2]) const {
        const auto two_from = read_two(from + at), two_to = read_two(to + at), two_j = read_two(j + at);
<% if uses_gate %>        const auto two_score = read_two(score + at);
<% endif %><% for f in column_fields %>        const auto two_${ f.name }$ = read_two(${ f.name }$ + at);
<% endfor %>#pragma unroll
        for (int e = 0; e < 2; ++e) {
            c[e].from = two_from.of[e];
            c[e].to = two_to.of[e];
            c[e].j = two_j.of[e];
<% if uses_gate %>            c[e].score = two_score.of[e];
<% endif %><% for f in column_fields %>            c[e].${ f.name }$ = two_${ f.name }$.of[e];
<% endfor %>        }
    }
};

// A tile of queries that stays: its vectors, what is known of its rows, how many tiles of columns stream past, and how many
// columns every row sees: selected keys, then all.
struct RowsBuffer {
    alignas(1024) elem q[TILE_Q * D];
    alignas(1024) elem d_o[TILE_Q * D];
    Row rows[TILE_Q];
    float threshold[TILE_Q];
    Tile tile;
    int tiles, lasting, seen;
};

// The next tile of queries is there when one is done.
constexpr int ROW_BUFFERS = 2;

struct RowsShared {
    RowsBuffer buffers[ROW_BUFFERS];
    alignas(1024) elem k[STAGES][TILE_KV * D];
    alignas(1024) elem v[STAGES][TILE_KV * D];
    StreamedColumns columns[STAGES];
    int next;
    Barrier rows_full[ROW_BUFFERS], rows_empty[ROW_BUFFERS], full[STAGES], empty[STAGES];
};
static_assert(sizeof(RowsShared) <= ROWS_SHARED, "the launch gives less");

// How a tile of columns is treated: pairs one by one, all of them seen, or all of them seen in the window, where gates are 1.
enum Kind { MASKED, FULL, WINDOWED };

__device__ __forceinline__ void load_row_tiles(const Arguments& a, RowsShared& shared) {
    const int blocks = block_count<POSITIONS>(a);
    int step = 0;
    for (int taken = 0;; ++taken) {
        Tile tile;
        long long id;
        do id = take_next(a.taken, shared.next);
        while (id < blocks * a.hkv && !find_tile<RowTile>(a, id % blocks, id / blocks, tile));
        const int b = taken % ROW_BUFFERS;
        RowsBuffer& buffer = shared.buffers[b];
        if (id >= blocks * a.hkv) {
            shared.rows_empty[b].wait(taken / ROW_BUFFERS & 1 ^ 1);
            buffer.tiles = -1;
            shared.rows_full[b].arrive();
            shared.rows_full[b].arrive_when_copied();
            return;
        }
        const TileColumns all = tile_columns(a, tile);
        const int tiles = (all.total + TILE_KV - 1) / TILE_KV;
        const Uniform x = load_uniform(a, tile.s, tile.g);
        int own;
        Row r = {};
        r.i = -1;
        const bool has_row = own_row<TILE_Q>(own);
        if (has_row) r = load_row<RowTile>(a, x, tile, own);
        shared.rows_empty[b].wait(taken / ROW_BUFFERS & 1 ^ 1);
        const Vectors q(a.q, a.q_batch, a.q_position, a.q_head, tile.s, tile.from);
        const Vectors d_o(a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile.s, tile.from);
        copy_vectors<TILE_Q, 1>(buffer.q, q.start, r.i < 0 ? NO_VECTOR : q.of(r.i - tile.from, r.head));
        copy_vectors<TILE_Q, 1>(buffer.d_o, d_o.start, r.i < 0 ? NO_VECTOR : d_o.of(r.i - tile.from, r.head));
        if (has_row) buffer.rows[own] = r;
        if (threadIdx.x == 0) {
            buffer.tile = tile;
            buffer.tiles = tiles;
            buffer.lasting = all.lasting;
            buffer.seen = all.shared;
        }
        shared.rows_full[b].arrive();
        shared.rows_full[b].arrive_when_copied();

        const Vectors k(a.k, a.k_batch, a.k_position, a.k_head, tile.s, 0), v(a.v, a.v_batch, a.v_position, a.v_head, tile.s, 0);
        const bool has_column = own_row<TILE_KV>(own);
        bool window = false;
        int j = has_column ? column_key(all, own, window) : -1;
#pragma unroll 1
        for (int t = 0; t < tiles; ++t, ++step) {
            const Column c = load_column(a, x, tile, j, window);
            const int stage = stage_of<STAGES>(step);
            const unsigned own_k = j < 0 ? NO_VECTOR : k.of(j, tile.g), own_v = j < 0 ? NO_VECTOR : v.of(j, tile.g);
            j = t + 1 < tiles && has_column ? column_key(all, (t + 1) * TILE_KV + own, window) : -1;
            shared.empty[stage].wait(empty_parity<STAGES>(step));
            copy_vectors<TILE_KV, 4>(shared.k[stage], k.start, own_k);
            copy_vectors<TILE_KV, 4>(shared.v[stage], v.start, own_v);
            if (has_column) shared.columns[stage].write(own, c);
            shared.full[stage].arrive();
            shared.full[stage].arrive_when_copied();
        }
    }
}

// Sums over keys of the two rows that a lane holds, a quarter of each.
struct RowSums {
    float threshold[2];
    float sums[2][ROW_SUMS + 1];
};

// Products of vectors become weights of the keys; sums grow.
template <Kind KIND>
__device__ __forceinline__ void weigh_keys(const Uniform& x, const Row* queries, const StreamedColumns& columns,
                                           float (&scores)[TILE_KV / 8][4], const float (&products)[TILE_KV / 8][4], RowSums& sums,
                                           int lane) {
    constexpr bool ALL = KIND != MASKED;
    const Row rows[2] = {queries[0], queries[8]};
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n) {
        Column c[2];
        columns.read(8 * n + lane % 4 * 2, c);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[h];
                const float gate = KIND == WINDOWED ? 1.0f : gate_of<ALL>(r, c[e]);
                RowPair pair = row_pair(x, r, c[e], gate, scores[n][2 * h + e], products[n][2 * h + e]);
                if (!sees<ALL>(x, r, c[e])) pair = {};
                scores[n][2 * h + e] = pair.weight_q;
<% for n in row_sums %>                sums.sums[h][${ n }$] += pair.sum_${ n }$;
<% endfor %><% if has_threshold %>                sums.threshold[h] += gate > 0.0f && gate < 1.0f ? pair.d_gate : 0.0f;
<% endif %>            }
    }
}

// Starts the products of a streamed tile: q · k and d_o · v.
__device__ __forceinline__ void multiply_keys(RowsShared& shared, const RowsBuffer& buffer, int step, int group, float (&scores)[TILE_KV / 8][4],
                                              float (&products)[TILE_KV / 8][4]) {
    const int stage = stage_of<STAGES>(step);
    shared.full[stage].wait(full_parity<STAGES>(step));
    start_products();
    product<TILE_Q, TILE_KV, TILE_KV>(scores, descriptor(buffer.q + 64 * group * PANEL, 1), descriptor(shared.k[stage], 1));
    product<TILE_Q, TILE_KV, TILE_KV>(products, descriptor(buffer.d_o + 64 * group * PANEL, 1), descriptor(shared.v[stage], 1));
    commit_products();
}

__device__ __forceinline__ void store_rows(const Arguments& a, const Uniform& x, const Tile& tile, const Row* rows,
                                           const RowSums& sums, const float (&d_q)[D / 8][4], float* threshold, int row, int lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const Row& r = rows[8 * h];
        const long long token = tile.s.start + r.i;
        float sum[ROW_SUMS + 1];
#pragma unroll
        for (int n = 0; n < ROW_SUMS; ++n) sum[n] = row_sum(sums.sums[h][n]);
        const float of_threshold = row_sum(sums.threshold[h]);
        if (lane % 4 == 0) threshold[row + 8 * h] = r.i < 0 ? 0.0f : of_threshold;
        if (r.i < 0) continue;
<% if has_d_q %>        elem* to = a.d_q + tile.s.row * a.d_q_batch + token * a.d_q_position + r.head * a.d_q_head;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) store_pair(to + 8 * n + lane % 4 * 2, d_q[n][2 * h], d_q[n][2 * h + 1]);
<% endif %>        if (lane % 4 == 0) store_row_values(a, x, tile.s, tile.g, r, sum);
    }
}
<% if has_threshold %>
// The threshold's gradient of a query is summed over the heads of the group.
__device__ __forceinline__ void store_threshold(const Arguments& a, const Tile& tile, const float* threshold, int group) {
    // Where all heads of a position belong to one warpgroup, warpgroups need not wait for each other.
    constexpr bool APART = 64 % RowTile::HEADS == 0;
    constexpr int POSITIONS_HERE = APART ? 64 / RowTile::HEADS : RowTile::POSITIONS, THREADS_HERE = APART ? 128 : COMPUTING;
    if constexpr (APART) meet(GROUP_BARRIER + group, 128);
    else meet(COMPUTING_BARRIER, COMPUTING);
    const int first = APART ? POSITIONS_HERE * group : 0, end = min(first + POSITIONS_HERE, tile.to - tile.from);
    for (int i = first + (threadIdx.x - LOADING) % THREADS_HERE; i < end; i += THREADS_HERE) {
        double total = 0.0;
        for (int h = 0; h < GROUP; ++h) total += threshold[i * GROUP + h];
        a.threshold_rows[(tile.s.row * a.hkv + tile.g) * a.n + tile.s.start + tile.from + i] = total;
    }
}
<% endif %>
__device__ __forceinline__ void compute_rows(const Arguments& a, RowsShared& shared) {
    const int thread = threadIdx.x - LOADING, group = thread / 128, lane = thread % 32;
    const int row = 64 * group + thread % 128 / 32 * 16 + lane / 4;
    int step = 0;
    for (int taken = 0;; ++taken) {
        const int b = taken % ROW_BUFFERS;
        RowsBuffer& buffer = shared.buffers[b];
        shared.rows_full[b].wait(taken / ROW_BUFFERS & 1);
        const int tiles = buffer.tiles, lasting = buffer.lasting, seen = buffer.seen;
        if (tiles < 0) return;
        const Uniform x = load_uniform(a, buffer.tile.s, buffer.tile.g);
        const Row* rows = buffer.rows + row;
        RowSums sums = {};
        float d_q[D / 8][4] = {};
        float scores[TILE_KV / 8][4], products[TILE_KV / 8][4];
        if (tiles > 0) multiply_keys(shared, buffer, step, group, scores, products);
#pragma unroll 1
        for (int t = 0; t < tiles; ++t, ++step) {
            const int stage = stage_of<STAGES>(step);
            wait_products<0>();
            settle(scores);
            settle(products);
            const StreamedColumns& columns = shared.columns[stage];
            // Columns that all rows see come first: the selected ones, then the window's.
            if ((t + 1) * TILE_KV > seen) weigh_keys<MASKED>(x, rows, columns, scores, products, sums, lane);
            else if (t * TILE_KV < lasting) weigh_keys<FULL>(x, rows, columns, scores, products, sums, lane);
            else weigh_keys<WINDOWED>(x, rows, columns, scores, products, sums, lane);
            Left weights[TILE_KV / 16];
            round_weights<TILE_KV>(weights, scores);
            start_products();
<% if has_d_q %>            add_weighted<TILE_KV, D>(d_q, weights, descriptor(shared.k[stage], TILE_KV * PANEL / 8), true);
<% endif %>            commit_products();
            if (t + 1 < tiles) {
                multiply_keys(shared, buffer, step + 1, group, scores, products);
                wait_products<1>();
            } else {
                wait_products<0>();
            }
            __syncwarp();
            if (lane == 0) shared.empty[stage].arrive();
        }
        settle(d_q);
        store_rows(a, x, buffer.tile, rows, sums, d_q, buffer.threshold, row, lane);
<% if has_threshold %>        store_threshold(a, buffer.tile, buffer.threshold, group);
<% endif %>        __syncwarp();
        if (lane == 0) shared.rows_empty[b].arrive();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_rows(const __grid_constant__ Arguments a) {
    extern __shared__ __align__(1024) unsigned char memory[];
    RowsShared& shared = *reinterpret_cast<RowsShared*>(memory);
    if (threadIdx.x == 0) {
        for (int b = 0; b < ROW_BUFFERS; ++b) {
            shared.rows_full[b].start(2 * LOADING);
            shared.rows_empty[b].start(COMPUTING / 32);
        }
        for (int s = 0; s < STAGES; ++s) {
            shared.full[s].start(2 * LOADING);
            shared.empty[s].start(COMPUTING / 32);
        }
        fence_barriers();
    }
    __syncthreads();
    if (threadIdx.x < LOADING) {
        give_registers<ROWS_LOADING_REGISTERS>();
        load_row_tiles(a, shared);
    } else {
        take_registers<ROWS_COMPUTING_REGISTERS>();
        compute_rows(a, shared);
    }
}
