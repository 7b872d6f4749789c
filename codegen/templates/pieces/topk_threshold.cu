// The threshold's share of the score gradient. With I_i the candidates that are fractional at query i, 0 < u_j − tau_i < 1 in
// f32, h_i = (sum of the gate gradients of row i) / |I_i| and H its prefix sums, key j loses H(b_j) − H(a_j), where [a_j, b_j)
// are the queries at which it is fractional.

// Index of key or query i of a sequence in the buffers below.
__device__ __forceinline__ long long threshold_index(const Arguments& a, const Sequence& s, int g, int i) {
    return (static_cast<long long>(s.row) * a.hkv + g) * a.n + s.start + i;
}

// The first query from `from` on whose tau satisfies what all later ones satisfy too.
template <class Condition>
__device__ __forceinline__ int first_query(const float* tau, int from, int to, Condition holds) {
    while (from < to) {
        const int middle = from + (to - from) / 2;
        if (holds(tau[middle])) to = middle;
        else from = middle + 1;
    }
    return from;
}

// Adds 1 or −1 to |I| from query i on, once for all lanes of a warp that do so at the same query.
__device__ __forceinline__ void change_count(int* counts, bool changes, int i, int by) {
    const unsigned same = __match_any_sync(0xffffffffu, changes ? i : -1);
    if (changes && __ffs(same) - 1 == static_cast<int>(threadIdx.x % 32)) atomicAdd(&counts[i], by * __popc(same));
}

constexpr int RANGE_KEYS = 256;  // keys of a block, one to a thread

// Fills fraction_range, and the changes of |I_i| in fraction_count, which is zero before.
extern "C" __global__ void __launch_bounds__(RANGE_KEYS) threshold_ranges(const __grid_constant__ Arguments a) {
<% if not ranges_wait_last %>    wait_for_earlier_launches();
<% endif %>    Sequence s;
    int block;
    if (!find_block<RANGE_KEYS>(a, blockIdx.x, s, block)) return;
    const int g = blockIdx.y, j = block * RANGE_KEYS + threadIdx.x;
    const long long base = threshold_index(a, s, g, 0);
    int from = 0, to = 0;
    if (j >= SINKS && j < s.length - WINDOW) {
        const float score = score_at(a, s, g, j);
        if (score == score && score != -INFINITY_F) {
            const float* tau = a.tau + base;
            from = first_query(tau, j + WINDOW, s.length, [=](float t) { return score - t < 1.0f; });
            to = first_query(tau, from, s.length, [=](float t) { return !(score - t > 0.0f); });
        }
    }
    change_count(a.fraction_count + base, from < to, from, 1);
    change_count(a.fraction_count + base, from < to && to < s.length, to, -1);
    if (j < s.length) {
        a.fraction_range[2 * (base + j)] = from;
        a.fraction_range[2 * (base + j) + 1] = to;
    }
<% if ranges_wait_last %>    wait_for_earlier_launches();  // nothing is read here of those beside it
<% endif %>}

// Inclusive scan over the threads of a block; every thread gets the sum of all in `total`.
template <class T>
__device__ __forceinline__ T inclusive_sum(T x, T& total) {
    __shared__ T of_warp[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int d = 1; d < 32; d *= 2) {
        const T y = __shfl_up_sync(0xffffffffu, x, d);
        if (lane >= d) x += y;
    }
    __syncthreads();  // of_warp of the call before has been read
    if (lane == 31) of_warp[warp] = x;
    __syncthreads();
    T before = 0;
    total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) {
        if (w == warp) before = total;
        total += of_warp[w];
    }
    return before + x;
}

// H in three steps over blocks of SUM_QUERIES queries: the change of |I| over a block; the sums of h within each block, and
// over it; the sums of the blocks before, added.
constexpr int SUM_QUERIES = 2048;
constexpr int SUM_THREADS = 512;
constexpr int SUM_SHARE = SUM_QUERIES / SUM_THREADS;  // consecutive queries of a thread

// Sum over the blocks before one within its sequence, of what is stored for each; every thread gets it.
template <class T>
__device__ __forceinline__ T sum_before(const T* of_blocks, int block) {
    T sum = 0, total;
    for (int b = threadIdx.x; b < block; b += SUM_THREADS) sum += of_blocks[b - block];
    inclusive_sum(sum, total);
    return total;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) threshold_counts(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block, total;
    if (!find_block<SUM_QUERIES>(a, blockIdx.x, s, block)) return;
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    int sum = 0;
    for (int e = 0; e < SUM_SHARE; ++e) {
        const int i = block * SUM_QUERIES + e * SUM_THREADS + threadIdx.x;
        if (i < s.length) sum += a.fraction_count[base + i];
    }
    inclusive_sum(sum, total);
    if (threadIdx.x == 0) a.threshold_block_count[static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) threshold_sums(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<SUM_QUERIES>(a, blockIdx.x, s, block)) return;
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    const long long at = static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x;
    const int first = block * SUM_QUERIES + SUM_SHARE * threadIdx.x;
    int count[SUM_SHARE], counts = 0, count_total;
    for (int e = 0; e < SUM_SHARE; ++e)
        count[e] = counts += first + e < s.length ? a.fraction_count[base + first + e] : 0;
    const int before = sum_before(a.threshold_block_count + at, block) + inclusive_sum(counts, count_total) - counts;
    double h[SUM_SHARE], sum = 0.0, total;
    for (int e = 0; e < SUM_SHARE; ++e) {
        const int size = before + count[e];
        h[e] = sum += first + e < s.length && size > 0 ? a.threshold_rows[base + first + e] / size : 0.0;
    }
    const double end = inclusive_sum(sum, total);
    for (int e = 0; e < SUM_SHARE; ++e)
        if (first + e < s.length) a.threshold_prefix[base + first + e] = end - (sum - h[e]);
    if (threadIdx.x == 0) a.threshold_block_sum[at] = total;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) threshold_prefixes(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<SUM_QUERIES>(a, blockIdx.x, s, block)) return;
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    const double before = sum_before(a.threshold_block_sum + static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x, block);
    for (int e = 0; e < SUM_SHARE; ++e) {
        const int i = block * SUM_QUERIES + e * SUM_THREADS + threadIdx.x;
        if (i < s.length) a.threshold_prefix[base + i] += before;
    }
}

// H(b_j) − H(a_j)
__device__ __forceinline__ double threshold_share(const Arguments& a, const Sequence& s, int g, int j) {
    const long long base = threshold_index(a, s, g, 0);
    const int from = a.fraction_range[2 * (base + j)], to = a.fraction_range[2 * (base + j) + 1];
    if (from >= to) return 0.0;
    return a.threshold_prefix[base + to - 1] - (from > 0 ? a.threshold_prefix[base + from - 1] : 0.0);
}
