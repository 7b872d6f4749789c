// f(t) = Σ clip(u − t, 0, 1) over candidates: those with u > t + 1 count 1 each, and the others above t, the fractional ones,
// u − t. By their number f falls as t rises.
struct Total {
    double sum;  // of the fractional
    int saturated, fractional;

    __device__ double f() const { return sum + saturated; }
    __device__ int above() const { return saturated + fractional; }

    __device__ void add(double u, double t) {
        const double d = u - t;
        const bool is_saturated = d > 1.0, is_fractional = d > 0.0 && !is_saturated;
        if (is_fractional) sum += d;
        saturated += is_saturated ? 1 : 0;
        fractional += is_fractional ? 1 : 0;
    }

    __device__ void add(const Total& x) {
        sum += x.sum;
        saturated += x.saturated;
        fractional += x.fractional;
    }
};

// The totals of a warp, the same bits in every lane.
__device__ __forceinline__ Total sum_warp(const Total& x) {
    return {sum_warp(x.sum), sum_warp(x.saturated), sum_warp(x.fractional)};
}

// A t with f(t) = K, known to be in [low, high], where f(low) >= K. Where f is K at more than one, exactly K candidates are above
// t + 1 and nobody is fractional: the largest such t is v − 1, v being the K-th best score. Newton's method from a guess, halving
// where it leaves the bracket a second time on the same side (an end may be the root), until t is known to 2⁻³⁰ of max(1, |t|). As f
// falls at least as fast as t rises, a rest of f within that tells, if it is small beside the steps in which f falls far from 0.
template <class Candidates>
__device__ double root(const Candidates& candidates, double low, double high, double guess) {
    if (!(low < high)) return low;
    double t = guess > low && guess < high ? guess : low;
    bool low_seen = false, high_seen = false;  // f there has been computed
    for (int step = 1;; ++step) {
        const Total at = candidates.total(t);
        const double size = t < 0.0 ? -t : t, tolerance = 0x1p-30 * (size > 1.0 ? size : 1.0), rest = at.f() - K;
        if (rest >= 0.0) low = t, low_seen = true;
        else high = t, high_seen = true;
        const double near = Least()(tolerance, 0x1p-10);
        if ((rest <= near && -rest <= near) || high - low <= tolerance) return t;
        // Seven digits of a step are enough.
        double next = t + __fdividef(static_cast<float>(rest), static_cast<float>(at.fractional));
        if (next >= high && !high_seen) {
            next = high;
            high_seen = true;
        } else if (next <= low && !low_seen) {
            next = low;
            low_seen = true;
        } else {
            if (!(next > low && next < high) || step % 8 == 0) next = 0.5 * (low + high);
            if (!(next > low && next < high)) return low;
        }
        t = next;
    }
}
