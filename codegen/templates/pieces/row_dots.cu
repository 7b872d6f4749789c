// Products over the head dimension of two vectors of the same query: 16 lanes for each query and head, 16 bytes at a time.
struct alignas(16) Piece { elem x[16 / sizeof(elem)]; };

extern "C" __global__ void __launch_bounds__(256) row_dots(const __grid_constant__ Arguments a) {
<% if not row_dots_wait_last %>    wait_for_earlier_launches();
<% endif %>    constexpr int SIZE = 16 / sizeof(elem), PIECES = D / SIZE;
    const long long at = blockIdx.x * 16ll + threadIdx.x / 16;
    const int lane = threadIdx.x % 16, head = blockIdx.y;
    const bool exists = at < a.rows * a.n;
    const long long row = exists ? at / a.n : 0, token = exists ? at % a.n : 0;
<% for d in row_dots %>    {
        const elem* left = a.${ d.left }$ + row * a.${ d.left }$_batch + token * a.${ d.left }$_position + head * a.${ d.left }$_head;
        const elem* right = a.${ d.right }$ + row * a.${ d.right }$_batch + token * a.${ d.right }$_position + head * a.${ d.right }$_head;
        float sum = 0.0f;
#pragma unroll
        for (int piece = lane; piece < PIECES; piece += 16) {
            const Piece l = reinterpret_cast<const Piece*>(left)[piece], r = reinterpret_cast<const Piece*>(right)[piece];
#pragma unroll
            for (int d = 0; d < SIZE; ++d) sum += to_float(l.x[d]) * to_float(r.x[d]);
        }
#pragma unroll
        for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (lane == 0 && exists) a.${ d.buffer }$[(row * a.hq + head) * a.n + token] = sum;
    }
<% endfor %><% if row_dots_wait_last %>    wait_for_earlier_launches();  // nothing is read here of those beside it
<% endif %>}
