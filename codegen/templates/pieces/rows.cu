// Rows of a tile: the query heads of one key-value head (of one part of them, where they are more than a tile has
// rows) times consecutive positions. A shape holds POSITIONS, HEADS of a part, and PARTS.
<% for s in shapes %>struct ${ s.name }$ {
    static constexpr int POSITIONS = ${ s.positions }$, HEADS = ${ s.heads }$, PARTS = ${ s.parts }$;
    static constexpr bool FILLED = ${ s.filled }$;
};
<% endfor %>
struct Tile {
    Sequence s;
    int id;        // of the block of positions
    int from, to;  // positions [from, to)
    int g;         // key-value head
    int part;      // of the group's heads
};

// What a row is: its position, −1 for a row of the tile that stands for none, its query head and its values.
struct Row {
    int i;
    int head;
<% for f in row_fields %>    ${ f.ty }$ ${ f.name }$;
<% endfor %>};

// Values of the sequence and key-value head.
struct Uniform {
<% for f in uniform_fields %>    ${ f.ty }$ ${ f.name }$;
<% endfor %>};

__device__ __forceinline__ Uniform load_uniform(const Arguments& a, const Sequence& s, int g) {
    Uniform x = {};
<% for l in uniform_lines %>    ${ l }$
<% endfor %>    return x;
}

// The tile of one block of positions; false for an empty id.
template <class Shape>
__device__ __forceinline__ bool find_tile(const Arguments& a, int block_id, int g, Tile& tile) {
    int block = 0;
    if (!find_block<Shape::POSITIONS>(a, block_id, tile.s, block)) return false;
    tile.id = block_id;
    tile.from = block * Shape::POSITIONS;
    tile.to = min(tile.from + Shape::POSITIONS, tile.s.length);
    tile.g = g;
    tile.part = 0;
    return true;
}

// Tile number n, in the order in which they are worked on: later positions first, whose queries see most keys, so that short
// tiles are left for the end, and all key-value heads at the same positions, since all rows of the batch see as many there.
template <class Shape>
__device__ __forceinline__ bool find_tile_in_order(const Arguments& a, unsigned n, Tile& tile) {
    const unsigned heads = static_cast<unsigned>(a.hkv), rows = static_cast<unsigned>(a.rows), place = n / heads;
    const int from_end = a.cu_seqlens == nullptr ? place % rows * blocks_of_row<Shape::POSITIONS>(a) + place / rows : place;
    return find_tile<Shape>(a, block_count<Shape::POSITIONS>(a) - 1 - from_end, n % heads, tile);
}

// The position of a row, whether or not it exists.
template <class Shape>
__device__ __forceinline__ int row_position(const Tile& tile, int row) { return tile.from + row / Shape::HEADS; }

template <class Shape>
__device__ __forceinline__ bool row_exists(const Tile& tile, int row, int& i, int& head) {
    const int in_part = tile.part * Shape::HEADS + row % Shape::HEADS;
    i = row_position<Shape>(tile, row);
    head = tile.g * GROUP + in_part;
    return row < Shape::POSITIONS * Shape::HEADS && i < tile.to && in_part < GROUP;
}

template <class Shape>
__device__ __forceinline__ Row load_row(const Arguments& a, const Uniform& x, const Tile& tile, int row) {
    Row r = {};
    if (!row_exists<Shape>(tile, row, r.i, r.head)) {
        r.i = -1;
        return r;
    }
    const Sequence& s = tile.s;
    const long long token = s.start + r.i;
    const int i = r.i, head = r.head;
<% for l in row_lines %>    ${ l }$
<% endfor %>    return r;
}

// How the threads of a block share the copies of ROWS rows: COPIES of 16 bytes of a row are those of as many threads, so that
// a thread's rows are AT_ONCE apart and its addresses in shared memory differ by constants.
template <int ROWS, int THREADS>
struct RowCopies {
    static constexpr int SIZE = 16 / sizeof(elem), COPIES = D / SIZE;
    static constexpr int WIDTH = COPIES < THREADS ? COPIES : THREADS, AT_ONCE = THREADS / WIDTH;
    // A thread's first row, and its first element of every row.
    static __device__ __forceinline__ int row() { return threadIdx.x / WIDTH; }
    static __device__ __forceinline__ int element() { return threadIdx.x % WIDTH * SIZE; }
    // Whether it has the row that is `n` after its first one, and the copy that is `c` after the first one of its row.
    static __device__ __forceinline__ bool has_row(int n) {
        return (AT_ONCE * WIDTH == THREADS || row() < AT_ONCE) && (ROWS % AT_ONCE == 0 || n + row() < ROWS);
    }
    static __device__ __forceinline__ bool has_copy(int c) { return COPIES % WIDTH == 0 || c * SIZE + element() < D; }
};

// Starts copying the rows of a tensor [B, N, Hq, D] that a tile has; rows that do not exist become zero.
template <class Shape, int ROWS, int THREADS>
__device__ __forceinline__ void copy_query_rows(elem* to, const elem* from, long long batch, long long position, long long head,
                                                const Tile& tile) {
    using Copies = RowCopies<ROWS, THREADS>;
    to += Copies::row() * ROW + Copies::element();
    from += tile.s.row * batch + tile.s.start * position + Copies::element();
#pragma unroll
    for (int n = 0; n < ROWS; n += Copies::AT_ONCE) {
        if (!Copies::has_row(n)) break;
        int i, h;
        const bool valid = row_exists<Shape>(tile, n + Copies::row(), i, h);
        const long long offset = valid ? i * position + h * head : 0;
#pragma unroll
        for (int c = 0; c < Copies::COPIES; c += Copies::WIDTH)
            if (Copies::has_copy(c)) copy_async(to + n * ROW + c * Copies::SIZE, from + offset + c * Copies::SIZE, valid);
    }
}
