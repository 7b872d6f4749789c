// Who arrived before a chunk, from the sorted lists.
struct Earlier {
    const Arguments& a;
    Lists lists;

    __device__ Earlier(const Arguments& a, const Sequence& s, int g, int chunk) : a(a), lists(a, s, g, chunk) {}

    // Adds a lane's share of all.
    __device__ void add(double t, Total& total) const {
        const Candidate above = least_above(t), saturated = least_above(t + 1.0);
        for (int i = threadIdx.x % 32; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            list.add(list.below(above, 0, list.size), list.below(saturated, 0, list.size), t, total);
        }
    }

    // The least score of a thread's share.
    template <int THREADS>
    __device__ double least() const {
        double least = INFINITY_F;
        for (int i = threadIdx.x; i < lists.count; i += THREADS) {
            const List list = lists.at(a, i);
            const int present = present_in(list);
            if (present > 0) least = Least()(least, static_cast<double>(score_of(list.sorted[list.size - present])));
        }
        return least;
    }
};

constexpr bool GATHERED_IN_ORDER = false;  // of arrival

// The candidates from `least` on, of which there are at most K in a list; returns how many.
template <int THREADS>
__device__ int gather(const Earlier& earlier, Candidate least, Candidate* to) {
    const Lists& lists = earlier.lists;
    __shared__ int from[128], slot[128];
    int next = 0, lanes = 1;  // that look for the bound in a list
    while (lanes < 8 && 2 * lanes * lists.count <= 128) lanes *= 2;
    const int batch = 128 / lanes;
    for (int base = 0; base < lists.count; base += batch) {
        const int l = threadIdx.x / lanes, i = base + l;
        int count = 0, start = 0;
        if (threadIdx.x < 128) {
            const List list = i < lists.count ? lists.at(earlier.a, i) : List{nullptr, nullptr, 0};
            start = list.below_by_lanes(least, list.size > K ? list.size - K : 0, lanes);
            if (threadIdx.x % lanes == 0) count = list.size - start;
        }
        int total;
        const int before = scan_block(count, 0, total, Sum());
        if (threadIdx.x < 128 && threadIdx.x % lanes == 0) from[l] = start, slot[l] = next + before;
        next += total;
        __syncthreads();
        const int here = lists.count - base < batch ? lists.count - base : batch;
        for (int l = threadIdx.x / 32; l < here; l += THREADS / 32) {
            const List list = lists.at(earlier.a, base + l);
#pragma unroll 4
            for (int r = from[l] + threadIdx.x % 32; r < list.size; r += 32)
                to[slot[l] + r - from[l]] = __ldg(&list.sorted[r]);
        }
        __syncthreads();
    }
    return next;
}

// Splits them into stable ones and movers, of which at most MOST are written, downwards from two ends; returns how many there are.
template <int THREADS, int MOST>
__device__ int split_earlier(const Earlier& earlier, const Scale& scale, double low, double high, Stable& stable, float* end,
                             int* whole_end) {
    __shared__ int4 moves[THREADS / 4];  // [x, y) and [z, w) of a list
    __shared__ int slots[THREADS / 4];
    const Lists& lists = earlier.lists;
    const Candidate low_or_high[2] = {least_above(low), least_above(high)};
    const Candidate one_above[2] = {least_above(low + 1.0), least_above(high + 1.0)};
    // Every list has four bounds to be looked for, each by as many lanes as there are for it.
    int lanes = 1;
    while (lanes < 8 && 8 * lanes * lists.count <= THREADS) lanes *= 2;
    const int batch = THREADS / (4 * lanes), l = threadIdx.x / (4 * lanes);  // lists at a time, and this thread's
    const int which = threadIdx.x / lanes % 4;
    const bool leads = threadIdx.x % (4 * lanes) == 0;
    const Candidate bound = which < 2 ? low_or_high[which] : one_above[which - 2];
    Total mine = {0.0, 0, 0};  // of the stable, with Σ (u − high)
    int next = 0;
    for (int base = 0; base < lists.count && next <= MOST; base += batch) {
        const int i = base + l;
        const List list = i < lists.count ? lists.at(earlier.a, i) : List{nullptr, nullptr, 0};
        const int at = list.below_by_lanes(bound, 0, lanes), first_lane = threadIdx.x % 32 / (4 * lanes) * (4 * lanes);
        int4 p = {__shfl_sync(FULL_WARP, at, first_lane), __shfl_sync(FULL_WARP, at, first_lane + lanes),
                  __shfl_sync(FULL_WARP, at, first_lane + 2 * lanes), __shfl_sync(FULL_WARP, at, first_lane + 3 * lanes)};
        if (p.y > p.z) p.y = p.z;  // high is above low + 1: nobody stays fractional
        const int count = leads ? p.y - p.x + p.w - p.z : 0;
        if (leads) {
            mine.saturated += list.size - p.w;
            mine.fractional += p.z - p.y;
            mine.sum += list.sum(p.y, p.z, high);
        }
        int total;
        const int slot = next + scan_block(count, 0, total, Sum());
        if (leads) moves[l] = p, slots[l] = slot;
        next += total;
        __syncthreads();
        if (next <= MOST) {
            for (int m = threadIdx.x / 32; m < batch && base + m < lists.count; m += THREADS / 32) {
                const Candidate* sorted = lists.at(earlier.a, base + m).sorted;
                const int4 r = moves[m];
                const int first = r.y - r.x, both = first + r.w - r.z;
                for (int e = threadIdx.x % 32; e < both; e += 32) {
                    const float u = score_of(__ldg(&sorted[e < first ? r.x + e : r.z + e - first]));
                    end[-1 - slots[m] - e] = u;
                    whole_end[-1 - slots[m] - e] = scale.whole(u);
                }
            }
        }
        __syncthreads();
    }
    stable = stable_of_block<THREADS>(mine, high);
    return next;
}
