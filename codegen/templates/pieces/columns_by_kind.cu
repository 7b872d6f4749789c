// The keys that some query of a tile sees, as columns, those first that every query sees:
//   selected keys alive through the whole tile, window keys that every query has in its window,
//   then selected keys that expire or leave the window within the tile, keys that leave the window, and keys after the
//   first query.
// A key that leaves the window within the tile and is selected then has a column of either kind, for the queries before and after.
struct TileColumns {
    const int* selected;
    // Where each of the five kinds ends.
    int lasting, shared, expiring, leaving, total;
    // Keys of columns of the contiguous kinds, less the column.
    int shared_offset, leaving_offset, later_offset;
};

__device__ __forceinline__ TileColumns tile_columns(const Arguments& a, const Tile& tile) {
    const long long list = static_cast<long long>(tile.g) * block_count<RowTile::POSITIONS>(a) + tile.id;
    const int lasting = a.tile_counts[2 * list], selected = a.tile_counts[2 * list + 1];
    const int window_from = max(0, tile.from - WINDOW + 1);
    const int shared_from = min(max(window_from, tile.to - WINDOW), tile.from + 1);
    TileColumns t;
    t.selected = a.tile_keys + list * TILE_KEYS;
    t.lasting = lasting;
    t.shared = t.lasting + tile.from + 1 - shared_from;
    t.expiring = t.shared + selected - lasting;
    t.leaving = t.expiring + max(0, shared_from - window_from);
    t.total = t.leaving + (WINDOW > 0 ? tile.to - tile.from - 1 : 0);
    t.shared_offset = shared_from - t.lasting;
    t.leaving_offset = window_from - t.expiring;
    t.later_offset = tile.from + 1 - t.leaving;
    return t;
}

// The key of a column, −1 beyond the last; `window` says whether it stands for the queries that have it in their window.
__device__ __forceinline__ int column_key(const TileColumns& t, int c, bool& window) {
    const bool selected = c < t.lasting || (c >= t.shared && c < t.expiring);
    window = !selected;
    const int offset = c < t.shared ? t.shared_offset : c < t.leaving ? t.leaving_offset : t.later_offset;
    int j = c < t.total ? c + offset : -1;
    if (selected) j = t.selected[c < t.lasting ? c : c - (t.shared - t.lasting)];
    return j;
}
