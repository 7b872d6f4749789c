// The state after every chunk: the K-th best candidate (0 while fewer have arrived), tau, the number that have arrived. One
// warp finds it from the sorted lists.

// The K-th best of lists that hold at least K candidates.
__device__ Candidate kth_best(const Arguments& a, const Lists& lists) {
    __shared__ int3 kept[KEPT];  // the K-th best is among [x, y); z divides them
    const int lane = threadIdx.x;
    for (int i = lane; i < lists.count && i < KEPT; i += 32) {
        const List list = lists.at(a, i);
        kept[i] = {list.size > K ? list.size - K : 0, list.size, 0};
    }
    int rank = K;
    Candidate floor = 1, ceiling = ~0ull;  // of what remains, for lists that are not kept
    while (true) {
        const auto remaining = [&](const List& list, int i) {
            if (i < KEPT) return kept[i];
            const int from = list.below(floor, list.size > K ? list.size - K : 0, list.size);
            return int3{from, list.below(ceiling, from, list.size), 0};
        };
        Candidate least = ~0ull, most = 0;
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int3 r = remaining(list, i);
            if (r.x >= r.y) continue;
            least = Least()(least, list.sorted[r.x]);
            most = Greatest()(most, list.sorted[r.y - 1]);
        }
        least = least_of_warp(least);
        most = greatest_of_warp(most);
        if (least == most) return least;
        const Candidate pivot = least + (most - least + 1) / 2;
        int better = 0;
        for (int i = lane; i < lists.count; i += 32) {
            const List list = lists.at(a, i);
            const int3 r = remaining(list, i);
            const int middle = list.below(pivot, r.x, r.y);
            if (i < KEPT) kept[i].z = middle;
            better += r.y - middle;
        }
        better = sum_warp(better);
        const bool up = better >= rank;
        if (up) floor = pivot;
        else ceiling = pivot, rank -= better;
        for (int i = lane; i < lists.count && i < KEPT; i += 32) {
            if (up) kept[i].x = kept[i].z;
            else kept[i].y = kept[i].z;
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
            const int from = list.below(above, b.x, b.y);
            const int to = list.below(saturated, b.z > from ? b.z : from, b.w);
            if (i < KEPT) last[i] = {from, to};
            sum.f += list.size - to + list.sum(from, to, t);
            sum.above += list.size - from;
            sum.fractional += to - from;
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
        for (int i = threadIdx.x; i < lists.count && i < KEPT; i += 32) brackets[i] = bracket(lists.at(a, i), v - 1.0, v);
        ListedCandidates candidates = {a, lists, brackets, last};
        tau = largest_root(candidates, v, v - 1.0, v);
    }
    if (threadIdx.x != 0) return;
    const long long index = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    a.bound_kth[index] = kth;
    a.bound_tau[index] = tau;
    a.bound_arrived[index] = arrived;
}
