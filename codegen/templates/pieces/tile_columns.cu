<% if window_first %><% include "pieces/columns_window_first.cu" %>
<% else %><% include "pieces/columns_by_kind.cu" %>
<% endif %>
__device__ __forceinline__ Column load_column(const Arguments& a, const Uniform& x, const Tile& tile, int j, bool window) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    const Sequence& s = tile.s;
    c.from = window ? j : j + WINDOW;
    c.to = window ? j + WINDOW : a.expiry[(s.row * a.hkv + tile.g) * a.n + s.start + j];
<% if uses_gate %>    c.score = window ? INFINITY_F : gate_score(a, s, tile.g, j);
<% endif %>    load_column_values(a, x, s, tile.g, c);
    return c;
}

// What a block knows of its tile, for every thread: in registers it would be spilled.
struct alignas(16) TileData {
    Tile tile;
    TileColumns columns;
    const elem* k;  // of the sequence and key-value head
    const elem* v;
};

__device__ __forceinline__ TileData tile_data(const Arguments& a, const Tile& tile) {
    return {tile, tile_columns(a, tile), a.k + tile.s.row * a.k_batch + tile.s.start * a.k_position + tile.g * a.k_head,
            a.v + tile.s.row * a.v_batch + tile.s.start * a.v_position + tile.g * a.v_head};
}

// The row of a token. Counted in bytes, and without a sign: one product of 32 by 64 bits.
__device__ __forceinline__ const elem* row_of_token(const elem* first, unsigned token, long long stride) {
    return reinterpret_cast<const elem*>(reinterpret_cast<const char*>(first) + token * (stride * sizeof(elem)));
}

// Starts copying key and value rows of one tile of columns; columns without a key become zero rows.
template <int THREADS>
__device__ __forceinline__ void copy_key_rows(const Arguments& a, const TileData& data, const int* keys, elem* k_rows, elem* v_rows) {
    using Copies = RowCopies<TILE_KV, THREADS>;
    const elem* k = data.k + Copies::element();
    const elem* v = data.v + Copies::element();
    keys += Copies::row();
    k_rows += Copies::row() * ROW + Copies::element();
    v_rows += Copies::row() * ROW + Copies::element();
#pragma unroll
    for (int n = 0; n < TILE_KV; n += Copies::AT_ONCE) {
        if (!Copies::has_row(n)) break;
        const int j = keys[n];
        const elem* k_row = row_of_token(k, max(j, 0), a.k_position);
        const elem* v_row = row_of_token(v, max(j, 0), a.v_position);
#pragma unroll
        for (int c = 0; c < Copies::COPIES; c += Copies::WIDTH) {
            if (!Copies::has_copy(c)) break;
            copy_async(k_rows + n * ROW + c * Copies::SIZE, k_row + c * Copies::SIZE, j >= 0);
            copy_async(v_rows + n * ROW + c * Copies::SIZE, v_row + c * Copies::SIZE, j >= 0);
        }
    }
}
