// Who is selected during a chunk, from the states before and after it. Of the candidates that are among the best before the
// chunk those below the K-th best after it leave in between; of those that arrive only the ones above the K-th best before
// matter. Each query brings one arrival, so at most one candidate leaves at a query, and they leave in ascending order.

__device__ constexpr int power_of_two_from(int n) {
    int power = 1;
    while (power < n) power *= 2;
    return power;
}
constexpr int EXPIRY_THREADS = CHUNK <= 256 ? CHUNK : CHUNK <= 2048 ? CHUNK / 4 : 512;
constexpr int EXPIRY_SHARE = CHUNK / EXPIRY_THREADS;
constexpr int K_PADDED = power_of_two_from(K > EXPIRY_THREADS ? K : EXPIRY_THREADS);
constexpr int ARRIVALS = CHUNK <= 256 ? 32 : 64;  // of a group

// Arrivals go in groups, and so do those who leave: by the first group after which the K-th best is above them. Who stays up
// to a group is above whoever leaves before.
struct Members {
    Candidate* old;       // [K_PADDED] the best before the chunk
    Candidate* arrivals;  // [CHUNK] those of the chunk above the K-th best before, in time order; old[K_PADDED] is the first
    float* left;          // [CHUNK] score of who leaves at each query, +inf where nobody does
    unsigned short* out;  // [CHUNK] who is there before a group, and leaves in it: indices into `old`, ARRIVALS for each group
    Candidate* kth;       // [groups] the K-th best after each
    int* leaving;         // [groups] number in `out`
    int count, arrived, groups;

    // Where member i is, after the old come the arrivals.
    __device__ int place(int i) const { return i < count ? i : K_PADDED + i - count; }

    // The group with which it comes, −1 for the old; and the one in which it leaves.
    __device__ int comes_in(int place) const { return place < K_PADDED ? -1 : (place - K_PADDED) / ARRIVALS; }

    __device__ int leaves_in(Candidate c) const {
        int group = 0;
        while (c >= kth[group]) ++group;
        return group;
    }
};

// The K-th best after a number of arrivals; every lane of a warp gets it. It is the least that is left once all beyond K have
// gone, found by counting candidates below pivots: the score it would have if scores were spread evenly, and the middle of the
// candidates as integers, by turns.
__device__ __forceinline__ Candidate kth_after(const Members& m, int arrived, Candidate before, Candidate after) {
    const int lane = threadIdx.x % 32, gone = m.count + arrived - K;
    if (gone < 0) return 0;
    const auto below = [&](Candidate bound) {
        int n = 0;
#pragma unroll 4
        for (int i = lane; i < m.count; i += 32) n += m.old[i] < bound ? 1 : 0;
#pragma unroll 4
        for (int i = lane; i < arrived; i += 32) n += m.arrivals[i] < bound ? 1 : 0;
        return sum_warp(n);
    };
    Candidate low = before, high = after;
    int below_low = 0, below_high = below(after);
    if (below_high <= gone) return after;
    for (bool evenly = true; below_low < gone; evenly = !evenly) {
        const double share = __fdividef(gone - below_low + 0.5f, below_high - below_low), from = score_of(low);
        Candidate pivot = evenly ? least_above(from + share * (score_of(high) - from)) : low + (high - low) / 2;
        pivot = Greatest()(Least()(pivot, high - 1), low + 1);
        const int n = below(pivot);
        if (n <= gone) low = pivot, below_low = n;
        else high = pivot, below_high = n;
    }
    Candidate least = after;
    for (int i = lane; i < m.count; i += 32) least = m.old[i] >= low ? Least()(least, m.old[i]) : least;
    for (int i = lane; i < arrived; i += 32) least = m.arrivals[i] >= low ? Least()(least, m.arrivals[i]) : least;
    return least_of_warp(least);
}

// The query at which a candidate stops being selected, in a group in which it leaves: that of the arrival by which K are
// better than it, or its own if they are by then.
__device__ __forceinline__ int leaves_at(const Members& m, Candidate c, int group, bool there_before) {
    const int first = group * ARRIVALS, there = Least()(m.count + first, K);
    int missing = K - there + (there_before ? 1 : 0);
#pragma unroll 8
    for (int i = 0; i < m.leaving[group]; ++i) missing += m.old[m.out[first + i]] < c ? 1 : 0;
    int i = first;
    for (; missing > 0 && i + 8 <= m.arrived; i += 8) {  // eight at a time, up to those among which it happens
        int better = 0;
#pragma unroll
        for (int e = 0; e < 8; ++e) better += m.arrivals[i + e] > c ? 1 : 0;
        if (better >= missing) break;
        missing -= better;
    }
    for (; missing > 0 && i < m.arrived; ++i) missing -= m.arrivals[i] > c ? 1 : 0;
    const int then = i > first ? arrival_of(m.arrivals[i - 1]) : 0, own = arrival_of(c);
    return then > own ? then : own;
}

// Writes the expiry of everyone who leaves during the chunk, and of arrivals that are never selected.
__device__ void write_expiry(const Arguments& a, const Sequence& s, int g, int chunk, const Members& m, Candidate before,
                             Candidate after) {
    for (int group = threadIdx.x / 32; group < m.groups; group += EXPIRY_THREADS / 32) {
        const int arrived = Least()((group + 1) * ARRIVALS, m.arrived);
        const Candidate kth = group < m.groups - 1 ? kth_after(m, arrived, before, after) : after;
        if (threadIdx.x % 32 == 0) m.kth[group] = kth, m.leaving[group] = 0;
    }
    __syncthreads();
    for (int base = 0; base < m.count + m.arrived; base += EXPIRY_THREADS) {
        const int i = base + threadIdx.x, place = m.place(i), lane = threadIdx.x % 32;
        int group = -1;
        if (i < m.count + m.arrived && m.old[place] < after) group = m.leaves_in(m.old[place]);
        if (m.comes_in(place) >= group) group = -1;
        // Slots for those of a warp who leave in the same group, together.
        const unsigned same = __match_any_sync(FULL_WARP, group);
        const int leader = __ffs(same) - 1;
        int slot = 0;
        if (group >= 0 && lane == leader) slot = atomicAdd(&m.leaving[group], __popc(same));
        slot = __shfl_sync(FULL_WARP, slot, leader) + __popc(same & ((1u << lane) - 1));
        if (group >= 0) m.out[group * ARRIVALS + slot] = static_cast<unsigned short>(place);
    }
    __syncthreads();
    // A warp at a time has those who leave in a group, the ones who come in it last.
    for (int group = threadIdx.x / 32; group < m.groups; group += EXPIRY_THREADS / 32) {
        const int first = group * ARRIVALS, old = m.leaving[group];
        for (int i = threadIdx.x % 32; i < old + Least()(m.arrived - first, ARRIVALS); i += 32) {
            const Candidate c = m.old[i < old ? m.out[first + i] : K_PADDED + first + i - old];
            if (c >= m.kth[group]) continue;
            const bool never = group > 0 && c < m.kth[group - 1];  // was selected
            const int t = never ? arrival_of(c) : leaves_at(m, c, group, i < old);
            a.expiry[position_index(a, s, g, arrival_of(c) - WINDOW)] = t;
            if (t > arrival_of(c)) m.left[t - chunk * CHUNK] = score_of(c);
        }
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

extern "C" __global__ void __launch_bounds__(EXPIRY_THREADS, CHUNK <= 256 ? 512 / EXPIRY_THREADS : 1) plan_expiry(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(16) unsigned char shared_memory[];
    constexpr int GROUPS = CHUNK / ARRIVALS;
    __shared__ Candidate kth[GROUPS];
    __shared__ int leaving[GROUPS];
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
    m.out = reinterpret_cast<unsigned short*>(m.left + CHUNK);
    m.kth = kth;
    m.leaving = leaving;
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
    m.groups = (m.arrived + ARRIVALS - 1) / ARRIVALS;
    __syncthreads();
    write_expiry(a, s, g, chunk, m, before, after);
    __syncthreads();
    write_kth_scores(a, s, g, chunk, m, after == 0 ? -INFINITY_F : score_of(after));
    write_keys(a, s, g, chunk, m, after);
}
