// The row sweep: a tile of queries stays, the keys it sees stream past. Gives d_q and sums over keys. One warpgroup works on
// pairs while the tensor cores multiply for the other: its weights with the keys they are of, and its rows with the keys
// that come next.

// What is known of a tile of queries that stays: its rows, how many tiles of columns stream past, and how many columns every
// row sees: selected keys, then all.
struct RowsHeader {
    Row rows[TILE_Q];
    float threshold[TILE_Q];
    Tile tile;
    int tiles, lasting, seen;
};

// A tile is stored while the vectors of the next one are copied.
constexpr int HEADERS = 2;

struct RowsShared {
    alignas(1024) elem q[TILE_Q * D];
    alignas(1024) elem d_o[TILE_Q * D];
    alignas(1024) elem k[STAGES][TILE_KV * D];
    alignas(1024) elem v[STAGES][TILE_KV * D];
    RowsHeader headers[HEADERS];
    StreamedColumns columns[STAGES];
    int next;
    Barrier rows_full[HEADERS], headers_empty[HEADERS], queries_empty, full[STAGES], empty[STAGES];
};
static_assert(sizeof(RowsShared) <= ROWS_SHARED, "the launch gives less");

// Announces a tile of queries, number `taken` of the block, and starts copying its vectors.
__device__ __forceinline__ void announce(const Arguments& a, const Uniform& x, const Tile& tile, const TileColumns& all, RowsShared& shared,
                                         int taken) {
    RowsHeader& header = shared.headers[taken % HEADERS];
    int own;
    Row r = {};
    r.i = -1;
    const bool has_row = own_row<TILE_Q>(own);
    if (has_row) r = load_row<RowTile>(a, x, tile, own);
    const Vectors q(a.q, a.q_batch, a.q_position, a.q_head, tile.s, tile.from);
    const Vectors d_o(a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile.s, tile.from);
    // Rows that stand for no query have the vectors of some.
    const int i = r.i < 0 ? 0 : r.i - tile.from, head = r.i < 0 ? tile.g * GROUP : r.head;
    shared.headers_empty[taken % HEADERS].wait(empty_parity<HEADERS>(taken));
    if (has_row) header.rows[own] = r;
    if (threadIdx.x == 0) {
        header.tile = tile;
        header.tiles = tile_steps(all.total);
        header.lasting = all.lasting;
        header.seen = all.shared;
    }
    shared.queries_empty.wait(empty_parity<1>(taken));
    copy_vectors<TILE_Q, 8>(shared.q, q.start, q.of(i, head));
    copy_vectors<TILE_Q, 8>(shared.d_o, d_o.start, d_o.of(i, head));
    shared.rows_full[taken % HEADERS].arrive();
    shared.rows_full[taken % HEADERS].arrive_when_copied();
}

// Looks tiles of queries up and copies what they need: the first keys before the queries, which wait for the tile before.
__device__ __forceinline__ void load_row_tiles(const Arguments& a, RowsShared& shared) {
    const int blocks = block_count<POSITIONS>(a);
    int step = 0;
    for (int taken = 0;; ++taken) {
        Tile tile;
        long long id;
        do id = take_next(a.taken, shared.next);
        while (id < blocks * a.hkv && !find_tile_in_order<RowTile>(a, id, tile));
        if (id >= blocks * a.hkv) {
            shared.headers_empty[taken % HEADERS].wait(empty_parity<HEADERS>(taken));
            shared.headers[taken % HEADERS].tiles = -1;
            shared.rows_full[taken % HEADERS].arrive();
            shared.rows_full[taken % HEADERS].arrive_when_copied();
            return;
        }
        const TileColumns all = tile_columns(a, tile);
        const int tiles = tile_steps(all.total);
        const Uniform x = load_uniform(a, tile.s, tile.g);
        const Vectors k(a.k, a.k_batch, a.k_position, a.k_head, tile.s, 0), v(a.v, a.v_batch, a.v_position, a.v_head, tile.s, 0);
        int own;
        const bool has_column = own_row<TILE_KV>(own);
        bool window = false;
        int j = has_column ? column_key(all, own, window) : -1;
#pragma unroll 1
        for (int t = 0; t < tiles; ++t, ++step) {
            const Column c = load_column(a, x, tile, j, window);
            const int stage = stage_of<STAGES>(step);
            const int key = j < 0 ? tile.from : j;  // columns without a key are masked
            const unsigned own_k = k.of(key, tile.g), own_v = v.of(key, tile.g);
            j = t + 1 < tiles && has_column ? column_key(all, (t + 1) * TILE_KV + own, window) : -1;
            shared.empty[stage].wait(empty_parity<STAGES>(step));
            copy_vectors<TILE_KV, 8>(shared.k[stage], k.start, own_k);
            copy_vectors<TILE_KV, 8>(shared.v[stage], v.start, own_v);
            shared.columns[stage].write(has_column, own, c);
            shared.full[stage].arrive();
            shared.full[stage].arrive_when_copied();
            if (t == 0) announce(a, x, tile, all, shared, taken);
        }
    }
}

// Sums over keys of the two rows that a lane holds, a quarter of each.
struct RowSums {
    float threshold[2];
    float sums[2][ROW_SUMS + 1];
};

// Columns whose pairs are worked on at once, so that they hide what each waits for, where there are registers for that.
constexpr int AT_ONCE = ROWS_HELD > 0 ? 8 : 32;

// Products of vectors become weights of the keys; sums grow.
template <Kind KIND>
__device__ __forceinline__ void weigh_keys(const Uniform& x, const Row* queries, const StreamedColumns& columns,
                                           float (&scores)[TILE_KV / 8][4], const float (&products)[TILE_KV / 8][4], RowSums& sums,
                                           int lane, int none) {
    constexpr bool ALL = KIND != MASKED;
    const Row rows[2] = {queries[0], queries[8]};
    int at = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n) {
        // Keeps the compiler from reading the data of all columns ahead, into registers that there are not. Where pairs take many
        // instructions it would still work on most of them at once: there, where columns are follows from a result before.
        if (8 * n % AT_ONCE == 0) __syncwarp();
        if (COLUMNS_IN_TURN && n > 0 && 8 * n % AT_ONCE == 0) at |= __float_as_int(scores[n - 2][3]) & none;
        Column c[2];
        columns.read(8 * n + at, c);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[h];
                const float gate = KIND == WINDOWED ? 1.0f : gate_of(r, c[e]);
                RowPair pair = row_pair(x, r, c[e], gate, scores[n][2 * h + e], products[n][2 * h + e]);
                if (!sees<ALL>(x, r, c[e])) pair = {};
                scores[n][2 * h + e] = pair.weight_q;
<% for n in row_sums %>                sums.sums[h][${ n }$] += pair.sum_${ n }$;
<% endfor %><% if has_threshold %>                if (is_fraction(gate)) sums.threshold[h] += pair.d_gate;
<% endif %>            }
    }
}

// The rows of a warp, as left operands of all products with keys, where there are registers for them: 64 rows and 64 keys that
// are both read from shared memory take its whole bandwidth.
struct Held { Left q[ROWS_HELD > 0 ? D / 16 : 1], d_o[ROWS_HELD > 1 ? D / 16 : 1]; };

__device__ __forceinline__ void hold_rows(const RowsShared& shared, Held& held) {
    const int thread = thread_again(), row = (thread - LOADING) / 32 * 16, lane = thread % 32;
    if constexpr (ROWS_HELD > 0) load_left<TILE_Q>(shared.q, row, held.q, lane);
    if constexpr (ROWS_HELD > 1) load_left<TILE_Q>(shared.d_o, row, held.d_o, lane);
}

// Starts the products of a streamed tile that is there: q · k and d_o · v.
__device__ __forceinline__ void multiply_keys(const RowsShared& shared, const Held& held, int stage, int group,
                                              float (&scores)[TILE_KV / 8][4], float (&products)[TILE_KV / 8][4]) {
    const unsigned long long keys = descriptor(shared.k[stage], 1), values = descriptor(shared.v[stage], 1);
    if constexpr (ROWS_HELD > 0) product<TILE_KV, TILE_KV>(scores, held.q, keys);
    else product<TILE_Q, TILE_KV, TILE_KV>(scores, descriptor(shared.q + 64 * group * PANEL, 1), keys);
    if constexpr (ROWS_HELD > 1) product<TILE_KV, TILE_KV>(products, held.d_o, values);
    else product<TILE_Q, TILE_KV, TILE_KV>(products, descriptor(shared.d_o + 64 * group * PANEL, 1), values);
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
<% if has_d_q %>        elem* to = a.d_q + tile.s.row * a.d_q_batch + token * a.d_q_position + r.head * a.d_q_head;
        store_vector(to, d_q, h, FACTOR_Q, r.i >= 0, lane);
<% endif %>        if (r.i >= 0 && lane % 4 == 0) store_row_values(a, x, tile.s, tile.g, r, sum);
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
    const int group = own_group();
    int step = 0;
    start_turns(group);
    for (int taken = 0;; ++taken) {
        RowsHeader& header = shared.headers[taken % HEADERS];
        shared.rows_full[taken % HEADERS].wait(full_parity<HEADERS>(taken));
        const int tiles = header.tiles;
        if (tiles < 0) return;
        const Uniform x = load_uniform(a, header.tile.s, header.tile.g);
<% if predicate_of_tiles %>        const Row* own_rows = header.rows + first_row(thread_again());
        const RowBounds bounds = row_bounds(header.tile.from, header.tile.to - 1, own_rows[0], own_rows[8]);
<% endif %>        RowSums sums = {};
        float d_q[D / 8][4] = {};
        float scores[TILE_KV / 8][4], products[TILE_KV / 8][4];
        const int first = uniform(stage_of<STAGES>(step));
        shared.full[first].wait(full_parity<STAGES>(step));
        Held held;
        hold_rows(shared, held);
        take_turn(group);
        start_products();
        multiply_keys(shared, held, first, group, scores, products);
        end_turn(group);
<% if predicate_of_tiles %>        // What is known of the predicates on a tile all of whose columns every row sees. Found under the products before.
        Truth leaves = predicate(x, bounds, shared.columns[first].bounds(thread_again() % 32));
<% endif %>#pragma unroll 1
        for (int t = 0;; ++t, ++step) {
            const int stage = uniform(stage_of<STAGES>(step)), next = uniform(stage_of<STAGES>(step + 1));
            wait_products<0>();
            settle(scores);
            settle(products);
            const bool more = t + 1 < tiles;
            if (!more) shared.queries_empty.arrive();
            const StreamedColumns& columns = shared.columns[stage];
            const int thread = thread_again(), lane = thread % 32;
            const Row* rows = header.rows + first_row(thread);
            // Zero, which the compiler does not know.
            const int none = COLUMNS_IN_TURN ? header.seen >> 31 : 0;
            // Columns that all rows see come first: the selected ones, then the window's.
<% if predicate_of_tiles %>            const bool masked = (t + 1) * TILE_KV > header.seen;
            if (leaves.never && !masked) clear(scores);
            else if (!leaves.always || masked) weigh_keys<MASKED>(x, rows, columns, scores, products, sums, lane, none);
<% else %>            if ((t + 1) * TILE_KV > header.seen) weigh_keys<MASKED>(x, rows, columns, scores, products, sums, lane, none);
<% endif %>            else if (t * TILE_KV < header.lasting) weigh_keys<FULL>(x, rows, columns, scores, products, sums, lane, none);
            else weigh_keys<WINDOWED>(x, rows, columns, scores, products, sums, lane, none);
            Left weights[TILE_KV / 16];
            round_weights<TILE_KV>(weights, scores);
            if (more) shared.full[next].wait(full_parity<STAGES>(step + 1));
            take_turn(group);
            start_products();
<% if has_d_q %>            add_weighted<TILE_KV, D>(d_q, weights, descriptor(shared.k[stage], TILE_KV * PANEL / 8), true);
<% endif %>            commit_products();
            // The loop ends here, where no products with the next keys are under way: where its end could be reached with some,
            // ptxas would add a wait.
            if (!more) break;
            start_products();
            multiply_keys(shared, held, next, group, scores, products);
            wait_products<1>();
            shared.empty[stage].arrive();
<% if predicate_of_tiles %>            leaves = predicate(x, bounds, shared.columns[next].bounds(thread_again() % 32));
<% endif %>            wait_products<0>();
            settle(scores);
            settle(products);
            end_turn(group);
        }
        end_turn(group);
        wait_products<0>();
        shared.empty[stage_of<STAGES>(step)].arrive();
        ++step;
        settle(d_q);
        const int thread = thread_again(), row = first_row(thread);
        store_rows(a, x, header.tile, header.rows + row, sums, d_q, header.threshold, row, thread % 32);
<% if has_threshold %>        store_threshold(a, header.tile, header.threshold, group);
<% endif %>        shared.headers_empty[taken % HEADERS].arrive();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_rows(const __grid_constant__ Arguments a) {
<% if not rows_wait_last %>    wait_for_earlier_launches();
<% endif %>    extern __shared__ __align__(1024) unsigned char memory[];
    RowsShared& shared = *reinterpret_cast<RowsShared*>(memory);
    if (threadIdx.x == 0) {
        for (int h = 0; h < HEADERS; ++h) {
            shared.rows_full[h].start(2 * LOADING);
            shared.headers_empty[h].start(COMPUTING);
        }
        shared.queries_empty.start(COMPUTING);
        for (int s = 0; s < STAGES; ++s) {
            shared.full[s].start(2 * LOADING);
            shared.empty[s].start(COMPUTING);
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
<% if rows_wait_last %>    // The sweep of selected keys may be under way still, of which nothing is read here; what it was behind has ended.
    wait_for_earlier_launches();
<% endif %>}
