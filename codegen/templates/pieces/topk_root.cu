// The largest t with f(t) >= K, known to be in [low, high], where more than K candidates have arrived and the K-th best
// score is v. Then f >= K at v − 1, f < K at v, and f falls at least as fast as t rises in between, unless no more than the
// K best are above v − 1: they hold f at K up to there. Newton's method from a guess, halving where it leaves the bracket a
// second time on the same side (an end may be the root), until t is known to 2⁻³⁰ of max(1, |t|).
template <class Candidates>
__device__ double largest_root(const Candidates& candidates, double v, double low, double high, double guess) {
    low = v - 1.0 > low ? v - 1.0 : low;
    high = v < high ? v : high;
    if (!(low < high)) return low;
    if (low == v - 1.0 && candidates.total(low).above() <= K) return low;
    double t = guess > low && guess < high ? guess : low;
    bool low_seen = false, high_seen = false;  // f there has been computed
    for (int step = 1;; ++step) {
        const Total at = candidates.total(t);
        const double size = t < 0.0 ? -t : t, tolerance = 0x1p-30 * (size > 1.0 ? size : 1.0), rest = at.f() - K;
        if (rest >= 0.0) low = t, low_seen = true;
        else high = t, high_seen = true;
        if ((rest <= tolerance && -rest <= tolerance) || high - low <= tolerance) return t;
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
