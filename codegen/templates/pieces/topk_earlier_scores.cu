// Who arrived before a chunk, from the scores themselves. Short chunks are for short sequences, of which a block goes over
// every score again for each question: no lists are sorted, and nothing waits for them.
struct Earlier {
    const Arguments& a;
    const Sequence& s;
    int g, count;  // keys that have left the window, sinks among them

    __device__ Earlier(const Arguments& a, const Sequence& s, int g, int chunk)
        : a(a), s(s), g(g), count(Greatest()(Least()(chunk * CHUNK, s.length) - WINDOW, 0)) {}

    // Key j as a candidate, 0 if it is none.
    __device__ Candidate candidate(int j) const { return j < count ? arriving(a, s, g, j + WINDOW) : 0; }

    // Its score, −∞ if it is none.
    __device__ float score(int j) const {
        const Candidate c = candidate(j);
        return c != 0 ? score_of(c) : -INFINITY_F;
    }

    // Adds a lane's share of all.
    __device__ void add(double t, Total& total) const {
        for (int j = threadIdx.x % 32; j < count; j += 32) total.add(score(j), t);
    }

    // The least score of a thread's share.
    template <int THREADS>
    __device__ double least() const {
        double least = INFINITY_F;
        for (int j = threadIdx.x; j < count; j += THREADS) {
            const Candidate c = candidate(j);
            if (c != 0) least = Least()(least, static_cast<double>(score_of(c)));
        }
        return least;
    }
};

constexpr int AT_ONCE = 16;  // scores of a thread
constexpr bool GATHERED_IN_ORDER = true;  // of arrival

// The candidates from `least` on; returns how many.
template <int THREADS>
__device__ int gather(const Earlier& earlier, Candidate least, Candidate* to) {
    int next = 0;
    for (int base = 0; base < earlier.count; base += AT_ONCE * THREADS) {
        Candidate c[AT_ONCE];
        bool keep[AT_ONCE];
        int slot[AT_ONCE];
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) c[e] = earlier.candidate(base + e * THREADS + threadIdx.x);
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) keep[e] = c[e] >= least;
        const int kept = place_block<THREADS>(keep, slot);
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e)
            if (keep[e]) to[next + slot[e]] = c[e];
        next += kept;
    }
    return next;
}

// Splits them into stable ones and movers, of which at most MOST are written; returns how many there are.
template <int THREADS, int MOST>
__device__ int split_earlier(const Earlier& earlier, const Scale& scale, double low, double high, Stable& stable, float* movers,
                             int* whole_movers) {
    const Bracket bracket(low, high);
    Total mine = {0.0, 0, 0};  // of the stable, with Σ (u − high)
    int next = 0;
    for (int base = 0; base < earlier.count; base += AT_ONCE * THREADS) {
        float u[AT_ONCE];
        bool moves[AT_ONCE];
        int slot[AT_ONCE];
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) u[e] = earlier.score(base + e * THREADS + threadIdx.x);
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            const bool stays = bracket.stays(u[e]);
            moves[e] = bracket.moves(u[e]);
            mine.saturated += bracket.sits(u[e]) ? 1 : 0;
            mine.fractional += stays ? 1 : 0;
            mine.sum += stays ? u[e] - high : 0.0;
        }
        const int moving = place_block<THREADS>(moves, slot);
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            const int at = next + slot[e];
            if (!moves[e] || at >= MOST) continue;
            movers[at] = u[e];
            whole_movers[at] = scale.whole(u[e]);
        }
        next += moving;
    }
    stable = stable_of_block<THREADS>(mine, high);
    return next;
}
