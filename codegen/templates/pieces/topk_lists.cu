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

// Sorted lists: every chunk of queries has one of its arrivals, and every MERGED / CHUNK chunks have one of theirs.
constexpr int MERGED = CHUNK * 16 < 8192 ? CHUNK * 16 : 8192;

// Arrivals in ascending order (absent ones, 0, first), and the prefix sums of coordinates x by which sums over a range come
// out exactly beside outliers: x rises from one candidate to the next by the difference of their scores, but by at most 1.
// A range whose scores lie within 1 then has u − u_first = x − x_first.
struct List {
    const Candidate* sorted;
    const double* prefix;  // of length size + 1
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

    // The same for two bounds at a time, whose loads overlap.
    __device__ int2 below(Candidate bound, int low, int high, Candidate bound2, int low2, int high2) const {
        while (low < high && low2 < high2) {
            const int middle = (low + high) / 2, middle2 = (low2 + high2) / 2;
            const Candidate c = sorted[middle], c2 = sorted[middle2];
            if (c < bound) low = middle + 1;
            else high = middle;
            if (c2 < bound2) low2 = middle2 + 1;
            else high2 = middle2;
        }
        return {below(bound, low, high), below(bound2, low2, high2)};
    }

    // Adds all candidates of the list, of which those above t start at `from` and those above t + 1 at `to`.
    __device__ void add(int from, int to, double t, Total& total) const {
        total.f += size - to + sum(from, to, t);
        total.above += size - from;
        total.fractional += to - from;
    }
};

template <int SIZE>
__device__ __forceinline__ List list_at(const Arguments& a, int g, int id) {
    const long long index = static_cast<long long>(g) * block_count<SIZE>(a) + id;
    if constexpr (SIZE == CHUNK) return {a.sorted + index * SIZE, a.prefix + index * (SIZE + 1), SIZE};
    else return {a.merged_sorted + index * SIZE, a.merged_prefix + index * (SIZE + 1), SIZE};
}

// The lists that together hold whatever arrived in the first `chunks` chunks of a sequence.
struct Lists {
    int merged, count;
    int first_merged, first;  // ids
    int g;

    __device__ Lists(const Arguments& a, const Sequence& s, int g, int chunks) : g(g) {
        constexpr int RATIO = MERGED / CHUNK;
        merged = chunks / RATIO;
        count = merged + chunks % RATIO;
        first_merged = first_block<MERGED>(a, s);
        first = first_block<CHUNK>(a, s) + merged * RATIO;
    }

    __device__ List at(const Arguments& a, int i) const {
        return i < merged ? list_at<MERGED>(a, g, first_merged + i) : list_at<CHUNK>(a, g, first + i - merged);
    }
};

// Writes sorted candidates in shared memory as a list; every one of THREADS threads has a share of consecutive ones.
template <int SIZE, int THREADS>
__device__ __forceinline__ void write_list(const Candidate* x, List list) {
    Candidate* sorted = const_cast<Candidate*>(list.sorted);
    double* prefix = const_cast<double*>(list.prefix);
    for (int i = threadIdx.x; i < SIZE; i += THREADS) sorted[i] = x[i];
    constexpr int SHARE = SIZE / THREADS;
    const int from = threadIdx.x * SHARE;
    Candidate before = from > 0 ? x[from - 1] : 0;
    double coordinate[SHARE], rises = 0.0, total;
#pragma unroll
    for (int i = 0; i < SHARE; ++i) {
        const Candidate c = x[from + i];
        const double step = static_cast<double>(score_of(c)) - static_cast<double>(score_of(before));
        rises += before == 0 ? 0.0 : step < 1.0 ? step : 1.0;  // 1 also between two of +inf
        coordinate[i] = rises;
        before = c;
    }
    const double start = scan_block(rises, 0.0, total, Sum());
    double coordinates = 0.0;
#pragma unroll
    for (int i = 0; i < SHARE; ++i) coordinates += coordinate[i] += start;
    double sum = scan_block(coordinates, 0.0, total, Sum());
#pragma unroll
    for (int i = 0; i < SHARE; ++i) {
        prefix[from + i] = sum;
        sum += coordinate[i];
    }
    if (threadIdx.x == THREADS - 1) prefix[SIZE] = sum;
}
