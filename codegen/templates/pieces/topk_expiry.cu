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
