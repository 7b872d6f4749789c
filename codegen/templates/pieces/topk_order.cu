// Key j becomes a candidate at query j + WINDOW, its arrival: time runs over queries.
constexpr unsigned FULL_WARP = 0xffffffffu;

// Index of an element of a [rows, key-value heads, positions] buffer.
__device__ __forceinline__ long long position_index(const Arguments& a, const Sequence& s, int g, int i) {
    return (static_cast<long long>(s.row) * a.hkv + g) * a.n + s.start + i;
}

// A candidate as one integer, unique and larger for the better one: the order of its score above, its arrival below,
// complemented because of equal scores the oldest is best. 0 stands for no candidate.
typedef unsigned long long Candidate;

__device__ __forceinline__ unsigned ordered(float score) {
    const unsigned bits = __float_as_uint(score == 0.0f ? 0.0f : score);  // −0 = +0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float score_of(Candidate c) {
    const unsigned order = static_cast<unsigned>(c >> 32);
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

__device__ __forceinline__ int arrival_of(Candidate c) { return static_cast<int>(~static_cast<unsigned>(c)); }

// The least candidate whose score is above x.
__device__ __forceinline__ Candidate least_above(double x) {
    return (static_cast<Candidate>(ordered(__double2float_rd(x))) + 1) << 32;
}

// Who arrives at query t.
__device__ __forceinline__ Candidate arriving(const Arguments& a, const Sequence& s, int g, int t) {
    const int j = t - WINDOW;
    if (t >= s.length || j < SINKS) return 0;
    const float score = score_at(a, s, g, j);
    if (score != score || score == -INFINITY_F) return 0;
    return static_cast<Candidate>(ordered(score)) << 32 | ~static_cast<unsigned>(t);
}

struct Sum {
    template <class T> __device__ T operator()(T x, T y) const { return x + y; }
};
struct Least {
    template <class T> __device__ T operator()(T x, T y) const { return x < y ? x : y; }
};
struct Greatest {
    template <class T> __device__ T operator()(T x, T y) const { return x < y ? y : x; }
};

// Reduction over a warp, the same bits in every lane.
template <class T, class Op>
__device__ __forceinline__ T reduce_warp(T x, Op op) {
    for (int d = 16; d > 0; d /= 2) x = op(x, __shfl_xor_sync(FULL_WARP, x, d));
    return x;
}

// Exclusive scan over the threads of a block; `total` gets the reduction of all.
template <class T, class Op>
__device__ __forceinline__ T scan_block(T x, T identity, T& total, Op op) {
    __shared__ T of_warp[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int d = 1; d < 32; d *= 2) {
        const T y = __shfl_up_sync(FULL_WARP, x, d);
        if (lane >= d) x = op(y, x);
    }
    __syncthreads();  // of_warp of the call before has been read
    if (lane == 31) of_warp[warp] = x;
    x = __shfl_up_sync(FULL_WARP, x, 1);
    if (lane == 0) x = identity;
    __syncthreads();
    T before = identity;
    total = identity;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) {
        if (w == warp) before = total;
        total = op(total, of_warp[w]);
    }
    return op(before, x);
}

// Slots for the threads that keep something, in order, from `next` on, which moves past them.
__device__ __forceinline__ int place_block(bool keep, int& next) {
    int total;
    const int slot = next + scan_block(keep ? 1 : 0, 0, total, Sum());
    next += total;
    return slot;
}

// Sorts SIZE candidates in shared memory, ascending. Runs of `sorted` of them are in order already, those of even number
// ascending and those of odd number descending.
template <int SIZE>
__device__ __forceinline__ void bitonic_sort(Candidate* x, int sorted) {
#pragma unroll 1
    for (int size = 2 * sorted; size <= SIZE; size *= 2) {
#pragma unroll 1
        for (int gap = size / 2; gap > 0; gap /= 2) {
            __syncthreads();
#pragma unroll 4
            for (int pair = threadIdx.x; pair < SIZE / 2; pair += blockDim.x) {
                const int i = 2 * pair - (pair & (gap - 1));
                const Candidate first = x[i], second = x[i + gap];
                const bool ascending = (i & size) == 0;
                if ((first > second) == ascending) {
                    x[i] = second;
                    x[i + gap] = first;
                }
            }
        }
    }
    __syncthreads();
}
