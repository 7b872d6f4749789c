// The state after every chunk of short ones, from the scores themselves. A sample of them tells of a bound that lies a little below
// tau; those above it are listed, for the next chunk too, and one warp looks for the K-th best in that list while another looks
// for tau. Where the list would be too long, or the sample deceived, the block looks for them among all.

// Numbers of those listed, −1 if they are more than a list holds, and of all candidates.
struct Counts {
    int listed, all;
};

// Lists those above a bound in order, every warp a part of them: counts first, then writes.
__device__ __forceinline__ Counts list_above(const Earlier& all, float bound, float* scores, int2* listed) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int part = (all.count + BOUND_THREADS - 1) / BOUND_THREADS * 32, first = warp * part;
    const Earlier mine = {all.scores, all.stride, false, Least()(first + part, all.count)};
    Counts counts = {0, 0};
#pragma unroll 1
    for (int base = first; base < mine.count; base += 32 * AT_A_TIME) {
        float u[AT_A_TIME];
        mine.load_run<32>(base + lane, u);
#pragma unroll
        for (int e = 0; e < AT_A_TIME; ++e) {
            counts.listed += u[e] > bound ? 1 : 0;
            counts.all += Earlier::is_candidate(u[e]) ? 1 : 0;
        }
    }
    __shared__ int2 of_warps[BOUND_WARPS];
    counts = {sum_warp(counts.listed), sum_warp(counts.all)};
    if (lane == 0) of_warps[warp] = {counts.listed, counts.all};
    __syncthreads();
    counts = {0, 0};
    int next = 0;
#pragma unroll
    for (int w = 0; w < BOUND_WARPS; ++w) {
        if (w == warp) next = counts.listed;
        counts.listed += of_warps[w].x;
        counts.all += of_warps[w].y;
    }
    if (counts.listed > LISTED) return {-1, counts.all};
    const unsigned lower = (1u << lane) - 1;
#pragma unroll 1
    for (int base = first; base < mine.count; base += 32 * AT_A_TIME) {
        float u[AT_A_TIME];
        unsigned above[AT_A_TIME];
        mine.load_run<32>(base + lane, u);
#pragma unroll
        for (int e = 0; e < AT_A_TIME; ++e) above[e] = __ballot_sync(FULL_WARP, u[e] > bound);
#pragma unroll
        for (int e = 0; e < AT_A_TIME; ++e) {
            const int slot = next + __popc(above[e] & lower);
            if (u[e] > bound) {
                scores[slot] = u[e];
                listed[slot] = {__float_as_int(u[e]), base + e * 32 + lane};
            }
            next += __popc(above[e]);
        }
    }
    for (int i = counts.listed + threadIdx.x; i < padded(counts.listed); i += BOUND_THREADS) scores[i] = __int_as_float(0x7fffffff);
    __syncthreads();
    return counts;
}

// The scores of a list as whole numbers, for a warp.
struct ListWhole {
    const int* whole;
    int count;
    const Scale& scale;

    __device__ WholeTotal total(int t) const {
        WholeTotal sum = {0, 0};
#pragma unroll 1
        for (int base = 0; base < count; base += PADDED) {
            const int4 a = *reinterpret_cast<const int4*>(whole + ListArrived::index<OneWarp>(base, 0));
            const int4 b = *reinterpret_cast<const int4*>(whole + ListArrived::index<OneWarp>(base, 4));
            const int x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            sum.add(x, t, scale.one);
        }
        return {sum_warp(sum.sum), sum_warp(sum.fractional)};
    }
};

// Those of all, for the block.
struct AllWhole {
    const AllArrived& arrived;
    const Scale& scale;

    __device__ WholeTotal total(int t) const {
        WholeTotal sum = {0, 0};
        each<AllWarps>(arrived, [&](const float(&u)[AT_A_TIME], int) {
            int x[AT_A_TIME];
#pragma unroll
            for (int e = 0; e < AT_A_TIME; ++e) x[e] = Earlier::is_candidate(u[e]) ? scale.whole(u[e]) : 0;
            sum.add(x, t, scale.one);
        });
        const WholeTotal of_warp = {sum_warp(sum.sum), sum_warp(sum.fractional)};
        return AllWarps::reduce(of_warp, [](const WholeTotal& x, const WholeTotal& y) -> WholeTotal {
            return {x.sum + y.sum, x.fractional + y.fractional};
        });
    }
};

// All as doubles, for the block.
struct AllDouble {
    const AllArrived& arrived;

    __device__ Total total(double t) const {
        Total sum = {0.0, 0, 0};
        each<AllWarps>(arrived, [&](const float(&u)[AT_A_TIME], int) {
#pragma unroll
            for (int e = 0; e < AT_A_TIME; ++e)
                if (Earlier::is_candidate(u[e])) sum.add(u[e], t);
        });
        return AllWarps::reduce(sum_warp(sum), [](Total x, const Total& y) {
            x.add(y);
            return x;
        });
    }
};

// tau of all where more than K have arrived, in [v − 1, v], v being the K-th best score.
__device__ __forceinline__ double tau_of_all(const AllArrived& arrived, double v, float guess) {
    const double low = v - 1.0;
    if (!(low < v)) return low;
    const Scale scale(low, v);
    if (!scale.is_used()) return root(AllDouble{arrived}, low, v, low);
    return whole_root(AllWhole{arrived, scale}, scale.whole(low), scale.whole(v), scale.whole(guess));
}

// Below tau: the bound of a list, or where all are listed the least of them less 1.
__device__ __forceinline__ double below_tau_of_list(int count, float bound, const BoundMemory& memory) {
    if (bound != -INFINITY_F) return bound;
    float least = INFINITY_F;
    for (int i = threadIdx.x; i < count; i += BOUND_THREADS) least = fminf(least, memory.scores[i]);
    const unsigned order = AllWarps::reduce(__reduce_min_sync(FULL_WARP, ordered(least)), Least());
    return score_of_order(order) - 1.0;
}

// tau of a list's whole numbers, by a warp; NaN if their origin is above tau, or tau too far above it for whole numbers.
__device__ __forceinline__ double tau_of_list(const ListWhole& list, int end) {
    const double none = __longlong_as_double(-1);
    const WholeTotal at = list.total(0);
    const long long rest = at.sum - static_cast<long long>(K) * list.scale.one;
    if (rest < 0) return none;
    const int guess = __float2int_rd(fminf(__fdividef(static_cast<float>(rest), static_cast<float>(at.fractional)), 0x1p29f));
    const double tau = whole_root(list, 0, end, guess);
    return list.scale.reaches(tau) && tau < list.scale.origin + list.scale.unit * (end - 1) ? tau : none;
}

// Blocks of a multiprocessor, as shared memory allows. 64 registers are enough on sm_90 alone.
constexpr int MOST_BOUND_BLOCKS = __CUDA_ARCH__ == 900 ? 8 : 7;
constexpr int BOUND_BLOCKS = LISTED <= 2560 ? MOST_BOUND_BLOCKS : LISTED <= 3584 ? 7 : 2;

extern "C" __global__ void __launch_bounds__(BOUND_THREADS, BOUND_BLOCKS) plan_bounds(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(16) unsigned char shared_memory[];
    BoundMemory& memory = *reinterpret_cast<BoundMemory*>(shared_memory);
    __shared__ Candidate found_kth;
    __shared__ double found_tau;
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y, warp = threadIdx.x / 32;
    const long long bound_at = bound_index(a, s, g, chunk);
    for (int t = chunk * CHUNK + threadIdx.x; t < (chunk + 1) * CHUNK; t += BOUND_THREADS)
        write_first_expiry(a, s, g, t, arriving(a, s, g, t) != 0);

    const Earlier earlier = Earlier::all(a, s, g, (chunk + 1) * CHUNK);
    const AllArrived all = {earlier};
    const Sample sample(earlier);
    const Sample::Guess guess = sample.tau();
    const float bound = guess.below;
    if (threadIdx.x == 0) memory.normal = sample.normal, memory.tau = guess.tau;
    int2* listed = Earlier::list_of(a, bound_at);
    const Counts counts = list_above(earlier, bound, memory.scores, listed);
    Candidate kth = 0;
    double tau = -INFINITY_F;
    if (counts.all >= K) {
        const bool has_kth = counts.listed >= K;
        bool has_tau = false;
        if (has_kth) {
            const double low = below_tau_of_list(counts.listed, bound, memory), high = low + 4.0;
            const Scale scale(low, high);
            for (int i = threadIdx.x; i < padded(counts.listed); i += BOUND_THREADS)
                memory.whole[i] = i < counts.listed ? scale.whole(memory.scores[i]) : 0;
            __syncthreads();
            if (warp == 0) {
                kth = kth_best<OneWarp>(ListArrived{memory.scores, listed, counts.listed}, counts.listed, bound, memory);
                if (threadIdx.x == 0) found_kth = kth;
            } else if (warp == 1 && counts.all > K && scale.is_used()) {
                tau = tau_of_list({memory.whole, counts.listed, scale}, scale.whole(high));
                if (threadIdx.x == 32) found_tau = tau;
            }
            __syncthreads();
            kth = found_kth;
            has_tau = counts.all > K && scale.is_used() && found_tau == found_tau;
            if (has_tau) tau = Least()(found_tau, static_cast<double>(score_of(kth)));
        } else {
            kth = kth_best<AllWarps>(all, counts.all, -INFINITY_F, memory);
        }
        if (counts.all > K && !has_tau) tau = tau_of_all(all, score_of(kth), memory.tau);
    }
    if (threadIdx.x > 0) return;
    write_state(a, bound_at, kth, tau, counts.all);
    // All above tau are listed and, where scores are so large that one less is the same, the K-th best too.
    a.listed_count[bound_at] = bound <= tau && (bound == -INFINITY_F || counts.listed >= K) ? counts.listed : -1;
}
