<% include "pieces/key_tiles.cu" %>
<% include "pieces/key_gradients.cu" %>
// The key sweep: a tile of keys stays, the queries that see them stream past. Gives d_k, d_v and sums over queries. One
// warpgroup works on pairs while the tensor cores multiply for the other.
//
// Pairs in the window are swept by blocks of consecutive keys. Selected keys are swept for spans of queries, two chunks each;
// what a span gives is left in `partial`, collected over the spans in their order, and added by the window's sweep.

// The data of a streamed tile's rows, value by value: those of neighbouring rows are read together.
struct StreamedRows {
    int i[STREAM], head[STREAM];
<% for f in row_fields %>    ${ f.ty }$ ${ f.name }$[STREAM];
<% endfor %>    int from[2];  // first position of the tile

    __device__ __forceinline__ void write(int at, const Row& r) {
        i[at] = r.i;
        head[at] = r.head;
<% for f in row_fields %>        ${ f.name }$[at] = r.${ f.name }$;
<% endfor %>    }

    // Rows `at`, which is even, and `at` + 1.
    __device__ __forceinline__ void read(int at, Row (&r)[2]) const {
        const auto two_i = read_two(i + at), two_head = read_two(head + at);
<% for f in row_fields %>        const auto two_${ f.name }$ = read_two(${ f.name }$ + at);
<% endfor %>#pragma unroll
        for (int e = 0; e < 2; ++e) {
            r[e].i = two_i.of[e];
            r[e].head = two_head.of[e];
<% for f in row_fields %>            r[e].${ f.name }$ = two_${ f.name }$.of[e];
<% endfor %>        }
    }
<% if predicate_of_tiles %>
    __device__ __forceinline__ RowBounds bounds(int lane) const {
        return {<% for f in row_bounds %><% if not loop.first %>, <% endif %><% if f.is_position %>Bounds<${ f.ty }$>(from[0], from[0] + StreamTile::POSITIONS - 1)<% else %>bounds_of(${ f.name }$, lane)<% endif %><% endfor %>};
    }
<% endif %>};

struct KeysShared {
    alignas(1024) elem k[TILE_Q * D];
    alignas(1024) elem v[TILE_Q * D];
    alignas(1024) elem q[STREAMED][STREAM * D];
    alignas(1024) elem d_o[STREAMED][STREAM * D];
    StreamedRows rows[STREAMED];
    Column columns[TILE_Q];
    // The tile that stays and the one before, whose gradients are still being stored; the queries that see some key of each
    // loading warp's share; how many tiles stream.
    KeyTile keys[2];
    int2 seen[4];
    int2 seen_whole[TILE_Q / 16];  // the queries that see all of 16 keys
    int tiles;
    int next;
    Barrier keys_full, keys_empty, full[STREAMED], empty[STREAMED];
};
static_assert(sizeof(KeysShared) <= KEYS_SHARED, "the launch gives less");

// Tile number `id` of all key-value heads; false for an empty one.
template <bool SELECTED>
__device__ __forceinline__ bool find_keys(const Arguments& a, long long id, KeyTile& keys) {
    if constexpr (SELECTED) {
        // What is beyond the tiles that most lists fill comes last: tiles of few keys, which take less time.
        const long long spans = block_count<SPAN>(a), usual = spans * a.hkv * FILLED_TILES;
        const int tiles = id < usual ? FILLED_TILES : SPAN_TILES - FILLED_TILES;
        const long long list = (id < usual ? id : id - usual) / tiles;
        const int tile = static_cast<int>((id < usual ? id : id - usual + FILLED_TILES) - list * tiles);
        return find_selected(a, list % spans, tile, list / spans, keys);
    } else {
        const int blocks = block_count<TILE_Q>(a);
        return find_consecutive(a, id % blocks, id / blocks, keys);
    }
}

template <bool SELECTED>
__device__ __forceinline__ long long key_tiles(const Arguments& a) {
    return SELECTED ? static_cast<long long>(SPAN_TILES) * block_count<SPAN>(a) * a.hkv : block_count<TILE_Q>(a) * a.hkv;
}

// The queries that see some key of the shares of loading warps [begin, end).
__device__ __forceinline__ int2 seen_by(const KeysShared& shared, int begin, int end) {
    int2 all = shared.seen[begin];
    for (int w = begin + 1; w < end; ++w) all = {min(all.x, shared.seen[w].x), max(all.y, shared.seen[w].y)};
    return all;
}

template <bool SELECTED>
__device__ __forceinline__ void load_key_tiles(const Arguments& a, KeysShared& shared) {
    const int warp = threadIdx.x / 32;
    int step = 0;
    for (int taken = 0;; ++taken) {
        KeyTile keys;
        long long id;
        do id = take_next(a.taken + (SELECTED ? 1 : 2), shared.next);
        while (id < key_tiles<SELECTED>(a) && !find_keys<SELECTED>(a, id, keys));
        const bool done = id >= key_tiles<SELECTED>(a);
        int own;
        const int j = !done && own_row<TILE_Q>(own) ? key_of<SELECTED>(a, keys, own) : -1;
        const Uniform x = done ? Uniform{} : load_uniform(a, keys.s, keys.g);
        const Column c = key_column<SELECTED>(a, x, keys, j);
        shared.keys_empty.wait(taken & 1 ^ 1);
        if (done) {
            shared.tiles = -1;
            shared.keys_full.arrive();
            shared.keys_full.arrive_when_copied();
            return;
        }
        if (own_row<TILE_Q>(own)) shared.columns[own] = c;
        const Vectors k(a.k, a.k_batch, a.k_position, a.k_head, keys.s, 0), v(a.v, a.v_batch, a.v_position, a.v_head, keys.s, 0);
        copy_vectors<TILE_Q, 2>(shared.k, k.start, k.of(max(j, 0), keys.g));
        copy_vectors<TILE_Q, 2>(shared.v, v.start, v.of(max(j, 0), keys.g));
        const int first = __reduce_min_sync(~0u, j < 0 ? 0x7fffffff : max(c.from, keys.from));
        const int last = __reduce_max_sync(~0u, j < 0 ? 0 : min(c.to, keys.to));
        if (threadIdx.x % 32 == 0) shared.seen[warp] = {first, last};
        const unsigned half = 0xffffu << threadIdx.x % 32 / 16 * 16;
        const int latest_from = __reduce_max_sync(half, j < 0 ? 0x7fffffff : c.from);
        const int earliest_to = __reduce_min_sync(half, j < 0 ? 0 : min(c.to, keys.to));
        if (own_row<TILE_Q>(own) && own % 16 == 0) shared.seen_whole[own / 16] = {latest_from, earliest_to};
        meet(LOADING_BARRIER, LOADING);
        const int2 seen = seen_by(shared, 0, 4);
        const int tiles = streamed_tiles(seen.x, seen.y);
        keys.from = seen.x;
        keys.to = seen.y;
        if (threadIdx.x == 0) {
            shared.keys[taken % 2] = keys;
            shared.tiles = tiles;
        }
        shared.keys_full.arrive();
        shared.keys_full.arrive_when_copied();

        const Vectors q(a.q, a.q_batch, a.q_position, a.q_head, keys.s, 0), d_o(a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, keys.s, 0);
#pragma unroll 1
        for (int t = 0; t < tiles; ++t, ++step) {
            const Tile tile = streamed_tile(keys, t);
            const int stage = stage_of<STREAMED>(step);
            Row r = {};
            r.i = -1;
            const bool has_row = own_row<STREAM>(own);
            if (has_row) r = load_row<StreamTile>(a, x, tile, own);
            shared.empty[stage].wait(empty_parity<STREAMED>(step));
            // Rows that stand for no query have the vectors of some.
            const int i = r.i < 0 ? tile.from : r.i, head = r.i < 0 ? keys.g * GROUP : r.head;
            copy_vectors<STREAM, 4>(shared.q[stage], q.start, q.of(i, head));
            copy_vectors<STREAM, 4>(shared.d_o[stage], d_o.start, d_o.of(i, head));
            if (has_row) shared.rows[stage].write(own, r);
            if (threadIdx.x == 0) shared.rows[stage].from[0] = tile.from;
            shared.full[stage].arrive();
            shared.full[stage].arrive_when_copied();
        }
    }
}

// Products of vectors become weights of the queries; sums grow.
template <bool SELECTED, bool FULL>
__device__ __forceinline__ void weigh_rows(const Uniform& x, const Column* keys, const StreamedRows& rows,
                                           float (&scores)[STREAM / 8][4], float (&products)[STREAM / 8][4], KeyGradients<1>& sums,
                                           int lane) {
    const int at = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < STREAM / 8; ++n) {
        // Keeps the compiler from reading the data of many rows ahead, into registers that there are not.
        if (n % (FULL ? 4 : 2) == 0) __syncwarp();
        Row r[2];
        rows.read(8 * n + at, r);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Column& c = keys[8 * h];
                const float gate = SELECTED ? gate_of(r[e], c) : 1.0f;
                // Rows that stand for no query see nothing, in full tiles too.
                const bool visible = (StreamTile::FILLED || r[e].i >= 0) && sees<FULL>(x, r[e], c);
                KeyPair pair = key_pair(x, r[e], c, gate, scores[n][2 * h + e], products[n][2 * h + e]);
                if (!visible) pair = {};
                scores[n][2 * h + e] = pair.weight_k;
                products[n][2 * h + e] = pair.weight_v;
<% for n in key_sums %>                <% if n.is_d_gate %>if (is_fraction(gate)) <% endif %>sums.sums[0][h][${ n.index }$] += pair.sum_${ n.index }$;
<% endfor %>            }
    }
}

// What is under way of a streamed tile, then known.
struct StreamedWork {
    float scores[STREAM / 8][4], products[STREAM / 8][4];
    Left of_k[STREAM / 16], of_v[STREAM / 16];
};

// Starts the products of the 64 keys of a warpgroup and a streamed tile that is there: k · q.
__device__ __forceinline__ void multiply_queries(const KeysShared& shared, int stage, int group, StreamedWork& work) {
    start_products();
    product<TILE_Q, STREAM, STREAM>(work.scores, descriptor(shared.k + 64 * group * PANEL, 1), descriptor(shared.q[stage], 1));
    commit_products();
}

// The same of v · d_o.
__device__ __forceinline__ void multiply_gradients(const KeysShared& shared, int stage, int group, StreamedWork& work) {
    start_products();
    product<TILE_Q, STREAM, STREAM>(work.products, descriptor(shared.v + 64 * group * PANEL, 1), descriptor(shared.d_o[stage], 1));
    commit_products();
}

// Starts the sums over a streamed tile's queries: of its weights with d_o and q.
__device__ __forceinline__ void add_rows_of(const KeysShared& shared, int stage, const StreamedWork& work, KeyGradients<1>& sums) {
    start_products();
<% if has_d_v %>    add_weighted<STREAM, D>(sums.d_v[0], work.of_v, descriptor(shared.d_o[stage], STREAM * PANEL / 8), true);
<% endif %><% if has_d_k %>    add_weighted<STREAM, D>(sums.d_k[0], work.of_k, descriptor(shared.q[stage], STREAM * PANEL / 8), true);
<% endif %>    commit_products();
}

// Products of a streamed tile become weights, rounded.
template <bool SELECTED>
__device__ __forceinline__ void weigh_streamed(const Uniform& x, const KeysShared& shared, int stage, StreamedWork& work, KeyGradients<1>& sums<% if predicate_of_tiles %>,
                                               Truth leaves<% endif %>) {
    const int thread = thread_again(), lane = thread % 32, row = first_row(thread);
    const StreamedRows& rows = shared.rows[stage];
    const int2 whole = shared.seen_whole[row / 16];
    // Asked of the warp, whose rows are all among the 16: of a condition that may differ between threads the compiler makes a second
    // copy of what follows, for warps that have come apart.
    if (__all_sync(~0u, <% if predicate_of_tiles %>leaves.always && <% endif %>whole.x <= rows.from[0] && rows.from[0] + StreamTile::POSITIONS <= whole.y))
        weigh_rows<SELECTED, true>(x, shared.columns + row, rows, work.scores, work.products, sums, lane);
    else
        weigh_rows<SELECTED, false>(x, shared.columns + row, rows, work.scores, work.products, sums, lane);
    round_weights<STREAM>(work.of_k, work.scores);
    round_weights<STREAM>(work.of_v, work.products);
}

<% if predicate_of_tiles %>// What is known of the predicates on the warp's 16 keys, where all of them are there, and a streamed tile.
__device__ __forceinline__ Truth predicates_of(const Uniform& x, const KeysShared& shared, int stage) {
    const int lane = thread_again() % 32, own = lane / 4;
    return predicate(x, shared.rows[stage].bounds(lane), column_bounds(shared.columns + first_row(thread_again()) - own, own));
}

<% endif %>// Sweeps streamed tiles, from `step` to the one before `end`, past the 64 keys of a warpgroup. In its turn it has the tensor cores
// for itself, but while the last of its products run: the sums over a tile's queries, then the products of the next. While it
// makes weights of them it is the other's turn. A sweep takes one turn more than it has tiles.
template <bool SELECTED>
__device__ __forceinline__ void sweep_queries(const Uniform& x, KeysShared& shared, KeyGradients<1>& sums, int& step, int end, int group) {
    StreamedWork work;
    const int first = uniform(stage_of<STREAMED>(step));
    shared.full[first].wait(full_parity<STREAMED>(step));
    take_turn(group_again());
    multiply_queries(shared, first, group, work);
    multiply_gradients(shared, first, group, work);
    end_turn(group_again());
    wait_products<0>();
    settle(work.scores);
    settle(work.products);
#pragma unroll 1
    for (;; ++step) {
        const int stage = uniform(stage_of<STREAMED>(step));
<% if predicate_of_tiles %>        const Truth leaves = predicates_of(x, shared, stage);
<% endif %>        weigh_streamed<SELECTED>(x, shared, stage, work, sums<% if predicate_of_tiles %>, leaves<% endif %>);
        if (step + 1 == end) break;
        const int next = uniform(stage_of<STREAMED>(step + 1));
        shared.full[next].wait(full_parity<STREAMED>(step + 1));
        take_turn(group_again());
        add_rows_of(shared, stage, work, sums);
        // Registers of both products are there only when the weights are done with.
        multiply_queries(shared, next, group, work);
        wait_products<1>();
        shared.empty[stage].arrive();
        multiply_gradients(shared, next, group, work);
        wait_products<1>();
        settle(work.scores);
        end_turn(group_again());
        wait_products<0>();
        settle(work.products);
    }
    shared.keys_empty.arrive();
    const int stage = uniform(stage_of<STREAMED>(step));
    take_turn(group_again());
    add_rows_of(shared, stage, work, sums);
    wait_products<0>();
    end_turn(group_again());
    shared.empty[stage].arrive();
    ++step;
    settle(sums.d_k[0]);
    settle(sums.d_v[0]);
}

// Lets streamed tiles pass in which nobody sees a key of the warpgroup, and as many turns.
__device__ __forceinline__ void let_pass(KeysShared& shared, int& step, int tiles) {
#pragma unroll 1
    for (; tiles > 0; --tiles, ++step) {
        shared.full[stage_of<STREAMED>(step)].wait(full_parity<STREAMED>(step));
        shared.empty[stage_of<STREAMED>(step)].arrive();
        take_turn(group_again());
        end_turn(group_again());
    }
}

template <bool SELECTED>
__device__ __forceinline__ void compute_keys(const Arguments& a, KeysShared& shared) {
    int step = 0;
    const int group = own_group();
    start_turns(group_again());
    for (int taken = 0;; ++taken) {
        shared.keys_full.wait(taken & 1);
        const int tiles = shared.tiles;
        if (tiles < 0) return;
        const KeyTile& keys = shared.keys[taken % 2];
        const Uniform x = load_uniform(a, keys.s, keys.g);
        // Of the streamed tiles, those that the warpgroup lets pass before its own.
        const int2 seen = seen_by(shared, 4 / GROUPS * group, 4 / GROUPS * (group + 1));
        const bool any = seen.x < seen.y;
        const int before = any ? (seen.x - keys.from) / StreamTile::POSITIONS * StreamTile::PARTS : tiles;
        const int own = any ? streamed_tiles(keys.from, seen.y) - before : 0;
        const int after = tiles - before - own;
        KeyGradients<1> sums = {};
        let_pass(shared, step, before);
        if (own > 0) {
            sweep_queries<SELECTED>(x, shared, sums, step, step + own, group);
        } else {
            // As many turns as a sweep takes.
            shared.keys_empty.arrive();
            take_turn(group_again());
            end_turn(group_again());
        }
        let_pass(shared, step, after);
        const int thread = thread_again(), row = first_row(thread), lane = thread % 32;
        if constexpr (SELECTED) {
            store_partials(a, keys, sums, row, lane);
        } else {
<% if window_waits_late %>            // Here alone it reads what the launch before it wrote: collected sums.
            wait_for_earlier_launches();
<% endif %>            store_gradients(a, keys, sums, row, lane);
        }
    }
}

template <bool SELECTED>
__device__ __forceinline__ void sweep_keys(const Arguments& a, KeysShared& shared) {
    if (threadIdx.x == 0) {
        shared.keys_full.start(2 * LOADING);
        shared.keys_empty.start(COMPUTING);
        for (int s = 0; s < STREAMED; ++s) {
            shared.full[s].start(2 * LOADING);
            shared.empty[s].start(COMPUTING);
        }
        fence_barriers();
    }
    __syncthreads();
    if (threadIdx.x < LOADING) {
        give_registers<KEYS_LOADING_REGISTERS>();
        load_key_tiles<SELECTED>(a, shared);
    } else {
        take_registers<KEYS_COMPUTING_REGISTERS>();
        compute_keys<SELECTED>(a, shared);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_keys_selected(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(1024) unsigned char memory[];
    sweep_keys<true>(a, *reinterpret_cast<KeysShared*>(memory));
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_keys_window(const __grid_constant__ Arguments a) {
<% if not window_waits_late %>    wait_for_earlier_launches();
<% endif %>    extern __shared__ __align__(1024) unsigned char memory[];
    sweep_keys<false>(a, *reinterpret_cast<KeysShared*>(memory));
}
