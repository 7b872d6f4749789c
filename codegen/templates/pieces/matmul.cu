// Tiles in shared memory have rows of D elements and 16 or 32 bytes of padding: the rows that one instruction reads then
// start in different banks, for every D that is a multiple of 16.
constexpr int ROW = D + 8;

// scores[m][n] = rows of `left` · rows of `right`, over the head dimension: the first 16 M rows, and every row of `right`.
template <int M, int COLUMNS>
__device__ __forceinline__ void product(float (&scores)[M][COLUMNS / 8][4], const elem* left, const elem* right, int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[m][n][e] = 0.0f;
#pragma unroll UNROLLED
    for (int k = 0; k < D; k += 16) {
        Left a[M];
#pragma unroll
        for (int m = 0; m < M; ++m) a[m] = load_left<ROW>(left, 16 * m, k, lane);
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; ++n) {
            const Right b = load_right_transposed<ROW>(right, 16 * n, k, lane);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply_add(scores[m][2 * n], a[m], b.x[0]);
                multiply_add(scores[m][2 * n + 1], a[m], b.x[1]);
            }
        }
    }
}

// The same with left operands that were loaded before.
template <int M, int COLUMNS>
__device__ __forceinline__ void product(float (&scores)[M][COLUMNS / 8][4], const Left (&left)[M][D / 16],
                                        const elem* right, int lane) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) scores[m][n][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; ++n) {
            const Right b = load_right_transposed<ROW>(right, 16 * n, 16 * k, lane);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply_add(scores[m][2 * n], left[m][k], b.x[0]);
                multiply_add(scores[m][2 * n + 1], left[m][k], b.x[1]);
            }
        }
    }
}

// sum[m] += weights[m] (rounded to the element type) · `right`, whose rows are the columns of the weights: its first WIDTH
// columns.
template <int M, int COLUMNS, int WIDTH>
__device__ __forceinline__ void add_weighted(float (&sum)[M][WIDTH / 8][4], const float (&weights)[M][COLUMNS / 8][4],
                                             const elem* right, int lane) {
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; ++k) {
        Left a[M];
#pragma unroll
        for (int m = 0; m < M; ++m) a[m] = round_to_left(weights[m][2 * k], weights[m][2 * k + 1]);
#pragma unroll
        for (int n = 0; n < WIDTH / 16; ++n) {
            const Right b = load_right<ROW>(right, 16 * k, 16 * n, lane);
#pragma unroll
            for (int m = 0; m < M; ++m) {
                multiply_add(sum[m][2 * n], a[m], b.x[0]);
                multiply_add(sum[m][2 * n + 1], a[m], b.x[1]);
            }
        }
    }
}

// The first of WIDTH columns of the head dimension that a block accumulates: the last slice overlaps the one before where D
// is no multiple of the width, and both write the same numbers there.
template <int WIDTH>
__device__ __forceinline__ int slice_from() { return WIDTH == D ? 0 : min(static_cast<int>(blockIdx.z) * WIDTH, D - WIDTH); }

// Sum and maximum over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ __forceinline__ float row_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
