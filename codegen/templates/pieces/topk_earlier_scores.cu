// Who arrived before a chunk, from the scores themselves. Short chunks are for short sequences, of which a block goes over
// every score again for each question: no lists are sorted, and nothing waits for them.
struct Earlier {
    const float* scores;
    long long stride;
    int count;  // keys that have left the window, sinks among them

    __device__ Earlier(const Arguments& a, const Sequence& s, int g, int chunk)
        : scores(scores_of(a, s, g)), stride(score_stride(a)),
          count(Greatest()(Least()(chunk * CHUNK, s.length) - WINDOW, 0)) {}

    // The score of key j, NaN if it is a sink or has not left the window.
    __device__ float score(int j) const {
        return SINKS <= j && j < count ? scores[j * stride] : __int_as_float(0x7fffffff);
    }

    // Those of every STEP-th key from j on. What decides on scores comes after loading them, so that loads overlap.
    template <int STEP, int COUNT>
    __device__ void load(int j, float (&u)[COUNT]) const {
        const float* at = scores + j * stride;
#pragma unroll
        for (int e = 0; e < COUNT; ++e, at += STEP * stride)
            u[e] = SINKS <= j + e * STEP && j + e * STEP < count ? *at : __int_as_float(0x7fffffff);
    }

    // The order of a score, 0 if the key is no candidate.
    __device__ static unsigned order(float score) { return score == score && score != -INFINITY_F ? ordered(score) : 0; }

    __device__ static Candidate candidate(unsigned order, int j) {
        return order == 0 ? 0 : static_cast<Candidate>(order) << 32 | ~static_cast<unsigned>(j + WINDOW);
    }

    // Adds a lane's share of all.
    __device__ void add(double t, Total& total) const {
        for (int j = threadIdx.x % 32; j < count; j += 32) total.add(score(j), t);  // of NaN nothing
    }

    // The least score of a thread's share.
    template <int THREADS>
    __device__ double least() const {
        double least = INFINITY_F;
        for (int j = threadIdx.x; j < count; j += THREADS) {
            const float u = score(j);
            if (order(u) != 0) least = Least()(least, static_cast<double>(u));
        }
        return least;
    }
};

constexpr int AT_ONCE = 8;  // scores of a thread
constexpr bool GATHERED_IN_ORDER = true;  // of arrival

// The candidates from `least` on; returns how many.
template <int THREADS>
__device__ int gather(const Earlier& earlier, Candidate least, Candidate* to) {
    int next = 0;
    for (int base = 0; base < earlier.count; base += AT_ONCE * THREADS) {
        float u[AT_ONCE];
        Candidate c[AT_ONCE];
        bool keep[AT_ONCE];
        int slot[AT_ONCE];
        earlier.load<THREADS>(base + threadIdx.x, u);
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            c[e] = Earlier::candidate(Earlier::order(u[e]), base + e * THREADS + threadIdx.x);
            keep[e] = c[e] >= least;
        }
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
        earlier.load<THREADS>(base + threadIdx.x, u);
        unsigned moves = 0;  // a bit for each
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            const bool stays = bracket.stays(u[e]);
            moves |= bracket.moves(u[e]) ? 1u << e : 0;
            mine.saturated += bracket.sits(u[e]) ? 1 : 0;
            mine.fractional += stays ? 1 : 0;
            if (stays) mine.sum += u[e] - high;
        }
        int moving;
        int slot = next + scan_block(__popc(moves), 0, moving, Sum());
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            if ((moves >> e & 1) == 0) continue;
            if (slot < MOST) {
                movers[slot] = u[e];
                whole_movers[slot] = scale.whole(u[e]);
            }
            ++slot;
        }
        next += moving;
    }
    stable = stable_of_block<THREADS>(mine, high);
    return next;
}
