constexpr int SORT_THREADS = CHUNK / 4;
constexpr int MERGE_THREADS = MERGED / 8;

// Expiry as far as arrivals alone decide it: a sink is seen to the end, a candidate too until the queries at which it is not
// among the best are known, and any other key while it is in the window. Then the sorted list of a chunk's arrivals.
extern "C" __global__ void __launch_bounds__(SORT_THREADS) plan_sort(const __grid_constant__ Arguments a) {
    __shared__ Candidate x[CHUNK];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    for (int i = threadIdx.x; i < CHUNK; i += SORT_THREADS) {
        const int t = chunk * CHUNK + i, j = t - WINDOW;
        x[i] = arriving(a, s, g, t);
        // Of the keys of this chunk's positions those that never arrive, and the keys that arrive in this chunk.
        if (t < s.length && (t < SINKS || t >= s.length - WINDOW)) a.expiry[position_index(a, s, g, t)] = s.length;
        if (t < s.length && j >= SINKS) a.expiry[position_index(a, s, g, j)] = x[i] != 0 ? s.length : t;
    }
    bitonic_sort<CHUNK>(x, 1);
    write_list<CHUNK, SORT_THREADS>(x, list_at<CHUNK>(a, g, blockIdx.x));
}

// The sorted list of MERGED arrivals, from those of their chunks.
extern "C" __global__ void __launch_bounds__(MERGE_THREADS) plan_merge(const __grid_constant__ Arguments a) {
    extern __shared__ __align__(16) unsigned char shared_memory[];
    Candidate* x = reinterpret_cast<Candidate*>(shared_memory);
    Sequence s;
    int block;
    if (!find_block<MERGED>(a, blockIdx.x, s, block)) return;
    constexpr int RATIO = MERGED / CHUNK;
    if (static_cast<long long>(block + 1) * RATIO > (s.length + CHUNK - 1ll) / CHUNK) return;  // no boundary after it
    const int g = blockIdx.y, first = first_block<CHUNK>(a, s) + block * RATIO;
    for (int i = threadIdx.x; i < MERGED; i += MERGE_THREADS) {
        const int part = i / CHUNK, at = i % CHUNK;
        x[i] = list_at<CHUNK>(a, g, first + part).sorted[part % 2 == 0 ? at : CHUNK - 1 - at];
    }
    bitonic_sort<MERGED>(x, CHUNK);
    write_list<MERGED, MERGE_THREADS>(x, list_at<MERGED>(a, g, blockIdx.x));
}
