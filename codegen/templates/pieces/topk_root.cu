// f(t) = Σ clip(u − t, 0, 1) over candidates, and what it is made of: those above t, and among them those with u <= t + 1,
// by whose number f falls as t rises.
struct Total {
    double f;
    int above, fractional;

    __device__ void add(double u, double t) {
        const double d = u - t, part = d < 1.0 ? d : 1.0;
        f += d > 0.0 ? part : 0.0;
        above += d > 0.0 ? 1 : 0;
        fractional += d > 0.0 && d <= 1.0 ? 1 : 0;
    }
};

// The largest t with f(t) >= K, known to be in [low, high], where more than K candidates have arrived and the K-th best
// score is v. Then f >= K at v − 1, f < K at v, and f falls at least as fast as t rises in between, unless no more than the
// K best are above v − 1: they hold f at K up to there. Newton's method from the left, halving where it leaves the bracket,
// until t is known to 2⁻³⁰ of max(1, |t|).
template <class Candidates>
__device__ double largest_root(Candidates& candidates, double v, double low, double high) {
    low = v - 1.0 > low ? v - 1.0 : low;
    high = v < high ? v : high;
    if (!(low < high)) return low;
    double t = low;
    Total at = candidates.total(t);
    if (low == v - 1.0 && at.above <= K) return low;
    candidates.narrow(true);
    for (int step = 1;; ++step) {
        const double size = t < 0.0 ? -t : t, tolerance = 0x1p-30 * (size > 1.0 ? size : 1.0);
        const double rest = at.f - K;
        if ((rest <= tolerance && -rest <= tolerance) || high - low <= tolerance) return t;
        double next = t + rest / at.fractional;
        if (!(next > low && next < high) || step % 4 == 0) next = 0.5 * (low + high);
        if (!(next > low && next < high)) return low;
        t = next;
        at = candidates.total(t);
        if (at.f >= K) low = t;
        else high = t;
        candidates.narrow(at.f >= K);
    }
}

// Where a list's first candidates above t and above t + 1 may be: [x, y] and [z, w].
__device__ __forceinline__ int4 bracket(const List& list, double low, double high) {
    int4 b;
    b.x = list.below(least_above(low), 0, list.size);
    b.y = list.below(least_above(high), b.x, list.size);
    b.z = list.below(least_above(low + 1.0), b.x, list.size);
    b.w = list.below(least_above(high + 1.0), b.y > b.z ? b.y : b.z, list.size);
    return b;
}

// Lists whose brackets are kept in shared memory; those beyond are searched from end to end.
constexpr int KEPT = 128;
