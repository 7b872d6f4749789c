// The state after every chunk, from the sorted lists: one warp finds the K-th best, and tau from there.

// Lists whose brackets are kept in shared memory; those beyond are searched from end to end.
constexpr int KEPT = 576;

// Four places in a list.
__device__ __forceinline__ ushort4 places(int x, int y, int z, int w) {
    return {static_cast<unsigned short>(x), static_cast<unsigned short>(y), static_cast<unsigned short>(z),
            static_cast<unsigned short>(w)};
}

// How many of a list there are.
__device__ __forceinline__ int present_in(const List& list) {
    const Candidate first = list.sorted[0], last = list.sorted[list.size - 1];
    return first != 0 ? list.size : last == 0 ? 0 : list.size - list.below(1, 0, list.size);
}

// The candidate of a rank, 1 for the best, among at most 32 that lanes have, each `count` of a list from `from` on.
__device__ Candidate best_of_few(const Arguments& a, const Lists& lists, const ushort4* kept, int rank) {
    __shared__ Candidate few[32];
    const int lane = threadIdx.x % 32;
    int next = 0;
    for (int base = 0; base < lists.count; base += 32) {
        const int i = base + lane, count = i < lists.count ? kept[i].w - kept[i].x : 0;
        int slot = count;
        for (int d = 1; d < 32; d *= 2) {
            const int y = __shfl_up_sync(FULL_WARP, slot, d);
            if (lane >= d) slot += y;
        }
        const int total = __shfl_sync(FULL_WARP, slot, 31);
        slot += next - count;
        for (int r = 0; r < count; ++r) few[slot + r] = lists.at(a, i).sorted[kept[i].x + r];
        next += total;
    }
    __syncwarp();
    const Candidate mine = lane < next ? few[lane] : 0;
    int better = 0;
    for (int i = 0; i < next; ++i) better += few[i] > mine ? 1 : 0;
    return __shfl_sync(FULL_WARP, mine, __ffs(__ballot_sync(FULL_WARP, lane < next && better == rank - 1)) - 1);
}

// What a warp knows of some lists at first.
struct Arrived {
    int count;              // candidates
    Candidate least, most;  // the K-th best is neither below nor above them, where there are K
};

// Were the K best spread evenly, they would be the first so many of each list: the K-th best is not below the least candidate of
// those ranks, and not above the greatest. Leaves the number of each list in `marks`, as [0, w).
__device__ Arrived count_arrived(const Arguments& a, const Lists& lists, ushort4* marks) {
    const int lane = threadIdx.x % 32;
    Arrived arrived = {0, ~0ull, 0};
    for (int i = lane; i < lists.count; i += 32) {
        const int present = present_in(lists.at(a, i));
        if (i < KEPT) marks[i] = places(0, 0, 0, present);
        arrived.count += present;
    }
    arrived.count = sum_warp(arrived.count);
    if (arrived.count < K) return arrived;
    for (int i = lane; i < lists.count; i += 32) {
        const List list = lists.at(a, i);
        const int present = i < KEPT ? marks[i].w : present_in(list);
        if (present == 0) continue;
        const unsigned rank = (static_cast<unsigned>(K * present) + arrived.count - 1) / arrived.count;
        const Candidate c = list.sorted[list.size - rank];
        arrived.least = Least()(arrived.least, c);
        arrived.most = Greatest()(arrived.most, c);
    }
    arrived.least = least_of_warp(arrived.least);
    arrived.most = greatest_of_warp(arrived.most);
    return arrived;
}

// The K-th best of lists that hold at least K candidates; `kept` has their numbers at first. In what is kept of a list it is
// among [x, w), which y and z divide.
__device__ Candidate kth_best(const Arguments& a, const Lists& lists, const Arrived& arrived, ushort4* kept) {
    const int lane = threadIdx.x % 32;
    for (int i = lane; i < lists.count && i < KEPT; i += 32) {
        const int size = lists.at(a, i).size;
        kept[i] = places(size - Least()(K, static_cast<int>(kept[i].w)), 0, 0, size);
    }
    Candidate pivot = arrived.least, pivot2 = arrived.most + 1;
    int rank = K;
    Candidate floor = 1, ceiling = ~0ull;  // of what remains, for lists that are not kept
    while (true) {
        const auto remaining = [&](const List& list, int i) {
            if (i < KEPT) return int4{kept[i].x, kept[i].y, kept[i].z, kept[i].w};
            const int from = list.below(floor, list.size > K ? list.size - K : 0, list.size);
            return int4{from, 0, 0, list.below(ceiling, from, list.size)};
        };
        int better = 0, better2 = 0;
        const Candidate pivots[2] = {pivot, pivot2};
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int4 r = remaining(list, i);
            int at[2] = {r.x, r.x}, high[2] = {r.w, r.w};
            list.below(pivots, at, high);
            if (i < KEPT) kept[i] = places(r.x, at[0], at[1], r.w);
            better += r.w - at[0];
            better2 += r.w - at[1];
        }
        better = sum_warp(better);
        better2 = sum_warp(better2);
        const bool upper = better2 >= rank, middle = !upper && better >= rank;
        const int left = upper ? better2 : middle ? better - better2 : 0;
        if (upper) {
            floor = pivot2;
        } else if (middle) {
            floor = pivot, ceiling = pivot2, rank -= better2;
        } else {
            ceiling = pivot, rank -= better;
        }
        for (int i = lane; i < lists.count && i < KEPT; i += 32) {
            if (upper) kept[i].x = kept[i].z;
            else if (middle) kept[i].x = kept[i].y, kept[i].w = kept[i].z;
            else kept[i].w = kept[i].y;
        }
        if (0 < left && left <= 32 && lists.count <= KEPT) return best_of_few(a, lists, kept, rank);
        // Two pivots of thirds.
        Candidate least = ~0ull, most = 0;
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int4 r = remaining(list, i);
            if (r.x >= r.w) continue;
            least = Least()(least, list.sorted[r.x]);
            most = Greatest()(most, list.sorted[r.w - 1]);
        }
        least = least_of_warp(least);
        most = greatest_of_warp(most);
        if (least == most) return least;
        const Candidate third = (most - least + 2) / 3;
        pivot = least + third;
        pivot2 = most - pivot > third ? pivot + third : most;
    }
}

// All candidates of some lists; every lane of the warp gets the totals.
struct ListedCandidates {
    const Arguments& a;
    const Lists& lists;
    ushort4* brackets;  // where a list's first candidates above t and above t + 1 may be: [x, y] and [z, w]
    ushort4* last;      // where they were for the last two t

    __device__ void totals(double t, double t2, Total& at, Total& at2) const {
        at = at2 = {0.0, 0, 0};
        const Candidate bounds[4] = {least_above(t), least_above(t + 1.0), least_above(t2), least_above(t2 + 1.0)};
        for (int i = threadIdx.x % 32; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const ushort4 b = i < KEPT ? brackets[i] : places(0, list.size, 0, list.size);
            int low[4] = {b.x, b.z, b.x, b.z}, high[4] = {b.y, b.w, b.y, b.w};
            list.below(bounds, low, high);
            if (i < KEPT) last[i] = places(low[0], low[1], low[2], low[3]);
            list.add(low[0], low[1], t, at);
            list.add(low[2], low[3], t2, at2);
        }
        at = sum_warp(at);
        at2 = sum_warp(at2);
    }

    // Below, between or above the last two t. Returns whether nobody is left within a bracket: then f is linear there.
    __device__ bool narrow(bool above, bool above2) {
        int open = 0;
        for (int i = threadIdx.x % 32; i < lists.count && i < KEPT; i += 32) {
            ushort4& b = brackets[i];
            if (above2) b.x = last[i].z, b.z = last[i].w;
            else if (above) b = {last[i].x, last[i].z, last[i].y, last[i].w};
            else b.y = last[i].x, b.w = last[i].y;
            open |= (b.x ^ b.y) | (b.z ^ b.w);
        }
        return lists.count <= KEPT && !__any_sync(FULL_WARP, open != 0);
    }
};

// A t in [low, high] with f(t) = K, from all candidates, where more than K have arrived; as `root` finds one, but two
// steps at a time, whose searches overlap. Newton's step from the left and the chord lie on both sides of the root wherever f
// bends one way; the middle replaces the chord after steps that did not halve the bracket.
__device__ double root_of_lists(ListedCandidates& candidates, double low, double high) {
    if (!(low < high)) return low;
    for (int i = threadIdx.x % 32; i < candidates.lists.count && i < KEPT; i += 32) {
        const int size = candidates.lists.at(candidates.a, i).size;
        candidates.brackets[i] = places(0, size, 0, size);
    }
    Total at_low, at_high;
    candidates.totals(low, high, at_low, at_high);
    if (at_low.above() <= K) return low;
    bool halved = true;
    while (true) {
        const double magnitude = low < 0.0 ? -low : low, tolerance = 0x1p-30 * (magnitude > 1.0 ? magnitude : 1.0);
        const double width = high - low, middle = low + 0.5 * width, rest = at_low.f() - K;
        if (rest <= tolerance || width <= tolerance || !(middle > low && middle < high)) return low;
        if (K - at_high.f() <= tolerance) return high;
        double t = low + __fdividef(static_cast<float>(rest), static_cast<float>(at_low.fractional));
        double t2 = halved ? low + width * __fdividef(static_cast<float>(rest), static_cast<float>(at_low.f() - at_high.f()))
                           : middle;
        if (!(t > low && t < high)) t = middle;
        if (!(t2 > low && t2 < high)) t2 = middle;
        if (t2 < t) {
            const double chord = t2;
            t2 = t;
            t = chord;
        }
        Total at, at2;
        candidates.totals(t, t2, at, at2);
        const bool above = at.f() >= K, above2 = at2.f() >= K;  // whether the root is
        if (above2) {
            low = t2, at_low = at2;
        } else if (above) {
            low = t, at_low = at, high = t2, at_high = at2;
        } else {
            high = t, at_high = at;
        }
        if (candidates.narrow(above, above2)) return low + (at_low.f() - K) / at_low.fractional;
        halved = high - low <= 0.5 * width;
    }
}

extern "C" __global__ void __launch_bounds__(32) plan_bounds(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    __shared__ ushort4 kept[KEPT], last[KEPT];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    const Lists lists(a, s, g, chunk + 1);
    const Arrived arrived = count_arrived(a, lists, kept);
    const Candidate kth = arrived.count < K ? 0 : kth_best(a, lists, arrived, kept);
    double tau = -INFINITY_F;
    if (arrived.count > K) {
        ListedCandidates candidates = {a, lists, kept, last};
        tau = root_of_lists(candidates, score_of(kth) - 1.0, score_of(kth));
    }
    if (threadIdx.x == 0) write_state(a, bound_index(a, s, g, chunk), kth, tau, arrived.count);
}
