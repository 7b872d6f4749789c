// SparsekValue, plan: bf16, head dimension 128, k 512, window 512, groups of 4 query heads
//
// schedule  chunks of 512 queries
// target    sm_90a, instructions of sm80
// input     929d4b19897388bd
#include <cuda_bf16.h>

typedef __nv_bfloat16 elem;
#define INFINITY_F __int_as_float(0x7f800000)
#pragma nv_diag_suppress 177  // not every module uses all of what follows

constexpr int D = 128;  // head dimension
constexpr int K = 512;  // selected keys
constexpr bool HAS_TOPK = true;
constexpr int WINDOW = 512;
constexpr int SINKS = 0;
constexpr int GROUP = 4;  // query heads of a key-value head
constexpr int CHUNK = 512;  // queries of a chunk of the plan
constexpr int CHUNK_KEYS = 1024;  // keys of a chunk's list, at most
constexpr int EXPIRY_THREADS = 128;  // of a block of plan_expiry

// The one parameter of every entry: tensors with their strides in elements, buffers, sizes.
struct Arguments {
    long long rows;
    long long sequences;
    long long n;
    long long hq;
    long long hkv;
    const int* cu_seqlens;
    float* tau;
    int* expiry;
    const float* u; long long u_batch; long long u_head; long long u_position;
    int* chunk_keys;
    int* chunk_counts;
    unsigned long long* sorted;
    double* prefix;
    unsigned long long* merged_sorted;
    double* merged_prefix;
    unsigned long long* bound_kth;
    double* bound_tau;
    int* bound_arrived;
    float* kth_score;
};

// From sm_90 on a launch may begin before the one before it in the stream has ended: its blocks are on the multiprocessors
// then, and wait here for what that one writes. Every launch waits, first, or late where it needs nothing of the one before
// until then, and only then lets the next begin: so whatever was before that one has ended.
__device__ __forceinline__ void wait_for_earlier_launches() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Sequences: the rows of the batch, or the packed sequences of its one row.
struct Sequence {
    int index;   // the coordinate `batch`
    int row;     // row of the batch
    int start;   // first position in that row
    int length;
};

__device__ __forceinline__ Sequence sequence_at(const Arguments& a, int b) {
    if (a.cu_seqlens == nullptr) return {b, b, 0, static_cast<int>(a.n)};
    const int start = a.cu_seqlens[b];
    return {b, 0, start, a.cu_seqlens[b + 1] - start};
}

// Blocks of P positions, each within one sequence. Packed sequence b has the ids from ⌊start / P⌋ + b on: enough for its
// blocks, and apart from those of its neighbours. Some ids stay empty.
template <int P>
__device__ __forceinline__ int blocks_of_row(const Arguments& a) { return static_cast<int>((a.n + P - 1) / P); }

template <int P>
__device__ __forceinline__ int block_count(const Arguments& a) {
    if (a.cu_seqlens == nullptr) return static_cast<int>(a.rows) * blocks_of_row<P>(a);
    return static_cast<int>(a.n / P + a.sequences);
}

template <int P>
__device__ __forceinline__ int first_block(const Arguments& a, const Sequence& s) {
    return a.cu_seqlens == nullptr ? s.row * blocks_of_row<P>(a) : s.start / P + s.index;
}

// The sequence and the number of a block within it; false for an empty id.
template <int P>
__device__ __forceinline__ bool find_block(const Arguments& a, int id, Sequence& s, int& block) {
    int b = 0;
    if (a.cu_seqlens == nullptr) {
        b = id / blocks_of_row<P>(a);
    } else {
        // The last sequence whose first id is not above this one.
        int end = static_cast<int>(a.sequences);
        while (end - b > 1) {
            const int middle = (b + end) / 2;
            if (a.cu_seqlens[middle] / P + middle <= id) b = middle;
            else end = middle;
        }
    }
    s = sequence_at(a, b);
    block = id - first_block<P>(a, s);
    return block * P < s.length;
}

// The score of a sequence's first key, and how far it is to the next.
__device__ __forceinline__ const float* scores_of(const Arguments& a, const Sequence& s, int g) {
    return a.u + s.row * a.u_batch + g * a.u_head + s.start * a.u_position;
}

__device__ __forceinline__ long long score_stride(const Arguments& a) { return a.u_position; }

// The score of a key.
__device__ __forceinline__ float score_at(const Arguments& a, const Sequence& s, int g, int j) {
    return scores_of(a, s, g)[j * score_stride(a)];
}

// Writes the sinks that are past the window at some query of the chunk; returns how many.
__device__ int write_sinks(const Arguments& a, const Sequence& s, int chunk, int* keys) {
    const int end = s.length - chunk * CHUNK < CHUNK ? s.length : (chunk + 1) * CHUNK;
    const int past = end - WINDOW > 0 ? end - WINDOW : 0, count = past < SINKS ? past : SINKS;
    for (int i = threadIdx.x; i < count; i += blockDim.x) keys[i] = i;
    return count;
}

// How many of them are past the window before the chunk.
__device__ __forceinline__ int sinks_before(int chunk) {
    const int past = chunk * CHUNK - WINDOW > 0 ? chunk * CHUNK - WINDOW : 0;
    return past < SINKS ? past : SINKS;
}

// The length of a chunk's list, and of its part that was selected before the chunk.
__device__ __forceinline__ void write_counts(const Arguments& a, long long list, int before, int count) {
    a.chunk_counts[2 * list] = before;
    a.chunk_counts[2 * list + 1] = count;
}

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

// f(t) = Σ clip(u − t, 0, 1) over candidates: those with u > t + 1 count 1 each, and the others above t, the fractional ones,
// u − t. By their number f falls as t rises.
struct Total {
    double sum;  // of the fractional
    int saturated, fractional;

    __device__ double f() const { return sum + saturated; }
    __device__ int above() const { return saturated + fractional; }

    __device__ void add(double u, double t) {
        const double d = u - t;
        const bool is_saturated = d > 1.0, is_fractional = d > 0.0 && !is_saturated;
        if (is_fractional) sum += d;
        saturated += is_saturated ? 1 : 0;
        fractional += is_fractional ? 1 : 0;
    }

    __device__ void add(const Total& x) {
        sum += x.sum;
        saturated += x.saturated;
        fractional += x.fractional;
    }
};

// The totals of a warp, the same bits in every lane.
__device__ __forceinline__ Total sum_warp(const Total& x) {
    return {sum_warp(x.sum), sum_warp(x.saturated), sum_warp(x.fractional)};
}

// A t with f(t) = K, known to be in [low, high], where f(low) >= K. Where f is K at more than one, exactly K candidates are above
// t + 1 and nobody is fractional: the largest such t is v − 1, v being the K-th best score. Newton's method from a guess, halving
// where it leaves the bracket a second time on the same side (an end may be the root), until t is known to 2⁻³⁰ of max(1, |t|). As f
// falls at least as fast as t rises, a rest of f within that tells, if it is small beside the steps in which f falls far from 0.
template <class Candidates>
__device__ double root(const Candidates& candidates, double low, double high, double guess) {
    if (!(low < high)) return low;
    double t = guess > low && guess < high ? guess : low;
    bool low_seen = false, high_seen = false;  // f there has been computed
    for (int step = 1;; ++step) {
        const Total at = candidates.total(t);
        const double size = t < 0.0 ? -t : t, tolerance = 0x1p-30 * (size > 1.0 ? size : 1.0), rest = at.f() - K;
        if (rest >= 0.0) low = t, low_seen = true;
        else high = t, high_seen = true;
        const double near = Least()(tolerance, 0x1p-10);
        if ((rest <= near && -rest <= near) || high - low <= tolerance) return t;
        // Seven digits of a step are enough.
        double next = t + __fdividef(static_cast<float>(rest), static_cast<float>(at.fractional));
        if (next >= high && !high_seen) {
            next = high;
            high_seen = true;
        } else if (next <= low && !low_seen) {
            next = low;
            low_seen = true;
        } else {
            if (!(next > low && next < high) || step % 8 == 0) next = 0.5 * (low + high);
            if (!(next > low && next < high)) return low;
        }
        t = next;
    }
}

// Scores as whole numbers x, u ≈ origin + unit · x, while tau is in a bracket. clip(u − t, 0, 1) is one instruction then, where
// doubles take ten that wait for each other, and sums are exact. A score is off by half a unit at most, and so is a root.
struct Scale {
    double origin, unit, units;  // of 1
    int one;                     // the same
    double finest;               // |t|, or 1 where that is more, from which on a unit is at most 2⁻²⁵ of it

    // 2 to the power of `exponent` exceeds 1 and both ends. Whole numbers reach to the ends' distance and 1: to 2.5 · 2²⁸.
    __device__ Scale(double low, double high) : origin(low) {
        const double ends = Greatest()(low < 0.0 ? -low : low, high < 0.0 ? -high : high), size = ends > 1.0 ? ends : 1.0;
        const int exponent = (__double2hiint(size) >> 20) - 1022;
        const bool fits = exponent <= 24;
        const int shift = fits ? 28 - exponent : 0;
        unit = __hiloint2double((1023 - shift) << 20, 0);
        units = __hiloint2double((1023 + shift) << 20, 0);
        one = 1 << shift;
        finest = fits ? 0x1p25 * unit : INFINITY_F;
    }

    // Whether there are whole numbers at all: not of ends beyond 2²⁴.
    __device__ bool is_used() const { return finest < INFINITY_F; }

    // Of what is above the bracket by more than 1, some number that is as well.
    __device__ int whole(double u) const {
        const double x = (u - origin) * units;
        return x < 0.0 ? 0 : x < 0x1p30 ? __double2int_rn(x) : (1 << 30) - 1;
    }

    // Whether a root there is right to a digit more than a float has: not where tau goes through 0 and an end is far.
    __device__ bool reaches(double t) const { return Greatest()(t < 0.0 ? -t : t, 1.0) >= finest; }
};

__device__ __forceinline__ long long sum_warp(long long x) {
    // Not negative, and less than 2⁵³.
    const unsigned low = __reduce_add_sync(FULL_WARP, static_cast<unsigned>(x) & 0x7ffffff);
    return static_cast<long long>(__reduce_add_sync(FULL_WARP, static_cast<unsigned>(x >> 27))) * (1 << 27) + low;
}

// f at a t of whole numbers, in units, and how fast it falls there.
struct WholeTotal {
    long long sum;
    int fractional;

    // Adds eight scores, of which the sum has 32 bits. By as many units as are fractional it falls when t rises by one.
    __device__ void add(const int (&x)[8], int t, int one) {
        int here = 0, next = 0;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            here += __viaddmin_s32_relu(x[e], -t, one);
            next += __viaddmin_s32_relu(x[e], -1 - t, one);
        }
        sum += here;
        fractional += here - next;
    }

    // Adds every STEP-th of some scores, from the first-th on.
    template <int STEP>
    __device__ void add(const int* scores, int count, int first, int t, int one) {
        int i = first;
#pragma unroll 1
        for (; i + 7 * STEP < count; i += 8 * STEP) {
            int x[8];
#pragma unroll
            for (int e = 0; e < 8; ++e) x[e] = scores[i + e * STEP];
            add(x, t, one);
        }
        if (i >= count) return;
        int x[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) x[e] = i + e * STEP < count ? scores[i + e * STEP] : 0;
        add(x, t, one);
    }

    // Adds scores up to the next multiple of eight, which lie at such places.
    __device__ void add_eights(const int* scores, int count, int t, int one) {
#pragma unroll 1
        for (int i = 0; i < count; i += 8) {
            const int4 a = *reinterpret_cast<const int4*>(scores + i), b = *reinterpret_cast<const int4*>(scores + i + 4);
            const int x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            add(x, t, one);
        }
    }
};

// A t in [low, high] with f(t) = K, as `root` finds one, to less than a unit: the last step is Newton's.
template <class Candidates>
__device__ double whole_root(const Candidates& candidates, int low, int high, int guess) {
    int t = guess > low && guess < high ? guess : low;
    bool low_seen = false, high_seen = false;  // f there has been computed
    for (int step = 1;; ++step) {
        const WholeTotal at = candidates.total(t);
        const long long rest = at.sum - static_cast<long long>(K) * candidates.scale.one;
        if (rest >= 0) low = t, low_seen = true;
        else high = t, high_seen = true;
        const float move = __fdividef(static_cast<float>(rest), static_cast<float>(at.fractional));  // ±∞ or NaN where f is flat
        if (rest == 0 || high - low <= 1 || (-0.5f <= move && move <= 0.5f))
            return candidates.scale.origin + candidates.scale.unit * (-1.0f <= move && move <= 1.0f ? t + static_cast<double>(move) : t);
        const int aim = t + __float2int_rn(fminf(fmaxf(move, -0x1p30f), 0x1p30f));
        if (aim >= high && !high_seen) {
            t = high, high_seen = true;
        } else if (aim <= low && !low_seen) {
            t = low, low_seen = true;
        } else {
            t = aim > low && aim < high && step % 8 != 0 ? aim : low + (high - low) / 2;
        }
    }
}

// Candidates that stay where they are while t is in a bracket.
struct Stable {
    int saturated, fractional;
    double sum;  // Σ (u − high) over the fractional, of the bracket that ends at `high`
    double high;

    __device__ void add(double t, Total& total) const {
        if (fractional > 0) total.sum += sum + fractional * (high - t);
        total.saturated += saturated;
        total.fractional += fractional;
    }

    // What they add to f at a t of whole numbers, but for its slope.
    __device__ long long whole(const Scale& scale) const {
        const double of_fractional = fractional > 0 ? (sum + fractional * (high - scale.origin)) * scale.units : 0.0;
        return static_cast<long long>(saturated) * scale.one + (of_fractional < 0x1p62 ? __double2ll_rn(of_fractional) : 0);
    }
};

// Those of a block, from the totals of its threads, whose sums are Σ (u − high).
template <int THREADS>
__device__ Stable stable_of_block(const Total& mine, double high) {
    __shared__ Total of_warps[THREADS / 32];
    const Total of_warp = sum_warp(mine);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = of_warp;
    __syncthreads();
    Total all = {0.0, 0, 0};
    for (const Total& x : of_warps) all.add(x);
    return {all.saturated, all.fractional, all.sum, high};
}

// A bracket of t, and where a score is while t is in it. A float is above an end if it is above what the end is rounded from.
struct Bracket {
    float low, high, low_1, high_1;  // the last two one above

    __device__ Bracket(double low, double high)
        : low(__double2float_rd(low)), high(__double2float_rd(high)), low_1(__double2float_rd(low + 1.0)),
          high_1(__double2float_rd(high + 1.0)) {}

    __device__ bool sits(float u) const { return u > high_1; }
    __device__ bool stays(float u) const { return u > high && !(u > low_1) && !sits(u); }
    __device__ bool moves(float u) const { return u > low && !sits(u) && !stays(u); }
};

// Sorted lists: every chunk of queries has one of its arrivals, and every MERGED / CHUNK chunks that others follow have one of
// theirs: merging takes longer than searching a few lists more.
constexpr int MERGED = 8192;

// Arrivals in ascending order (absent ones, 0, first), and the prefix sums of coordinates x by which sums over a range come
// out exactly beside outliers: x rises from one candidate to the next by the difference of their scores, but by at most 1.
// A range whose scores lie within 1 then has u − u_first = x − x_first.
struct List {
    const Candidate* sorted;
    const double* prefix;  // of length size + 1, and one more that keeps lists aligned for pairs
    int size;

    // Σ (u − t) over [from, to), whose scores lie within 1.
    __device__ double sum(int from, int to, double t) const {
        if (from >= to) return 0.0;
        const double count = to - from, x = prefix[from + 1] - prefix[from];
        return count * (static_cast<double>(score_of(sorted[from])) - t) + (prefix[to] - prefix[from] - count * x);
    }

    // Number of candidates below a bound, known to be in [low, high].
    __device__ int below(Candidate bound, int low, int high) const {
        while (low < high) {
            const int middle = (low + high) / 2;
            if (sorted[middle] < bound) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    // The number, known to be in [low, size], by `lanes` neighbours of a warp, a power of two, all of which get it. Every lane of the
    // warp takes part; in a step the list is probed at that many places.
    __device__ int below_by_lanes(Candidate bound, int low, int lanes) const {
        const int lane = threadIdx.x % 32, probe = lane % lanes;
        const unsigned mine = (lanes == 32 ? FULL_WARP : (1u << lanes) - 1) << (lane - probe);
        int high = size;
        while (__any_sync(FULL_WARP, low < high)) {
            const int step = (high - low) / (lanes + 1) + 1, at = low + (probe + 1) * step - 1;
            const int passed = __popc(__ballot_sync(FULL_WARP, at < high && sorted[at] < bound) & mine);
            if (passed < lanes) high = Least()(high, low + (passed + 1) * step - 1);
            low += passed * step;
        }
        return low;
    }

    // The same for several bounds at a time, whose loads overlap; `low` becomes the numbers.
    template <int B>
    __device__ void below(const Candidate (&bound)[B], int (&low)[B], int (&high)[B]) const {
        for (bool open = true; open;) {
            Candidate c[B];
#pragma unroll
            for (int b = 0; b < B; ++b) c[b] = sorted[Least()((low[b] + high[b]) / 2, size - 1)];
            open = false;
#pragma unroll
            for (int b = 0; b < B; ++b) {
                const int middle = (low[b] + high[b]) / 2;
                if (low[b] >= high[b]) continue;
                if (c[b] < bound[b]) low[b] = middle + 1;
                else high[b] = middle;
                open |= low[b] < high[b];
            }
        }
    }

    // Adds all candidates of the list, of which those above t start at `from` and those above t + 1 at `to`.
    __device__ void add(int from, int to, double t, Total& total) const {
        total.sum += sum(from, to, t);
        total.saturated += size - to;
        total.fractional += to - from;
    }
};

template <int SIZE>
__device__ __forceinline__ List list_at(const Arguments& a, int g, int id) {
    const long long index = static_cast<long long>(g) * block_count<SIZE>(a) + id;
    if constexpr (SIZE == CHUNK) return {a.sorted + index * SIZE, a.prefix + index * (SIZE + 2), SIZE};
    else return {a.merged_sorted + index * SIZE, a.merged_prefix + index * (SIZE + 2), SIZE};
}

// The lists that together hold whatever arrived in the first `chunks` chunks of a sequence.
struct Lists {
    int merged, count;
    int first_merged, first;  // ids
    int g;

    __device__ Lists(const Arguments& a, const Sequence& s, int g, int chunks) : g(g) {
        constexpr int RATIO = MERGED / CHUNK;
        merged = chunks > 0 ? (chunks - 1) / RATIO : 0;
        count = merged + chunks - merged * RATIO;
        first_merged = first_block<MERGED>(a, s);
        first = first_block<CHUNK>(a, s) + merged * RATIO;
    }

    __device__ List at(const Arguments& a, int i) const {
        return i < merged ? list_at<MERGED>(a, g, first_merged + i) : list_at<CHUNK>(a, g, first + i - merged);
    }
};

// Writes a list of the SHARE sorted candidates that every thread of a block has. `shared` holds one of each thread's.
template <int SHARE>
__device__ __forceinline__ void write_list(const Candidate (&x)[SHARE], Candidate* shared, List list) {
    const int from = threadIdx.x * SHARE;
    __syncthreads();
    shared[threadIdx.x] = x[SHARE - 1];
    __syncthreads();
    Candidate before = threadIdx.x > 0 ? shared[threadIdx.x - 1] : 0;
    double coordinate[SHARE], rises = 0.0, total;
#pragma unroll
    for (int i = 0; i < SHARE; ++i) {
        const double step = static_cast<double>(score_of(x[i])) - static_cast<double>(score_of(before));
        rises += before == 0 ? 0.0 : step < 1.0 ? step : 1.0;  // 1 also between two of +inf
        coordinate[i] = rises;
        before = x[i];
    }
    const double start = scan_block(rises, 0.0, total, Sum());
    double coordinates = 0.0;
#pragma unroll
    for (int i = 0; i < SHARE; ++i) coordinates += coordinate[i] += start;
    double sum = scan_block(coordinates, 0.0, total, Sum());
    ulonglong2* sorted = reinterpret_cast<ulonglong2*>(const_cast<Candidate*>(list.sorted) + from);
    double2* prefix = reinterpret_cast<double2*>(const_cast<double*>(list.prefix) + from);
#pragma unroll
    for (int i = 0; i < SHARE; i += 2) {
        const double next = sum + coordinate[i];
        sorted[i / 2] = {x[i], x[i + 1]};
        prefix[i / 2] = {sum, next};
        sum = next + coordinate[i + 1];
    }
    if (from + SHARE == list.size) prefix[SHARE / 2] = {sum, sum};
}

// The sorted list of a chunk's arrivals.
constexpr int SORT_SHARE = CHUNK <= 2048 ? 2 : CHUNK / 1024, SORT_THREADS = CHUNK / SORT_SHARE;
constexpr int MERGE_SHARE = 8, MERGE_THREADS = MERGED / MERGE_SHARE;

extern "C" __global__ void __launch_bounds__(SORT_THREADS) plan_sort(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    __shared__ Candidate shared[CHUNK];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    Candidate x[SORT_SHARE];
#pragma unroll
    for (int e = 0; e < SORT_SHARE; ++e) {
        const int t = chunk * CHUNK + e * SORT_THREADS + threadIdx.x;
        x[e] = arriving(a, s, g, t);
        write_first_expiry(a, s, g, t, x[e] != 0);
    }
    bitonic_sort<CHUNK>(x, shared, 1);
    write_list(x, shared, list_at<CHUNK>(a, g, blockIdx.x));
}

// The sorted list of MERGED arrivals, from those of their chunks.
extern "C" __global__ void __launch_bounds__(MERGE_THREADS) plan_merge(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(16) unsigned char shared_memory[];
    Candidate* shared = reinterpret_cast<Candidate*>(shared_memory);
    Sequence s;
    int block;
    if (!find_block<MERGED>(a, blockIdx.x, s, block)) return;
    constexpr int RATIO = MERGED / CHUNK;
    if (static_cast<long long>(block + 1) * RATIO >= (s.length + CHUNK - 1ll) / CHUNK) return;  // no chunk after it
    const int g = blockIdx.y, first = first_block<CHUNK>(a, s) + block * RATIO;
    Candidate x[MERGE_SHARE];
#pragma unroll
    for (int e = 0; e < MERGE_SHARE; ++e) {
        const int i = threadIdx.x * MERGE_SHARE + e, part = i / CHUNK, at = i % CHUNK;
        x[e] = list_at<CHUNK>(a, g, first + part).sorted[part % 2 == 0 ? at : CHUNK - 1 - at];
    }
    bitonic_sort<MERGED>(x, shared, CHUNK);
    write_list(x, shared, list_at<MERGED>(a, g, blockIdx.x));
}

// The state after every chunk, from the sorted lists: one warp finds the K-th best, and tau from there.

// Lists whose brackets are kept in shared memory; those beyond are searched from end to end.
constexpr int KEPT = 576;

// Four places in a list.
__device__ __forceinline__ ushort4 places(int x, int y, int z, int w) {
    return {static_cast<unsigned short>(x), static_cast<unsigned short>(y), static_cast<unsigned short>(z),
            static_cast<unsigned short>(w)};
}

// How many of a list there are.
__device__ __forceinline__ int present_in(const List& list) {
    const Candidate first = list.sorted[0], last = list.sorted[list.size - 1];
    return first != 0 ? list.size : last == 0 ? 0 : list.size - list.below(1, 0, list.size);
}

// The candidate of a rank, 1 for the best, among at most 32 that lanes have, each `count` of a list from `from` on.
__device__ Candidate best_of_few(const Arguments& a, const Lists& lists, const ushort4* kept, int rank) {
    __shared__ Candidate few[32];
    const int lane = threadIdx.x % 32;
    int next = 0;
    for (int base = 0; base < lists.count; base += 32) {
        const int i = base + lane, count = i < lists.count ? kept[i].w - kept[i].x : 0;
        int slot = count;
        for (int d = 1; d < 32; d *= 2) {
            const int y = __shfl_up_sync(FULL_WARP, slot, d);
            if (lane >= d) slot += y;
        }
        const int total = __shfl_sync(FULL_WARP, slot, 31);
        slot += next - count;
        for (int r = 0; r < count; ++r) few[slot + r] = lists.at(a, i).sorted[kept[i].x + r];
        next += total;
    }
    __syncwarp();
    const Candidate mine = lane < next ? few[lane] : 0;
    int better = 0;
    for (int i = 0; i < next; ++i) better += few[i] > mine ? 1 : 0;
    return __shfl_sync(FULL_WARP, mine, __ffs(__ballot_sync(FULL_WARP, lane < next && better == rank - 1)) - 1);
}

// What a warp knows of some lists at first.
struct Arrived {
    int count;              // candidates
    Candidate least, most;  // the K-th best is neither below nor above them, where there are K
};

// Were the K best spread evenly, they would be the first so many of each list: the K-th best is not below the least candidate of
// those ranks, and not above the greatest. Leaves the number of each list in `marks`, as [0, w).
__device__ Arrived count_arrived(const Arguments& a, const Lists& lists, ushort4* marks) {
    const int lane = threadIdx.x % 32;
    Arrived arrived = {0, ~0ull, 0};
    for (int i = lane; i < lists.count; i += 32) {
        const int present = present_in(lists.at(a, i));
        if (i < KEPT) marks[i] = places(0, 0, 0, present);
        arrived.count += present;
    }
    arrived.count = sum_warp(arrived.count);
    if (arrived.count < K) return arrived;
    for (int i = lane; i < lists.count; i += 32) {
        const List list = lists.at(a, i);
        const int present = i < KEPT ? marks[i].w : present_in(list);
        if (present == 0) continue;
        const unsigned rank = (static_cast<unsigned>(K * present) + arrived.count - 1) / arrived.count;
        const Candidate c = list.sorted[list.size - rank];
        arrived.least = Least()(arrived.least, c);
        arrived.most = Greatest()(arrived.most, c);
    }
    arrived.least = least_of_warp(arrived.least);
    arrived.most = greatest_of_warp(arrived.most);
    return arrived;
}

// The K-th best of lists that hold at least K candidates; `kept` has their numbers at first. In what is kept of a list it is
// among [x, w), which y and z divide.
__device__ Candidate kth_best(const Arguments& a, const Lists& lists, const Arrived& arrived, ushort4* kept) {
    const int lane = threadIdx.x % 32;
    for (int i = lane; i < lists.count && i < KEPT; i += 32) {
        const int size = lists.at(a, i).size;
        kept[i] = places(size - Least()(K, static_cast<int>(kept[i].w)), 0, 0, size);
    }
    Candidate pivot = arrived.least, pivot2 = arrived.most + 1;
    int rank = K;
    Candidate floor = 1, ceiling = ~0ull;  // of what remains, for lists that are not kept
    while (true) {
        const auto remaining = [&](const List& list, int i) {
            if (i < KEPT) return int4{kept[i].x, kept[i].y, kept[i].z, kept[i].w};
            const int from = list.below(floor, list.size > K ? list.size - K : 0, list.size);
            return int4{from, 0, 0, list.below(ceiling, from, list.size)};
        };
        int better = 0, better2 = 0;
        const Candidate pivots[2] = {pivot, pivot2};
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int4 r = remaining(list, i);
            int at[2] = {r.x, r.x}, high[2] = {r.w, r.w};
            list.below(pivots, at, high);
            if (i < KEPT) kept[i] = places(r.x, at[0], at[1], r.w);
            better += r.w - at[0];
            better2 += r.w - at[1];
        }
        better = sum_warp(better);
        better2 = sum_warp(better2);
        const bool upper = better2 >= rank, middle = !upper && better >= rank;
        const int left = upper ? better2 : middle ? better - better2 : 0;
        if (upper) {
            floor = pivot2;
        } else if (middle) {
            floor = pivot, ceiling = pivot2, rank -= better2;
        } else {
            ceiling = pivot, rank -= better;
        }
        for (int i = lane; i < lists.count && i < KEPT; i += 32) {
            if (upper) kept[i].x = kept[i].z;
            else if (middle) kept[i].x = kept[i].y, kept[i].w = kept[i].z;
            else kept[i].w = kept[i].y;
        }
        if (0 < left && left <= 32 && lists.count <= KEPT) return best_of_few(a, lists, kept, rank);
        // Two pivots of thirds.
        Candidate least = ~0ull, most = 0;
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int4 r = remaining(list, i);
            if (r.x >= r.w) continue;
            least = Least()(least, list.sorted[r.x]);
            most = Greatest()(most, list.sorted[r.w - 1]);
        }
        least = least_of_warp(least);
        most = greatest_of_warp(most);
        if (least == most) return least;
        const Candidate third = (most - least + 2) / 3;
        pivot = least + third;
        pivot2 = most - pivot > third ? pivot + third : most;
    }
}

// All candidates of some lists; every lane of the warp gets the totals.
struct ListedCandidates {
    const Arguments& a;
    const Lists& lists;
    ushort4* brackets;  // where a list's first candidates above t and above t + 1 may be: [x, y] and [z, w]
    ushort4* last;      // where they were for the last two t

    __device__ void totals(double t, double t2, Total& at, Total& at2) const {
        at = at2 = {0.0, 0, 0};
        const Candidate bounds[4] = {least_above(t), least_above(t + 1.0), least_above(t2), least_above(t2 + 1.0)};
        for (int i = threadIdx.x % 32; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const ushort4 b = i < KEPT ? brackets[i] : places(0, list.size, 0, list.size);
            int low[4] = {b.x, b.z, b.x, b.z}, high[4] = {b.y, b.w, b.y, b.w};
            list.below(bounds, low, high);
            if (i < KEPT) last[i] = places(low[0], low[1], low[2], low[3]);
            list.add(low[0], low[1], t, at);
            list.add(low[2], low[3], t2, at2);
        }
        at = sum_warp(at);
        at2 = sum_warp(at2);
    }

    // Below, between or above the last two t. Returns whether nobody is left within a bracket: then f is linear there.
    __device__ bool narrow(bool above, bool above2) {
        int open = 0;
        for (int i = threadIdx.x % 32; i < lists.count && i < KEPT; i += 32) {
            ushort4& b = brackets[i];
            if (above2) b.x = last[i].z, b.z = last[i].w;
            else if (above) b = {last[i].x, last[i].z, last[i].y, last[i].w};
            else b.y = last[i].x, b.w = last[i].y;
            open |= (b.x ^ b.y) | (b.z ^ b.w);
        }
        return lists.count <= KEPT && !__any_sync(FULL_WARP, open != 0);
    }
};

// A t in [low, high] with f(t) = K, from all candidates, where more than K have arrived; as `root` finds one, but two
// steps at a time, whose searches overlap. Newton's step from the left and the chord lie on both sides of the root wherever f
// bends one way; the middle replaces the chord after steps that did not halve the bracket.
__device__ double root_of_lists(ListedCandidates& candidates, double low, double high) {
    if (!(low < high)) return low;
    for (int i = threadIdx.x % 32; i < candidates.lists.count && i < KEPT; i += 32) {
        const int size = candidates.lists.at(candidates.a, i).size;
        candidates.brackets[i] = places(0, size, 0, size);
    }
    Total at_low, at_high;
    candidates.totals(low, high, at_low, at_high);
    if (at_low.above() <= K) return low;
    bool halved = true;
    while (true) {
        const double magnitude = low < 0.0 ? -low : low, tolerance = 0x1p-30 * (magnitude > 1.0 ? magnitude : 1.0);
        const double width = high - low, middle = low + 0.5 * width, rest = at_low.f() - K;
        if (rest <= tolerance || width <= tolerance || !(middle > low && middle < high)) return low;
        if (K - at_high.f() <= tolerance) return high;
        double t = low + __fdividef(static_cast<float>(rest), static_cast<float>(at_low.fractional));
        double t2 = halved ? low + width * __fdividef(static_cast<float>(rest), static_cast<float>(at_low.f() - at_high.f()))
                           : middle;
        if (!(t > low && t < high)) t = middle;
        if (!(t2 > low && t2 < high)) t2 = middle;
        if (t2 < t) {
            const double chord = t2;
            t2 = t;
            t = chord;
        }
        Total at, at2;
        candidates.totals(t, t2, at, at2);
        const bool above = at.f() >= K, above2 = at2.f() >= K;  // whether the root is
        if (above2) {
            low = t2, at_low = at2;
        } else if (above) {
            low = t, at_low = at, high = t2, at_high = at2;
        } else {
            high = t, at_high = at;
        }
        if (candidates.narrow(above, above2)) return low + (at_low.f() - K) / at_low.fractional;
        halved = high - low <= 0.5 * width;
    }
}

extern "C" __global__ void __launch_bounds__(32) plan_bounds(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    __shared__ ushort4 kept[KEPT], last[KEPT];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    const Lists lists(a, s, g, chunk + 1);
    const Arrived arrived = count_arrived(a, lists, kept);
    const Candidate kth = arrived.count < K ? 0 : kth_best(a, lists, arrived, kept);
    double tau = -INFINITY_F;
    if (arrived.count > K) {
        ListedCandidates candidates = {a, lists, kept, last};
        tau = root_of_lists(candidates, score_of(kth) - 1.0, score_of(kth));
    }
    if (threadIdx.x == 0) write_state(a, bound_index(a, s, g, chunk), kth, tau, arrived.count);
}

// Who arrived before a chunk, from the sorted lists.
struct Earlier {
    const Arguments& a;
    Lists lists;

    __device__ Earlier(const Arguments& a, const Sequence& s, int g, int chunk) : a(a), lists(a, s, g, chunk) {}

    // Adds a lane's share of all.
    __device__ void add(double t, Total& total) const {
        const Candidate above = least_above(t), saturated = least_above(t + 1.0);
        for (int i = threadIdx.x % 32; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            list.add(list.below(above, 0, list.size), list.below(saturated, 0, list.size), t, total);
        }
    }

    // The least score of a thread's share.
    template <int THREADS>
    __device__ double least() const {
        double least = INFINITY_F;
        for (int i = threadIdx.x; i < lists.count; i += THREADS) {
            const List list = lists.at(a, i);
            const int present = present_in(list);
            if (present > 0) least = Least()(least, static_cast<double>(score_of(list.sorted[list.size - present])));
        }
        return least;
    }
};

constexpr bool GATHERED_IN_ORDER = false;  // of arrival

// The candidates from `least` on, of which there are at most K in a list; returns how many.
template <int THREADS>
__device__ int gather(const Earlier& earlier, Candidate least, Candidate* to) {
    const Lists& lists = earlier.lists;
    __shared__ int from[128], slot[128];
    int next = 0, lanes = 1;  // that look for the bound in a list
    while (lanes < 8 && 2 * lanes * lists.count <= 128) lanes *= 2;
    const int batch = 128 / lanes;
    for (int base = 0; base < lists.count; base += batch) {
        const int l = threadIdx.x / lanes, i = base + l;
        int count = 0, start = 0;
        if (threadIdx.x < 128) {
            const List list = i < lists.count ? lists.at(earlier.a, i) : List{nullptr, nullptr, 0};
            start = list.below_by_lanes(least, list.size > K ? list.size - K : 0, lanes);
            if (threadIdx.x % lanes == 0) count = list.size - start;
        }
        int total;
        const int before = scan_block(count, 0, total, Sum());
        if (threadIdx.x < 128 && threadIdx.x % lanes == 0) from[l] = start, slot[l] = next + before;
        next += total;
        __syncthreads();
        const int here = lists.count - base < batch ? lists.count - base : batch;
        for (int l = threadIdx.x / 32; l < here; l += THREADS / 32) {
            const List list = lists.at(earlier.a, base + l);
#pragma unroll 4
            for (int r = from[l] + threadIdx.x % 32; r < list.size; r += 32)
                to[slot[l] + r - from[l]] = __ldg(&list.sorted[r]);
        }
        __syncthreads();
    }
    return next;
}

// Splits them into stable ones and movers, of which at most MOST are written, downwards from two ends; returns how many there are.
template <int THREADS, int MOST>
__device__ int split_earlier(const Earlier& earlier, const Scale& scale, double low, double high, Stable& stable, float* end,
                             int* whole_end) {
    __shared__ int4 moves[THREADS / 4];  // [x, y) and [z, w) of a list
    __shared__ int slots[THREADS / 4];
    const Lists& lists = earlier.lists;
    const Candidate low_or_high[2] = {least_above(low), least_above(high)};
    const Candidate one_above[2] = {least_above(low + 1.0), least_above(high + 1.0)};
    // Every list has four bounds to be looked for, each by as many lanes as there are for it.
    int lanes = 1;
    while (lanes < 8 && 8 * lanes * lists.count <= THREADS) lanes *= 2;
    const int batch = THREADS / (4 * lanes), l = threadIdx.x / (4 * lanes);  // lists at a time, and this thread's
    const int which = threadIdx.x / lanes % 4;
    const bool leads = threadIdx.x % (4 * lanes) == 0;
    const Candidate bound = which < 2 ? low_or_high[which] : one_above[which - 2];
    Total mine = {0.0, 0, 0};  // of the stable, with Σ (u − high)
    int next = 0;
    for (int base = 0; base < lists.count && next <= MOST; base += batch) {
        const int i = base + l;
        const List list = i < lists.count ? lists.at(earlier.a, i) : List{nullptr, nullptr, 0};
        const int at = list.below_by_lanes(bound, 0, lanes), first_lane = threadIdx.x % 32 / (4 * lanes) * (4 * lanes);
        int4 p = {__shfl_sync(FULL_WARP, at, first_lane), __shfl_sync(FULL_WARP, at, first_lane + lanes),
                  __shfl_sync(FULL_WARP, at, first_lane + 2 * lanes), __shfl_sync(FULL_WARP, at, first_lane + 3 * lanes)};
        if (p.y > p.z) p.y = p.z;  // high is above low + 1: nobody stays fractional
        const int count = leads ? p.y - p.x + p.w - p.z : 0;
        if (leads) {
            mine.saturated += list.size - p.w;
            mine.fractional += p.z - p.y;
            mine.sum += list.sum(p.y, p.z, high);
        }
        int total;
        const int slot = next + scan_block(count, 0, total, Sum());
        if (leads) moves[l] = p, slots[l] = slot;
        next += total;
        __syncthreads();
        if (next <= MOST) {
            for (int m = threadIdx.x / 32; m < batch && base + m < lists.count; m += THREADS / 32) {
                const Candidate* sorted = lists.at(earlier.a, base + m).sorted;
                const int4 r = moves[m];
                const int first = r.y - r.x, both = first + r.w - r.z;
                for (int e = threadIdx.x % 32; e < both; e += 32) {
                    const float u = score_of(__ldg(&sorted[e < first ? r.x + e : r.z + e - first]));
                    end[-1 - slots[m] - e] = u;
                    whole_end[-1 - slots[m] - e] = scale.whole(u);
                }
            }
        }
        __syncthreads();
    }
    stable = stable_of_block<THREADS>(mine, high);
    return next;
}

// Who is selected during a chunk, from the states before and after it. Of the candidates that are among the best before the
// chunk those below the K-th best after it leave in between; of those that arrive only the ones above the K-th best before
// matter, and of these too those below the K-th best after it leave. Each query brings one arrival, so at most one candidate
// leaves at a query, and they leave in ascending order.

__device__ constexpr int power_of_two_from(int n) {
    int power = 1;
    while (power < n) power *= 2;
    return power;
}
constexpr int EXPIRY_SHARE = CHUNK / EXPIRY_THREADS;
constexpr int K_PADDED = power_of_two_from(K > EXPIRY_THREADS ? K : EXPIRY_THREADS);

struct Members {
    Candidate* old;           // [K_PADDED] the best before the chunk
    Candidate* arrivals;      // [CHUNK] those of the chunk above the K-th best before, in time order; old[K_PADDED] is the first
    float* left;              // [CHUNK] score of who leaves at each query, +inf where nobody does
    unsigned short* leaving;  // [CHUNK] who leaves: indices into `old`, first of the old, then of arrivals, in time order
    int count, arrived;
};

// Fills in who leaves of so many members from `first` on; returns how many those are.
template <int SHARE>
__device__ int find_leaving(const Members& m, int first, int count, Candidate after, unsigned short* leaving) {
    bool leaves[SHARE];
    int slot[SHARE];
#pragma unroll
    for (int e = 0; e < SHARE; ++e) {
        const int i = e * EXPIRY_THREADS + threadIdx.x;
        leaves[e] = i < count && m.old[first + i] < after;
    }
    const int found = place_block<EXPIRY_THREADS>(leaves, slot);
#pragma unroll
    for (int e = 0; e < SHARE; ++e)
        if (leaves[e]) leaving[slot[e]] = static_cast<unsigned short>(first + e * EXPIRY_THREADS + threadIdx.x);
    return found;
}

// Sorts the old, ascending.
__device__ void sort_old(const Members& m) {
    constexpr int SHARE = K_PADDED / EXPIRY_THREADS;
    Candidate x[SHARE];
#pragma unroll
    for (int e = 0; e < SHARE; ++e) {
        const int i = threadIdx.x * SHARE + e;
        x[e] = i < m.count ? m.old[i] : ~0ull;
    }
    bitonic_sort<K_PADDED>(x, m.old, 1);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < SHARE; ++e) m.old[threadIdx.x * SHARE + e] = x[e];
    __syncthreads();
}

// Writes the expiry of everyone who leaves during the chunk, and of arrivals that are never selected. Somebody stops being selected
// with the arrival by which K are better: were all arrivals better, that would be the one whose number is what there is room for
// and the old below it; any arrival up to there that is not better puts it off by one. Where many of the old leave, they are sorted
// first; in short chunks, whose old are in the order of their arrival, there are at most as many as threads.
__device__ void write_expiry(const Arguments& a, const Sequence& s, int g, int chunk, const Members& m, Candidate after) {
    const int old = find_leaving<K_PADDED / EXPIRY_THREADS>(m, 0, m.count, after, m.leaving);
    const int all = old + find_leaving<EXPIRY_SHARE>(m, K_PADDED, m.arrived, after, m.leaving + old);
    __syncthreads();
    const bool sorted = !GATHERED_IN_ORDER && old > 64;
    if (sorted) sort_old(m);
    if (threadIdx.x >= all) return;
    int place[EXPIRY_SHARE], below[EXPIRY_SHARE], last[EXPIRY_SHARE];  // the old below it, and that arrival's number, from 0
    Candidate c[EXPIRY_SHARE];
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) {
        const int l = e * EXPIRY_THREADS + threadIdx.x;
        place[e] = l >= all ? 0 : sorted && l < old ? l : m.leaving[l];
        c[e] = l < all ? m.old[place[e]] : 0;
        below[e] = 0;
        for (int end = sorted && l < all ? old : 0; below[e] < end;) {
            const int middle = (below[e] + end) / 2;
            if (m.old[middle] < c[e]) below[e] = middle + 1;
            else end = middle;
        }
    }
    for (int i = 0; i < (sorted ? 0 : old); ++i) {
        const Candidate other = m.old[m.leaving[i]];
#pragma unroll
        for (int e = 0; e < EXPIRY_SHARE; ++e) below[e] += other < c[e] ? 1 : 0;
    }
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) last[e] = K - m.count + below[e] - (place[e] < K_PADDED ? 0 : 1);
    for (int i = old; i < all; i += 4) {  // four at a time, whose loads overlap
        int arrival[4];
        Candidate other[4];
#pragma unroll
        for (int x = 0; x < 4; ++x) {
            const int at = i + x < all ? m.leaving[i + x] : K_PADDED + CHUNK;
            arrival[x] = at - K_PADDED;
            other[x] = m.old[arrival[x] < CHUNK ? at : 0];
        }
#pragma unroll
        for (int x = 0; x < 4; ++x) {
#pragma unroll
            for (int e = 0; e < EXPIRY_SHARE; ++e) last[e] += arrival[x] <= last[e] && other[x] <= c[e] ? 1 : 0;
        }
    }
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) {
        if (c[e] == 0) continue;
        // One that comes later than that is never selected.
        const int t = last[e] > place[e] - K_PADDED ? arrival_of(m.arrivals[last[e]]) : arrival_of(c[e]);
        a.expiry[position_index(a, s, g, arrival_of(c[e]) - WINDOW)] = t;
        if (t > arrival_of(c[e])) m.left[t - chunk * CHUNK] = score_of(c[e]);
    }
}

// The K-th best score at every query: that of who leaves next, and after the last one the one after the chunk.
__device__ void write_kth_scores(const Arguments& a, const Sequence& s, int g, int chunk, const Members& m, float after) {
    const int share = (CHUNK + EXPIRY_THREADS - 1) / EXPIRY_THREADS;
    // Thread 0 has the last queries of the chunk.
    const int end = CHUNK - static_cast<int>(threadIdx.x) * share, begin = end - share > 0 ? end - share : 0;
    float least = after, all;
    for (int i = begin; i < end; ++i) least = Least()(least, m.left[i]);
    least = scan_block(least, after, all, Least());
    for (int i = end - 1; i >= begin; --i) {
        const int t = chunk * CHUNK + i;
        if (t < s.length) a.kth_score[position_index(a, s, g, t)] = least;
        least = Least()(least, m.left[i]);
    }
}

// The keys of the chunk, ascending: sinks that are past the window at some query of it, and the selected.
__device__ void write_keys(const Arguments& a, const Sequence& s, int g, int chunk, const Members& m, Candidate after) {
    const long long list = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    int* keys = a.chunk_keys + list * CHUNK_KEYS;
    int next = write_sinks(a, s, chunk, keys);
    if constexpr (GATHERED_IN_ORDER) {
        for (int i = threadIdx.x; i < m.count; i += EXPIRY_THREADS) keys[next + i] = arrival_of(m.old[i]) - WINDOW;
    } else {
        constexpr int SHARE = K_PADDED / EXPIRY_THREADS;
        unsigned arrivals[SHARE];
#pragma unroll
        for (int e = 0; e < SHARE; ++e) {
            const int i = threadIdx.x * SHARE + e;
            arrivals[e] = i < m.count ? arrival_of(m.old[i]) : ~0u;
        }
        bitonic_sort<K_PADDED>(arrivals, reinterpret_cast<unsigned*>(m.old), 1);
#pragma unroll
        for (int e = 0; e < SHARE; ++e) {
            const int i = threadIdx.x * SHARE + e;
            if (i < m.count) keys[next + i] = static_cast<int>(arrivals[e]) - WINDOW;
        }
    }
    next += m.count;
    bool selected[EXPIRY_SHARE];
    int slot[EXPIRY_SHARE];
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) {
        const int i = e * EXPIRY_THREADS + threadIdx.x;
        const Candidate c = i < m.arrived ? m.arrivals[i] : 0;
        selected[e] = c >= after && c != 0;
        if (c != 0 && c < after) selected[e] = a.expiry[position_index(a, s, g, arrival_of(c) - WINDOW)] > arrival_of(c);
    }
    const int arrivals_selected = place_block<EXPIRY_THREADS>(selected, slot);
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e)
        if (selected[e]) keys[next + slot[e]] = arrival_of(m.arrivals[e * EXPIRY_THREADS + threadIdx.x]) - WINDOW;
    next += arrivals_selected;
    if (threadIdx.x == 0) write_counts(a, list, sinks_before(chunk) + m.count, next);
}

// Blocks of a multiprocessor: 64 registers are too few for many selected keys of a thread.
constexpr int EXPIRY_BLOCKS = CHUNK <= 256 && K_PADDED <= 8 * EXPIRY_THREADS ? 1024 / EXPIRY_THREADS : 1;

extern "C" __global__ void __launch_bounds__(EXPIRY_THREADS, EXPIRY_BLOCKS) plan_expiry(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(16) unsigned char shared_memory[];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    const long long bound = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    const Candidate before = chunk > 0 ? a.bound_kth[bound - 1] : 0, after = a.bound_kth[bound];

    Candidate c[EXPIRY_SHARE];  // who arrives
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) c[e] = arriving(a, s, g, chunk * CHUNK + e * EXPIRY_THREADS + threadIdx.x);

    Members m;
    m.old = reinterpret_cast<Candidate*>(shared_memory);
    m.arrivals = m.old + K_PADDED;
    m.left = reinterpret_cast<float*>(m.arrivals + CHUNK);
    m.leaving = reinterpret_cast<unsigned short*>(m.left + CHUNK);
    m.count = gather<EXPIRY_THREADS>(Earlier(a, s, g, chunk), before > 0 ? before : 1, m.old);
    bool above[EXPIRY_SHARE];
    int slot[EXPIRY_SHARE];
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) above[e] = c[e] > before;
    m.arrived = place_block<EXPIRY_THREADS>(above, slot);
#pragma unroll
    for (int e = 0; e < EXPIRY_SHARE; ++e) {
        const int i = e * EXPIRY_THREADS + threadIdx.x, t = chunk * CHUNK + i;
        m.left[i] = INFINITY_F;
        if (above[e]) m.arrivals[slot[e]] = c[e];
        else if (c[e] != 0) a.expiry[position_index(a, s, g, t - WINDOW)] = t;
    }
    __syncthreads();
    write_expiry(a, s, g, chunk, m, after);
    __syncthreads();
    write_kth_scores(a, s, g, chunk, m, after == 0 ? -INFINITY_F : score_of(after));
    write_keys(a, s, g, chunk, m, after);
}

// tau of every query of a chunk, from the states before and after it. It changes only at events: arrivals above tau before
// the chunk. Of those who arrived earlier most stay fractional, saturated or below all the time, and count by number and
// sum; the few others, the movers, are copied to shared memory. Warps then find tau after every group of events, and last
// that after each event of a group, one to a lane, from the fewer still that move within the group. All that runs beside
// plan_expiry, whose K-th best scores decide only where f is K at more than one t: tau is the largest.

constexpr int TAU_THREADS = CHUNK < 256 ? CHUNK : 256, TAU_WARPS = TAU_THREADS / 32, TAU_SHARE = CHUNK / TAU_THREADS;
constexpr int TAU_GROUPS = CHUNK / 32 > TAU_WARPS ? CHUNK / 32 : TAU_WARPS;
constexpr int MOVERS = 1024;                         // that a block keeps
constexpr int UNSTABLE = CHUNK <= 512 ? 544 : 160;   // that a warp keeps, as shared memory allows: eights

// What a block knows of a chunk.
struct ChunkScores {
    const Earlier& earlier;   // who arrived before it,
    Stable stable;            // and what they are between tau before it and after it
    int moving;               // more than MOVERS: not all are there
    const float* events;      // in time order; the movers are before the first
    const int* whole_events;  // the same
    Scale scale;              // of the whole chunk
};

// Whoever has arrived by an event; every lane of a warp gets the total.
struct ArrivedCandidates {
    const ChunkScores& chunk;
    int events;  // so many

    __device__ Total total(double t) const {
        const int lane = threadIdx.x % 32;
        Total sum = {0.0, 0, 0};
        const bool has_movers = chunk.moving <= MOVERS;
        if (!has_movers) chunk.earlier.add(t, sum);
        else if (lane == 0) chunk.stable.add(t, sum);
#pragma unroll 1  // registers are short
        for (int i = lane - (has_movers ? chunk.moving : 0); i < events; i += 32) sum.add(chunk.events[i], t);
        return sum_warp(sum);
    }
};

// The same of whole numbers.
struct ArrivedWhole {
    const ChunkScores& chunk;
    const Scale& scale;
    long long of_stable;
    int events;

    __device__ WholeTotal total(int t) const {
        const int lane = threadIdx.x % 32;
        WholeTotal sum = {0, 0};
        sum.add<32>(chunk.whole_events, events, lane - chunk.moving, t, scale.one);
        const int fractional = chunk.stable.fractional;
        return {sum_warp(sum.sum) + of_stable - static_cast<long long>(fractional) * t, sum_warp(sum.fractional) + fractional};
    }
};

// tau after a number of events, between two bounds.
__device__ double root_after(const ChunkScores& chunk, int events, double low, double high, double guess) {
    const Scale& scale = chunk.scale;
    if (chunk.moving <= MOVERS && scale.is_used()) {
        const ArrivedWhole candidates = {chunk, scale, chunk.stable.whole(scale), events};
        guess = whole_root(candidates, scale.whole(low), scale.whole(high), scale.whole(guess));
        if (scale.reaches(guess)) return guess;
    }
    return root(ArrivedCandidates{chunk, events}, low, high, guess);
}

// Whoever has arrived by one event of a group, while tau is in a bracket.
struct GroupCandidates {
    const Scale& scale;
    long long of_stable;
    int fractional;  // of the stable
    const int* unstable;  // that arrived before the group, then zeros up to a multiple of eight,
    int count;
    const int* recent;  // and those of the group above low, in time order
    int arrived;        // of these by this event

    __device__ WholeTotal total(int t) const {
        WholeTotal sum = {of_stable - static_cast<long long>(fractional) * t, fractional};
        sum.add_eights(unstable, count, t, scale.one);
        sum.add<1>(recent, arrived, 0, t, scale.one);
        return sum;
    }
};

// Splits those who arrived before a group into stable and unstable ones; every lane gets the same. Returns how many are
// unstable, of which the whole numbers are written; more than UNSTABLE are not all there.
__device__ int split(const ChunkScores& chunk, int events, const Scale& scale, double low, double high, Stable& stable, int* unstable) {
    const int lane = threadIdx.x % 32;
    int saturated = 0, fractional = 0, next = 0;
    double sum = 0.0;
    const Bracket bracket(low, high);
    for (int base = -chunk.moving; base < events && next <= UNSTABLE; base += 32) {
        const float u = base + lane < events ? chunk.events[base + lane] : -INFINITY_F;
        const bool stays = bracket.stays(u), moves = bracket.moves(u);
        saturated += bracket.sits(u) ? 1 : 0;
        fractional += stays ? 1 : 0;
        sum += stays ? u - high : 0.0;
        const unsigned lanes = __ballot_sync(FULL_WARP, moves);
        const int slot = next + __popc(lanes & ((1u << lane) - 1));
        next += __popc(lanes);
        if (moves && next <= UNSTABLE) unstable[slot] = scale.whole(u);
    }
    const Stable& s = chunk.stable;
    stable.saturated = s.saturated + sum_warp(saturated);
    stable.fractional = s.fractional + sum_warp(fractional);
    stable.sum = sum_warp(sum) + (s.fractional > 0 ? s.sum + s.fractional * (s.high - high) : 0.0);
    stable.high = high;
    return next;
}

// A root after every event of a group, one to a lane, between those before and after the group.
__device__ double root_in_group(const ChunkScores& chunk, int before, int end, bool known, double low, double high, int* unstable) {
    const int lane = threadIdx.x % 32;
    const float score = before + lane < end ? chunk.events[before + lane] : -INFINITY_F;
    const unsigned known_lanes = __ballot_sync(FULL_WARP, known), recent = __ballot_sync(FULL_WARP, score > low);
    if (known_lanes == 0) return -INFINITY_F;
    if (!(low < high) || recent == 0) return known ? high : -INFINITY_F;  // nobody moves it
    const bool moves = known && recent >> lane >= 2;                       // and later in the group
    const double step = __fdividef(static_cast<float>(high - low), static_cast<float>(end - before));
    double tau = moves ? low + step * (lane + 1) : known ? high : -INFINITY_F;  // a guess, where it moves
    bool found = !moves;
    const Scale scale(low, high);
    if (chunk.moving <= MOVERS && scale.is_used()) {
        Stable stable;
        const int count = split(chunk, before, scale, low, high, stable, unstable);
        if (count <= UNSTABLE) {
            const int earlier = __popc(recent & ((1u << lane) - 1)), arrives = recent >> lane & 1;
            if (arrives) unstable[UNSTABLE + earlier] = scale.whole(score);
            if (lane < 8 && count + lane < UNSTABLE) unstable[count + lane] = 0;
            __syncwarp();
            if (moves) {
                const GroupCandidates candidates = {scale, stable.whole(scale), stable.fractional, unstable, count,
                                                    unstable + UNSTABLE, earlier + arrives};
                tau = whole_root(candidates, 0, scale.whole(high), scale.whole(tau));
                found = scale.reaches(tau);
            }
        }
        __syncwarp();  // unstable has been read
    }
    // Too many to go over for every lane, or too far apart for whole numbers: one event after another, by all lanes.
    for (unsigned left = __ballot_sync(FULL_WARP, !found); left != 0; left &= left - 1) {
        const int e = __ffs(left) - 1;
        const double t = root(ArrivedCandidates{chunk, before + e + 1}, low, high, __shfl_sync(FULL_WARP, tau, e));
        if (lane == e) tau = t;
    }
    return known ? Least()(tau, high) : tau;
}

// Below tau of any query of a chunk before which there was none: all that have arrived when it begins count 1 there.
__device__ double below_all(const Earlier& earlier, const float* events, int count) {
    double least = earlier.least<TAU_THREADS>(), all;
    for (int i = threadIdx.x; i < count; i += TAU_THREADS) least = Least()(least, static_cast<double>(events[i]));
    scan_block(least, static_cast<double>(INFINITY_F), all, Least());
    return all - 1.0;
}

// The greatest tau after any chunk before this one: states are found one by one and may differ in the last bits.
__device__ double tau_before(const Arguments& a, long long bound, int chunk) {
    __shared__ double of_warps[TAU_WARPS];
    double tau = -INFINITY_F;
    for (int c = threadIdx.x; c < chunk; c += TAU_THREADS) tau = Greatest()(tau, a.bound_tau[bound - 1 - c]);
    for (int d = 16; d > 0; d /= 2) tau = Greatest()(tau, __shfl_xor_sync(FULL_WARP, tau, d));
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = tau;
    __syncthreads();
    for (const double x : of_warps) tau = Greatest()(tau, x);
    return tau;
}

// Blocks of a multiprocessor. 80 registers are too few for long chunks and before sm_90.
constexpr int TAU_BLOCKS = CHUNK <= 1024 && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200 ? 3 : 2;

extern "C" __global__ void __launch_bounds__(TAU_THREADS, TAU_BLOCKS) plan_tau(const __grid_constant__ Arguments a) {
    __shared__ float scores[MOVERS + CHUNK];  // of movers, the first one last, and events
    __shared__ int whole[MOVERS + CHUNK];
    __shared__ unsigned short event_query[CHUNK];  // of the chunk
    __shared__ double tau_after[TAU_GROUPS];
    __shared__ alignas(16) int unstable[TAU_WARPS][UNSTABLE + 32];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long bound = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    float* tau = a.tau + position_index(a, s, g, chunk * CHUNK);
    const float* kth_score = a.kth_score + position_index(a, s, g, chunk * CHUNK);
    float* events = scores + MOVERS;
    const int queries = s.length - chunk * CHUNK < CHUNK ? s.length - chunk * CHUNK : CHUNK;

    const Earlier earlier(a, s, g, chunk);
    float score[TAU_SHARE];  // of the arrivals, −inf where there is none
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) {
        const Candidate c = arriving(a, s, g, chunk * CHUNK + e * TAU_THREADS + threadIdx.x);
        score[e] = c != 0 ? score_of(c) : -INFINITY_F;
    }
    const double before = tau_before(a, bound, chunk), after = Greatest()(before, a.bound_tau[bound]);
    if (before == after) {
        for (int i = threadIdx.x; i < queries; i += TAU_THREADS) tau[i] = static_cast<float>(after);
        wait_for_earlier_launches();
        return;
    }
    bool is_event[TAU_SHARE];
    int slot[TAU_SHARE];  // as many events come before
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) is_event[e] = score[e] > before;
    const int count = place_block<TAU_THREADS>(is_event, slot);
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) {
        if (!is_event[e]) continue;
        events[slot[e]] = score[e];
        event_query[slot[e]] = static_cast<unsigned short>(e * TAU_THREADS + threadIdx.x);
    }
    // tau is −inf until K + 1 have arrived; until then all are events.
    const int arrived = before > -INFINITY_F ? K + 1 : chunk > 0 ? a.bound_arrived[bound - 1] : 0;
    __syncthreads();
    const double lowest = before > -INFINITY_F ? before : below_all(earlier, events, Least()(count, K + 1 - arrived));
    ChunkScores of_chunk = {earlier, {}, 0, events, whole + MOVERS, Scale(lowest, after)};
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e)
        if (is_event[e]) whole[MOVERS + slot[e]] = of_chunk.scale.whole(score[e]);
    of_chunk.moving =
        split_earlier<TAU_THREADS, MOVERS>(earlier, of_chunk.scale, lowest, after, of_chunk.stable, events, whole + MOVERS);

    // As many groups as warps, but of at most 32 events.
    const int share = (count + TAU_WARPS - 1) / TAU_WARPS, size = share < 32 ? share : 32;
    for (int group = warp; group * size < count; group += TAU_WARPS) {
        const int end = Least()((group + 1) * size, count);
        double t = after;
        if (arrived + end <= K) t = -INFINITY_F;
        else if (end < count) t = root_after(of_chunk, end, lowest, after, lowest + (after - lowest) * end / count);
        if (lane == 0) tau_after[group] = t;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double greatest = before;
        for (int group = 0; group * size < count; ++group) {
            greatest = Greatest()(greatest, Least()(tau_after[group], after));
            tau_after[group] = greatest;
        }
    }
    __syncthreads();
    for (int group = warp; group * size < count; group += TAU_WARPS) {
        const int first = group * size, end = Least()(first + size, count), e = first + lane;
        const bool known = e < end && arrived + e >= K;
        const double low = Greatest()(group > 0 ? tau_after[group - 1] : before, lowest);
        double t = root_in_group(of_chunk, first, end, known, low, tau_after[group], unstable[warp]);
        wait_for_earlier_launches();  // only the K-th best scores are of the launch before
        if (known) t = Greatest()(Greatest()(t, low), kth_score[event_query[e]] - 1.0);
        float rounded = static_cast<float>(t);
        for (int d = 1; d < 32; d *= 2) rounded = Greatest()(rounded, __shfl_up_sync(FULL_WARP, rounded, d));
        if (e < end) tau[event_query[e]] = known ? rounded : -INFINITY_F;
    }
    wait_for_earlier_launches();
    __syncthreads();
    // Any other query has tau of the last event before it.
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) {
        const int i = e * TAU_THREADS + threadIdx.x;
        if (i < queries && !is_event[e]) tau[i] = slot[e] > 0 ? tau[event_query[slot[e] - 1]] : static_cast<float>(before);
    }
}
