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
    bool high_seen = false;  // f there has been computed
    for (int step = 1;; ++step) {
        const double size = t < 0.0 ? -t : t, tolerance = 0x1p-30 * (size > 1.0 ? size : 1.0);
        const double rest = at.f - K;
        if ((rest <= tolerance && -rest <= tolerance) || high - low <= tolerance) return t;
        double next = t + rest / at.fractional;
        if (next >= high && !high_seen) {
            next = high;
            high_seen = true;
        } else {
            if (!(next > low && next < high) || step % 8 == 0) next = 0.5 * (low + high);
            if (!(next > low && next < high)) return low;
        }
        t = next;
        at = candidates.total(t);
        if (at.f >= K) low = t;
        else high = t, high_seen = true;
        candidates.narrow(at.f >= K);
    }
}

// Where a list's first candidates above t and above t + 1 may be while t is in [low, high]: [x, y] and [z, w], in order.
__device__ __forceinline__ void set_bracket(int4& bracket, int which, const List& list, double low, double high) {
    const double bound = (which % 2 == 0 ? low : high) + (which < 2 ? 0.0 : 1.0);
    const int at = list.below(least_above(bound), 0, list.size);
    if (which == 0) bracket.x = at;
    if (which == 1) bracket.y = at;
    if (which == 2) bracket.z = at;
    if (which == 3) bracket.w = at;
}

// Lists whose brackets are kept in shared memory; those beyond are searched from end to end.
constexpr int KEPT = 128;
