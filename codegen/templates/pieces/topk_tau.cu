// tau of every query of a chunk, from the states before and after it. A warp first finds tau after every 32 queries; between
// two such values most candidates stay fractional, saturated or below, and count by number and sum. The queries in between
// are one to a lane, each going over the few others.

constexpr int STRIDE = 32;
constexpr int PARTS = CHUNK / STRIDE;
constexpr int UNSTABLE = 192;  // unstable candidates that a warp keeps in shared memory

// What a block knows of a chunk.
struct ChunkScores {
    const Arguments& a;
    const Lists& lists;        // arrivals before the chunk
    const int4* brackets;      // of the lists, between tau before and after the chunk
    const float* own;          // arrivals of the chunk, in time order, −inf where there is none

    __device__ int4 bracket_at(int i, int size) const { return i < KEPT ? brackets[i] : int4{0, size, 0, size}; }

    __device__ void add_list(int i, double t, Candidate above, Candidate saturated, Total& sum) const {
        const List list = lists.at(a, i);
        const int4 b = bracket_at(i, list.size);
        const int2 at = list.below(above, b.x, b.y, saturated, b.z, b.w);
        list.add(at.x, at.y, t, sum);
    }
};

// Whoever has arrived by the end of a part; every lane of a warp gets the total.
struct ArrivedCandidates {
    const ChunkScores& chunk;
    int arrived;  // of own

    __device__ Total total(double t) {
        const int lane = threadIdx.x % 32;
        Total sum = {0.0, 0, 0};
        const Candidate above = least_above(t), saturated = least_above(t + 1.0);
        for (int i = lane; i < chunk.lists.count; i += 32) chunk.add_list(i, t, above, saturated, sum);
#pragma unroll 4
        for (int i = lane; i < arrived; i += 32) sum.add(chunk.own[i], t);
        return {sum_warp(sum.f), sum_warp(sum.above), sum_warp(sum.fractional)};
    }

    __device__ void narrow(bool) {}
};

// Whoever has arrived by one query of a part, while tau is in [low, high].
struct PartCandidates {
    const ChunkScores& chunk;
    const double* scores;  // unstable ones that arrived before the part, then those of the part above low, in time order
    int count;             // of these by this query
    int saturated, fractional;
    double sum;  // Σ (u − high) over the fractional
    double high;
    int listed;  // of own, where the unstable were too many: then all that arrived before the part are gone over; or −1

    __device__ Total total(double t) {
        Total all = {static_cast<double>(saturated), saturated + fractional, fractional}, odd = {0.0, 0, 0};
        if (fractional > 0) all.f += sum + fractional * (high - t);
        if (listed >= 0) {
            all = {0.0, 0, 0};
            const Candidate above = least_above(t), above_one = least_above(t + 1.0);
            for (int i = 0; i < chunk.lists.count; ++i) chunk.add_list(i, t, above, above_one, all);
            for (int i = 0; i < listed; ++i) all.add(chunk.own[i], t);
        }
        int i = 0;
#pragma unroll 2
        for (; i + 1 < count; i += 2) {
            all.add(scores[i], t);
            odd.add(scores[i + 1], t);
        }
        if (i < count) all.add(scores[i], t);
        return {all.f + odd.f, all.above + odd.above, all.fractional + odd.fractional};
    }

    __device__ void narrow(bool) {}
};

// Splits those that arrived before a part into stable and unstable ones; every lane gets the same. Returns how many are
// unstable; more than UNSTABLE are not all written.
__device__ int split(PartCandidates& c, int part, double low, double high, double* unstable) {
    const Candidate at_low = least_above(low), at_high = least_above(high);
    const Candidate one_above_low = least_above(low + 1.0), one_above_high = least_above(high + 1.0);
    const ChunkScores& chunk = c.chunk;
    const int lane = threadIdx.x % 32;
    int saturated = 0, fractional = 0, next = 0;
    double sum = 0.0;
    // Slots in the order of lanes.
    const auto reserve = [&](int count) {
        int slot = count;
        for (int d = 1; d < 32; d *= 2) {
            const int y = __shfl_up_sync(FULL_WARP, slot, d);
            if (lane >= d) slot += y;
        }
        const int total = __shfl_sync(FULL_WARP, slot, 31);
        slot += next - count;
        next += total;
        return slot;
    };
    for (int base = 0; base < chunk.lists.count; base += 32) {
        const int i = base + lane;
        List list = {nullptr, nullptr, 0};
        int4 p = {0, 0, 0, 0};
        if (i < chunk.lists.count) {
            list = chunk.lists.at(chunk.a, i);
            const int4 b = chunk.bracket_at(i, list.size);
            const int2 lows = list.below(at_low, b.x, b.y, one_above_low, b.z, b.w);
            const int2 highs = list.below(at_high, lows.x, b.y, one_above_high, lows.y, b.w);
            p = {lows.x, highs.x, lows.y, highs.y};
        }
        if (p.y > p.z) p.y = p.z;  // high is above low + 1: nobody stays fractional
        else fractional += p.z - p.y, sum += list.sum(p.y, p.z, high);
        saturated += list.size - p.w;
        const int count = p.y - p.x + p.w - p.z;
        int slot = reserve(count);
        if (next > UNSTABLE) continue;
#pragma unroll 4
        for (int r = p.x; r < p.y; ++r) unstable[slot++] = score_of(__ldg(&list.sorted[r]));
#pragma unroll 4
        for (int r = p.z; r < p.w; ++r) unstable[slot++] = score_of(__ldg(&list.sorted[r]));
    }
    for (int base = 0; base < part * STRIDE; base += 32) {
        const double u = chunk.own[base + lane];
        const bool sits = u > high + 1.0, stays = !sits && u > high && u <= low + 1.0;
        const bool moves = u > low && !sits && !stays;
        saturated += sits ? 1 : 0;
        fractional += stays ? 1 : 0;
        sum += stays ? u - high : 0.0;
        const int slot = reserve(moves ? 1 : 0);
        if (moves && next <= UNSTABLE) unstable[slot] = u;
    }
    c.saturated = sum_warp(saturated);
    c.fractional = sum_warp(fractional);
    c.sum = sum_warp(sum);
    __syncwarp();
    return next;
}

// tau of the 32 queries of a part, one to a lane, between tau before and after it.
__device__ float tau_of_part(const ChunkScores& chunk, int part, bool known, double v, double low, double high,
                             double* unstable) {
    const int lane = threadIdx.x % 32;
    const unsigned known_lanes = __ballot_sync(FULL_WARP, known);
    if (known_lanes == 0) return -INFINITY_F;
    // The K-th best score never falls, and tau is at least that less one.
    const double first = __shfl_sync(FULL_WARP, v, __ffs(known_lanes) - 1) - 1.0;
    if (first > low) low = first;
    if (!(low < high)) return known ? static_cast<float>(high) : -INFINITY_F;
    const unsigned recent = __ballot_sync(FULL_WARP, chunk.own[part * STRIDE + lane] > low);
    if (recent == 0) return known ? static_cast<float>(high) : -INFINITY_F;  // nobody moves tau
    PartCandidates candidates = {chunk, unstable, 0, 0, 0, 0.0, high, -1};
    int count = split(candidates, part, low, high, unstable);
    if (count > UNSTABLE) count = 0, candidates.listed = part * STRIDE;
    const unsigned earlier = recent & ((1u << lane) - 1), arrives = recent >> lane & 1;
    if (arrives) unstable[count + __popc(earlier)] = chunk.own[part * STRIDE + lane];
    candidates.count = count + __popc(earlier) + arrives;
    __syncwarp();
    double tau = -INFINITY_F;
    if (recent >> lane < 2) {
        tau = known ? high : tau;  // nobody moves it later in the part
    } else if (known) {
        tau = largest_root(candidates, v, low, high);
        tau = tau < high ? tau : high;
    }
    __syncwarp();  // unstable has been read
    float rounded = static_cast<float>(tau);
    for (int d = 1; d < 32; d *= 2) rounded = Greatest()(rounded, __shfl_up_sync(FULL_WARP, rounded, d));
    return rounded;
}

// The greatest tau after any chunk before this one: states are found one by one and may differ in the last bits.
__device__ double tau_before(const Arguments& a, long long bound, int chunk) {
    double tau = -INFINITY_F, greatest;
    for (int c = threadIdx.x; c < chunk; c += blockDim.x) tau = Greatest()(tau, a.bound_tau[bound - 1 - c]);
    scan_block(tau, static_cast<double>(-INFINITY_F), greatest, Greatest());
    return greatest;
}

extern "C" __global__ void __launch_bounds__(256, TAU_BLOCKS) plan_tau(const __grid_constant__ Arguments a) {
    __shared__ float own[CHUNK];
    __shared__ int arrived[PARTS + 1];  // before each part
    __shared__ double tau_after[PARTS];
    __shared__ int4 brackets[KEPT];
    __shared__ double unstable[8][UNSTABLE + STRIDE];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const long long bound = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    float* tau = a.tau + position_index(a, s, g, chunk * CHUNK);
    const float* kth_score = a.kth_score + position_index(a, s, g, chunk * CHUNK);
    const int queries = s.length - chunk * CHUNK < CHUNK ? s.length - chunk * CHUNK : CHUNK;

    const double before = tau_before(a, bound, chunk), after = Greatest()(before, a.bound_tau[bound]);
    if (before == after) {
        for (int i = threadIdx.x; i < queries; i += blockDim.x) tau[i] = static_cast<float>(after);
        return;
    }
    const Lists lists(a, s, g, chunk);
    for (int i = threadIdx.x; i < 4 * lists.count && i < 4 * KEPT; i += blockDim.x)
        set_bracket(brackets[i / 4], i % 4, lists.at(a, i / 4), before, after);
    for (int part = warp; part < PARTS; part += warps) {
        const Candidate c = arriving(a, s, g, chunk * CHUNK + part * STRIDE + lane);
        own[part * STRIDE + lane] = c == 0 ? -INFINITY_F : score_of(c);
        const unsigned present = __ballot_sync(FULL_WARP, c != 0);
        if (lane == 0) arrived[part + 1] = __popc(present);
    }
    if (threadIdx.x == 0) arrived[0] = chunk > 0 ? a.bound_arrived[bound - 1] : 0;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int part = 0; part < PARTS; ++part) arrived[part + 1] += arrived[part];
    __syncthreads();

    const ChunkScores scores = {a, lists, brackets, own};
    for (int part = warp; part < PARTS; part += warps) {
        const int end = (part + 1) * STRIDE;
        double t = after;
        const bool moves = __any_sync(FULL_WARP, own[part * STRIDE + lane] > before);
        if (arrived[part + 1] <= K || !moves) {
            t = -INFINITY_F;  // as before the part
        } else if (end < queries) {
            ArrivedCandidates candidates = {scores, end};
            t = largest_root(candidates, kth_score[end - 1], before, after);
        }
        if (lane == 0) tau_after[part] = t;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double greatest = before;
        for (int part = 0; part < PARTS; ++part) {
            greatest = Greatest()(greatest, Least()(tau_after[part], after));
            tau_after[part] = greatest;
        }
    }
    __syncthreads();

    for (int part = warp; part < PARTS; part += warps) {
        const int i = part * STRIDE + lane;
        const unsigned present = __ballot_sync(FULL_WARP, own[i] > -INFINITY_F);
        const int by_now = arrived[part] + __popc(present & ((2u << lane) - 1));
        const bool known = by_now > K && i < queries;
        const double v = known ? kth_score[i] : 0.0, low = part > 0 ? tau_after[part - 1] : before;
        const float t = tau_of_part(scores, part, known, v, low, tau_after[part], unstable[warp]);
        if (i < queries) tau[i] = Greatest()(t, static_cast<float>(low));
    }
}
