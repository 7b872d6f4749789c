// Who is selected during a chunk, from the states before and after it. Of the candidates that are among the best before the
// chunk those below the K-th best after it leave in between; of those that arrive only the ones above the K-th best before
// matter. Each query brings one arrival, so at most one candidate leaves at a query, and they leave in ascending order.

__device__ constexpr int power_of_two_from(int n) {
    int power = 1;
    while (power < n) power *= 2;
    return power;
}
constexpr int K_PADDED = power_of_two_from(K);

struct Members {
    Candidate* old;       // [K_PADDED] the best before the chunk
    Candidate* arrivals;  // [CHUNK] those of the chunk above the K-th best before, in time order
    float* left;          // [CHUNK] score of who leaves at each query, +inf where nobody does
    unsigned short* out;  // [CHUNK] which of the old leave
    int count, arrived, leaving;
};

// The candidates of the lists from `least` on; returns how many.
__device__ int gather(const Arguments& a, const Lists& lists, Candidate least, Candidate* to) {
    __shared__ int from[128], slot[128];
    int next = 0;
    for (int base = 0; base < lists.count; base += 128) {
        const int i = base + threadIdx.x;
        int count = 0, start = 0;
        if (threadIdx.x < 128 && i < lists.count) {
            const List list = lists.at(a, i);
            start = list.below(least, list.size > K ? list.size - K : 0, list.size);
            count = list.size - start;
        }
        int total;
        const int before = scan_block(count, 0, total, Sum());
        if (threadIdx.x < 128) from[threadIdx.x] = start, slot[threadIdx.x] = next + before;
        next += total;
        __syncthreads();
        const int here = lists.count - base < 128 ? lists.count - base : 128;
        for (int l = threadIdx.x / 32; l < here; l += blockDim.x / 32) {
            const List list = lists.at(a, base + l);
#pragma unroll 4
            for (int r = from[l] + threadIdx.x % 32; r < list.size; r += 32)
                to[slot[l] + r - from[l]] = __ldg(&list.sorted[r]);
        }
        __syncthreads();
    }
    return next;
}

// The query at which a candidate stops being selected: that of the arrival by which K are better than it, or its own if they
// are by then.
__device__ int leaves_at(const Members& m, Candidate c) {
    int missing = K - (m.count - m.leaving);  // the old that stay are all better
#pragma unroll 8
    for (int i = 0; i < m.leaving; ++i) missing -= m.old[m.out[i]] > c ? 1 : 0;
    int i = 0;
    for (; missing > 0 && i + 8 <= m.arrived; i += 8) {  // eight at a time, up to those among which it happens
        int better = 0;
#pragma unroll
        for (int e = 0; e < 8; ++e) better += m.arrivals[i + e] > c ? 1 : 0;
        if (better >= missing) break;
        missing -= better;
    }
    for (; missing > 0 && i < m.arrived; ++i) missing -= m.arrivals[i] > c ? 1 : 0;
    const int then = i > 0 ? arrival_of(m.arrivals[i - 1]) : 0, own = arrival_of(c);
    return then > own ? then : own;
}

// Writes the expiry of everyone who leaves during the chunk, and of arrivals that are never selected.
__device__ void write_expiry(const Arguments& a, const Sequence& s, int g, int chunk, const Members& m, Candidate after) {
    for (int i = threadIdx.x; i < m.leaving + m.arrived; i += blockDim.x) {
        const Candidate c = i < m.leaving ? m.old[m.out[i]] : m.arrivals[i - m.leaving];
        if (c >= after) continue;
        const int t = leaves_at(m, c);
        a.expiry[position_index(a, s, g, arrival_of(c) - WINDOW)] = t;
        if (t > arrival_of(c)) m.left[t - chunk * CHUNK] = score_of(c);
    }
}

// The K-th best score at every query: that of who leaves next, and after the last one the one after the chunk.
__device__ void write_kth_scores(const Arguments& a, const Sequence& s, int g, int chunk, const Members& m, float after) {
    const int share = (CHUNK + blockDim.x - 1) / blockDim.x;
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
    for (int i = threadIdx.x; i < K_PADDED; i += blockDim.x) m.old[i] = i < m.count ? arrival_of(m.old[i]) : ~0ull;
    bitonic_sort<K_PADDED>(m.old, 1);
    for (int i = threadIdx.x; i < m.count; i += blockDim.x) keys[next + i] = static_cast<int>(m.old[i]) - WINDOW;
    next += m.count;
    for (int base = 0; base < m.arrived; base += blockDim.x) {
        const int i = base + threadIdx.x;
        bool selected = false;
        int j = 0;
        if (i < m.arrived) {
            const Candidate c = m.arrivals[i];
            j = arrival_of(c) - WINDOW;
            selected = c >= after || a.expiry[position_index(a, s, g, j)] > arrival_of(c);
        }
        const int slot = place_block(selected, next);
        if (selected) keys[slot] = j;
    }
    if (threadIdx.x == 0) a.chunk_counts[list] = next;
}

// Where a third block would fit, compilers spill for it.
extern "C" __global__ void __launch_bounds__(512, 2) plan_expiry(const __grid_constant__ Arguments a) {
    extern __shared__ __align__(16) unsigned char shared_memory[];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    const long long bound = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    const Candidate before = chunk > 0 ? a.bound_kth[bound - 1] : 0, after = a.bound_kth[bound];

    Members m;
    m.old = reinterpret_cast<Candidate*>(shared_memory);
    m.arrivals = m.old + K_PADDED;
    m.left = reinterpret_cast<float*>(m.arrivals + CHUNK);
    m.out = reinterpret_cast<unsigned short*>(m.left + CHUNK);
    m.arrived = m.leaving = 0;
    m.count = gather(a, Lists(a, s, g, chunk), before > 0 ? before : 1, m.old);
    for (int base = 0; base < CHUNK; base += blockDim.x) {
        const int i = base + threadIdx.x, t = chunk * CHUNK + i;
        const Candidate c = i < CHUNK ? arriving(a, s, g, t) : 0;
        if (c != 0 && c < before) a.expiry[position_index(a, s, g, t - WINDOW)] = t;
        if (i < CHUNK) m.left[i] = INFINITY_F;
        const int slot = place_block(c > before, m.arrived);
        if (c > before) m.arrivals[slot] = c;
    }
    for (int base = 0; base < m.count; base += blockDim.x) {
        const int i = base + threadIdx.x;
        const bool leaves = i < m.count && m.old[i] < after;
        const int slot = place_block(leaves, m.leaving);
        if (leaves) m.out[slot] = static_cast<unsigned short>(i);
    }
    __syncthreads();
    write_expiry(a, s, g, chunk, m, after);
    __syncthreads();
    write_kth_scores(a, s, g, chunk, m, after == 0 ? -INFINITY_F : score_of(after));
    write_keys(a, s, g, chunk, m, after);
}
