// How a block of plan_bounds goes over scores, all or those of a list, and what a sample of them tells.

constexpr int BOUND_THREADS = 128, BOUND_WARPS = BOUND_THREADS / 32;
constexpr int AT_A_TIME = 8;  // scores of a thread
constexpr int SAMPLE = 16;    // of a thread
constexpr int FEW = 64;       // candidates that are ranked one by one
constexpr int PADDED = 32 * AT_A_TIME;

// Lists go on up to a multiple of what a warp takes at a time.
__device__ __forceinline__ int padded(int count) { return (count + PADDED - 1) / PADDED * PADDED; }

// Those who look together: a warp, or the block. `reduce` is over what every warp has, the same for every thread.
struct OneWarp {
    static constexpr int THREADS = 32;

    __device__ static int thread() { return threadIdx.x % 32; }
    __device__ static void wait() { __syncwarp(); }
    template <class T, class Add>
    __device__ static T reduce(const T& of_warp, Add) { return of_warp; }
    // The first of so many places for a warp, when `count` are taken.
    __device__ static int reserve(int& count, int places) { return (count += places) - places; }
};

struct AllWarps {
    static constexpr int THREADS = BOUND_THREADS;

    __device__ static int thread() { return threadIdx.x; }
    __device__ static void wait() { __syncthreads(); }
    template <class T, class Add>
    __device__ static T reduce(const T& of_warp, Add add) {
        __shared__ T of_warps[BOUND_WARPS];
        __syncthreads();  // those of the call before have been read
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = of_warp;
        __syncthreads();
        T all = of_warps[0];
#pragma unroll
        for (int w = 1; w < BOUND_WARPS; ++w) all = add(all, of_warps[w]);
        return all;
    }
    __device__ static int reserve(int& count, int places) {
        int first = 0;
        if (threadIdx.x % 32 == 0) first = atomicAdd(&count, places);
        return __shfl_sync(FULL_WARP, first, 0);
    }
};

__device__ __forceinline__ float sum_warp(float x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(FULL_WARP, x, d);
    return x;
}

// A square root to 22 bits; 0 of what is not positive.
__device__ __forceinline__ float root_of(float x) { return x > 0.0f ? x * rsqrtf(x) : 0.0f; }

// What a sample says of all scores if they are normal ones.
struct Normal {
    int count;
    float share;  // how many of all stand for one of the sample
    float mean, deviation;

    // What so large a part of them exceeds, to 0.003 deviations (Abramowitz and Stegun, 26.2.22).
    __device__ float exceeded_by(float part) const {
        const float tail = fminf(fmaxf(fminf(part, 1.0f - part), 1e-9f), 0.5f), x = root_of(-2.0f * __logf(tail));
        const float z = x - __fdividef(2.30753f + 0.27061f * x, 1.0f + x * (0.99229f + 0.04481f * x));
        return mean + (part < 0.5f ? z : -z) * deviation;
    }
};

// SAMPLE scores of every thread, or all where they are fewer: rows of 32 keys, one from each of as many parts of the sequence, which
// one of a part being as good as random, so that scores of a period do not deceive.
struct Sample {
    float u[SAMPLE];  // NaN where there is none
    Normal normal;
    unsigned least, most;  // orders

    __device__ Sample(const Earlier& all) {
        constexpr unsigned ROWS = SAMPLE * BOUND_WARPS;
        const unsigned rows = (all.count + 31u) / 32;
        struct Moments {
            int count;
            float sum, squares;
            unsigned least, most;
        } x = {0, 0.0f, 0.0f, ~0u, 0};
#pragma unroll
        for (int e = 0; e < SAMPLE; ++e) {
            const unsigned r = e * BOUND_WARPS + threadIdx.x / 32, from = r * rows / ROWS;
            const unsigned row = rows <= ROWS ? r : from + __umulhi(r * 0x9e3779b9u, (r + 1) * rows / ROWS - from);
            const int j = row * 32 + threadIdx.x % 32;
            u[e] = SINKS <= j && j < all.count ? all.scores[j * all.stride] : __int_as_float(0x7fffffff);
        }
#pragma unroll
        for (int e = 0; e < SAMPLE; ++e) {
            if (!Earlier::is_candidate(u[e])) continue;
            ++x.count;
            x.sum += u[e];
            x.squares += u[e] * u[e];
            x.least = Least()(x.least, ordered(u[e]));
            x.most = Greatest()(x.most, ordered(u[e]));
        }
        x = {sum_warp(x.count), sum_warp(x.sum), sum_warp(x.squares), __reduce_min_sync(FULL_WARP, x.least),
             __reduce_max_sync(FULL_WARP, x.most)};
        x = AllWarps::reduce(x, [](const Moments& x, const Moments& y) -> Moments {
            return {x.count + y.count, x.sum + y.sum, x.squares + y.squares, Least()(x.least, y.least), Greatest()(x.most, y.most)};
        });
        const int count = Greatest()(x.count, 1);
        const float each = __fdividef(1.0f, count), mean = x.sum * each, variance = x.squares * each - mean * mean;
        normal = {count, rows > ROWS ? rows * (1.0f / ROWS) : 1.0f, mean, root_of(variance)};
        least = x.least, most = x.most;
    }

    // tau as the sample has it, and a t below tau of all in 999 of 1000 cases, and not far below: there f of the sample is as much more
    // than its part of K as three standard deviations, each of its scores having been taken by chance. −∞ where only all of them are enough.
    struct Guess {
        float tau, below;
    };

    __device__ Guess tau() const {
        const float aim = __fdividef(K + 1.0f + 3.0f * root_of(K * normal.share), normal.share);
        if (!(aim < normal.count)) return {-INFINITY_F, -INFINITY_F};
        float low = score_of_order(least) - 1.0f, high = score_of_order(most), tau = low;
        float t = normal.exceeded_by(__fdividef(aim, normal.count)) - 0.5f;
#pragma unroll 1
        for (int step = 0; step < 12; ++step) {
            if (!(t > low && t < high)) t = 0.5f * low + 0.5f * high;
            float2 f = {0.0f, 0.0f};  // and how fast it falls
#pragma unroll
            for (int e = 0; e < SAMPLE; ++e) {
                const float part = __saturatef(u[e] - t);  // 0 of NaN
                f.x += part;
                f.y += part > 0.0f && part < 1.0f ? 1.0f : 0.0f;
            }
            f = AllWarps::reduce(float2{sum_warp(f.x), sum_warp(f.y)}, [](float2 x, float2 y) { return float2{x.x + y.x, x.y + y.y}; });
            if (f.x >= aim) low = t;
            else high = t;
            tau = t + __fdividef(f.x - __fdividef(K, normal.share), f.y);
            if (f.x >= aim && f.x <= 1.05f * aim) break;
            t += __fdividef(f.x - 1.02f * aim, f.y);
        }
        return {tau, low};
    }
};
