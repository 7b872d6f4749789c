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

__device__ __forceinline__ float score_of_order(unsigned order) {
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

__device__ __forceinline__ float score_of(Candidate c) { return score_of_order(static_cast<unsigned>(c >> 32)); }

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

// Expiry as far as arrivals alone decide it: a sink is seen to the end, a candidate too until the queries at which it is not
// among the best are known, and any other key while it is in the window. Of query t: the key that arrives, and its own that
// never does.
__device__ __forceinline__ void write_first_expiry(const Arguments& a, const Sequence& s, int g, int t, bool arrives) {
    if (t >= s.length) return;
    if (t < SINKS || t >= s.length - WINDOW) a.expiry[position_index(a, s, g, t)] = s.length;
    const int j = t - WINDOW;
    if (j >= SINKS) a.expiry[position_index(a, s, g, j)] = arrives ? s.length : t;
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

// Reductions over a warp, the same bits in every lane.
__device__ __forceinline__ double sum_warp(double x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(FULL_WARP, x, d);
    return x;
}

__device__ __forceinline__ int sum_warp(int x) {
    return static_cast<int>(__reduce_add_sync(FULL_WARP, static_cast<unsigned>(x)));
}

__device__ __forceinline__ Candidate least_of_warp(Candidate c) {
    const unsigned score = static_cast<unsigned>(c >> 32), least = __reduce_min_sync(FULL_WARP, score);
    return static_cast<Candidate>(least) << 32 |
           __reduce_min_sync(FULL_WARP, score == least ? static_cast<unsigned>(c) : ~0u);
}

__device__ __forceinline__ Candidate greatest_of_warp(Candidate c) { return ~least_of_warp(~c); }

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

// Slots for the elements that a block keeps, in order: of thread x element e is e · THREADS + x. Returns how many are kept.
template <int THREADS, int SHARE>
__device__ __forceinline__ int place_block(const bool (&keep)[SHARE], int (&slot)[SHARE]) {
    constexpr int WARPS = THREADS / 32, PER_LANE = (SHARE * WARPS + 31) / 32;
    static_assert(WARPS % PER_LANE == 0, "a warp's counts are those of one place in each lane");
    __shared__ int counts[PER_LANE * 32];  // that warps keep
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned kept[SHARE];
#pragma unroll
    for (int e = 0; e < SHARE; ++e) kept[e] = __ballot_sync(FULL_WARP, keep[e]);
    __syncthreads();  // counts of the call before have been read
#pragma unroll
    for (int e = 0; e < SHARE; ++e)
        if (lane == 0) counts[e * WARPS + warp] = __popc(kept[e]);
    __syncthreads();
    int before[PER_LANE], all = 0;  // in the lane
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i) {
        before[i] = all;
        if (lane * PER_LANE + i < SHARE * WARPS) all += counts[lane * PER_LANE + i];
    }
    int end = all;
    for (int d = 1; d < 32; d *= 2) {
        const int y = __shfl_up_sync(FULL_WARP, end, d);
        if (lane >= d) end += y;
    }
    int mine = 0;  // before the counts of this warp that a lane has
#pragma unroll
    for (int i = 0; i < PER_LANE; ++i)
        if (warp % PER_LANE == i) mine = before[i] + end - all;
#pragma unroll
    for (int e = 0; e < SHARE; ++e)
        slot[e] = __shfl_sync(FULL_WARP, mine, (e * WARPS + warp) / PER_LANE) + __popc(kept[e] & ((1u << lane) - 1));
    return __shfl_sync(FULL_WARP, end, 31);
}

// Where the state after a chunk is.
__device__ __forceinline__ long long bound_index(const Arguments& a, const Sequence& s, int g, int chunk) {
    return static_cast<long long>(g) * block_count<CHUNK>(a) + first_block<CHUNK>(a, s) + chunk;
}

// The state after a chunk: the K-th best candidate (0 while fewer have arrived), tau, the number that have arrived.
__device__ __forceinline__ void write_state(const Arguments& a, long long index, Candidate kth, double tau, int arrived) {
    a.bound_kth[index] = kth;
    // Where f is K at more than one t, tau is the greatest of them: the K-th best score less 1.
    a.bound_tau[index] = arrived > K ? Greatest()(tau, score_of(kth) - 1.0) : tau;
    a.bound_arrived[index] = arrived;
}

// Sorts the E consecutive elements that each thread of a block has, ascending over the block, in runs of SIZE. Runs of
// `sorted` of them are in order already, those of even number ascending and those of odd number descending. A bitonic
// network: elements of one thread are compared in registers, those of one warp by shuffles, and those farther apart through
// `shared`, which holds one element for each of the block, the threads' first ones first because of memory banks.
template <int SIZE, int E, class T>
__device__ __forceinline__ void bitonic_sort(T (&x)[E], T* shared, int sorted) {
    const int thread = threadIdx.x, threads = blockDim.x;
    // Which of two elements `distance` apart this thread keeps, where it has one of them.
    const auto keeps_smaller = [=](int distance, int size) {
        return ((thread * E & distance) == 0) == ((thread * E & size) == 0);
    };
#pragma unroll 1
    for (int size = 2 * sorted; size <= SIZE; size *= 2) {
        int distance = size / 2;
#pragma unroll 1
        for (; distance >= 32 * E; distance /= 2) {
            const bool smaller = keeps_smaller(distance, size);
            __syncthreads();  // what was there has been read
#pragma unroll
            for (int e = 0; e < E; ++e) shared[e * threads + thread] = x[e];
            __syncthreads();
#pragma unroll
            for (int e = 0; e < E; ++e) {
                const T other = shared[e * threads + (thread ^ distance / E)];
                x[e] = (other < x[e]) == smaller ? other : x[e];
            }
        }
#pragma unroll 1
        for (; distance >= E; distance /= 2) {
            const bool smaller = keeps_smaller(distance, size);
#pragma unroll
            for (int e = 0; e < E; ++e) {
                const T other = __shfl_xor_sync(FULL_WARP, x[e], distance / E);
                x[e] = (other < x[e]) == smaller ? other : x[e];
            }
        }
#pragma unroll
        for (int d = E / 2; d > 0; d /= 2) {
            if (d > distance) continue;
#pragma unroll
            for (int e = 0; e < E; ++e) {
                if ((e & d) != 0) continue;
                const T low = x[e], high = x[e + d];
                const bool ascending = ((thread * E + e) & size) == 0, swap = (high < low) == ascending;
                x[e] = swap ? high : low;
                x[e + d] = swap ? low : high;
            }
        }
    }
}
