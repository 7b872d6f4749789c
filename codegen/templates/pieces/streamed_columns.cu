// The data of a streamed tile's columns, value by value: those of neighbouring columns are read together.
struct StreamedColumns {
    int from[TILE_KV], to[TILE_KV];
    int j[TILE_KV];
<% if uses_gate %>    float score[TILE_KV];
<% endif %><% for f in column_fields %>    ${ f.ty }$ ${ f.name }$[TILE_KV];
<% endfor %>
    __device__ __forceinline__ void write(bool valid, int at, const Column& c) {
        store_if(valid, from + at, c.from);
        store_if(valid, to + at, c.to);
        store_if(valid, j + at, c.j);
<% if uses_gate %>        store_if(valid, score + at, c.score);
<% endif %><% for f in column_fields %>        store_if(valid, ${ f.name }$ + at, c.${ f.name }$);
<% endfor %>    }

    // Columns `at`, which is even, and `at` + 1.
    __device__ __forceinline__ void read(int at, Column (&c)[2]) const {
        const auto two_from = read_two(from + at), two_to = read_two(to + at), two_j = read_two(j + at);
<% if uses_gate %>        const auto two_score = read_two(score + at);
<% endif %><% for f in column_fields %>        const auto two_${ f.name }$ = read_two(${ f.name }$ + at);
<% endfor %>#pragma unroll
        for (int e = 0; e < 2; ++e) {
            c[e].from = two_from.of[e];
            c[e].to = two_to.of[e];
            c[e].j = two_j.of[e];
<% if uses_gate %>            c[e].score = two_score.of[e];
<% endif %><% for f in column_fields %>            c[e].${ f.name }$ = two_${ f.name }$.of[e];
<% endfor %>        }
    }
<% if predicate_of_tiles %>
    // Of columns whose keys ascend: the selected ones that all rows see, and the window's behind them.
    __device__ __forceinline__ ColumnBounds bounds(int lane) const {
        return {<% for f in column_bounds %><% if not loop.first %>, <% endif %><% if f.is_position %>Bounds<${ f.ty }$>(${ f.name }$[0], ${ f.name }$[TILE_KV - 1])<% else %>bounds_of(${ f.name }$, lane)<% endif %><% endfor %>};
    }
<% endif %>};

// How a tile of columns is treated: pairs one by one, all of them seen, or all of them seen in the window, where gates are 1<% if predicate_of_tiles %>,
// or none of them seen<% endif %>.
enum Kind { MASKED, FULL, WINDOWED<% if predicate_of_tiles %>, NONE<% endif %> };
<% if predicate_of_tiles %>
// How a tile is treated that would be of `kind`, by what is known of the predicates on it.
__device__ __forceinline__ Kind kind_with(Truth leaves, Kind kind) { return leaves.never ? NONE : leaves.always ? kind : MASKED; }

template <int N>
__device__ __forceinline__ void clear(float (&x)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[n][e] = 0.0f;
}
<% endif %>
// Tiles of keys of a tile of queries: at least one, which may be empty.
__device__ __forceinline__ int tile_steps(int columns) { return max(1, (columns + TILE_KV - 1) / TILE_KV); }
