<% if by_stretches %>// Stretches of tiles of keys that a warpgroup treats alike, in the order of columns; some may be empty.
<% if window_first %>enum Stretch { BEFORE, ENTERING, IN_WINDOW, LEAVING, BETWEEN, FIRST_SELECTED, LASTING, OTHERS, STRETCHES };

// Of tiles before and behind its part of the window it sees nothing.
__device__ __forceinline__ bool is_passed(int stretch) { return stretch == BEFORE || stretch == BETWEEN; }
<% else %>enum Stretch { LASTING, IN_WINDOW, OTHERS, STRETCHES };

__device__ __forceinline__ bool is_passed(int) { return false; }
<% endif %>
__device__ __forceinline__ Kind kind_of(int stretch) { return stretch == IN_WINDOW ? WINDOWED : stretch == LASTING ? FULL : MASKED; }

// Tiles of keys before which each ends, and columns up to the last that the warpgroup sees.
struct Steps {
    int ends[STRETCHES], columns;
};

<% if window_first %>// The window's columns that all rows of the warpgroup see lie amid those that some do. Selected ones may begin in a tile in which the
// window's end. Between the two no more tiles are passed by than there are buffers, as values of the tile before are still needed then.
__device__ __forceinline__ Steps steps_of(const TileColumns& all, const Tile& tile, int group) {
    const int first = min(row_position<RowTile>(tile, 64 * group), tile.to - 1) - all.first;
    const int last = min(row_position<RowTile>(tile, 64 * group + 63), tile.to - 1) - all.first;
    const int end = last / TILE_KV + 1, selected = all.window / TILE_KV, has_selected = all.total > all.keys;
    Steps s;
    s.columns = has_selected ? all.total : last + 1;
    s.ends[BEFORE] = max(first - WINDOW + 1, -all.first) / TILE_KV;  // the sequence begins at column −all.first
    s.ends[ENTERING] = (max(last - WINDOW + 1, -all.first) + TILE_KV - 1) / TILE_KV;
    s.ends[IN_WINDOW] = max((first + 1) / TILE_KV, s.ends[ENTERING]);
    s.ends[LEAVING] = has_selected && selected > end + STAGES ? selected : end;
    s.ends[BETWEEN] = has_selected ? max(selected, end) : end;
    s.ends[FIRST_SELECTED] = has_selected ? (all.window + TILE_KV - 1) / TILE_KV : end;
    s.ends[LASTING] = max(has_selected ? all.lasting / TILE_KV : end, s.ends[FIRST_SELECTED]);
    s.ends[OTHERS] = tile_steps(s.columns);
    return s;
}
<% else %>// Columns that all rows see come first, the selected ones and then the window's; keys that come after the last query of the
// warpgroup are the last ones.
__device__ __forceinline__ Steps steps_of(const TileColumns& all, const Tile& tile, int group) {
    const int later = tile.to - 1 - row_position<RowTile>(tile, 64 * group + 63);
    Steps s;
    s.columns = all.total - (WINDOW > 0 ? max(later, 0) : 0);
    s.ends[IN_WINDOW] = all.shared / TILE_KV;
    s.ends[LASTING] = min((all.lasting + TILE_KV - 1) / TILE_KV, s.ends[IN_WINDOW]);
    s.ends[OTHERS] = tile_steps(s.columns);
    return s;
}
<% endif %>
// Steps of all warpgroups.
struct AllSteps {
    Steps of[GROUPS];

    // By one thread: with one for each warpgroup the compiler takes addresses of barriers for different ones in a warp's lanes.
    __device__ __forceinline__ void write(const TileColumns& all, const Tile& tile) {
        for (int group = 0; group < GROUPS; ++group) of[group] = steps_of(all, tile, group);
    }

    // Columns up to the last that the warpgroup of a row sees.
    __device__ __forceinline__ int columns(const Tile&, int, int row) const { return of[row / 64].columns; }
};
<% else %>// Tiles of keys before these have no pair to mask, those from `full` on are in the window.
struct AllSteps {
    int full, windowed;

    // Columns that all rows see come first, the selected ones and then the window's.
    __device__ __forceinline__ void write(const TileColumns& all, const Tile&) {
        windowed = all.shared / TILE_KV;
        full = min((all.lasting + TILE_KV - 1) / TILE_KV, windowed);
    }

    // Of so many columns those up to the last that the warpgroup of a row sees: keys that come after the last of its queries are
    // behind all others.
    __device__ __forceinline__ int columns(const Tile& tile, int all, int row) const {
        const int later = tile.to - 1 - row_position<RowTile>(tile, row / 64 * 64 + 63);
        return all - (WINDOW > 0 ? max(later, 0) : 0);
    }
};

__device__ __forceinline__ Kind kind_of(int full, int windowed, int t) { return t < full ? FULL : t < windowed ? WINDOWED : MASKED; }
<% endif %>