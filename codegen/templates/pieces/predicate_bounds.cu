<% if predicate_of_tiles %>// What is known of a condition on all pairs of a tile.
struct Truth {
    bool always, never;
    Truth() = default;
    __device__ __forceinline__ Truth(bool always, bool never) : always(always), never(never) {}
    __device__ __forceinline__ Truth(bool x) : Truth(x, !x) {}
    friend __device__ __forceinline__ Truth operator&&(Truth a, Truth b) { return {a.always && b.always, a.never || b.never}; }
    friend __device__ __forceinline__ Truth operator||(Truth a, Truth b) { return {a.always || b.always, a.never && b.never}; }
    friend __device__ __forceinline__ Truth operator!(Truth a) { return {a.never, a.always}; }
};

// The least and the greatest of a tile's numbers. Sums and differences of f32 are rounded to what is between the rounded ends; where
// an end is no number or infinite, as it is where any of the numbers is, nothing is known.
template <class T>
struct Bounds {
    T low, high;
    Bounds() = default;
    __device__ __forceinline__ Bounds(T low, T high) : low(low), high(high) {}
    __device__ __forceinline__ Bounds(T x) : Bounds(x, x) {}
    __device__ __forceinline__ bool known() const { return low - low == 0 && high - high == 0; }
    friend __device__ __forceinline__ Bounds operator+(Bounds a, Bounds b) { return {a.low + b.low, a.high + b.high}; }
    friend __device__ __forceinline__ Bounds operator-(Bounds a, Bounds b) { return {a.low - b.high, a.high - b.low}; }
    friend __device__ __forceinline__ Bounds operator-(Bounds a) { return {-a.high, -a.low}; }
    friend __device__ __forceinline__ Truth operator<(Bounds a, Bounds b) {
        const bool known = a.known() && b.known();
        return {known && a.high < b.low, known && a.low >= b.high};
    }
    friend __device__ __forceinline__ Truth operator<=(Bounds a, Bounds b) {
        const bool known = a.known() && b.known();
        return {known && a.high <= b.low, known && a.low > b.high};
    }
    friend __device__ __forceinline__ Truth operator==(Bounds a, Bounds b) {
        const bool known = a.known() && b.known(), one = a.low == a.high && b.low == b.high;
        return {known && one && a.low == b.low, known && (a.high < b.low || b.high < a.low)};
    }
    friend __device__ __forceinline__ Truth operator>(Bounds a, Bounds b) { return b < a; }
    friend __device__ __forceinline__ Truth operator>=(Bounds a, Bounds b) { return b <= a; }
    friend __device__ __forceinline__ Truth operator!=(Bounds a, Bounds b) { return !(a == b); }
};

// Numbers as integers of the same order, NaNs outside all others, and bounds on numbers of those on their integers.
__device__ __forceinline__ int in_order(int x) { return x; }
__device__ __forceinline__ int in_order(bool x) { return x; }
__device__ __forceinline__ int in_order(float x) {
    const int bits = __float_as_int(x);
    return bits ^ (bits >> 31 & 0x7fffffff);
}
__device__ __forceinline__ Bounds<int> of_order(Bounds<int> x, int) { return x; }
__device__ __forceinline__ Truth of_order(Bounds<int> x, bool) { return {x.low == 1, x.high == 0}; }
__device__ __forceinline__ Bounds<float> of_order(Bounds<int> x, float) {
    return {__int_as_float(in_order(__int_as_float(x.low))), __int_as_float(in_order(__int_as_float(x.high)))};
}

// Bounds on two numbers of each lane of a warp, and on COUNT numbers in shared memory.
template <class T>
__device__ __forceinline__ auto bounds_of(T a, T b) {
    const int x = in_order(a), y = in_order(b);
    return of_order(Bounds<int>(__reduce_min_sync(~0u, min(x, y)), __reduce_max_sync(~0u, max(x, y))), a);
}
template <int COUNT, class T>
__device__ __forceinline__ auto bounds_of(const T (&x)[COUNT], int lane) {
    int low = in_order(x[lane % COUNT]), high = low;
#pragma unroll
    for (int n = 32; n < COUNT; n += 32) {
        const int at = in_order(x[n + lane]);
        low = min(low, at), high = max(high, at);
    }
    return of_order(Bounds<int>(__reduce_min_sync(~0u, low), __reduce_max_sync(~0u, high)), x[0]);
}

// Bounds on what predicates read of the rows and of the columns of a tile.
struct RowBounds {
<% for f in row_bounds %>    <% if f.ty == "bool" %>Truth<% else %>Bounds<${ f.ty }$><% endif %> ${ f.name }$;
<% endfor %>};
struct ColumnBounds {
<% for f in column_bounds %>    <% if f.ty == "bool" %>Truth<% else %>Bounds<${ f.ty }$><% endif %> ${ f.name }$;
<% endfor %>};

// Of rows from position `from` to `to`, of which a lane has two.
__device__ __forceinline__ RowBounds row_bounds(int from, int to, const Row& r0, const Row& r1) {
    return {<% for f in row_bounds %><% if not loop.first %>, <% endif %><% if f.is_position %>Bounds<${ f.ty }$>(from, to)<% else %>bounds_of(r0.${ f.name }$, r1.${ f.name }$)<% endif %><% endfor %>};
}
// Of 16 columns whose keys ascend, of which a lane has two.
__device__ __forceinline__ ColumnBounds column_bounds(const Column* columns, int own) {
    return {<% for f in column_bounds %><% if not loop.first %>, <% endif %><% if f.is_position %>Bounds<${ f.ty }$>(columns[0].${ f.name }$, columns[15].${ f.name }$)<% else %>bounds_of(columns[own].${ f.name }$, columns[own + 8].${ f.name }$)<% endif %><% endfor %>};
}
<% endif %>