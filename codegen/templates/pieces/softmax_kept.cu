<% if not bounded_logits %>// The most that a lane's part of a row's sum may grow by in a tile: its exponentials then are no more either.
template <int COLUMNS>
constexpr float CALM = COLUMNS / 4 * (1 << static_cast<int>(SLACK));

// Logits become exp(logit − reference) by the references that rows have. Maxima take as many instructions as exponentials,
// which would wait for them, and hardly a tile but a row's first makes a reference grow: whether one has to is seen by the
// sums, infinite ones and those of rows without a reference among them. Returns false then, for all of the warp: sums are as
// they were, and the tile is worked on anew, from its products on.
template <int N>
__device__ __forceinline__ bool exponentials_as_is(Softmax<1>& softmax, float (&x)[1][N][4]) {
    float total[2];
    bool calm = true;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
<% if has_predicate %>        // Of a row without a reference, which has seen nothing yet: infinite with any key that it sees, 0 with others.
        const float least = fminf(-LOGIT_SCALE * softmax.reference[0][h], 1e38f);
<% else %>        // Of a row without a reference: ∞, and −∞ + ∞ is NaN.
        const float least = -LOGIT_SCALE * softmax.reference[0][h];
<% endif %>        total[h] = 0.0f;
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                x[0][n][2 * h + e] = power_of_two(fmaf(LOGIT_SCALE, x[0][n][2 * h + e], least));
                total[h] += x[0][n][2 * h + e];
            }
        calm = calm && total[h] <= CALM<8 * N>;
    }
    if (!__all_sync(~0u, calm)) return false;
#pragma unroll
    for (int h = 0; h < 2; ++h) softmax.sum[0][h] += total[h];
    return true;
}

// The dot products of a warp's 16 rows with a tile of keys, by products of its own: the other warps of its warpgroup do not
// take part.
__device__ __forceinline__ void products_again(const Left (&q)[D / 16], const elem* keys, float (&scores)[1][TILE_KV / 8][4], int lane) {
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; n += 2) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[0][n][e] = scores[0][n + 1][e] = 0.0f;
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            const Left right = load_right<TILE_KV>(keys, 8 * n, 16 * k, lane);
            add_warp_product(scores[0][n], q[k], right.x[0], right.x[1]);
            add_warp_product(scores[0][n + 1], q[k], right.x[2], right.x[3]);
        }
    }
}
<% endif %>