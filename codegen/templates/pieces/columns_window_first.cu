// The keys that some query of a tile sees, as columns:
//   the window's, ascending, from the one that the first query alone has in its window to the one of the last query, then
//   selected keys alive through the whole tile, then those that expire or leave the window within it.
// Of so many positions the 64 rows of a warpgroup see a part of the window's columns, most of which all of them see. A key that leaves
// the window within the tile and is selected then has a column of either kind, for the queries before and after.
struct TileColumns {
    const int* selected;
    int first;    // key of the first column: less than a tile of keys before the sequence, so that whatever warpgroup
                  // sees keys of a tile first, all its queries see one of them
    int keys;     // columns of the window,
    int window;   // where selected ones begin: a few columns further where these then have tiles of keys for themselves,
    int lasting;  // where those end that are alive through the whole tile,
    int total;    // and where all do
};

__device__ __forceinline__ TileColumns tile_columns(const Arguments& a, const Tile& tile) {
    const long long list = static_cast<long long>(tile.g) * block_count<RowTile::POSITIONS>(a) + tile.id;
    const int lasting = a.tile_counts[2 * list], selected = a.tile_counts[2 * list + 1], begin = tile.from - WINDOW + 1;
    TileColumns t;
    t.selected = a.tile_keys + list * TILE_KEYS;
    t.first = begin < 0 ? -(-begin % TILE_KV) : begin;
    t.keys = tile.to - t.first;
    const int up = (t.keys + TILE_KV - 1) / TILE_KV * TILE_KV;
    t.window = up - t.keys <= 4 ? up : t.keys;
    t.lasting = t.window + lasting;
    t.total = selected > 0 ? t.window + selected : t.keys;
    return t;
}

// The key of a column, −1 where it has none; `window` says whether it stands for the queries that have it in their window.
__device__ __forceinline__ int column_key(const TileColumns& t, int c, bool& window) {
    window = c < t.window;
    if (!window) return c < t.total ? t.selected[c - t.window] : -1;
    return c < t.keys ? max(c + t.first, -1) : -1;
}
