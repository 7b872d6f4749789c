// Who arrived before a chunk, from the scores themselves: those that plan_bounds listed, or all where there is no list.
struct Earlier {
    const float* scores;  // `stride` apart: of keys, or of a list's pairs of a score and the bits of its key, in order of arrival
    long long stride;
    bool listed;
    int count;  // of the list, or keys that have left the window, sinks among them

    // Everyone who arrived before a query.
    __device__ static Earlier all(const Arguments& a, const Sequence& s, int g, int query) {
        return {scores_of(a, s, g), score_stride(a), false, Greatest()(Least()(query, s.length) - WINDOW, 0)};
    }

    __device__ Earlier(const float* scores, long long stride, bool listed, int count)
        : scores(scores), stride(stride), listed(listed), count(count) {}

    // Nothing branches on what is loaded here, so that what comes next is loaded beside it.
    __device__ Earlier(const Arguments& a, const Sequence& s, int g, int chunk) : Earlier(all(a, s, g, chunk * CHUNK)) {
        const long long before = bound_index(a, s, g, chunk) - 1;
        const int in_list = chunk > 0 ? a.listed_count[before] : -1;
        listed = in_list >= 0;
        scores = listed ? reinterpret_cast<const float*>(list_of(a, before)) : scores;
        stride = listed ? 2 : stride;
        count = listed ? in_list : count;
    }

    // What plan_bounds lists after a chunk.
    __device__ static int2* list_of(const Arguments& a, long long bound) { return reinterpret_cast<int2*>(a.listed) + bound * LISTED; }

    // Sinks are among keys, not in lists.
    __device__ int first() const { return listed ? 0 : SINKS; }

    // The scores of every STEP-th from the i-th on, NaN if it is a sink or beyond the last. What decides on scores comes after loading
    // them, so that loads overlap.
    template <int STEP, int COUNT>
    __device__ void load(int i, float (&u)[COUNT]) const {
        const float* at = scores + i * stride;
#pragma unroll
        for (int e = 0; e < COUNT; ++e, at += STEP * stride)
            u[e] = first() <= i + e * STEP && i + e * STEP < count ? *at : __int_as_float(0x7fffffff);
    }

    // The same, sooner where scores lie side by side and none is beyond.
    template <int STEP, int COUNT>
    __device__ void load_run(int i, float (&u)[COUNT]) const {
        if (stride != 1 || i < first() || i + (COUNT - 1) * STEP >= count) return load<STEP>(i, u);
#pragma unroll
        for (int e = 0; e < COUNT; ++e) u[e] = scores[i + e * STEP];
    }

    // The key of one of them.
    __device__ int key(int i) const { return listed ? __float_as_int(scores[2 * i + 1]) : i; }

    // Whether a score is one of a candidate.
    __device__ static bool is_candidate(float score) { return score > -INFINITY_F; }  // nor NaN

    __device__ static Candidate candidate(float score, int key) {
        return is_candidate(score) ? static_cast<Candidate>(ordered(score)) << 32 | ~static_cast<unsigned>(key + WINDOW) : 0;
    }

    // Adds a lane's share of all.
    __device__ void add(double t, Total& total) const {
        for (int i = threadIdx.x % 32; i < count; i += 32) {
            float u[1];
            load<32>(i, u);
            total.add(u[0], t);  // of NaN nothing
        }
    }

    // The least score of a thread's share.
    template <int THREADS>
    __device__ double least() const {
        double least = INFINITY_F;
        for (int i = threadIdx.x; i < count; i += THREADS) {
            float u[1];
            load<THREADS>(i, u);
            if (is_candidate(u[0])) least = Least()(least, static_cast<double>(u[0]));
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
        int slot[AT_ONCE];
        Candidate c[AT_ONCE];
        bool keep[AT_ONCE];
        earlier.load<THREADS>(base + threadIdx.x, u);
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            const int i = base + e * THREADS + threadIdx.x;
            c[e] = Earlier::candidate(u[e], i < earlier.count ? earlier.key(i) : 0);
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

// Splits them into stable ones and movers, of which at most MOST are written, downwards from two ends; returns how many there are.
template <int THREADS, int MOST>
__device__ int split_earlier(const Earlier& earlier, const Scale& scale, double low, double high, Stable& stable, float* end,
                             int* whole_end) {
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
            ++slot;
            if (slot > MOST) continue;
            end[-slot] = u[e];
            whole_end[-slot] = scale.whole(u[e]);
        }
        next += moving;
    }
    stable = stable_of_block<THREADS>(mine, high);
    return next;
}
