// The state after every chunk of short ones, from the scores themselves: a block counts those above pivots until few are left
// between two, of which it ranks each; then tau by Newton's method over all.

constexpr int BOUND_THREADS = 256, BOUND_WARPS = BOUND_THREADS / 32;
constexpr int HELD = 8192;  // scores that are kept in shared memory; those beyond are read again
constexpr int FEW = 64;     // candidates that are ranked one by one

// Sums of a block over its warps' ones; every thread gets the same. Two calls in a row have different memory.
template <class T>
struct OfWarps {
    T (&memory)[2][BOUND_WARPS];
    int call = 0;

    template <class Add>
    __device__ T sum(const T& of_warp, Add add) {
        T* of_warps = memory[call++ % 2];
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = of_warp;
        __syncthreads();
        T all = of_warps[0];
#pragma unroll
        for (int w = 1; w < BOUND_WARPS; ++w) all = add(all, of_warps[w]);
        return all;
    }
};

// Who has arrived by the end of a chunk.
struct Arrived {
    Earlier all;
    unsigned* held;  // [HELD] the order of every key's score, 0 if it is no candidate

    __device__ unsigned order(int j) const { return Earlier::order(all.score(j)); }

    // The i-th of eight keys that a thread has of the 8 · BOUND_THREADS from `base` on.
    __device__ static int key(int base, int i) { return base + (i / 4 * BOUND_THREADS + threadIdx.x) * 4 + i % 4; }

    // Calls `use` with eight of those held at a time, and with what `read` makes of keys beyond.
    template <class Read, class Use>
    __device__ void each(Read read, Use use) const {
        const int end = Least()(all.count, HELD);
#pragma unroll 1
        for (int base = 0; base < end; base += 8 * BOUND_THREADS) {
            const int4 a = *reinterpret_cast<const int4*>(held + key(base, 0)), b = *reinterpret_cast<const int4*>(held + key(base, 4));
            const int x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            use(x, base);
        }
#pragma unroll 1
        for (int base = HELD; base < all.count; base += 8 * BOUND_THREADS) {
            int x[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) x[i] = read(key(base, i));
            use(x, base);
        }
    }

    template <class Use>
    __device__ void each_order(Use use) const {
        each([&](int j) { return static_cast<int>(order(j)); }, [&](const int (&x)[8], int base) {
#pragma unroll
            for (int i = 0; i < 8; ++i) use(static_cast<unsigned>(x[i]), base, i);
        });
    }
};

// What a block knows of all candidates at first: the orders of the least and the best, the sums of scores and of their squares.
struct Present {
    int count;
    unsigned least, most;
    float sum, squares;

    __device__ void add(const Present& x) {
        count += x.count;
        least = Least()(least, x.least);
        most = Greatest()(most, x.most);
        sum += x.sum;
        squares += x.squares;
    }
};

// Loads them.
__device__ Present load_all(const Arrived& arrived) {
    __shared__ Present memory[2][BOUND_WARPS];
    Present mine = {0, ~0u, 0, 0.0f, 0.0f};
#pragma unroll 1
    for (int base = 0; base < arrived.all.count; base += 8 * BOUND_THREADS) {
        float u[8];
        arrived.all.load<BOUND_THREADS>(base + threadIdx.x, u);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const unsigned order = Earlier::order(u[e]);
            if (base < HELD) arrived.held[base + e * BOUND_THREADS + threadIdx.x] = order;
            mine.add({order != 0 ? 1 : 0, order - 1, order, order != 0 ? u[e] : 0.0f, order != 0 ? u[e] * u[e] : 0.0f});
        }
    }
    mine.count = sum_warp(mine.count);
    mine.least = __reduce_min_sync(FULL_WARP, mine.least);
    mine.most = __reduce_max_sync(FULL_WARP, mine.most);
    for (int d = 16; d > 0; d /= 2) {
        mine.sum += __shfl_xor_sync(FULL_WARP, mine.sum, d);
        mine.squares += __shfl_xor_sync(FULL_WARP, mine.squares, d);
    }
    Present all = OfWarps<Present>{memory}.sum(mine, [](Present x, const Present& y) {
        x.add(y);
        return x;
    });
    ++all.least;  // 0 became the greatest
    return all;
}

// What so large a share of normal scores exceeds, to 0.003 standard deviations (Abramowitz and Stegun, 26.2.22).
__device__ float exceeded_by(float share, const Present& present) {
    const float tail = fminf(fmaxf(fminf(share, 1.0f - share), 1e-9f), 0.5f), x = sqrtf(-2.0f * __logf(tail));
    const float z = x - __fdividef(2.30753f + 0.27061f * x, 1.0f + x * (0.99229f + 0.04481f * x));
    const float mean = present.sum / present.count, variance = fmaxf(present.squares / present.count - mean * mean, 0.0f);
    return mean + (share < 0.5f ? z : -z) * sqrtf(variance);
}

// The order of a score between two, of which a share of the way is gone.
__device__ __forceinline__ unsigned on_the_way(unsigned low, unsigned high, float share) {
    const float from = score_of_order(low), to = score_of_order(high);
    return ordered(from + share * (to - from));
}

// The best candidate of some that lie in [low, high], but for so many that are better; at most FEW.
__device__ Candidate best_of_few(const Arrived& arrived, unsigned low, unsigned high, int better) {
    __shared__ Candidate few[FEW], best;
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    arrived.each_order([&](unsigned order, int base, int i) {
        if (low <= order && order <= high) few[atomicAdd(&count, 1)] = Earlier::candidate(order, Arrived::key(base, i));
    });
    __syncthreads();
    const Candidate mine = threadIdx.x < count ? few[threadIdx.x] : 0;
    int above = 0;
#pragma unroll 8
    for (int i = 0; i < count; ++i) above += few[i] > mine ? 1 : 0;
    if (threadIdx.x < count && above == better) best = mine;
    __syncthreads();
    return best;
}

// The oldest candidate of one score, but for so many that are older.
__device__ Candidate oldest_of(const Arrived& arrived, unsigned order, int older) {
    __shared__ Candidate oldest;
    constexpr int SHARE = 8;
    for (int base = 0, next = 0; base < arrived.all.count && next <= older; base += SHARE * BOUND_THREADS) {
        bool equal[SHARE];
        int slot[SHARE];
#pragma unroll
        for (int e = 0; e < SHARE; ++e) equal[e] = arrived.order(base + e * BOUND_THREADS + threadIdx.x) == order;
        const int count = place_block<BOUND_THREADS>(equal, slot);
#pragma unroll
        for (int e = 0; e < SHARE; ++e)
            if (equal[e] && next + slot[e] == older) oldest = Earlier::candidate(order, base + e * BOUND_THREADS + threadIdx.x);
        next += count;
    }
    __syncthreads();
    return oldest;
}

// The K-th best where at least K have arrived. It is in [low, high); in a step two pivots divide that: at first what normal
// scores would have before and behind it; then where it would be if scores were spread evenly and the middle of the scores, or a few
// candidates before and behind the former once few are left; every fourth time thirds of the numbers of scores, which end in any case.
__device__ Candidate kth_best(const Arrived& arrived, const Present& present) {
    __shared__ int2 memory[2][BOUND_WARPS];
    OfWarps<int2> of_warps = {memory};
    unsigned low = present.least, high = present.most + 1;
    int from_low = present.count, from_high = 0;  // candidates from there on
    for (int step = 0; from_low - from_high > FEW && high - low > 1; ++step) {
        const float between = from_low - from_high, here = from_low - K + 0.5f, margin = 0.35f * FEW;
        unsigned pivot, pivot2;
        if (step == 0) {
            const float beside = 3.0f * sqrtf(K);
            pivot = ordered(exceeded_by((K + beside) / present.count, present));
            pivot2 = ordered(exceeded_by((K - beside) / present.count, present));
        } else if (step % 4 == 0) {
            pivot = low + (high - low) / 3;
            pivot2 = low + (high - low) / 3 * 2;
        } else if (between < 16 * FEW) {
            pivot = on_the_way(low, high, (here - margin) / between);
            pivot2 = on_the_way(low, high, (here + margin) / between);
        } else {
            pivot = on_the_way(low, high, here / between);
            pivot2 = on_the_way(low, high, 0.5f);
        }
        pivot = Greatest()(Least()(pivot, high - 1), low + 1);
        pivot2 = Greatest()(Least()(pivot2, high - 1), low + 1);
        if (pivot2 < pivot) {
            const unsigned lower = pivot2;
            pivot2 = pivot;
            pivot = lower;
        }
        int2 from = {0, 0};
        arrived.each_order([&](unsigned order, int, int) { from.x += order >= pivot ? 1 : 0, from.y += order >= pivot2 ? 1 : 0; });
        from = of_warps.sum({sum_warp(from.x), sum_warp(from.y)}, [](int2 x, int2 y) { return int2{x.x + y.x, x.y + y.y}; });
        if (from.y >= K) {
            low = pivot2, from_low = from.y;
        } else if (from.x >= K) {
            low = pivot, from_low = from.x, high = pivot2, from_high = from.y;
        } else {
            high = pivot, from_high = from.x;
        }
    }
    if (from_low - from_high <= FEW) return best_of_few(arrived, low, high - 1, K - 1 - from_high);
    return oldest_of(arrived, low, K - 1 - from_high);
}

// The scores above the lower end of tau's bracket, as whole numbers: every warp has those of its share of what is held.
struct AboveWhole {
    const Arrived& arrived;
    const Scale& scale;
    const int* mine;
    int count;
    OfWarps<WholeTotal>& of_warps;

    __device__ WholeTotal total(int t) const {
        WholeTotal sum = {0, 0};
        sum.add<32>(mine, count, threadIdx.x % 32, t, scale.one);
        for (int base = HELD; base < arrived.all.count; base += 8 * BOUND_THREADS) {
            float u[8];
            int x[8];
            arrived.all.load<BOUND_THREADS>(base + threadIdx.x, u);
#pragma unroll
            for (int e = 0; e < 8; ++e) x[e] = Earlier::order(u[e]) != 0 ? scale.whole(u[e]) : 0;
            sum.add(x, t, scale.one);
        }
        return of_warps.sum({sum_warp(sum.sum), sum_warp(sum.fractional)}, [](const WholeTotal& x, const WholeTotal& y) -> WholeTotal {
            return {x.sum + y.sum, x.fractional + y.fractional};
        });
    }
};

// Moves whole numbers of the scores above `low` to the front of a warp's share of what is held; returns how many there are.
__device__ int keep_above(const Scale& scale, double low, unsigned* held, int count) {
    const int lane = threadIdx.x % 32;
    const unsigned least = static_cast<unsigned>(least_above(low) >> 32);
    int next = 0;
#pragma unroll 1
    for (int base = 0; base < count; base += 128) {
        unsigned order[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) order[e] = base + e * 32 + lane < count ? held[base + e * 32 + lane] : 0;
        __syncwarp();
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const unsigned above = __ballot_sync(FULL_WARP, order[e] >= least);
            if (order[e] >= least) held[next + __popc(above & ((1u << lane) - 1))] = order[e];
            next += __popc(above);
        }
        __syncwarp();
    }
    for (int i = lane; i < next; i += 32) held[i] = scale.whole(score_of_order(held[i]));
    __syncwarp();
    return next;
}

// All as doubles.
struct AllDouble {
    const Arrived& arrived;
    OfWarps<Total>& of_warps;

    __device__ Total total(double t) const {
        Total sum = {0.0, 0, 0};
        arrived.each_order([&](unsigned order, int, int) {
            if (order != 0) sum.add(score_of_order(order), t);
        });
        return of_warps.sum(sum_warp(sum), [](Total x, const Total& y) {
            x.add(y);
            return x;
        });
    }
};

// tau where more than K have arrived, in [v − 1, v], v being the K-th best score: near the middle, as a gate is 1/2 on average in
// the range in which it is fractional. Overwrites what is held.
__device__ double tau_of_all(const Arrived& arrived, double v) {
    __shared__ Total memory[2][BOUND_WARPS];
    __shared__ WholeTotal whole_memory[2][BOUND_WARPS];
    const double low = v - 1.0, high = v;
    if (!(low < high)) return low;
    const Scale scale(low, high);
    if (!scale.is_used()) {
        OfWarps<Total> of_warps = {memory};
        return root(AllDouble{arrived, of_warps}, low, high, low);
    }
    __syncthreads();  // orders have been read
    OfWarps<WholeTotal> of_warps = {whole_memory};
    const int here = Least()(arrived.all.count, HELD), share = (here + BOUND_WARPS - 1) / BOUND_WARPS;
    const int first = Least()(static_cast<int>(threadIdx.x / 32) * share, here), end = Least()(first + share, here);
    unsigned* mine = arrived.held + first;
    const int count = keep_above(scale, low, mine, end - first);
    return whole_root(AboveWhole{arrived, scale, reinterpret_cast<const int*>(mine), count, of_warps}, scale.whole(low),
                      scale.whole(high), scale.one / 2);
}

extern "C" __global__ void __launch_bounds__(BOUND_THREADS) plan_bounds(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    __shared__ alignas(16) unsigned held[HELD];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    const int t = chunk * CHUNK + threadIdx.x;
    const bool arrives = arriving(a, s, g, t) != 0;  // at the query that a thread has, which is none beyond the chunk
    const Arrived arrived = {Earlier(a, s, g, chunk + 1), held};
    const Present present = load_all(arrived);
    const Candidate kth = present.count < K ? 0 : kth_best(arrived, present);
    const double tau = present.count > K ? tau_of_all(arrived, score_of(kth)) : -INFINITY_F;
    if (threadIdx.x == 0) write_state(a, g, kth, tau, present.count);
    if (threadIdx.x < CHUNK) write_first_expiry(a, s, g, t, arrives);
}
