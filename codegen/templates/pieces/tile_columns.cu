// The keys that some query of a tile sees, as columns, those first that every query sees:
//   selected keys alive through the whole tile, window keys that every query has in its window,
//   then selected keys that expire within the tile, keys that leave the window, and keys after the first query.
// Selected here means past its window when the tile starts; keys that pass it within the tile are among the window's.
struct TileColumns {
    const int* selected;
    int counts[5];
    int window_from, shared_from, first;  // first window key, first one that all queries share, first query
    int full, total;
};

__device__ __forceinline__ TileColumns tile_columns(const Arguments& a, const Tile& tile) {
    const long long list = static_cast<long long>(tile.g) * block_count<RowTile::POSITIONS>(a) + tile.id;
    const int full = a.tile_counts[2 * list], all = a.tile_counts[2 * list + 1];
    TileColumns t;
    t.selected = a.tile_keys + list * TILE_KEYS;
    t.first = tile.from;
    t.window_from = max(0, tile.from - WINDOW + 1);
    t.shared_from = min(max(t.window_from, tile.to - WINDOW), tile.from + 1);
    t.counts[0] = full;
    t.counts[1] = tile.from + 1 - t.shared_from;
    t.counts[2] = all - full;
    t.counts[3] = max(0, t.shared_from - t.window_from);
    t.counts[4] = tile.to - tile.from - 1;
    t.full = t.counts[0] + t.counts[1];
    t.total = t.full + t.counts[2] + t.counts[3] + t.counts[4];
    return t;
}

// The key of a column, −1 beyond the last; `window` says whether all queries have it in their window.
__device__ __forceinline__ int column_key(const TileColumns& t, int column, bool& window) {
    window = false;
    int c = column;
    if (c < t.counts[0]) return t.selected[c];
    if ((c -= t.counts[0]) < t.counts[1]) {
        window = true;
        return t.shared_from + c;
    }
    if ((c -= t.counts[1]) < t.counts[2]) return t.selected[t.counts[0] + c];
    if ((c -= t.counts[2]) < t.counts[3]) return t.window_from + c;
    if ((c -= t.counts[3]) < t.counts[4]) return t.first + 1 + c;
    return -1;
}

__device__ __forceinline__ Column load_column(const Arguments& a, const Uniform& x, const Tile& tile, int j, bool window) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    const Sequence& s = tile.s;
    c.from = j;
    c.to = a.expiry[(s.row * a.hkv + tile.g) * a.n + s.start + j];
<% if uses_gate %>    c.score = window ? INFINITY_F : gate_score(a, s, tile.g, j);
<% endif %>    load_column_values(a, x, s, tile.g, c);
    return c;
}

// Starts copying key and value rows of one tile of columns; columns without a key become zero rows.
template <int THREADS>
__device__ __forceinline__ void copy_key_rows(const Arguments& a, const Tile& tile, const int* keys, elem* k_rows, elem* v_rows) {
    constexpr int PER_ROW = D * sizeof(elem) / 16;
    const elem* k = a.k + tile.s.row * a.k_batch + tile.s.start * a.k_position + tile.g * a.k_head;
    const elem* v = a.v + tile.s.row * a.v_batch + tile.s.start * a.v_position + tile.g * a.v_head;
#pragma unroll
    for (int at = threadIdx.x; at < TILE_KV * PER_ROW; at += THREADS) {
        const int row = at / PER_ROW, part = at % PER_ROW * (16 / sizeof(elem));
        const int j = keys[row];
        copy_async(k_rows + row * ROW + part, k + max(j, 0) * a.k_position + part, j >= 0);
        copy_async(v_rows + row * ROW + part, v + max(j, 0) * a.v_position + part, j >= 0);
    }
}
