// Sorted lists: every chunk of queries has one of its arrivals, and every MERGED / CHUNK chunks that others follow have one of
// theirs: merging takes longer than searching a few lists more.
constexpr int MERGED = 8192;

// Arrivals in ascending order (absent ones, 0, first), and the prefix sums of coordinates x by which sums over a range come
// out exactly beside outliers: x rises from one candidate to the next by the difference of their scores, but by at most 1.
// A range whose scores lie within 1 then has u − u_first = x − x_first.
struct List {
    const Candidate* sorted;
    const double* prefix;  // of length size + 1, and one more that keeps lists aligned for pairs
    int size;

    // Σ (u − t) over [from, to), whose scores lie within 1.
    __device__ double sum(int from, int to, double t) const {
        if (from >= to) return 0.0;
        const double count = to - from, x = prefix[from + 1] - prefix[from];
        return count * (static_cast<double>(score_of(sorted[from])) - t) + (prefix[to] - prefix[from] - count * x);
    }

    // Number of candidates below a bound, known to be in [low, high].
    __device__ int below(Candidate bound, int low, int high) const {
        while (low < high) {
            const int middle = (low + high) / 2;
            if (sorted[middle] < bound) low = middle + 1;
            else high = middle;
        }
        return low;
    }

    // The number, known to be in [low, size], by `lanes` neighbours of a warp, a power of two, all of which get it. Every lane of the
    // warp takes part; in a step the list is probed at that many places.
    __device__ int below_by_lanes(Candidate bound, int low, int lanes) const {
        const int lane = threadIdx.x % 32, probe = lane % lanes;
        const unsigned mine = (lanes == 32 ? FULL_WARP : (1u << lanes) - 1) << (lane - probe);
        int high = size;
        while (__any_sync(FULL_WARP, low < high)) {
            const int step = (high - low) / (lanes + 1) + 1, at = low + (probe + 1) * step - 1;
            const int passed = __popc(__ballot_sync(FULL_WARP, at < high && sorted[at] < bound) & mine);
            if (passed < lanes) high = Least()(high, low + (passed + 1) * step - 1);
            low += passed * step;
        }
        return low;
    }

    // The same for several bounds at a time, whose loads overlap; `low` becomes the numbers.
    template <int B>
    __device__ void below(const Candidate (&bound)[B], int (&low)[B], int (&high)[B]) const {
        for (bool open = true; open;) {
            Candidate c[B];
#pragma unroll
            for (int b = 0; b < B; ++b) c[b] = sorted[Least()((low[b] + high[b]) / 2, size - 1)];
            open = false;
#pragma unroll
            for (int b = 0; b < B; ++b) {
                const int middle = (low[b] + high[b]) / 2;
                if (low[b] >= high[b]) continue;
                if (c[b] < bound[b]) low[b] = middle + 1;
                else high[b] = middle;
                open |= low[b] < high[b];
            }
        }
    }

    // Adds all candidates of the list, of which those above t start at `from` and those above t + 1 at `to`.
    __device__ void add(int from, int to, double t, Total& total) const {
        total.sum += sum(from, to, t);
        total.saturated += size - to;
        total.fractional += to - from;
    }
};

template <int SIZE>
__device__ __forceinline__ List list_at(const Arguments& a, int g, int id) {
    const long long index = static_cast<long long>(g) * block_count<SIZE>(a) + id;
    if constexpr (SIZE == CHUNK) return {a.sorted + index * SIZE, a.prefix + index * (SIZE + 2), SIZE};
    else return {a.merged_sorted + index * SIZE, a.merged_prefix + index * (SIZE + 2), SIZE};
}

// The lists that together hold whatever arrived in the first `chunks` chunks of a sequence.
struct Lists {
    int merged, count;
    int first_merged, first;  // ids
    int g;

    __device__ Lists(const Arguments& a, const Sequence& s, int g, int chunks) : g(g) {
        constexpr int RATIO = MERGED / CHUNK;
        merged = chunks > 0 ? (chunks - 1) / RATIO : 0;
        count = merged + chunks - merged * RATIO;
        first_merged = first_block<MERGED>(a, s);
        first = first_block<CHUNK>(a, s) + merged * RATIO;
    }

    __device__ List at(const Arguments& a, int i) const {
        return i < merged ? list_at<MERGED>(a, g, first_merged + i) : list_at<CHUNK>(a, g, first + i - merged);
    }
};

// Writes a list of the SHARE sorted candidates that every thread of a block has. `shared` holds one of each thread's.
template <int SHARE>
__device__ __forceinline__ void write_list(const Candidate (&x)[SHARE], Candidate* shared, List list) {
    const int from = threadIdx.x * SHARE;
    __syncthreads();
    shared[threadIdx.x] = x[SHARE - 1];
    __syncthreads();
    Candidate before = threadIdx.x > 0 ? shared[threadIdx.x - 1] : 0;
    double coordinate[SHARE], rises = 0.0, total;
#pragma unroll
    for (int i = 0; i < SHARE; ++i) {
        const double step = static_cast<double>(score_of(x[i])) - static_cast<double>(score_of(before));
        rises += before == 0 ? 0.0 : step < 1.0 ? step : 1.0;  // 1 also between two of +inf
        coordinate[i] = rises;
        before = x[i];
    }
    const double start = scan_block(rises, 0.0, total, Sum());
    double coordinates = 0.0;
#pragma unroll
    for (int i = 0; i < SHARE; ++i) coordinates += coordinate[i] += start;
    double sum = scan_block(coordinates, 0.0, total, Sum());
    ulonglong2* sorted = reinterpret_cast<ulonglong2*>(const_cast<Candidate*>(list.sorted) + from);
    double2* prefix = reinterpret_cast<double2*>(const_cast<double*>(list.prefix) + from);
#pragma unroll
    for (int i = 0; i < SHARE; i += 2) {
        const double next = sum + coordinate[i];
        sorted[i / 2] = {x[i], x[i + 1]};
        prefix[i / 2] = {sum, next};
        sum = next + coordinate[i + 1];
    }
    if (from + SHARE == list.size) prefix[SHARE / 2] = {sum, sum};
}
