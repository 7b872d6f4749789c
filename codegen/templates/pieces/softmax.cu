<% if bounded_logits %>// The softmax of M × 16 rows, of logits in powers of two and so few that their exponentials need no reference. Each of the four
// lanes of a row holds a quarter of its sum.
template <int M>
struct Softmax {
    float sum[M][2];
<% else %>// The online softmax of M × 16 rows, in powers of two: what `logit` gives counts LOGIT_SCALE of them. Each of the four lanes
// of a row holds a quarter of its sum.
template <int M>
struct Softmax {
    float reference[M][2], sum[M][2];
<% endif %>    float inverse[M][2], lse[M][2];

<% if has_sink %>    // A row's sink is a logit without a key.
    __device__ __forceinline__ void start(const Uniform& x, const Row (&rows)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                reference[m][h] = LOG2_E / LOGIT_SCALE * ${ sink }$;
                sum[m][h] = reference[m][h] > -INFINITY_F && threadIdx.x % 4 == 0 ? 1.0f : 0.0f;
            }
    }
<% elif bounded_logits %>    __device__ __forceinline__ void start(const Uniform&, const Row (&)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m) sum[m][0] = sum[m][1] = 0.0f;
    }
<% else %>    // A row that stands for no query has a reference, so that it waits for none.
    __device__ __forceinline__ void start(const Uniform&, const Row (&rows)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) reference[m][h] = rows[m][h].i < 0 ? 0.0f : -INFINITY_F, sum[m][h] = 0.0f;
    }
<% endif %>
    // Logits become exp(logit − reference); sums and the output so far shrink to a new reference.
    template <int N, int OUT>
    __device__ __forceinline__ void update(float (&x)[M][N][4], float (&o)[M][OUT][4]) {
        float shrink[M][2];
        if (exponentials(x, shrink)) rescale(o, shrink);
    }

<% if bounded_logits %>    // Logits become exp(logit); the output never shrinks.
    template <int N>
    __device__ __forceinline__ bool exponentials(float (&x)[M][N][4], float (&)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    x[m][n][e] = power_of_two(x[m][n][e]);
                    sum[m][e / 2] += x[m][n][e];
                }
        return false;
    }
<% else %>    // Logits become exp(logit − reference). A row's reference is its maximum when that last grew by more than SLACK: shares of
    // the softmax come out the same, 2^SLACK at most before they are divided by the sum, and hardly a tile but a row's first
    // makes the output shrink. Returns whether it has to, for some row of the warp.
    template <int N>
    __device__ __forceinline__ bool exponentials(float (&x)[M][N][4], float (&shrink)[M][2]) {
        bool grew = false;
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float highest = x[m][0][2 * h];
#pragma unroll
                for (int n = 0; n < N; ++n) highest = fmaxf(highest, fmaxf(x[m][n][2 * h], x[m][n][2 * h + 1]));
                shrink[m][h] = highest;
                grew |= LOGIT_SCALE * (highest - reference[m][h]) > SLACK;  // not where both are −inf
            }
        grew = __any_sync(~0u, grew);
        if (grew) {
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float before = reference[m][h], highest = row_maximum(shrink[m][h]);
                    if (LOGIT_SCALE * (highest - before) > SLACK) reference[m][h] = highest;
                    shrink[m][h] = reference[m][h] == before ? 1.0f : power_of_two(LOGIT_SCALE * (before - reference[m][h]));
                    sum[m][h] *= shrink[m][h];
                }
        }
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                // While nothing is seen the reference is −inf, and −inf − −inf would be NaN.
                const float least = reference[m][h] == -INFINITY_F ? 0.0f : -LOGIT_SCALE * reference[m][h];
                float total = sum[m][h];
#pragma unroll
                for (int n = 0; n < N; ++n)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        x[m][n][2 * h + e] = power_of_two(fmaf(LOGIT_SCALE, x[m][n][2 * h + e], least));
                        total += x[m][n][2 * h + e];
                    }
                sum[m][h] = total;
            }
        return grew;
    }
<% endif %>
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
                lse[m][h] = total > 0.0f ? <% if not bounded_logits %>reference[m][h] * (LOGIT_SCALE * LN_2) + <% endif %>logf(total) : -INFINITY_F;
            }
    }
};
