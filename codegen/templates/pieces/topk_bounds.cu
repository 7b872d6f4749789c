// The state after every chunk: the K-th best candidate (0 while fewer have arrived), tau, the number that have arrived. One
// warp finds it from the sorted lists.

// The K-th best of lists that hold at least K candidates.
__device__ Candidate kth_best(const Arguments& a, const Lists& lists) {
    __shared__ int4 kept[KEPT];  // the K-th best is among [x, w); y and z divide them
    const int lane = threadIdx.x;
    for (int i = lane; i < lists.count && i < KEPT; i += 32) {
        const List list = lists.at(a, i);
        kept[i] = {list.size > K ? list.size - K : 0, 0, 0, list.size};
    }
    int rank = K;
    Candidate floor = 1, ceiling = ~0ull;  // of what remains, for lists that are not kept
    while (true) {
        const auto remaining = [&](const List& list, int i) {
            if (i < KEPT) return kept[i];
            const int from = list.below(floor, list.size > K ? list.size - K : 0, list.size);
            return int4{from, 0, 0, list.below(ceiling, from, list.size)};
        };
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
        // Two pivots, of thirds.
        const Candidate third = (most - least + 2) / 3, pivot = least + third;
        const Candidate pivot2 = most - pivot > third ? pivot + third : most;
        int better = 0, better2 = 0;
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int4 r = remaining(list, i);
            const int2 middle = list.below(pivot, r.x, r.w, pivot2, r.x, r.w);
            if (i < KEPT) kept[i] = {r.x, middle.x, middle.y, r.w};
            better += r.w - middle.x;
            better2 += r.w - middle.y;
        }
        better = sum_warp(better);
        better2 = sum_warp(better2);
        if (better2 >= rank) {
            floor = pivot2;
        } else if (better >= rank) {
            floor = pivot, ceiling = pivot2, rank -= better2;
        } else {
            ceiling = pivot, rank -= better;
        }
        for (int i = lane; i < lists.count && i < KEPT; i += 32) {
            if (floor == pivot2) kept[i].x = kept[i].z;
            else if (floor == pivot) kept[i].x = kept[i].y, kept[i].w = kept[i].z;
            else kept[i].w = kept[i].y;
        }
    }
}

// All candidates of some lists; every lane of the warp gets the total.
struct ListedCandidates {
    const Arguments& a;
    const Lists& lists;
    int4* brackets;
    int2* last;

    __device__ Total total(double t) {
        Total sum = {0.0, 0, 0};
        const Candidate above = least_above(t), saturated = least_above(t + 1.0);
        for (int i = threadIdx.x; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int4 b = i < KEPT ? brackets[i] : int4{0, list.size, 0, list.size};
            const int2 at = list.below(above, b.x, b.y, saturated, b.z, b.w);
            if (i < KEPT) last[i] = at;
            list.add(at.x, at.y, t, sum);
        }
        return {sum_warp(sum.f), sum_warp(sum.above), sum_warp(sum.fractional)};
    }

    // The root is above the last t, or below.
    __device__ void narrow(bool up) {
        for (int i = threadIdx.x; i < lists.count && i < KEPT; i += 32) {
            if (up) brackets[i].x = last[i].x, brackets[i].z = last[i].y;
            else brackets[i].y = last[i].x, brackets[i].w = last[i].y;
        }
    }
};

extern "C" __global__ void __launch_bounds__(32) plan_bounds(const __grid_constant__ Arguments a) {
    __shared__ int4 brackets[KEPT];
    __shared__ int2 last[KEPT];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    const Lists lists(a, s, g, chunk + 1);
    int arrived = 0;
    for (int i = threadIdx.x; i < lists.count; i += 32) {
        const List list = lists.at(a, i);
        arrived += list.size - list.below(1, 0, list.size);
    }
    arrived = sum_warp(arrived);
    const Candidate kth = arrived < K ? 0 : kth_best(a, lists);
    double tau = -INFINITY_F;
    if (arrived > K) {
        const double v = score_of(kth);
        for (int i = threadIdx.x; i < 4 * lists.count && i < 4 * KEPT; i += 32)
            set_bracket(brackets[i / 4], i % 4, lists.at(a, i / 4), v - 1.0, v);
        __syncwarp();
        ListedCandidates candidates = {a, lists, brackets, last};
        tau = largest_root(candidates, v, v - 1.0, v);
    }
    if (threadIdx.x != 0) return;
    const long long index = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    a.bound_kth[index] = kth;
    a.bound_tau[index] = tau;
    a.bound_arrived[index] = arrived;
}
