// Accumulators of 16 M keys: columns slice_from<SLICE>().. of d_k and d_v, and sums over queries.
template <int M>
struct KeyGradients {
    float d_k[M][SLICE / 8][4];
    float d_v[M][SLICE / 8][4];
    float sums[M][2][KEY_SUMS + 1];
};

__device__ __forceinline__ float* partial_of(const Arguments& a, int g, int span, int slot) {
    return a.partial + ((static_cast<long long>(g) * block_count<SPAN>(a) + span) * SPAN_KEYS + slot) * PARTIAL;
}

// Stores what the span gives to its keys. The lane has rows `row` + 16 m and, 8 further, of the tile.
template <int M>
__device__ __forceinline__ void store_partials(const Arguments& a, const KeyTile& keys, const KeyGradients<M>& sums, int row, int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int own = row + 16 * m + 8 * h;
            float sum[KEY_SUMS + 1];
#pragma unroll
            for (int n = 0; n < KEY_SUMS; ++n) sum[n] = row_sum(sums.sums[m][h][n]);
            if (own >= keys.count) continue;
            float* to = partial_of(a, keys.g, keys.span, keys.slot + own);
#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const int d = slice_from<SLICE>() + 8 * n + lane % 4 * 2;
<% if has_d_k %>                *reinterpret_cast<float2*>(to + d) = make_float2(sums.d_k[m][n][2 * h], sums.d_k[m][n][2 * h + 1]);
<% endif %><% if has_d_v %>                *reinterpret_cast<float2*>(to + PARTIAL_V + d) = make_float2(sums.d_v[m][n][2 * h], sums.d_v[m][n][2 * h + 1]);
<% endif %>            }
            if (lane % 4 == 0 && blockIdx.z == 0) {
#pragma unroll
                for (int n = 0; n < KEY_SUMS; ++n) to[PARTIAL_SUMS + n] = sum[n];
            }
        }
}

// Adds what later spans gave to a key to what its first span gave, and notes where in that span's list the key is. One warp for
// each key, whose lanes look up the key in 32 spans at a time. Keys are in their order, so that those of which a span is the
// first are the last ones of its list.
extern "C" __global__ void __launch_bounds__(256, 2) backward_keys_collect(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int WARPS_HERE = 8, PER_LANE = (PARTIAL + 31) / 32;
    const int g = blockIdx.x % a.hkv, at = blockIdx.x / a.hkv, span = at / COLLECTING, lane = threadIdx.x % 32;
    Sequence s;
    int block;
    if (!find_block<SPAN>(a, span, s, block)) return;
    const SpanList list(a, s, g, block);
    const int known = a.chunk_counts[2 * chunk_index(a, g, first_block<CHUNK>(a, s) + 2 * block)];
    for (int slot = list.count - 1 - (at % COLLECTING * WARPS_HERE + threadIdx.x / 32); slot >= known; slot -= COLLECTING * WARPS_HERE) {
        const int j = list.key(slot);
        const long long entry = (s.row * a.hkv + g) * a.n + s.start + j;
        if (lane == 0) a.first_slot[entry] = slot;
        const int later = (a.expiry[entry] - 1) / SPAN - block;
        if (later <= 0) continue;
        float* own = partial_of(a, g, span, slot);
        double total[PER_LANE];
#pragma unroll
        for (int n = 0; n < PER_LANE; ++n) total[n] = 32 * n + lane < PARTIAL ? own[32 * n + lane] : 0.0f;
        for (int base = 1; base <= later; base += 32) {
            const int its_slot = base + lane <= later ? SpanList(a, s, g, block + base + lane).slot_of(j) : 0;
#pragma unroll 1
            for (int n = 0; n < min(32, later - base + 1); ++n) {
                const float* from = partial_of(a, g, span + base + n, __shfl_sync(~0u, its_slot, n));
#pragma unroll
                for (int d = 0; d < PER_LANE; ++d)
                    if (32 * d + lane < PARTIAL) total[d] += from[32 * d + lane];
            }
        }
#pragma unroll
        for (int n = 0; n < PER_LANE; ++n)
            if (32 * n + lane < PARTIAL) own[32 * n + lane] = static_cast<float>(total[n]);
    }
}

// Stores the gradients of consecutive keys: the sums over the queries that have them in their windows, and what they were
// given while selected.
template <int M>
__device__ __forceinline__ void store_gradients(const Arguments& a, const KeyTile& keys, KeyGradients<M>& sums, int row, int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
        float sum[2][KEY_SUMS + 1];
        const float* selected[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int own = row + 16 * m + 8 * h, j = keys.first + own;
#pragma unroll
            for (int n = 0; n < KEY_SUMS; ++n) sum[h][n] = row_sum(sums.sums[m][h][n]);
            selected[h] = nullptr;
            const long long entry = (keys.s.row * a.hkv + keys.g) * a.n + keys.s.start + j;
            if (own < keys.count && a.expiry[entry] > j + WINDOW)
                selected[h] = partial_of(a, keys.g, first_block<SPAN>(a, keys.s) + (j + WINDOW) / SPAN, a.first_slot[entry]);
        }
        // All of this is read before anything is stored: behind a store the compiler would wait for each.
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (selected[h] == nullptr) continue;
#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const int d = slice_from<SLICE>() + 8 * n + lane % 4 * 2;
<% if has_d_k %>                const float2 more_k = *reinterpret_cast<const float2*>(selected[h] + d);
                sums.d_k[m][n][2 * h] += more_k.x;
                sums.d_k[m][n][2 * h + 1] += more_k.y;
<% endif %><% if has_d_v %>                const float2 more_v = *reinterpret_cast<const float2*>(selected[h] + PARTIAL_V + d);
                sums.d_v[m][n][2 * h] += more_v.x;
                sums.d_v[m][n][2 * h + 1] += more_v.y;
<% endif %>            }
#pragma unroll
            for (int n = 0; n < KEY_SUMS; ++n) sum[h][n] += selected[h][PARTIAL_SUMS + n];
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int own = row + 16 * m + 8 * h;
            if (own >= keys.count) continue;
            const long long token = keys.s.start + keys.first + own;
<% if has_d_k %>            elem* d_k = a.d_k + keys.s.row * a.d_k_batch + token * a.d_k_position + keys.g * a.d_k_head;
<% endif %><% if has_d_v %>            elem* d_v = a.d_v + keys.s.row * a.d_v_batch + token * a.d_v_position + keys.g * a.d_v_head;
<% endif %>#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const int d = slice_from<SLICE>() + 8 * n + lane % 4 * 2;
<% if has_d_k %>                store_pair(d_k + d, FACTOR_K * sums.d_k[m][n][2 * h], FACTOR_K * sums.d_k[m][n][2 * h + 1]);
<% endif %><% if has_d_v %>                store_pair(d_v + d, FACTOR_V * sums.d_v[m][n][2 * h], FACTOR_V * sums.d_v[m][n][2 * h + 1]);
<% endif %>            }
<% if key_sums %>            if (lane % 4 == 0 && blockIdx.z == 0) {
                const long long entry = (keys.s.row * a.hkv + keys.g) * a.n + token;
#pragma unroll
                for (int n = 0; n < KEY_SUMS; ++n) a.key_sums[n * a.rows * a.hkv * a.n + entry] = sum[h][n];
            }
<% endif %>        }
    }
}
