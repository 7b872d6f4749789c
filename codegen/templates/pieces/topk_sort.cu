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
