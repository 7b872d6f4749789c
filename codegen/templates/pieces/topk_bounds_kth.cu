// The K-th best of the scores of a list, or of all, of which the block's warps look at parts.

// What a block has in shared memory.
struct BoundMemory {
    float scores[LISTED];  // of the list, NaN behind its last
    int whole[LISTED];     // the same as whole numbers, 0 there
    Candidate few[FEW];
    int few_count;
    Normal normal;
    float tau;  // as a sample has it
};

// All that have arrived by the end of a chunk.
struct AllArrived {
    const Earlier& all;

    __device__ int count() const { return all.count; }
    template <class Team>
    __device__ static int index(int base, int e) { return base + e * Team::THREADS + Team::thread(); }
    template <class Team>
    __device__ void load(int base, float (&u)[AT_A_TIME]) const {
        all.load_run<Team::THREADS>(index<Team>(base, 0), u);
    }
    __device__ float score(int i) const {
        return SINKS <= i && i < all.count ? all.scores[i * all.stride] : __int_as_float(0x7fffffff);
    }
    __device__ Candidate candidate(float score, int i) const { return Earlier::candidate(score, i); }
};

// Those that are listed.
struct ListArrived {
    const float* scores;
    const int2* listed;
    int size;

    __device__ int count() const { return size; }
    template <class Team>
    __device__ static int index(int base, int e) { return base + (e / 4 * Team::THREADS + Team::thread()) * 4 + e % 4; }
    template <class Team>
    __device__ void load(int base, float (&u)[AT_A_TIME]) const {
#pragma unroll
        for (int e = 0; e < AT_A_TIME; e += 4) {
            const float4 x = *reinterpret_cast<const float4*>(scores + index<Team>(base, e));
            u[e] = x.x, u[e + 1] = x.y, u[e + 2] = x.z, u[e + 3] = x.w;
        }
    }
    __device__ float score(int i) const { return i < size ? scores[i] : __int_as_float(0x7fffffff); }
    __device__ Candidate candidate(float score, int i) const { return Earlier::candidate(score, listed[i].y); }
};

// Calls `use` with every thread's scores and the number of the first.
template <class Team, class Arrived, class Use>
__device__ __forceinline__ void each(const Arrived& arrived, Use use) {
#pragma unroll 1
    for (int base = 0; base < arrived.count(); base += AT_A_TIME * Team::THREADS) {
        float u[AT_A_TIME];
        arrived.template load<Team>(base, u);
        use(u, base);
    }
}

// The order of a score between two, of which a share of the way is gone.
__device__ __forceinline__ unsigned on_the_way(unsigned low, unsigned high, float share) {
    const float from = score_of_order(low), to = score_of_order(high);
    return ordered(from + share * (to - from));
}

// The best candidate of some whose orders lie in [low, high), but for so many that are better; at most FEW. Keys are fetched of the
// found one alone: as what is listed is in order of arrival, places in the list order equal scores as arrivals do.
template <class Team, class Arrived>
__device__ __forceinline__ Candidate best_of_few(const Arrived& arrived, unsigned low, unsigned high, int better, BoundMemory& memory) {
    const unsigned lower = (1u << threadIdx.x % 32) - 1;
    constexpr bool IS_WARP = Team::THREADS == 32;
    int of_warp = 0;
    int& taken = IS_WARP ? of_warp : memory.few_count;
    if (!IS_WARP && threadIdx.x == 0) taken = 0;
    Team::wait();
    each<Team>(arrived, [&](const float(&u)[AT_A_TIME], int base) {
#pragma unroll
        for (int e = 0; e < AT_A_TIME; ++e) {
            const unsigned order = ordered(u[e]);
            const bool between = low <= order && order < high;
            const unsigned lanes = __ballot_sync(FULL_WARP, between);
            if (lanes == 0) continue;
            const unsigned place = Arrived::template index<Team>(base, e);
            const int slot = Team::reserve(taken, __popc(lanes)) + __popc(lanes & lower);
            if (between) memory.few[slot] = static_cast<Candidate>(order) << 32 | ~place;
        }
    });
    Team::wait();
    const int count = taken;
    Candidate best = 0;
    for (int i = Team::thread(); i < count; i += Team::THREADS) {
        const Candidate mine = memory.few[i];
        int above = 0;
#pragma unroll 4
        for (int o = 0; o < count; ++o) above += memory.few[o] > mine ? 1 : 0;
        if (above == better) best = mine;
    }
    Team::wait();
    if (best != 0) memory.few[0] = best;
    Team::wait();
    return arrived.candidate(score_of(memory.few[0]), static_cast<int>(~static_cast<unsigned>(memory.few[0])));
}

// The oldest candidate of one score, but for so many that are older.
template <class Team, class Arrived>
__device__ __forceinline__ Candidate oldest_of(const Arrived& arrived, unsigned order, int older, BoundMemory& memory) {
    const int lane = threadIdx.x % 32;
    if (Team::thread() < 32) {
        for (int base = 0, next = 0; base < arrived.count() && next <= older; base += 32) {
            const float u = arrived.score(base + lane);
            const bool equal = Earlier::is_candidate(u) && ordered(u) == order;
            const unsigned lanes = __ballot_sync(FULL_WARP, equal);
            if (equal && next + __popc(lanes & ((1u << lane) - 1)) == older) memory.few[0] = arrived.candidate(u, base + lane);
            next += __popc(lanes);
        }
    }
    Team::wait();
    return memory.few[0];
}

// The orders of the least and the best.
template <class Team, class Arrived>
__device__ __forceinline__ uint2 ends_of(const Arrived& arrived) {
    uint2 ends = {~0u, 0};
    each<Team>(arrived, [&](const float(&u)[AT_A_TIME], int) {
#pragma unroll
        for (int e = 0; e < AT_A_TIME; ++e) {
            if (!Earlier::is_candidate(u[e])) continue;
            ends.x = Least()(ends.x, ordered(u[e]));
            ends.y = Greatest()(ends.y, ordered(u[e]));
        }
    });
    return Team::reduce(uint2{__reduce_min_sync(FULL_WARP, ends.x), __reduce_max_sync(FULL_WARP, ends.y)},
                        [](uint2 x, uint2 y) { return uint2{Least()(x.x, y.x), Greatest()(x.y, y.y)}; });
}

// The K-th best of at least K candidates, of which so many there are, all above a bound. It is in [low, high); in a step two pivots
// divide that: at first what normal scores would have before and behind it; then where it would be if scores were spread evenly and
// the middle of the scores, or a few candidates before and behind the former once few are left; every fourth time thirds of the
// numbers of scores, which end in any case.
template <class Team, class Arrived>
__device__ __forceinline__ Candidate kth_best(const Arrived& arrived, int count, float bound, BoundMemory& memory) {
    const Normal& normal = memory.normal;
    constexpr unsigned LEAST = 0x00800000, NONE = 0xff800001;  // the order one above −∞, and that one above +∞
    unsigned low = ordered(bound) + 1, high = NONE;
    int from_low = count, from_high = 0;  // candidates from there on
    for (int step = 0; from_low - from_high > FEW && high - low > 1; ++step) {
        if (step > 0 && (low == LEAST || high == NONE)) {
            const uint2 ends = ends_of<Team>(arrived);
            low = Greatest()(low, ends.x), high = Least()(high, ends.y + 1);
        }
        const float between = from_low - from_high, here = from_low - K + 0.5f, margin = 0.35f * FEW;
        unsigned pivot, pivot2;
        if (step == 0) {
            const float all = normal.share * normal.count, beside = 2.0f * root_of(K * normal.share);
            pivot = ordered(normal.exceeded_by(__fdividef(K + beside, all)));
            pivot2 = ordered(normal.exceeded_by(__fdividef(K - beside, all)));
        } else if (step % 4 == 0) {
            pivot = low + (high - low) / 3;
            pivot2 = low + (high - low) / 3 * 2;
        } else if (between < 16 * FEW) {
            pivot = on_the_way(low, high, __fdividef(here - margin, between));
            pivot2 = on_the_way(low, high, __fdividef(here + margin, between));
        } else {
            pivot = on_the_way(low, high, __fdividef(here, between));
            pivot2 = on_the_way(low, high, 0.5f);
        }
        pivot = Greatest()(Least()(pivot, high - 1), low + 1);
        pivot2 = Greatest()(Least()(pivot2, high - 1), low + 1);
        if (pivot2 < pivot) {
            const unsigned lower = pivot2;
            pivot2 = pivot;
            pivot = lower;
        }
        const float from = score_of_order(pivot), from2 = score_of_order(pivot2);
        int2 counts = {0, 0};
        each<Team>(arrived, [&](const float(&u)[AT_A_TIME], int) {
#pragma unroll
            for (int e = 0; e < AT_A_TIME; ++e) counts.x += u[e] >= from ? 1 : 0, counts.y += u[e] >= from2 ? 1 : 0;
        });
        counts = Team::reduce(int2{sum_warp(counts.x), sum_warp(counts.y)}, [](int2 x, int2 y) { return int2{x.x + y.x, x.y + y.y}; });
        if (counts.y >= K) {
            low = pivot2, from_low = counts.y;
        } else if (counts.x >= K) {
            low = pivot, from_low = counts.x, high = pivot2, from_high = counts.y;
        } else {
            high = pivot, from_high = counts.x;
        }
    }
    if (from_low - from_high <= FEW) return best_of_few<Team>(arrived, low, high, K - 1 - from_high, memory);
    return oldest_of<Team>(arrived, low, K - 1 - from_high, memory);
}
