// Products of f32 tiles by mma.sync.m16n8k8 in tf32. Every operand is split into a tf32 number and the tf32 rest, and
// three products are added (high·high, high·low, low·high), which leaves a relative error of about 2^-22. The instruction
// truncates when it adds to its accumulator: every step of 8 gets one of its own, and those are added as f32.
//
// Accumulators lie as in the 16-bit product: lane l holds rows l/4 and l/4 + 8, columns 2(l%4) and 2(l%4) + 1. The order
// in which a product runs over its inner index is free, and is chosen so that accumulators are left operands as they
// are: inner index 2(l%4) takes the instruction's place l%4, and 2(l%4) + 1 the place l%4 + 4.
struct Left { float x[2][4]; };
struct Right { float x[2][4]; };

// Each load adds what is the same for a warp to a lane's own place: where that is a constant, the instruction holds it.

// Rows row..row+16 and columns k..k+16 of a tile, as a left operand.
template <int ROW>
__device__ __forceinline__ Left load_left(const elem* tile, int row, int k, int lane) {
    const float* own = tile + (lane / 4 * ROW + lane % 4 * 2);
    const float* at = own + (row * ROW + k);
    Left a;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float2 top = *reinterpret_cast<const float2*>(at + 8 * h);
        const float2 bottom = *reinterpret_cast<const float2*>(at + 8 * h + 8 * ROW);
        a.x[h][0] = top.x, a.x[h][1] = bottom.x, a.x[h][2] = top.y, a.x[h][3] = bottom.y;
    }
    return a;
}

// The transpose of rows n..n+16 and columns k..k+16 of a tile, as a right operand: its columns are the tile's rows.
template <int ROW>
__device__ __forceinline__ Right load_right_transposed(const elem* tile, int n, int k, int lane) {
    const float* own = tile + (lane / 4 * ROW + lane % 4 * 2);
    const float* at = own + (n * ROW + k);
    Right b;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float2 first = *reinterpret_cast<const float2*>(at + 8 * h * ROW);
        const float2 second = *reinterpret_cast<const float2*>(at + 8 * h * ROW + 8);
        b.x[h][0] = first.x, b.x[h][1] = first.y, b.x[h][2] = second.x, b.x[h][3] = second.y;
    }
    return b;
}

// Rows k..k+16 and columns n..n+16 of a tile, as a right operand.
template <int ROW>
__device__ __forceinline__ Right load_right(const elem* tile, int k, int n, int lane) {
    const float* own = tile + (lane % 4 * 2 * ROW + lane / 4);
    const float* at = own + (k * ROW + n);
    Right b;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        b.x[h][0] = at[8 * h], b.x[h][1] = at[8 * h + ROW];
        b.x[h][2] = at[8 * h + 8 * ROW], b.x[h][3] = at[8 * h + 9 * ROW];
    }
    return b;
}

// Two neighbouring accumulators as a left operand of 16 columns.
__device__ __forceinline__ Left round_to_left(const float (&c0)[4], const float (&c1)[4]) {
    return {{{c0[0], c0[2], c0[1], c0[3]}, {c1[0], c1[2], c1[1], c1[3]}}};
}

__device__ __forceinline__ unsigned to_tf32(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ void multiply_add_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c += a · (half h of b)
__device__ __forceinline__ void multiply_add(float (&c)[4], const Left& a, const float (&b)[4]) {
#pragma unroll
    for (int s = 0; s < 2; ++s) {
        unsigned high_a[4], low_a[4], high_b[2], low_b[2];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            high_a[n] = to_tf32(a.x[s][n]);
            low_a[n] = to_tf32(a.x[s][n] - __uint_as_float(high_a[n]));
        }
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            high_b[n] = to_tf32(b[2 * s + n]);
            low_b[n] = to_tf32(b[2 * s + n] - __uint_as_float(high_b[n]));
        }
        float step[4] = {};
        multiply_add_tf32(step, low_a, high_b);
        multiply_add_tf32(step, high_a, low_b);
        multiply_add_tf32(step, high_a, high_b);
#pragma unroll
        for (int n = 0; n < 4; ++n) c[n] += step[n];
    }
}
