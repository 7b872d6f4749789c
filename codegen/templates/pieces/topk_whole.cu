// Scores as whole numbers x, u ≈ origin + unit · x, while tau is in a bracket. clip(u − t, 0, 1) is one instruction then, where
// doubles take ten that wait for each other, and sums are exact. A score is off by half a unit at most, and so is a root.
struct Scale {
    double origin, unit, units;  // of 1
    int one;                     // the same
    double finest;               // |t|, or 1 where that is more, from which on a unit is at most 2⁻²⁵ of it

    // 2 to the power of `exponent` exceeds 1 and both ends. Whole numbers reach to the ends' distance and 1: to 2.5 · 2²⁸.
    __device__ Scale(double low, double high) : origin(low) {
        const double ends = Greatest()(low < 0.0 ? -low : low, high < 0.0 ? -high : high), size = ends > 1.0 ? ends : 1.0;
        const int exponent = (__double2hiint(size) >> 20) - 1022;
        const bool fits = exponent <= 24;
        const int shift = fits ? 28 - exponent : 0;
        unit = __hiloint2double((1023 - shift) << 20, 0);
        units = __hiloint2double((1023 + shift) << 20, 0);
        one = 1 << shift;
        finest = fits ? 0x1p25 * unit : INFINITY_F;
    }

    // Whether there are whole numbers at all: not of ends beyond 2²⁴.
    __device__ bool is_used() const { return finest < INFINITY_F; }

    // Of what is above the bracket by more than 1, some number that is as well.
    __device__ int whole(double u) const {
        const double x = (u - origin) * units;
        return x < 0.0 ? 0 : x < 0x1p30 ? __double2int_rn(x) : (1 << 30) - 1;
    }

    // Whether a root there is right to a digit more than a float has: not where tau goes through 0 and an end is far.
    __device__ bool reaches(double t) const { return Greatest()(t < 0.0 ? -t : t, 1.0) >= finest; }
};

__device__ __forceinline__ long long sum_warp(long long x) {
    // Not negative, and less than 2⁵³.
    const unsigned low = __reduce_add_sync(FULL_WARP, static_cast<unsigned>(x) & 0x7ffffff);
    return static_cast<long long>(__reduce_add_sync(FULL_WARP, static_cast<unsigned>(x >> 27))) * (1 << 27) + low;
}

// f at a t of whole numbers, in units, and how fast it falls there.
struct WholeTotal {
    long long sum;
    int fractional;

    // Adds eight scores, of which the sum has 32 bits. By as many units as are fractional it falls when t rises by one.
    __device__ void add(const int (&x)[8], int t, int one) {
        int here = 0, next = 0;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            here += __viaddmin_s32_relu(x[e], -t, one);
            next += __viaddmin_s32_relu(x[e], -1 - t, one);
        }
        sum += here;
        fractional += here - next;
    }

    // Adds every STEP-th of some scores, from the first-th on.
    template <int STEP>
    __device__ void add(const int* scores, int count, int first, int t, int one) {
        int i = first;
#pragma unroll 1
        for (; i + 7 * STEP < count; i += 8 * STEP) {
            int x[8];
#pragma unroll
            for (int e = 0; e < 8; ++e) x[e] = scores[i + e * STEP];
            add(x, t, one);
        }
        if (i >= count) return;
        int x[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) x[e] = i + e * STEP < count ? scores[i + e * STEP] : 0;
        add(x, t, one);
    }

    // Adds scores up to the next multiple of eight, which lie at such places.
    __device__ void add_eights(const int* scores, int count, int t, int one) {
#pragma unroll 1
        for (int i = 0; i < count; i += 8) {
            const int4 a = *reinterpret_cast<const int4*>(scores + i), b = *reinterpret_cast<const int4*>(scores + i + 4);
            const int x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
            add(x, t, one);
        }
    }
};

// A t in [low, high] with f(t) = K, as `root` finds one, to less than a unit: the last step is Newton's.
template <class Candidates>
__device__ double whole_root(const Candidates& candidates, int low, int high, int guess) {
    int t = guess > low && guess < high ? guess : low;
    bool low_seen = false, high_seen = false;  // f there has been computed
    for (int step = 1;; ++step) {
        const WholeTotal at = candidates.total(t);
        const long long rest = at.sum - static_cast<long long>(K) * candidates.scale.one;
        if (rest >= 0) low = t, low_seen = true;
        else high = t, high_seen = true;
        const float move = __fdividef(static_cast<float>(rest), static_cast<float>(at.fractional));  // ±∞ or NaN where f is flat
        if (rest == 0 || high - low <= 1 || (-0.5f <= move && move <= 0.5f))
            return candidates.scale.origin + candidates.scale.unit * (-1.0f <= move && move <= 1.0f ? t + static_cast<double>(move) : t);
        const int aim = t + __float2int_rn(fminf(fmaxf(move, -0x1p30f), 0x1p30f));
        if (aim >= high && !high_seen) {
            t = high, high_seen = true;
        } else if (aim <= low && !low_seen) {
            t = low, low_seen = true;
        } else {
            t = aim > low && aim < high && step % 8 != 0 ? aim : low + (high - low) / 2;
        }
    }
}

// Candidates that stay where they are while t is in a bracket.
struct Stable {
    int saturated, fractional;
    double sum;  // Σ (u − high) over the fractional, of the bracket that ends at `high`
    double high;

    __device__ void add(double t, Total& total) const {
        if (fractional > 0) total.sum += sum + fractional * (high - t);
        total.saturated += saturated;
        total.fractional += fractional;
    }

    // What they add to f at a t of whole numbers, but for its slope.
    __device__ long long whole(const Scale& scale) const {
        const double of_fractional = fractional > 0 ? (sum + fractional * (high - scale.origin)) * scale.units : 0.0;
        return static_cast<long long>(saturated) * scale.one + (of_fractional < 0x1p62 ? __double2ll_rn(of_fractional) : 0);
    }
};

// Those of a block, from the totals of its threads, whose sums are Σ (u − high).
template <int THREADS>
__device__ Stable stable_of_block(const Total& mine, double high) {
    __shared__ Total of_warps[THREADS / 32];
    const Total of_warp = sum_warp(mine);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = of_warp;
    __syncthreads();
    Total all = {0.0, 0, 0};
    for (const Total& x : of_warps) all.add(x);
    return {all.saturated, all.fractional, all.sum, high};
}

// A bracket of t, and where a score is while t is in it. A float is above an end if it is above what the end is rounded from.
struct Bracket {
    float low, high, low_1, high_1;  // the last two one above

    __device__ Bracket(double low, double high)
        : low(__double2float_rd(low)), high(__double2float_rd(high)), low_1(__double2float_rd(low + 1.0)),
          high_1(__double2float_rd(high + 1.0)) {}

    __device__ bool sits(float u) const { return u > high_1; }
    __device__ bool stays(float u) const { return u > high && !(u > low_1) && !sits(u); }
    __device__ bool moves(float u) const { return u > low && !sits(u) && !stays(u); }
};
