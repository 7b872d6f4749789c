// A tile of keys and the queries that see some of them. Keys are TILE_Q consecutive ones, for the queries that have them in
// their windows, or TILE_Q of the list of a span of queries, which select them.
struct KeyTile {
    Sequence s;
    int g;
    int from, to;  // queries
    int first;     // key of the first row, of consecutive ones
    int span;      // id of the span, and first slot of the tile in its list
    int slot;
    int count;     // rows that stand for keys
};

constexpr int SPAN_TILES = (SPAN_KEYS + TILE_Q - 1) / TILE_Q;

__device__ __forceinline__ long long chunk_index(const Arguments& a, int g, int chunk) {
    return static_cast<long long>(g) * block_count<CHUNK>(a) + chunk;
}

// The keys that queries of a span select, ascending: those of its first chunk, then those that come in its second. A key
// that was there before is in the first chunk's list too: whoever leaves does not return.
struct SpanList {
    const int* first;
    const int* second;
    int in_first, count;

    __device__ __forceinline__ SpanList(const Arguments& a, const Sequence& s, int g, int block) {
        const long long at = chunk_index(a, g, first_block<CHUNK>(a, s) + 2 * block);
        first = a.chunk_keys + at * CHUNK_KEYS;
        in_first = count = a.chunk_counts[2 * at + 1];
        second = nullptr;
        if ((2 * block + 1) * CHUNK >= s.length) return;
        const int before = a.chunk_counts[2 * at + 2];
        second = first + CHUNK_KEYS + before;
        count += a.chunk_counts[2 * at + 3] - before;
    }

    __device__ __forceinline__ int key(int slot) const { return slot < in_first ? first[slot] : second[slot - in_first]; }

    // The slot of a key, which is there.
    __device__ __forceinline__ int slot_of(int j) const {
        const bool is_second = in_first == 0 || (count > in_first && second[0] <= j);
        int low = is_second ? in_first : 0, high = is_second ? count : in_first;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (key(middle) <= j) low = middle;
            else high = middle;
        }
        return low;
    }
};

// Tile number `tile` of a span's list; false where the list is shorter.
__device__ __forceinline__ bool find_selected(const Arguments& a, int span, int tile, int g, KeyTile& keys) {
    keys = {};
    int block;
    if (!find_block<SPAN>(a, span, keys.s, block)) return false;
    keys.g = g;
    keys.span = span;
    keys.slot = tile * TILE_Q;
    keys.count = min(TILE_Q, SpanList(a, keys.s, g, block).count - keys.slot);
    keys.from = block * SPAN;
    keys.to = min(keys.from + SPAN, keys.s.length);
    return keys.count > 0;
}

// A block of consecutive keys; false for an empty id.
__device__ __forceinline__ bool find_consecutive(const Arguments& a, int id, int g, KeyTile& keys) {
    keys = {};
    int block;
    if (!find_block<TILE_Q>(a, id, keys.s, block)) return false;
    keys.g = g;
    keys.first = block * TILE_Q;
    keys.count = min(TILE_Q, keys.s.length - keys.first);
    keys.from = keys.first;
    keys.to = WINDOW == 0 ? keys.first : min(keys.first + keys.count - 1 + WINDOW, keys.s.length);
    return true;
}

// The key of a row, −1 for none; of a tile whose queries are those of the whole span.
template <bool SELECTED>
__device__ __forceinline__ int key_of(const Arguments& a, const KeyTile& keys, int row) {
    if (row >= keys.count) return -1;
    return SELECTED ? SpanList(a, keys.s, keys.g, keys.from / SPAN).key(keys.slot + row) : keys.first + row;
}

// A selected key is seen from where it has left the window until it expires. Others are seen while they are in the window,
// where gates are 1.
template <bool SELECTED>
__device__ __forceinline__ Column key_column(const Arguments& a, const Uniform& x, const KeyTile& keys, int j) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    if constexpr (SELECTED) {
        c.from = j + WINDOW;
        c.to = a.expiry[(keys.s.row * a.hkv + keys.g) * a.n + keys.s.start + j];
    } else {
        c.from = j;
        c.to = min(j + WINDOW, keys.s.length);
    }
<% if uses_gate %>    c.score = SELECTED ? gate_score(a, keys.s, keys.g, j) : INFINITY_F;
<% endif %>    load_column_values(a, x, keys.s, keys.g, c);
    return c;
}

// Streamed tile t: a block of positions of [from, to) and one part of the group's heads.
__device__ __forceinline__ Tile streamed_tile(const KeyTile& keys, int t) {
    Tile tile;
    tile.s = keys.s;
    tile.id = 0;
    tile.from = keys.from + t / StreamTile::PARTS * StreamTile::POSITIONS;
    tile.to = min(tile.from + StreamTile::POSITIONS, keys.to);
    tile.g = keys.g;
    tile.part = t % StreamTile::PARTS;
    return tile;
}

// The number of streamed tiles that hold queries of [from, to), of which the first one begins with `from`.
__device__ __forceinline__ int streamed_tiles(int from, int to) {
    return max(to - from + StreamTile::POSITIONS - 1, 0) / StreamTile::POSITIONS * StreamTile::PARTS;
}
