// tau of every query of a chunk, from the states before and after it. It changes only at events: arrivals above tau before
// the chunk. Of those who arrived earlier most stay fractional, saturated or below all the time, and count by number and
// sum; the few others, the movers, are copied to shared memory. Warps then find tau after every group of events, and last
// that after each event of a group, one to a lane, from the fewer still that move within the group. All that runs beside
// plan_expiry, whose K-th best scores decide only where f is K at more than one t: tau is the largest.

constexpr int TAU_THREADS = CHUNK < 256 ? CHUNK : 256, TAU_WARPS = TAU_THREADS / 32, TAU_SHARE = CHUNK / TAU_THREADS;
constexpr int TAU_GROUPS = CHUNK / 32 > TAU_WARPS ? CHUNK / 32 : TAU_WARPS;
constexpr int MOVERS = 1024;                         // that a block keeps
constexpr int UNSTABLE = CHUNK <= 512 ? 544 : 160;   // that a warp keeps, as shared memory allows: eights

// What a block knows of a chunk.
struct ChunkScores {
    const Earlier& earlier;   // who arrived before it,
    Stable stable;            // and what they are between tau before it and after it
    int moving;               // more than MOVERS: not all are there
    const float* events;      // in time order; the movers are before the first
    const int* whole_events;  // the same
    Scale scale;              // of the whole chunk
};

// Whoever has arrived by an event; every lane of a warp gets the total.
struct ArrivedCandidates {
    const ChunkScores& chunk;
    int events;  // so many

    __device__ Total total(double t) const {
        const int lane = threadIdx.x % 32;
        Total sum = {0.0, 0, 0};
        const bool has_movers = chunk.moving <= MOVERS;
        if (!has_movers) chunk.earlier.add(t, sum);
        else if (lane == 0) chunk.stable.add(t, sum);
#pragma unroll 1  // registers are short
        for (int i = lane - (has_movers ? chunk.moving : 0); i < events; i += 32) sum.add(chunk.events[i], t);
        return sum_warp(sum);
    }
};

// The same of whole numbers.
struct ArrivedWhole {
    const ChunkScores& chunk;
    const Scale& scale;
    long long of_stable;
    int events;

    __device__ WholeTotal total(int t) const {
        const int lane = threadIdx.x % 32;
        WholeTotal sum = {0, 0};
        sum.add<32>(chunk.whole_events, events, lane - chunk.moving, t, scale.one);
        const int fractional = chunk.stable.fractional;
        return {sum_warp(sum.sum) + of_stable - static_cast<long long>(fractional) * t, sum_warp(sum.fractional) + fractional};
    }
};

// tau after a number of events, between two bounds.
__device__ double root_after(const ChunkScores& chunk, int events, double low, double high, double guess) {
    const Scale& scale = chunk.scale;
    if (chunk.moving <= MOVERS && scale.is_used()) {
        const ArrivedWhole candidates = {chunk, scale, chunk.stable.whole(scale), events};
        guess = whole_root(candidates, scale.whole(low), scale.whole(high), scale.whole(guess));
        if (scale.reaches(guess)) return guess;
    }
    return root(ArrivedCandidates{chunk, events}, low, high, guess);
}

// Whoever has arrived by one event of a group, while tau is in a bracket.
struct GroupCandidates {
    const Scale& scale;
    long long of_stable;
    int fractional;  // of the stable
    const int* unstable;  // that arrived before the group, then zeros up to a multiple of eight,
    int count;
    const int* recent;  // and those of the group above low, in time order
    int arrived;        // of these by this event

    __device__ WholeTotal total(int t) const {
        WholeTotal sum = {of_stable - static_cast<long long>(fractional) * t, fractional};
        sum.add_eights(unstable, count, t, scale.one);
        sum.add<1>(recent, arrived, 0, t, scale.one);
        return sum;
    }
};

// Splits those who arrived before a group into stable and unstable ones; every lane gets the same. Returns how many are
// unstable, of which the whole numbers are written; more than UNSTABLE are not all there.
__device__ int split(const ChunkScores& chunk, int events, const Scale& scale, double low, double high, Stable& stable, int* unstable) {
    const int lane = threadIdx.x % 32;
    int saturated = 0, fractional = 0, next = 0;
    double sum = 0.0;
    const Bracket bracket(low, high);
    for (int base = -chunk.moving; base < events && next <= UNSTABLE; base += 32) {
        const float u = base + lane < events ? chunk.events[base + lane] : -INFINITY_F;
        const bool stays = bracket.stays(u), moves = bracket.moves(u);
        saturated += bracket.sits(u) ? 1 : 0;
        fractional += stays ? 1 : 0;
        sum += stays ? u - high : 0.0;
        const unsigned lanes = __ballot_sync(FULL_WARP, moves);
        const int slot = next + __popc(lanes & ((1u << lane) - 1));
        next += __popc(lanes);
        if (moves && next <= UNSTABLE) unstable[slot] = scale.whole(u);
    }
    const Stable& s = chunk.stable;
    stable.saturated = s.saturated + sum_warp(saturated);
    stable.fractional = s.fractional + sum_warp(fractional);
    stable.sum = sum_warp(sum) + (s.fractional > 0 ? s.sum + s.fractional * (s.high - high) : 0.0);
    stable.high = high;
    return next;
}

// A root after every event of a group, one to a lane, between those before and after the group.
__device__ double root_in_group(const ChunkScores& chunk, int before, int end, bool known, double low, double high, int* unstable) {
    const int lane = threadIdx.x % 32;
    const float score = before + lane < end ? chunk.events[before + lane] : -INFINITY_F;
    const unsigned known_lanes = __ballot_sync(FULL_WARP, known), recent = __ballot_sync(FULL_WARP, score > low);
    if (known_lanes == 0) return -INFINITY_F;
    if (!(low < high) || recent == 0) return known ? high : -INFINITY_F;  // nobody moves it
    const bool moves = known && recent >> lane >= 2;                       // and later in the group
    const double step = __fdividef(static_cast<float>(high - low), static_cast<float>(end - before));
    double tau = moves ? low + step * (lane + 1) : known ? high : -INFINITY_F;  // a guess, where it moves
    bool found = !moves;
    const Scale scale(low, high);
    if (chunk.moving <= MOVERS && scale.is_used()) {
        Stable stable;
        const int count = split(chunk, before, scale, low, high, stable, unstable);
        if (count <= UNSTABLE) {
            const int earlier = __popc(recent & ((1u << lane) - 1)), arrives = recent >> lane & 1;
            if (arrives) unstable[UNSTABLE + earlier] = scale.whole(score);
            if (lane < 8 && count + lane < UNSTABLE) unstable[count + lane] = 0;
            __syncwarp();
            if (moves) {
                const GroupCandidates candidates = {scale, stable.whole(scale), stable.fractional, unstable, count,
                                                    unstable + UNSTABLE, earlier + arrives};
                tau = whole_root(candidates, 0, scale.whole(high), scale.whole(tau));
                found = scale.reaches(tau);
            }
        }
        __syncwarp();  // unstable has been read
    }
    // Too many to go over for every lane, or too far apart for whole numbers: one event after another, by all lanes.
    for (unsigned left = __ballot_sync(FULL_WARP, !found); left != 0; left &= left - 1) {
        const int e = __ffs(left) - 1;
        const double t = root(ArrivedCandidates{chunk, before + e + 1}, low, high, __shfl_sync(FULL_WARP, tau, e));
        if (lane == e) tau = t;
    }
    return known ? Least()(tau, high) : tau;
}

// Below tau of any query of a chunk before which there was none: all that have arrived when it begins count 1 there.
__device__ double below_all(const Earlier& earlier, const float* events, int count) {
    double least = earlier.least<TAU_THREADS>(), all;
    for (int i = threadIdx.x; i < count; i += TAU_THREADS) least = Least()(least, static_cast<double>(events[i]));
    scan_block(least, static_cast<double>(INFINITY_F), all, Least());
    return all - 1.0;
}

// The greatest tau after any chunk before this one: states are found one by one and may differ in the last bits.
__device__ double tau_before(const Arguments& a, long long bound, int chunk) {
    __shared__ double of_warps[TAU_WARPS];
    double tau = -INFINITY_F;
    for (int c = threadIdx.x; c < chunk; c += TAU_THREADS) tau = Greatest()(tau, a.bound_tau[bound - 1 - c]);
    for (int d = 16; d > 0; d /= 2) tau = Greatest()(tau, __shfl_xor_sync(FULL_WARP, tau, d));
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = tau;
    __syncthreads();
    for (const double x : of_warps) tau = Greatest()(tau, x);
    return tau;
}

// Blocks of a multiprocessor. 80 registers are too few for long chunks and before sm_90.
constexpr int TAU_BLOCKS = CHUNK <= 1024 && __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200 ? 3 : 2;

extern "C" __global__ void __launch_bounds__(TAU_THREADS, TAU_BLOCKS) plan_tau(const __grid_constant__ Arguments a) {
    __shared__ float scores[MOVERS + CHUNK];  // of movers, the first one last, and events
    __shared__ int whole[MOVERS + CHUNK];
    __shared__ unsigned short event_query[CHUNK];  // of the chunk
    __shared__ double tau_after[TAU_GROUPS];
    __shared__ alignas(16) int unstable[TAU_WARPS][UNSTABLE + 32];
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const long long bound = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    float* tau = a.tau + position_index(a, s, g, chunk * CHUNK);
    const float* kth_score = a.kth_score + position_index(a, s, g, chunk * CHUNK);
    float* events = scores + MOVERS;
    const int queries = s.length - chunk * CHUNK < CHUNK ? s.length - chunk * CHUNK : CHUNK;

    const Earlier earlier(a, s, g, chunk);
    float score[TAU_SHARE];  // of the arrivals, −inf where there is none
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) {
        const Candidate c = arriving(a, s, g, chunk * CHUNK + e * TAU_THREADS + threadIdx.x);
        score[e] = c != 0 ? score_of(c) : -INFINITY_F;
    }
    const double before = tau_before(a, bound, chunk), after = Greatest()(before, a.bound_tau[bound]);
    if (before == after) {
        for (int i = threadIdx.x; i < queries; i += TAU_THREADS) tau[i] = static_cast<float>(after);
        wait_for_earlier_launches();
        return;
    }
    bool is_event[TAU_SHARE];
    int slot[TAU_SHARE];  // as many events come before
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) is_event[e] = score[e] > before;
    const int count = place_block<TAU_THREADS>(is_event, slot);
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) {
        if (!is_event[e]) continue;
        events[slot[e]] = score[e];
        event_query[slot[e]] = static_cast<unsigned short>(e * TAU_THREADS + threadIdx.x);
    }
    // tau is −inf until K + 1 have arrived; until then all are events.
    const int arrived = before > -INFINITY_F ? K + 1 : chunk > 0 ? a.bound_arrived[bound - 1] : 0;
    __syncthreads();
    const double lowest = before > -INFINITY_F ? before : below_all(earlier, events, Least()(count, K + 1 - arrived));
    ChunkScores of_chunk = {earlier, {}, 0, events, whole + MOVERS, Scale(lowest, after)};
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e)
        if (is_event[e]) whole[MOVERS + slot[e]] = of_chunk.scale.whole(score[e]);
    of_chunk.moving =
        split_earlier<TAU_THREADS, MOVERS>(earlier, of_chunk.scale, lowest, after, of_chunk.stable, events, whole + MOVERS);

    // As many groups as warps, but of at most 32 events.
    const int share = (count + TAU_WARPS - 1) / TAU_WARPS, size = share < 32 ? share : 32;
    for (int group = warp; group * size < count; group += TAU_WARPS) {
        const int end = Least()((group + 1) * size, count);
        double t = after;
        if (arrived + end <= K) t = -INFINITY_F;
        else if (end < count) t = root_after(of_chunk, end, lowest, after, lowest + (after - lowest) * end / count);
        if (lane == 0) tau_after[group] = t;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double greatest = before;
        for (int group = 0; group * size < count; ++group) {
            greatest = Greatest()(greatest, Least()(tau_after[group], after));
            tau_after[group] = greatest;
        }
    }
    __syncthreads();
    for (int group = warp; group * size < count; group += TAU_WARPS) {
        const int first = group * size, end = Least()(first + size, count), e = first + lane;
        const bool known = e < end && arrived + e >= K;
        const double low = Greatest()(group > 0 ? tau_after[group - 1] : before, lowest);
        double t = root_in_group(of_chunk, first, end, known, low, tau_after[group], unstable[warp]);
        wait_for_earlier_launches();  // only the K-th best scores are of the launch before
        if (known) t = Greatest()(Greatest()(t, low), kth_score[event_query[e]] - 1.0);
        float rounded = static_cast<float>(t);
        for (int d = 1; d < 32; d *= 2) rounded = Greatest()(rounded, __shfl_up_sync(FULL_WARP, rounded, d));
        if (e < end) tau[event_query[e]] = known ? rounded : -INFINITY_F;
    }
    wait_for_earlier_launches();
    __syncthreads();
    // Any other query has tau of the last event before it.
#pragma unroll
    for (int e = 0; e < TAU_SHARE; ++e) {
        const int i = e * TAU_THREADS + threadIdx.x;
        if (i < queries && !is_event[e]) tau[i] = slot[e] > 0 ? tau[event_query[slot[e] - 1]] : static_cast<float>(before);
    }
}
