// The online softmax of M × 16 rows, in powers of two: what `logit` gives counts LOGIT_SCALE of them. Each of the four lanes
// of a row holds a quarter of its sum.
template <int M>
struct Softmax {
    float maximum[M][2], sum[M][2];
    float inverse[M][2], lse[M][2];

<% if has_sink %>    // A row's sink is a logit without a key.
    __device__ __forceinline__ void start(const Uniform& x, const Row (&rows)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                maximum[m][h] = LOG2_E / LOGIT_SCALE * ${ sink }$;
                sum[m][h] = maximum[m][h] > -INFINITY_F && threadIdx.x % 4 == 0 ? 1.0f : 0.0f;
            }
    }
<% else %>    __device__ __forceinline__ void start(const Uniform&, const Row (&)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m) maximum[m][0] = maximum[m][1] = -INFINITY_F, sum[m][0] = sum[m][1] = 0.0f;
    }
<% endif %>
    // Logits become exp(logit − maximum so far); sums and the output so far shrink to the new maximum.
    template <int N, int OUT>
    __device__ __forceinline__ void update(float (&x)[M][N][4], float (&o)[M][OUT][4]) {
        float shrink[M][2];
        if (exponentials(x, shrink)) rescale(o, shrink);
    }

    // Logits become exp(logit − maximum so far), and sums shrink to the new maximum. Returns whether the output has to
    // shrink too: once the maxima of a warp's rows have been seen, which is soon, nothing does any more.
    template <int N>
    __device__ __forceinline__ bool exponentials(float (&x)[M][N][4], float (&shrink)[M][2]) {
        bool grew = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float highest = maximum[m][h];
#pragma unroll
                for (int n = 0; n < N; ++n) highest = fmaxf(highest, fmaxf(x[m][n][2 * h], x[m][n][2 * h + 1]));
                highest = row_maximum(highest);
                grew |= highest > maximum[m][h];
                // While nothing is seen the maximum is −inf, and −inf − −inf would be NaN.
                const float reference = highest == -INFINITY_F ? 0.0f : LOGIT_SCALE * highest;
                shrink[m][h] = power_of_two(fmaf(LOGIT_SCALE, maximum[m][h], -reference));
                maximum[m][h] = highest;
                float total = sum[m][h] * shrink[m][h];
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        x[m][n][2 * h + e] = power_of_two(fmaf(LOGIT_SCALE, x[m][n][2 * h + e], -reference));
                        total += x[m][n][2 * h + e];
                    }
                sum[m][h] = total;
            }
        return __any_sync(~0u, grew);
    }

    template <int OUT>
    static __device__ __forceinline__ void rescale(float (&o)[M][OUT][4], const float (&shrink)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < OUT; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) o[m][n][e] *= shrink[m][e / 2];
    }

    // Where nothing was seen the output is 0 and lse −inf.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float total = row_sum(sum[m][h]);
                inverse[m][h] = total > 0.0f ? 1.0f / total : 0.0f;
                lse[m][h] = total > 0.0f ? maximum[m][h] * (LOGIT_SCALE * LN_2) + logf(total) : -INFINITY_F;
            }
    }
};
