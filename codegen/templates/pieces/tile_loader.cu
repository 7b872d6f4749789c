// Queries that do not exist become zero.
__device__ __forceinline__ void copy_queries(const Arguments& a, const Tile& tile, elem* to, int own) {
    const Vectors queries(a.q, a.q_batch, a.q_position, a.q_head, tile.s, tile.from);
    const unsigned tile_address = shared_address(to);
    const unsigned long long base = reinterpret_cast<unsigned long long>(queries.start);
#pragma unroll 2
    for (int at = own; at < TILE_Q * PIECES; at += LOADING) {
        const int row = at / PIECES, piece = at % PIECES;
        int i, h;
        const bool valid = row_exists<RowTile>(tile, row, i, h);
        const unsigned vector = valid ? queries.of(i - tile.from, h) + piece : 0;
        copy_16(tile_address + static_cast<unsigned>(sizeof(elem)) * place<TILE_Q>(row, 8 * piece), base + 16ull * vector, valid);
    }
}

// Where the loading warps are among the buffers: values follow keys by one tile.
struct Loaded {
    Ring<QUERY_BUFFERS> queries;
    Ring<HEADERS> headers;
    Ring<STAGES> keys, values;
};

// Tells the computing warps of the next tile of queries.
__device__ __forceinline__ void announce(const Arguments& a, const Tile& tile, const TileColumns& all, const Row (&rows)[ROWS_OF_LOADER],
                                         Shared& shared, Loaded& at, int own) {
    const unsigned slot = at.queries.slot;
    shared.q_empty[slot].wait(at.queries.parity ^ 1);
    copy_queries(a, tile, shared.q[slot], own);
    shared.q_full[slot].arrive_when_copied();
#pragma unroll
    for (int n = 0; n < ROWS_OF_LOADER; ++n)
        if (own + n * LOADING < TILE_Q) shared.rows[slot][own + n * LOADING] = rows[n];
    if (own == 0) {
        Header& header = shared.headers[at.headers.slot];
        header.tile = tile, header.columns = all.total;
        header.steps.write(all, tile);
    }
    shared.q_full[slot].arrive();
    at.queries.advance(), at.headers.advance();
}

// Announces one tile of queries and copies its keys, tile by tile, and the values one tile after them, since they are needed
// later. Every lane looks up one key, which is those of TOGETHER tiles at a time: two groups of tiles before a key is copied, and
// its data one group before, so that no step waits for either. The first keys are copied before the queries, which wait for the
// tile of queries before. Columns without a key get any: they are masked.
__device__ __forceinline__ void load_tile(const Arguments& a, const Tile& tile, Shared& shared, Loaded& at, int own) {
    constexpr int TOGETHER = 32 / SHARE<TILE_KV>;
    const int lane = own % 32, own_tile = lane / SHARE<TILE_KV>, column = own / 32 * SHARE<TILE_KV> + lane % SHARE<TILE_KV>;
    const int ahead = own_tile * TILE_KV + column;
    const TileColumns all = tile_columns(a, tile);
    const Uniform x = load_uniform(a, tile.s, tile.g);
    const Vectors keys(a.k, a.k_batch, a.k_position, a.k_head, tile.s, 0), values(a.v, a.v_batch, a.v_position, a.v_head, tile.s, 0);
    Row rows[ROWS_OF_LOADER];
#pragma unroll
    for (int n = 0; n < ROWS_OF_LOADER; ++n) rows[n] = load_row<RowTile>(a, x, tile, own + n * LOADING);
    const int tiles = tile_steps(all.total);
    bool window = false, next_window = false;
    int j = column_key(all, ahead, window), next = column_key(all, TOGETHER * TILE_KV + ahead, next_window);
    unsigned own_value = 0;
    Column c = load_column(a, x, tile, j, window);
#pragma unroll 1
    for (int from = 0; from <= tiles; from += TOGETHER) {
        const Column own_column = c;
        const int key = j < 0 ? tile.from : j;
        const unsigned own_key = keys.of(key, tile.g), value_before = own_value;
        own_value = values.of(key, tile.g);
        j = next, window = next_window;
        c = load_column(a, x, tile, j, window);
        next = column_key(all, (from + 2 * TOGETHER) * TILE_KV + ahead, next_window);
#pragma unroll
        for (int e = 0; e < TOGETHER; ++e) {
            if (from + e < tiles) {
                shared.k_empty[at.keys.slot].wait(at.keys.parity ^ 1);
                copy_vectors<TILE_KV, 8>(shared.k[at.keys.slot], keys.start, own_key, e * SHARE<TILE_KV>);
                shared.k_full[at.keys.slot].arrive_when_copied();
                shared.columns[at.keys.slot].write(own_tile == e, column, own_column);
                shared.k_full[at.keys.slot].arrive();
                at.keys.advance();
            }
            if (e == 0 && from == 0) {
                announce(a, tile, all, rows, shared, at, own);
            } else if (from + e <= tiles) {
                shared.v_empty[at.values.slot].wait(at.values.parity ^ 1);
                copy_vectors<TILE_KV, 8>(shared.v[at.values.slot], values.start, e > 0 ? own_value : value_before,
                                         (e + TOGETHER - 1) % TOGETHER * SHARE<TILE_KV>);
                shared.v_full[at.values.slot].arrive_when_copied();
                at.values.advance();
            }
        }
    }
}

__device__ __forceinline__ void load_tiles(const Arguments& a, Shared& shared) {
    const int own = threadIdx.x % LOADING, blocks = block_count<POSITIONS>(a);
    Loaded at;
    for (unsigned n = blockIdx.x; n < blocks * static_cast<unsigned>(a.hkv); n += gridDim.x) {
        Tile tile;
        if (find_tile_in_order<RowTile>(a, n, tile)) load_tile(a, tile, shared, at, own);
    }
    const unsigned slot = at.queries.slot;
    shared.q_empty[slot].wait(at.queries.parity ^ 1);
    if (own == 0) shared.headers[at.headers.slot].columns = -1;
    shared.q_full[slot].arrive_when_copied();
    shared.q_full[slot].arrive();
}
