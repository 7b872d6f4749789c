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
<% include "pieces/softmax_kept.cu" %>
<% include "pieces/warpgroups.cu" %>
<% include "pieces/streamed_columns.cu" %>
<% include "pieces/steps.cu" %>
// While the tensor cores multiply one tile of keys, the softmax of the one before is worked on, from the last tile of keys of
// a tile of queries on to the first of the next.
constexpr int ROWS_OF_LOADER = (TILE_Q + LOADING - 1) / LOADING;  // whose values one loading thread reads
constexpr int HEADERS = QUERY_BUFFERS + 1;  // of tiles of queries: a tile is stored after its queries are free

// What computing warps are told of a tile of queries.
struct Header {
    Tile tile;
    int columns;     // keys that some row sees; −1 after the last tile of queries
    AllSteps steps;  // how tiles of keys are treated
};

struct Shared {
    alignas(1024) elem q[QUERY_BUFFERS][TILE_Q * D];
    alignas(1024) elem k[STAGES][TILE_KV * D];
    alignas(1024) elem v[STAGES][TILE_KV * D];
    Barrier q_full[QUERY_BUFFERS], q_empty[QUERY_BUFFERS];
    Barrier k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    StreamedColumns columns[STAGES];
    Header headers[HEADERS];
    Row rows[QUERY_BUFFERS][TILE_Q];
};
static_assert(sizeof(Shared) <= SHARED, "the launch gives less");

// A place in a ring of buffers, and the parity of the phases of its barriers.
template <int SIZE>
struct Ring {
    unsigned slot = 0, parity = 0;

    __device__ __forceinline__ void advance() {
        ++slot;
        if (slot == SIZE) slot = 0, parity ^= 1;
    }
};

<% include "pieces/tile_loader.cu" %>
<% if has_cap %>// Whether a warp waits between columns: the compiler works on all of them at once where no maximum is waited for, and here has no
// registers for that.
template <Kind KIND>
constexpr bool IN_TURN = KIND == MASKED || TILE_KV > 64 || COLUMNS_IN_TURN;

<% endif %>// Dot products become logits; unseen pairs −inf.
template <Kind KIND, int COLUMNS>
__device__ __forceinline__ void make_logits(const Uniform& x, const Row (&rows)[1][2], const StreamedColumns& columns,
                                            float (&scores)[1][COLUMNS / 8][4], int lane) {
    constexpr bool ALL = KIND != MASKED;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) {
<% if has_cap %>        if (IN_TURN<KIND>) __syncwarp();
<% else %>        if (KIND == MASKED && COLUMNS_IN_TURN) __syncwarp();
<% endif %>        Column c[2];
        columns.read(8 * n + lane % 4 * 2, c);
<% if has_cap %>#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const Row& r = rows[0][h];
            float value[2];
            // An unseen pair, which may be NaN, does not reach the other one.
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                value[e] = logit(x, r, c[e], KIND == WINDOWED ? 1.0f : gate_of(r, c[e]), scores[0][n][2 * h + e]);
                if (!sees<ALL>(x, r, c[e])) value[e] = 0.0f;
            }
            cap_two(value[0], value[1]);
#pragma unroll
            for (int e = 0; e < 2; ++e) scores[0][n][2 * h + e] = sees<ALL>(x, r, c[e]) ? value[e] : -INFINITY_F;
        }
<% else %>#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[0][h];
                float& score = scores[0][n][2 * h + e];
                const float value = logit(x, r, c[e], KIND == WINDOWED ? 1.0f : gate_of(r, c[e]), score);
                score = sees<ALL>(x, r, c[e]) ? value : -INFINITY_F;
            }
<% endif %>    }
}

// Shares of the softmax become weights of the values.
template <Kind KIND, int COLUMNS>
__device__ __forceinline__ void make_weights(const Uniform& x, const Row (&rows)[1][2], const StreamedColumns& columns,
                                             float (&scores)[1][COLUMNS / 8][4]<% if needs_product %>, const float (&products)[1][COLUMNS / 8][4]<% endif %>, int lane) {
    constexpr bool ALL = KIND != MASKED;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) {
<% if has_cap %>        if (IN_TURN<KIND>) __syncwarp();
<% endif %>        Column c[2];
        columns.read(8 * n + lane % 4 * 2, c);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[0][h];
                float& p = scores[0][n][2 * h + e];
                const float value = weight(x, r, c[e], KIND == WINDOWED ? 1.0f : gate_of(r, c[e])<% if needs_product %>, products[0][n][2 * h + e]<% endif %>, p);
                // Of an unseen pair p is 0, and its weight may be anything where it is not bounded.
                p = SEES_ALL<ALL> || WEIGHT_BOUNDED || p > 0.0f ? value : 0.0f;
            }
    }
}

// The 64 rows that a warpgroup works on, of which a lane has parts of two, and where it is among the buffers.
struct Work {
    Row rows[1][2];
<% if predicate_of_tiles %>    RowBounds bounds;  // of the warp's 16 rows
<% endif %>    Left q[D / 16];
    Softmax<1> softmax;
    float o[1][D / 8][4];
    Left weights[TILE_KV / 16];  // of the tile of keys before, whose product with the values comes next
    bool begun;                  // whether o holds anything
    Ring<QUERY_BUFFERS> queries;
    Ring<HEADERS> headers;
    Ring<STAGES> keys, values;
    int row;  // the warp's first one
};

// The tile of keys that the loading warps have made ready is multiplied with the queries, or as many of its columns as are
// wanted.
template <int COLUMNS>
__device__ __forceinline__ void queue_scores(Work& work, Shared& shared, float (&scores)[1][COLUMNS / 8][4]) {
    shared.k_full[work.keys.slot].wait(work.keys.parity);
    start_products();
    const unsigned long long keys = descriptor(shared.k[work.keys.slot], 1);
    if constexpr (QUERIES_IN_REGISTERS) product<TILE_KV, COLUMNS>(scores[0], work.q, keys);
    else product<TILE_Q, TILE_KV, COLUMNS>(scores[0], descriptor(shared.q[work.queries.slot] + work.row / 64 * 64 * PANEL, 1), keys);
    commit_products();
}

// The weights of the tile of keys before are multiplied with its values.
template <int COLUMNS>
__device__ __forceinline__ void queue_values(Work& work, Shared& shared) {
    shared.v_full[work.values.slot].wait(work.values.parity);
    start_products();
    add_weighted<COLUMNS, D>(work.o[0], work.weights, descriptor(shared.v[work.values.slot], TILE_KV * PANEL / 8), work.begun);
    commit_products();
    work.begun = true;
}

// The values of the tile of keys before are done with.
__device__ __forceinline__ void release_values(Work& work, Shared& shared) {
    settle(work.o[0]);
    shared.v_empty[work.values.slot].arrive();
    work.values.advance();
}

// Scores become weights of the values, the softmax taking account of them. With ANEW references grow where they have to, and
// it returns whether the output has to shrink; else whether none had to.
template <Kind KIND, bool ANEW, int COLUMNS>
__device__ __forceinline__ bool weigh(const Uniform& x, Work& work, const StreamedColumns& columns, float (&scores)[1][COLUMNS / 8][4],
                                      float (&shrink)[1][2], int lane) {
<% if needs_product %>    float products[1][COLUMNS / 8][4];
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) products[0][n][e] = scores[0][n][e];
<% endif %>    make_logits<KIND, COLUMNS>(x, work.rows, columns, scores, lane);
<% if bounded_logits %>    work.softmax.exponentials(scores, shrink);
    const bool result = !ANEW;
<% else %>    bool result;
    if constexpr (ANEW) result = work.softmax.exponentials(scores, shrink);
    else result = exponentials_as_is(work.softmax, scores);
<% endif %>    make_weights<KIND, COLUMNS>(x, work.rows, *read_again(&columns), scores<% if needs_product %>, products<% endif %>, lane);
    return result;
}

// Tiles of keys of which the warpgroup sees none are done with when they are there: what is in their buffers before may be in use.
__device__ __forceinline__ void pass_keys(Work& work, Shared& shared) {
    shared.k_full[work.keys.slot].wait(work.keys.parity);
    shared.k_empty[work.keys.slot].arrive();
    work.keys.advance();
}

__device__ __forceinline__ void pass_values(Work& work, Shared& shared, int& tiles) {
#pragma unroll 1
    for (; tiles > 0; --tiles) {
        shared.v_full[work.values.slot].wait(work.values.parity);
        shared.v_empty[work.values.slot].arrive();
        work.values.advance();
    }
}

__device__ __forceinline__ void let_pass(Work& work, Shared& shared, int tiles) {
#pragma unroll 1
    for (; tiles > 0; --tiles) {
        int one = 1;
        pass_keys(work, shared);
        pass_values(work, shared, one);
    }
}

// Stores what the 64 rows of a tile of queries have come to.
__device__ __forceinline__ void store_output(const Arguments& a, const Tile& tile, Work& work, int row, int lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        int i, head;
        const bool exists = row_exists<RowTile>(tile, row + 8 * h, i, head);
        elem* to = a.o + tile.s.row * a.o_batch + (tile.s.start + i) * a.o_position + head * a.o_head;
        store_vector(to, work.o[0], h, work.softmax.inverse[0][h], exists, lane);
        if (exists && lane % 4 == 0) a.lse[(tile.s.row * a.hq + head) * a.n + tile.s.start + i] = work.softmax.lse[0][h];
    }
}

<% if predicate_of_tiles %>// What is known of the predicates on the warp's rows and the tile of keys at hand, all of whose columns every row sees.
__device__ __forceinline__ Truth predicates_of(const Uniform& x, const Work& work, const Shared& shared, int lane) {
    return predicate(x, work.bounds, shared.columns[work.keys.slot].bounds(lane));
}

<% endif %>// Weights of a tile of keys whose scores are ready.
template <bool ANEW>
__device__ __forceinline__ bool weigh_kind(const Uniform& x, Work& work, Shared& shared, Kind kind, float (&scores)[1][TILE_KV / 8][4],
                                           float (&shrink)[1][2], int lane) {
    const StreamedColumns& columns = shared.columns[work.keys.slot];
<% if predicate_of_tiles %>    if (!ANEW && kind == NONE) return clear(scores[0]), true;
<% endif %>    if (kind == FULL) return weigh<FULL, ANEW, TILE_KV>(x, work, columns, scores, shrink, lane);
    if (kind == WINDOWED) return weigh<WINDOWED, ANEW, TILE_KV>(x, work, columns, scores, shrink, lane);
    return weigh<MASKED, ANEW, TILE_KV>(x, work, columns, scores, shrink, lane);
}
<% if not bounded_logits %>
// The same from the products on, which are made again, for rows whose references have to grow: seldom, and any kind of tile can
// be masked.
__device__ __forceinline__ void weigh_anew(const Uniform& x, Work& work, Shared& shared, float (&scores)[1][TILE_KV / 8][4]) {
    const int lane = thread_again() % 32;  // else registers keep addresses through all tiles
    const elem* keys = shared.k[work.keys.slot];
    if constexpr (QUERIES_IN_REGISTERS) {
        products_again(work.q, keys, scores, lane);
    } else {
        Left q[D / 16];
        load_left<TILE_Q>(shared.q[work.queries.slot], work.row, q, lane);
        products_again(q, keys, scores, lane);
    }
    float shrink[1][2];
    if (weigh<MASKED, true, TILE_KV>(x, work, shared.columns[work.keys.slot], scores, shrink, lane)) work.softmax.rescale(work.o, shrink);
}
<% endif %>
// Keys, with their data, and queries that scores were made of are done with.
__device__ __forceinline__ void release_keys(Work& work, Shared& shared, bool last) {
    shared.k_empty[work.keys.slot].arrive();
    if (!QUERIES_IN_REGISTERS && last) shared.q_empty[work.queries.slot].arrive();
}

// Of one tile of keys but the first: its scores are made, and the one before is multiplied with its values meanwhile.
template <int COLUMNS>
__device__ __forceinline__ void queue_tile(Work& work, Shared& shared, float (&scores)[1][COLUMNS / 8][4]<% if predicate_of_tiles %>, const Uniform& x,
                                           Kind& kind, int lane<% endif %>) {
    queue_scores<COLUMNS>(work, shared, scores);
<% if predicate_of_tiles %>    // Between the products: waiting for them in branches by the kind takes 4 % more.
    if (COLUMNS == TILE_KV && kind != MASKED) kind = kind_with(predicates_of(x, work, shared, lane), kind);
<% endif %>    queue_values<TILE_KV>(work, shared);
    wait_products<1>();
    settle(scores[0]);
}

// What is left of a tile when its weights are there.
template <int COLUMNS>
__device__ __forceinline__ void end_tile(Work& work, Shared& shared, const float (&scores)[1][COLUMNS / 8][4], bool last) {
    release_keys(work, shared, last);
    round_weights<COLUMNS>(work.weights, scores[0]);
    work.keys.advance();
}

// One tile of keys but the first; its softmax is worked on under the products of the one before.
__device__ __forceinline__ void attend(const Uniform& x, Work& work, Shared& shared, Kind kind, bool last, int lane) {
    float scores[1][TILE_KV / 8][4], shrink[1][2];
    queue_tile<TILE_KV>(work, shared, scores<% if predicate_of_tiles %>, x, kind, lane<% endif %>);
    // Waited for on either way, behind a branch: the compiler would wait before the softmax.
    if (weigh_kind<false>(x, work, shared, kind, scores, shrink, lane)) {
        wait_products<0>();
        release_values(work, shared);
    } else {
        wait_products<0>();
        release_values(work, shared);
<% if not bounded_logits %>        weigh_anew(x, work, shared, scores);
<% endif %>    }
    end_tile<TILE_KV>(work, shared, scores, last);
}

// The first half of the last tile, where no more of its columns have keys.
__device__ __forceinline__ void attend_half(const Uniform& x, Work& work, Shared& shared, int lane) {
    float scores[1][TILE_KV / 16][4], shrink[1][2];
<% if predicate_of_tiles %>    Kind kind = MASKED;
<% endif %>    queue_tile<TILE_KV / 2>(work, shared, scores<% if predicate_of_tiles %>, x, kind, lane<% endif %>);
    const bool shrinks = weigh<MASKED, true, TILE_KV / 2>(x, work, shared.columns[work.keys.slot], scores, shrink, lane);
    wait_products<0>();
    release_values(work, shared);
    if (shrinks) work.softmax.rescale(work.o, shrink);
    end_tile<TILE_KV / 2>(work, shared, scores, true);
}

__device__ __forceinline__ void attend_tiles(const Arguments& a, Shared& shared) {
    const int thread = threadIdx.x - LOADING, lane = thread % 32, row = uniform(thread / 32) * 16;
    Work work;
    work.row = row;
    for (;; work.queries.advance(), work.headers.advance()) {
        const unsigned slot = work.queries.slot;
        shared.q_full[slot].wait(work.queries.parity);
        const Header& header = shared.headers[work.headers.slot];
        if (header.columns < 0) break;
        const int columns = header.steps.columns(header.tile, header.columns, row), tiles = tile_steps(columns);
<% if not by_stretches %>        const int full = header.steps.full, windowed = header.steps.windowed;
<% endif %>        const Uniform x = load_uniform(a, header.tile.s, header.tile.g);
#pragma unroll
        for (int h = 0; h < 2; ++h) work.rows[0][h] = shared.rows[slot][row + 8 * h + lane / 4];
<% if predicate_of_tiles %>        work.bounds = row_bounds(header.tile.from, header.tile.to - 1, work.rows[0][0], work.rows[0][1]);
<% endif %>        if constexpr (QUERIES_IN_REGISTERS) {
            // The lane anew, else registers keep the addresses through a tile.
            load_left<TILE_Q>(shared.q[slot], row, work.q, thread_again() % 32);
            shared.q_empty[slot].arrive();
        }
<% if by_stretches %>        const Steps& steps = header.steps.of[row / 64];
        int stretch = 0, t = 0, passed = 0;  // tiles of keys whose values are still to pass
        if (is_passed(stretch)) {
            t = steps.ends[stretch];
            let_pass(work, shared, t);
        }
        while (steps.ends[stretch] == t) ++stretch;
        const Kind kind_of_first = kind_of(stretch);
<% else %>        int t = 0;
        const Kind kind_of_first = kind_of(full, windowed, 0);
<% endif %>        float scores[1][TILE_KV / 8][4], shrink[1][2];
        queue_scores<TILE_KV>(work, shared, scores);
        wait_products<0>();
        settle(scores[0]);
        work.softmax.start(x, work.rows);
        work.begun = false;
<% if predicate_of_tiles %>        const Kind kind = predicates_of(x, work, shared, lane).always ? kind_of_first : MASKED;
        weigh_kind<true>(x, work, shared, kind, scores, shrink, lane);
<% else %>        weigh_kind<true>(x, work, shared, kind_of_first, scores, shrink, lane);
<% endif %>        ++t;
        end_tile<TILE_KV>(work, shared, scores, t == tiles);
        const bool half = t < tiles && columns <= tiles * TILE_KV - TILE_KV / 2;
        const int whole = half ? tiles - 1 : tiles;
<% if by_stretches %>#pragma unroll 1
        for (; stretch < STRETCHES; ++stretch) {
            const int end = steps.ends[stretch];
            const Kind kind = static_cast<Kind>(uniform(kind_of(stretch)));
            for (; is_passed(stretch) && t < end; ++t, ++passed) pass_keys(work, shared);
#pragma unroll 1
            for (; t < min(end, whole); ++t) {
                attend(x, work, shared, kind, t + 1 == tiles, lane);
<% if window_first %>                pass_values(work, shared, passed);
<% endif %>            }
        }
<% else %>#pragma unroll 1
        for (; t < whole; ++t) attend(x, work, shared, kind_of(full, windowed, t), t + 1 == tiles, lane);
<% endif %>        if (half) {
            attend_half(x, work, shared, lane);
<% if window_first %>            pass_values(work, shared, passed);
<% endif %>            queue_values<TILE_KV / 2>(work, shared);
        } else {
            queue_values<TILE_KV>(work, shared);
        }
        work.softmax.finish();
        wait_products<0>();
        release_values(work, shared);
        // Found again: what is kept through the sweep for this is spilled.
        const Header& again = *read_again(&header);
        let_pass(work, shared, tile_steps(again.columns) - tile_steps(again.steps.columns(again.tile, again.columns, row)));
<% if window_first %>        // The lane anew: else registers keep what follows from it.
        const int own = thread_again() % 32;
        store_output(a, again.tile, work, row + own / 4, own);
<% else %>        store_output(a, again.tile, work, row + lane / 4, lane);
<% endif %>    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR) forward(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    if (threadIdx.x == 0) {
        for (int s = 0; s < QUERY_BUFFERS; ++s) {
            shared.q_full[s].start(2 * LOADING);
            shared.q_empty[s].start(COMPUTING);
        }
        for (int s = 0; s < STAGES; ++s) {
            shared.k_full[s].start(2 * LOADING);
            shared.v_full[s].start(LOADING);
            shared.k_empty[s].start(COMPUTING);
            shared.v_empty[s].start(COMPUTING);
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
