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
    Sequence s;
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
}

// Inclusive scan over the threads of a block; `total` gets the sum of all.
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

// threshold_prefix[i] = h_0 + … + h_i within a sequence; one block for each sequence and key-value head.
extern "C" __global__ void __launch_bounds__(1024) threshold_scan(const __grid_constant__ Arguments a) {
    constexpr int SHARE = 4;  // consecutive queries of a thread
    const Sequence s = sequence_at(a, blockIdx.x);
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    int count_before = 0;
    double sum_before = 0.0;
    for (int start = 0; start < s.length; start += SHARE * blockDim.x) {
        const int first = start + SHARE * threadIdx.x;
        double h[SHARE];
        int count[SHARE], counts = 0, count_total;
        for (int e = 0; e < SHARE; ++e) {
            const bool inside = first + e < s.length;
            h[e] = inside ? a.threshold_rows[base + first + e] : 0.0;
            count[e] = counts += inside ? a.fraction_count[base + first + e] : 0;
        }
        const int before = count_before + inclusive_sum(counts, count_total) - counts;
        double sums = 0.0, sum_total;
        for (int e = 0; e < SHARE; ++e) {
            const int size = before + count[e];
            h[e] = sums += size > 0 ? h[e] / size : 0.0;
        }
        const double share_end = sum_before + inclusive_sum(sums, sum_total);
        for (int e = 0; e < SHARE; ++e)
            if (first + e < s.length) a.threshold_prefix[base + first + e] = share_end - (sums - h[e]);
        count_before += count_total;
        sum_before += sum_total;
    }
}

// H(b_j) − H(a_j)
__device__ __forceinline__ double threshold_share(const Arguments& a, const Sequence& s, int g, int j) {
    const long long base = threshold_index(a, s, g, 0);
    const int from = a.fraction_range[2 * (base + j)], to = a.fraction_range[2 * (base + j) + 1];
    if (from >= to) return 0.0;
    return a.threshold_prefix[base + to - 1] - (from > 0 ? a.threshold_prefix[base + from - 1] : 0.0);
}
