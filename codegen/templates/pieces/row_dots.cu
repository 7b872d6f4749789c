// Products over the head dimension of two vectors of the same query. One warp for each query and head.
extern "C" __global__ void __launch_bounds__(256) row_dots(const __grid_constant__ Arguments a) {
    const long long at = blockIdx.x * 8ll + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, head = blockIdx.y;
    if (at >= a.rows * a.n) return;
    const long long row = at / a.n, token = at % a.n;
<% for d in row_dots %>    {
        const elem* left = a.${ d.left }$ + row * a.${ d.left }$_batch + token * a.${ d.left }$_position + head * a.${ d.left }$_head;
        const elem* right = a.${ d.right }$ + row * a.${ d.right }$_batch + token * a.${ d.right }$_position + head * a.${ d.right }$_head;
        float sum = 0.0f;
        for (int d = lane; d < D; d += 32) sum += to_float(left[d]) * to_float(right[d]);
#pragma unroll
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (lane == 0) a.${ d.buffer }$[(row * a.hq + head) * a.n + token] = sum;
    }
<% endfor %>}
