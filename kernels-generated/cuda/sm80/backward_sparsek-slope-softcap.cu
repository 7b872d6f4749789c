// SparsekSlopeSoftcap, backward: bf16, head dimension 128, k 512, window 512, groups of 4 query heads
//
// schedule  tile q 64, kv 32; warps 4; stages 2; sm80
// target    sm_80, instructions of sm80
// input     c5d15b380f743840
#include <cuda_bf16.h>

typedef __nv_bfloat16 elem;
#define INFINITY_F __int_as_float(0x7f800000)
#pragma nv_diag_suppress 177  // not every module uses all of what follows

constexpr int D = 128;  // head dimension
constexpr int K = 512;  // selected keys
constexpr bool HAS_TOPK = true;
constexpr int WINDOW = 512;
constexpr int SINKS = 0;
constexpr int GROUP = 4;  // query heads of a key-value head
constexpr int CHUNK = 512;  // queries of a chunk of the plan
constexpr int CHUNK_KEYS = 1024;  // keys of a chunk's list, at most
constexpr int TILE_Q = 64;  // rows of the tile that stays
constexpr int TILE_KV = 32;  // rows of a streamed tile
constexpr int WARPS = 4;
constexpr int STAGES = 2;  // streamed tiles in flight
constexpr int POSITIONS = 16;  // positions of a tile of rows
constexpr float FACTOR_Q = 0.088388346f;  // of the weights, taken out of their sum
constexpr float FACTOR_K = 0.088388346f;  // of the weights, taken out of their sum
constexpr float FACTOR_V = 1.0f;  // of the weights, taken out of their sum
constexpr int UNROLLED = 8;  // steps of 16 of the head dimension
constexpr int ROW_SUMS = 1;
constexpr int KEY_SUMS = 1;
constexpr int TILE_KEYS = 527;  // keys of a tile's list, at most
constexpr int ROWS_SHARED = 72320;  // bytes of a block
constexpr int ROWS_BLOCKS_PER_MULTIPROCESSOR = 2;
constexpr int ROWS_SLICE = 128;  // columns of d_q that a block accumulates
constexpr int KEYS_BLOCKS_PER_MULTIPROCESSOR = 2;
constexpr int KEYS_SHARED = 73728;  // bytes of a block
constexpr int SLICE = 128;  // columns of d_k and d_v that a block accumulates
constexpr int PARTIAL = 260;  // numbers that a span leaves for a key
constexpr int PARTIAL_V = 128;  // where those of d_v start
constexpr int PARTIAL_SUMS = 256;  // where those of sums start
constexpr int SPAN = 1024;  // queries of a span
constexpr int SPAN_KEYS = 1536;  // keys of a span's list, at most
constexpr int COLLECTING = 72;  // blocks of a span that collect

// The one parameter of every entry: tensors with their strides in elements, buffers, sizes.
struct Arguments {
    long long rows;
    long long sequences;
    long long n;
    long long hq;
    long long hkv;
    const int* cu_seqlens;
    const elem* q; long long q_batch; long long q_position; long long q_head;
    const elem* k; long long k_batch; long long k_position; long long k_head;
    const elem* v; long long v_batch; long long v_position; long long v_head;
    const elem* d_o; long long d_o_batch; long long d_o_position; long long d_o_head;
    const int* expiry;
    const float* u; long long u_batch; long long u_head; long long u_position;
    elem* d_q; long long d_q_batch; long long d_q_position; long long d_q_head;
    elem* d_k; long long d_k_batch; long long d_k_position; long long d_k_head;
    elem* d_v; long long d_v_batch; long long d_v_position; long long d_v_head;
    float* row_values_0;
    float* d_u; long long d_u_batch; long long d_u_head; long long d_u_position;
    const float* lse;
    const float* input_slope; long long input_slope_head;
    const float* tau;
    const elem* o; long long o_batch; long long o_position; long long o_head;
    float* row_dot_delta;
    int* chunk_keys;
    int* chunk_counts;
    int* tile_keys;
    int* tile_counts;
    float* partial;
    int* first_slot;
    float* key_sums;
    double* threshold_rows;
    double* threshold_prefix;
    int* threshold_block_count;
    double* threshold_block_sum;
    int* fraction_range;
    int* fraction_count;
    double* row_values_0_total;
    float* d_slope; long long d_slope_head;
};

// From sm_90 on a launch may begin before the one before it in the stream has ended: its blocks are on the multiprocessors
// then, and wait here for what that one writes. Every launch waits, first, or late where it needs nothing of the one before
// until then, and only then lets the next begin: so whatever was before that one has ended.
__device__ __forceinline__ void wait_for_earlier_launches() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// The element type.
__device__ __forceinline__ float to_float(elem x) { return __bfloat162float(x); }
__device__ __forceinline__ elem to_elem(float x) { return __float2bfloat16_rn(x); }

// Two numbers rounded to the element type, the first in the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// Stores two neighbouring elements.
__device__ __forceinline__ void store_pair(elem* to, float a, float b) { *reinterpret_cast<unsigned*>(to) = pack(a, b); }

// Elementwise functions of the language. Maximum and minimum return their first operand when both are equal.
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// 2^x within 2 ulp.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x within 1 ulp; 0 from x = 2^126 on.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float exponential(float x) { return power_of_two(LOG2_E * x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ float divide(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ float absolute(float x) { return fabsf(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ float reciprocal_square_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ float minimum(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float maximum(float a, float b) { return b > a ? b : a; }

// The sigmoid of x = y / log2 e.
__device__ __forceinline__ float sigmoid_of_powers(float y) { return reciprocal(1.0f + power_of_two(-y)); }
__device__ __forceinline__ float sigmoid(float x) { return sigmoid_of_powers(LOG2_E * x); }

// The tangent of x = y / (2 log2 e): 1 − 2e / (1 + e) with e = 2^−|y| = exp(−2|x|), an absolute error of about 1e-7. To
// |x| = 0.08, where that form cancels, x − x³ / 3 with coefficients for which the relative error is 7e-7.
__device__ __forceinline__ float hyperbolic_tangent_of_powers(float y) {
    const float size = fabsf(y), e = power_of_two(-size);
    float tangent = copysignf(1.0f - e * reciprocal(0.5f + 0.5f * e), y);
    if (size < 0.16f * LOG2_E) tangent = y * (0.34657335f - 0.013840587f * (y * y));
    return tangent;
}
__device__ __forceinline__ float hyperbolic_tangent(float x) { return hyperbolic_tangent_of_powers(2.0f * LOG2_E * x); }

// Sequences: the rows of the batch, or the packed sequences of its one row.
struct Sequence {
    int index;   // the coordinate `batch`
    int row;     // row of the batch
    int start;   // first position in that row
    int length;
};

__device__ __forceinline__ Sequence sequence_at(const Arguments& a, int b) {
    if (a.cu_seqlens == nullptr) return {b, b, 0, static_cast<int>(a.n)};
    const int start = a.cu_seqlens[b];
    return {b, 0, start, a.cu_seqlens[b + 1] - start};
}

// Blocks of P positions, each within one sequence. Packed sequence b has the ids from ⌊start / P⌋ + b on: enough for its
// blocks, and apart from those of its neighbours. Some ids stay empty.
template <int P>
__device__ __forceinline__ int blocks_of_row(const Arguments& a) { return static_cast<int>((a.n + P - 1) / P); }

template <int P>
__device__ __forceinline__ int block_count(const Arguments& a) {
    if (a.cu_seqlens == nullptr) return static_cast<int>(a.rows) * blocks_of_row<P>(a);
    return static_cast<int>(a.n / P + a.sequences);
}

template <int P>
__device__ __forceinline__ int first_block(const Arguments& a, const Sequence& s) {
    return a.cu_seqlens == nullptr ? s.row * blocks_of_row<P>(a) : s.start / P + s.index;
}

// The sequence and the number of a block within it; false for an empty id.
template <int P>
__device__ __forceinline__ bool find_block(const Arguments& a, int id, Sequence& s, int& block) {
    int b = 0;
    if (a.cu_seqlens == nullptr) {
        b = id / blocks_of_row<P>(a);
    } else {
        // The last sequence whose first id is not above this one.
        int end = static_cast<int>(a.sequences);
        while (end - b > 1) {
            const int middle = (b + end) / 2;
            if (a.cu_seqlens[middle] / P + middle <= id) b = middle;
            else end = middle;
        }
    }
    s = sequence_at(a, b);
    block = id - first_block<P>(a, s);
    return block * P < s.length;
}

// The score of a sequence's first key, and how far it is to the next.
__device__ __forceinline__ const float* scores_of(const Arguments& a, const Sequence& s, int g) {
    return a.u + s.row * a.u_batch + g * a.u_head + s.start * a.u_position;
}

__device__ __forceinline__ long long score_stride(const Arguments& a) { return a.u_position; }

// The score of a key.
__device__ __forceinline__ float score_at(const Arguments& a, const Sequence& s, int g, int j) {
    return scores_of(a, s, g)[j * score_stride(a)];
}

// Asynchronous copies of 16 bytes from device to shared memory. Without `valid` the 16 bytes become zero and nothing
// is read.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}

// Ends a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `PENDING` groups of this thread are under way.
template <int PENDING>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Products of 16-bit tiles by mma.sync.m16n8k16, f32 accumulators.
//
// A warp's accumulator of 16 rows × 8 columns: lane l holds rows l/4 and l/4 + 8, columns 2(l%4) and 2(l%4) + 1, as
// c[0], c[1] and c[2], c[3]. `Left` is a 16 × 16 left operand, `Right` a 16 × 16 right operand (two halves of 8 columns).
struct Left { unsigned x[4]; };
struct Right { unsigned x[2][2]; };

__device__ __forceinline__ void load_matrices(unsigned (&x)[4], const elem* at) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(at));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(unsigned (&x)[4], const elem* at) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(at));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
}

// Each load adds what is the same for a warp to a lane's own place: where that is a constant, the instruction holds it.

// Rows row..row+16 and columns k..k+16 of a tile, as a left operand.
template <int ROW>
__device__ __forceinline__ Left load_left(const elem* tile, int row, int k, int lane) {
    Left a;
    const elem* own = tile + (lane % 16 * ROW + lane / 16 * 8);
    load_matrices(a.x, own + (row * ROW + k));
    return a;
}

// The transpose of rows n..n+16 and columns k..k+16 of a tile, as a right operand: its columns are the tile's rows.
template <int ROW>
__device__ __forceinline__ Right load_right_transposed(const elem* tile, int n, int k, int lane) {
    unsigned x[4];
    const elem* own = tile + ((lane / 16 * 8 + lane % 8) * ROW + lane / 8 % 2 * 8);
    load_matrices(x, own + (n * ROW + k));
    return {{{x[0], x[1]}, {x[2], x[3]}}};
}

// Rows k..k+16 and columns n..n+16 of a tile, as a right operand.
template <int ROW>
__device__ __forceinline__ Right load_right(const elem* tile, int k, int n, int lane) {
    unsigned x[4];
    const elem* own = tile + (lane % 16 * ROW + lane / 16 * 8);
    load_matrices_transposed(x, own + (k * ROW + n));
    return {{{x[0], x[1]}, {x[2], x[3]}}};
}

// Two neighbouring accumulators, rounded to the element type, as a left operand of 16 columns.
__device__ __forceinline__ Left round_to_left(const float (&c0)[4], const float (&c1)[4]) {
    return {{pack(c0[0], c0[1]), pack(c0[2], c0[3]), pack(c1[0], c1[1]), pack(c1[2], c1[3])}};
}

// c += a · (half h of b)
__device__ __forceinline__ void multiply_add(float (&c)[4], const Left& a, const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b[0]), "r"(b[1]));
}

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

// Rows of a tile: the query heads of one key-value head (of one part of them, where they are more than a tile has
// rows) times consecutive positions. A shape holds POSITIONS, HEADS of a part, and PARTS.
struct RowTile {
    static constexpr int POSITIONS = 16, HEADS = 4, PARTS = 1;
    static constexpr bool FILLED = true;
};
struct StreamTile {
    static constexpr int POSITIONS = 8, HEADS = 4, PARTS = 1;
    static constexpr bool FILLED = true;
};

struct Tile {
    Sequence s;
    int id;        // of the block of positions
    int from, to;  // positions [from, to)
    int g;         // key-value head
    int part;      // of the group's heads
};

// What a row is: its position, −1 for a row of the tile that stands for none, its query head and its values.
struct Row {
    int i;
    int head;
    float tau;
    float t13;
    float slope_scaled;
    float lse_scaled;
    float delta;
};

// Values of the sequence and key-value head.
struct Uniform {
};

__device__ __forceinline__ Uniform load_uniform(const Arguments& a, const Sequence& s, int g) {
    Uniform x = {};
    return x;
}

// The tile of one block of positions; false for an empty id.
template <class Shape>
__device__ __forceinline__ bool find_tile(const Arguments& a, int block_id, int g, Tile& tile) {
    int block = 0;
    if (!find_block<Shape::POSITIONS>(a, block_id, tile.s, block)) return false;
    tile.id = block_id;
    tile.from = block * Shape::POSITIONS;
    tile.to = min(tile.from + Shape::POSITIONS, tile.s.length);
    tile.g = g;
    tile.part = 0;
    return true;
}

// Tile number n, in the order in which they are worked on: later positions first, whose queries see most keys, so that short
// tiles are left for the end, and all key-value heads at the same positions, since all rows of the batch see as many there.
template <class Shape>
__device__ __forceinline__ bool find_tile_in_order(const Arguments& a, unsigned n, Tile& tile) {
    const unsigned heads = static_cast<unsigned>(a.hkv), rows = static_cast<unsigned>(a.rows), place = n / heads;
    const int from_end = a.cu_seqlens == nullptr ? place % rows * blocks_of_row<Shape::POSITIONS>(a) + place / rows : place;
    return find_tile<Shape>(a, block_count<Shape::POSITIONS>(a) - 1 - from_end, n % heads, tile);
}

// The position of a row, whether or not it exists.
template <class Shape>
__device__ __forceinline__ int row_position(const Tile& tile, int row) { return tile.from + row / Shape::HEADS; }

template <class Shape>
__device__ __forceinline__ bool row_exists(const Tile& tile, int row, int& i, int& head) {
    const int in_part = tile.part * Shape::HEADS + row % Shape::HEADS;
    i = row_position<Shape>(tile, row);
    head = tile.g * GROUP + in_part;
    return row < Shape::POSITIONS * Shape::HEADS && i < tile.to && in_part < GROUP;
}

template <class Shape>
__device__ __forceinline__ Row load_row(const Arguments& a, const Uniform& x, const Tile& tile, int row) {
    Row r = {};
    if (!row_exists<Shape>(tile, row, r.i, r.head)) {
        r.i = -1;
        return r;
    }
    const Sequence& s = tile.s;
    const long long token = s.start + r.i;
    const int i = r.i, head = r.head;
    r.tau = a.tau[(s.row * a.hkv + tile.g) * a.n + token];
    const float lse = a.lse[(s.row * a.hq + head) * a.n + token];
    const float slope = a.input_slope[head * a.input_slope_head];
    const float delta = a.row_dot_delta[(s.row * a.hq + head) * a.n + token];
    r.t13 = float(i);
    r.slope_scaled = slope * 0.57707804f;
    r.lse_scaled = lse * 1.442695f;
    r.delta = delta;
    return r;
}

// How the threads of a block share the copies of ROWS rows: COPIES of 16 bytes of a row are those of as many threads, so that
// a thread's rows are AT_ONCE apart and its addresses in shared memory differ by constants.
template <int ROWS, int THREADS>
struct RowCopies {
    static constexpr int SIZE = 16 / sizeof(elem), COPIES = D / SIZE;
    static constexpr int WIDTH = COPIES < THREADS ? COPIES : THREADS, AT_ONCE = THREADS / WIDTH;
    // A thread's first row, and its first element of every row.
    static __device__ __forceinline__ int row() { return threadIdx.x / WIDTH; }
    static __device__ __forceinline__ int element() { return threadIdx.x % WIDTH * SIZE; }
    // Whether it has the row that is `n` after its first one, and the copy that is `c` after the first one of its row.
    static __device__ __forceinline__ bool has_row(int n) {
        return (AT_ONCE * WIDTH == THREADS || row() < AT_ONCE) && (ROWS % AT_ONCE == 0 || n + row() < ROWS);
    }
    static __device__ __forceinline__ bool has_copy(int c) { return COPIES % WIDTH == 0 || c * SIZE + element() < D; }
};

// Starts copying the rows of a tensor [B, N, Hq, D] that a tile has; rows that do not exist become zero.
template <class Shape, int ROWS, int THREADS>
__device__ __forceinline__ void copy_query_rows(elem* to, const elem* from, long long batch, long long position, long long head,
                                                const Tile& tile) {
    using Copies = RowCopies<ROWS, THREADS>;
    to += Copies::row() * ROW + Copies::element();
    from += tile.s.row * batch + tile.s.start * position + Copies::element();
#pragma unroll
    for (int n = 0; n < ROWS; n += Copies::AT_ONCE) {
        if (!Copies::has_row(n)) break;
        int i, h;
        const bool valid = row_exists<Shape>(tile, n + Copies::row(), i, h);
        const long long offset = valid ? i * position + h * head : 0;
#pragma unroll
        for (int c = 0; c < Copies::COPIES; c += Copies::WIDTH)
            if (Copies::has_copy(c)) copy_async(to + n * ROW + c * Copies::SIZE, from + offset + c * Copies::SIZE, valid);
    }
}

// What a column is: its key, −1 for none, the queries [from, to) that see it, its score and its values.
struct Column {
    int from, to;
    int j;
    float score;
    float t11;
};

__device__ __forceinline__ void load_column_values(const Arguments& a, const Uniform& x, const Sequence& s, int g, Column& c) {
    const int j = c.j;
    const long long token = s.start + j;
    c.t11 = float(j);
}

// The score by which a key is gated once it has left the window: +inf where it never is a candidate.
__device__ __forceinline__ float gate_score(const Arguments& a, const Sequence& s, int g, int j) {
    return j < SINKS ? INFINITY_F : score_at(a, s, g, j);
}

// Whether the user's predicates leave a pair.
__device__ __forceinline__ bool predicate(const Uniform&, const Row&, const Column&) { return true; }

// Whether every pair of a tile is seen.
template <bool FULL>
constexpr bool SEES_ALL = FULL && true;

// Whether a query sees a key. In full tiles every query of the tile sees every key, predicates aside.
template <bool FULL>
__device__ __forceinline__ bool sees(const Uniform& x, const Row& r, const Column& c) {
    return (FULL | ((c.from <= r.i) & (r.i < c.to))) & predicate(x, r, c);
}

// The gate of a pair that is seen, clip(u − tau, 0, 1): 1 in the window, where columns have the score +inf.
__device__ __forceinline__ float gate_of(const Row& r, const Column& c) { return __saturatef(c.score - r.tau); }

// Whether a gate moves with its threshold: 0 < gate < 1. The bits of numbers from 0 on grow with them, so that one comparison
// without a sign is enough.
__device__ __forceinline__ bool is_fraction(float gate) { return __float_as_uint(gate) - 1 < 0x3f7fffffu; }

// What a pair adds to the sums of a row.
struct RowPair { float weight_q, sum_0, d_gate; };
// What a pair adds to the sums of a key.
struct KeyPair { float weight_k, weight_v, sum_0; };
// Those of one pair that is seen; dot_qk is q · k, dot_dov d_o · v.
__device__ __forceinline__ RowPair row_pair(const Uniform& x, const Row& r, const Column& c, float gate, float dot_qk, float dot_dov) {
    const float t14 = c.t11 - r.t13;
    const float t21 = hyperbolic_tangent_of_powers((dot_qk * 0.051006973f) + (r.slope_scaled * t14));
    const float p_28 = power_of_two((t21 * 7.213475f) - r.lse_scaled);
    const float d_p = dot_dov * gate;
    const float d_s = p_28 * (d_p - r.delta);
    const float t41 = d_s * (1.0f - (t21 * t21));
    RowPair pair = {};
    pair.weight_q = t41;
    pair.sum_0 = t41 * t14;
    pair.d_gate = dot_dov * p_28;
    return pair;
}

// Those of one pair that is seen; dot_qk is q · k, dot_dov d_o · v.
__device__ __forceinline__ KeyPair key_pair(const Uniform& x, const Row& r, const Column& c, float gate, float dot_qk, float dot_dov) {
    const float t21 = hyperbolic_tangent_of_powers((dot_qk * 0.051006973f) + (r.slope_scaled * (c.t11 - r.t13)));
    const float p_28 = power_of_two((t21 * 7.213475f) - r.lse_scaled);
    const float d_p = dot_dov * gate;
    const float d_s = p_28 * (d_p - r.delta);
    KeyPair pair = {};
    pair.weight_k = d_s * (1.0f - (t21 * t21));
    pair.weight_v = p_28 * gate;
    pair.sum_0 = dot_dov * p_28;
    return pair;
}

// The keys that queries [begin, end) of a tile see past their windows: of the chunk's keys those that are past the window at
// `begin` and not expired there, ascending; first the ones that are seen to the tile's end, then those that expire within; and
// then those that leave the window within the tile and are selected. A block, or several in z, makes the lists of the tiles that
// begin in a chunk, a warp at a time that of a tile: whatever its first query sees past its window is among the chunk's keys.
constexpr int CHUNK_TILES = (CHUNK + POSITIONS - 1) / POSITIONS;  // at most
extern "C" __global__ void __launch_bounds__(512) tiles(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(16) unsigned char shared_memory[];
    int2* keys = reinterpret_cast<int2*>(shared_memory);  // key, expiry
    __shared__ int expiring_keys[(CHUNK_TILES < 16 ? CHUNK_TILES : 16) * POSITIONS];  // POSITIONS for each warp that has a tile
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y, lane = threadIdx.x % 32;
    const long long list = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    const int count = a.chunk_counts[2 * list + 1];
    const int* expiry = a.expiry + (static_cast<long long>(s.row) * a.hkv + g) * a.n + s.start;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const int j = a.chunk_keys[list * CHUNK_KEYS + i];
        keys[i] = {j, expiry[j]};
    }
    __syncthreads();

    const long long first = static_cast<long long>(g) * block_count<POSITIONS>(a) + first_block<POSITIONS>(a, s);
    const int first_block_of_chunk = (chunk * CHUNK + POSITIONS - 1) / POSITIONS;
    const int warps = blockDim.x / 32;
    for (int tile = blockIdx.z * warps + threadIdx.x / 32; tile < CHUNK_TILES; tile += gridDim.z * warps) {
        const int block = first_block_of_chunk + tile, begin = block * POSITIONS;
        if (begin >= min((chunk + 1) * CHUNK, s.length)) break;
        const int end = begin + POSITIONS < s.length ? begin + POSITIONS : s.length;
        int* to = a.tile_keys + (first + block) * TILE_KEYS;
        // At most one selected key expires at a query.
        int* expiring = expiring_keys + threadIdx.x / 32 * POSITIONS;
        int full = 0, partly = 0;
        const unsigned lower = (1u << lane) - 1;
#pragma unroll 2
        for (int base = 0; base < count; base += 32) {
            const int i = base + lane;
            const int2 key = i < count ? keys[i] : int2{0, 0};
            const bool past = key.x <= begin - WINDOW && key.y > begin, lasts = key.y >= end;
            const unsigned lasting = __ballot_sync(0xffffffffu, past && lasts);
            const unsigned leaving = __ballot_sync(0xffffffffu, past && !lasts);
            if (past && lasts) to[full + __popc(lasting & lower)] = key.x;
            if (past && !lasts) expiring[partly + __popc(leaving & lower)] = key.x;
            full += __popc(lasting);
            partly += __popc(leaving);
        }
        __syncwarp();
        for (int i = lane; i < partly; i += 32) to[full + i] = expiring[i];
        // The tile may end behind the chunk, whose keys do not tell who comes there.
#pragma unroll 1
        for (int base = max(begin + 1, WINDOW); base < end; base += 32) {
            const int i = base + lane;
            const bool selected = i < end && expiry[i - WINDOW] > i;
            const unsigned coming = __ballot_sync(0xffffffffu, selected);
            if (selected) to[full + partly + __popc(coming & lower)] = i - WINDOW;
            partly += __popc(coming);
        }
        __syncwarp();
        if (lane == 0) {
            a.tile_counts[2 * (first + block)] = full;
            a.tile_counts[2 * (first + block) + 1] = full + partly;
        }
    }
}

// The keys that some query of a tile sees, as columns, those first that every query sees:
//   selected keys alive through the whole tile, window keys that every query has in its window,
//   then selected keys that expire or leave the window within the tile, keys that leave the window, and keys after the
//   first query.
// A key that leaves the window within the tile and is selected then has a column of either kind, for the queries before and after.
struct TileColumns {
    const int* selected;
    // Where each of the five kinds ends.
    int lasting, shared, expiring, leaving, total;
    // Keys of columns of the contiguous kinds, less the column.
    int shared_offset, leaving_offset, later_offset;
};

__device__ __forceinline__ TileColumns tile_columns(const Arguments& a, const Tile& tile) {
    const long long list = static_cast<long long>(tile.g) * block_count<RowTile::POSITIONS>(a) + tile.id;
    const int lasting = a.tile_counts[2 * list], selected = a.tile_counts[2 * list + 1];
    const int window_from = max(0, tile.from - WINDOW + 1);
    const int shared_from = min(max(window_from, tile.to - WINDOW), tile.from + 1);
    TileColumns t;
    t.selected = a.tile_keys + list * TILE_KEYS;
    t.lasting = lasting;
    t.shared = t.lasting + tile.from + 1 - shared_from;
    t.expiring = t.shared + selected - lasting;
    t.leaving = t.expiring + max(0, shared_from - window_from);
    t.total = t.leaving + (WINDOW > 0 ? tile.to - tile.from - 1 : 0);
    t.shared_offset = shared_from - t.lasting;
    t.leaving_offset = window_from - t.expiring;
    t.later_offset = tile.from + 1 - t.leaving;
    return t;
}

// The key of a column, −1 beyond the last; `window` says whether it stands for the queries that have it in their window.
__device__ __forceinline__ int column_key(const TileColumns& t, int c, bool& window) {
    const bool selected = c < t.lasting || (c >= t.shared && c < t.expiring);
    window = !selected;
    const int offset = c < t.shared ? t.shared_offset : c < t.leaving ? t.leaving_offset : t.later_offset;
    int j = c < t.total ? c + offset : -1;
    if (selected) j = t.selected[c < t.lasting ? c : c - (t.shared - t.lasting)];
    return j;
}

__device__ __forceinline__ Column load_column(const Arguments& a, const Uniform& x, const Tile& tile, int j, bool window) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    const Sequence& s = tile.s;
    c.from = window ? j : j + WINDOW;
    c.to = window ? j + WINDOW : a.expiry[(s.row * a.hkv + tile.g) * a.n + s.start + j];
    c.score = window ? INFINITY_F : gate_score(a, s, tile.g, j);
    load_column_values(a, x, s, tile.g, c);
    return c;
}

// What a block knows of its tile, for every thread: in registers it would be spilled.
struct alignas(16) TileData {
    Tile tile;
    TileColumns columns;
    const elem* k;  // of the sequence and key-value head
    const elem* v;
};

__device__ __forceinline__ TileData tile_data(const Arguments& a, const Tile& tile) {
    return {tile, tile_columns(a, tile), a.k + tile.s.row * a.k_batch + tile.s.start * a.k_position + tile.g * a.k_head,
            a.v + tile.s.row * a.v_batch + tile.s.start * a.v_position + tile.g * a.v_head};
}

// The row of a token. Counted in bytes, and without a sign: one product of 32 by 64 bits.
__device__ __forceinline__ const elem* row_of_token(const elem* first, unsigned token, long long stride) {
    return reinterpret_cast<const elem*>(reinterpret_cast<const char*>(first) + token * (stride * sizeof(elem)));
}

// Starts copying key and value rows of one tile of columns; columns without a key become zero rows.
template <int THREADS>
__device__ __forceinline__ void copy_key_rows(const Arguments& a, const TileData& data, const int* keys, elem* k_rows, elem* v_rows) {
    using Copies = RowCopies<TILE_KV, THREADS>;
    const elem* k = data.k + Copies::element();
    const elem* v = data.v + Copies::element();
    keys += Copies::row();
    k_rows += Copies::row() * ROW + Copies::element();
    v_rows += Copies::row() * ROW + Copies::element();
#pragma unroll
    for (int n = 0; n < TILE_KV; n += Copies::AT_ONCE) {
        if (!Copies::has_row(n)) break;
        const int j = keys[n];
        const elem* k_row = row_of_token(k, max(j, 0), a.k_position);
        const elem* v_row = row_of_token(v, max(j, 0), a.v_position);
#pragma unroll
        for (int c = 0; c < Copies::COPIES; c += Copies::WIDTH) {
            if (!Copies::has_copy(c)) break;
            copy_async(k_rows + n * ROW + c * Copies::SIZE, k_row + c * Copies::SIZE, j >= 0);
            copy_async(v_rows + n * ROW + c * Copies::SIZE, v_row + c * Copies::SIZE, j >= 0);
        }
    }
}

constexpr int THREADS = 32 * WARPS;

// Products over the head dimension of two vectors of the same query: 16 lanes for each query and head, 16 bytes at a time.
struct alignas(16) Piece { elem x[16 / sizeof(elem)]; };

extern "C" __global__ void __launch_bounds__(256) row_dots(const __grid_constant__ Arguments a) {
    constexpr int SIZE = 16 / sizeof(elem), PIECES = D / SIZE;
    const long long at = blockIdx.x * 16ll + threadIdx.x / 16;
    const int lane = threadIdx.x % 16, head = blockIdx.y;
    const bool exists = at < a.rows * a.n;
    const long long row = exists ? at / a.n : 0, token = exists ? at % a.n : 0;
    {
        const elem* left = a.d_o + row * a.d_o_batch + token * a.d_o_position + head * a.d_o_head;
        const elem* right = a.o + row * a.o_batch + token * a.o_position + head * a.o_head;
        float sum = 0.0f;
#pragma unroll
        for (int piece = lane; piece < PIECES; piece += 16) {
            const Piece l = reinterpret_cast<const Piece*>(left)[piece], r = reinterpret_cast<const Piece*>(right)[piece];
#pragma unroll
            for (int d = 0; d < SIZE; ++d) sum += to_float(l.x[d]) * to_float(r.x[d]);
        }
#pragma unroll
        for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        if (lane == 0 && exists) a.row_dot_delta[(row * a.hq + head) * a.n + token] = sum;
    }
    wait_for_earlier_launches();  // nothing is read here of those beside it
}

// What is known of a row once its sums over keys are complete.
__device__ __forceinline__ void store_row_values(const Arguments& a, const Uniform& x, const Sequence& s, int g, const Row& r,
                                                 const float (&sum)[ROW_SUMS + 1]) {
    const long long token = s.start + r.i;
    const float t43 = sum[0];
    a.row_values_0[(s.row * a.hq + r.head) * a.n + token] = t43;
}

// The row sweep: a tile of queries stays, the keys it sees stream past. Gives d_q and sums over keys, which
// are those of the first slice.
struct RowsShared {
    TileData data;
    elem q[TILE_Q * ROW];
    elem d_o[TILE_Q * ROW];
    elem k[STAGES][TILE_KV * ROW];
    elem v[STAGES][TILE_KV * ROW];
    Column columns[STAGES + 1][TILE_KV];
    int keys[STAGES + 1][TILE_KV];
    float threshold[TILE_Q];
};
static_assert(sizeof(RowsShared) <= ROWS_SHARED, "the launch gives less");

// Sums over keys of the rows that a lane holds, a quarter of each.
template <int M>
struct RowSums {
    float threshold[M][2];
    float sums[M][2][ROW_SUMS + 1];
};

template <bool FULL, int M>
__device__ __forceinline__ void sweep_keys(const Uniform& x, const Row (&rows)[M][2], const RowsShared& shared, const elem* k,
                                           const elem* v, const Column* columns, RowSums<M>& sums, float (&d_q)[M][ROWS_SLICE / 8][4],
                                           int warp_row, int lane) {
    float scores[M][TILE_KV / 8][4], products[M][TILE_KV / 8][4];
    product<M, TILE_KV>(scores, shared.q + warp_row * ROW, k, lane);
    product<M, TILE_KV>(products, shared.d_o + warp_row * ROW, v, lane);
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Column& c = columns[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const Row& r = rows[m][h];
                    const float gate = gate_of(r, c);
                    RowPair pair = row_pair(x, r, c, gate, scores[m][n][2 * h + e], products[m][n][2 * h + e]);
                    if (!sees<FULL>(x, r, c)) pair = {};
                    scores[m][n][2 * h + e] = pair.weight_q;
                    sums.sums[m][h][0] += pair.sum_0;
                    if (is_fraction(gate)) sums.threshold[m][h] += pair.d_gate;
                }
        }
    add_weighted<M, TILE_KV, ROWS_SLICE>(d_q, scores, k + slice_from<ROWS_SLICE>(), lane);
}

extern "C" __global__ void __launch_bounds__(THREADS, ROWS_BLOCKS_PER_MULTIPROCESSOR) backward_rows(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    RowsShared& shared = *reinterpret_cast<RowsShared*>(memory);
    Tile found;
    if (!find_tile<RowTile>(a, blockIdx.x, blockIdx.y, found)) return;
    if (threadIdx.x == 0) shared.data = tile_data(a, found);
    __syncthreads();
    const Tile& tile = shared.data.tile;
    const TileColumns& all = shared.data.columns;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, tile.s, tile.g);
    const int tiles = (all.total + TILE_KV - 1) / TILE_KV;

    copy_query_rows<RowTile, TILE_Q, THREADS>(shared.q, a.q, a.q_batch, a.q_position, a.q_head, tile);
    copy_query_rows<RowTile, TILE_Q, THREADS>(shared.d_o, a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile);
    // Keys are looked up two tiles before their rows are copied, their data one tile before.
    bool window = false;
    for (int t = 0; t < STAGES; ++t) {
        for (int c = threadIdx.x; c < TILE_KV; c += THREADS) {
            const int j = column_key(all, t * TILE_KV + c, window);
            shared.columns[t][c] = load_column(a, x, tile, j, window);
            shared.keys[t][c] = j;
        }
    }
    __syncthreads();
    for (int t = 0; t < STAGES - 1; ++t) {
        if (t < tiles) copy_key_rows<THREADS>(a, shared.data, shared.keys[t], shared.k[t], shared.v[t]);
        commit_copies();
    }
    Row rows[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) rows[m][h] = load_row<RowTile>(a, x, tile, warp_row + 16 * m + 8 * h + lane / 4);

    RowSums<M> sums = {};
    float d_q[M][ROWS_SLICE / 8][4] = {};
    // A thread looks after at most one column of a tile.
    const int own = threadIdx.x;
    int key = own < TILE_KV ? column_key(all, STAGES * TILE_KV + own, window) : -1;
    for (int t = 0; t < tiles; ++t) {
        if constexpr (STAGES > 1) wait_copies<STAGES - 2>();
        __syncthreads();
        const int coming = t + STAGES - 1, slot = coming % STAGES;
        if (coming < tiles) copy_key_rows<THREADS>(a, shared.data, shared.keys[coming % (STAGES + 1)], shared.k[slot], shared.v[slot]);
        commit_copies();
        if constexpr (STAGES == 1) {
            wait_copies<0>();
            __syncthreads();
        }
        Column next = {};
        const int next_key = key;
        if (own < TILE_KV) {
            next = load_column(a, x, tile, next_key, window);
            key = column_key(all, (t + STAGES + 1) * TILE_KV + own, window);
        }
        const Column* columns = shared.columns[t % (STAGES + 1)];
        const elem* k = shared.k[t % STAGES];
        const elem* v = shared.v[t % STAGES];
        if ((t + 1) * TILE_KV <= all.shared) sweep_keys<true>(x, rows, shared, k, v, columns, sums, d_q, warp_row, lane);
        else sweep_keys<false>(x, rows, shared, k, v, columns, sums, d_q, warp_row, lane);
        if (own < TILE_KV) {
            shared.columns[(t + STAGES) % (STAGES + 1)][own] = next;
            shared.keys[(t + STAGES) % (STAGES + 1)][own] = next_key;
        }
    }
    wait_copies<0>();
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const Row& r = rows[m][h];
            const long long token = tile.s.start + r.i;
            float sum[ROW_SUMS + 1];
#pragma unroll
            for (int n = 0; n < ROW_SUMS; ++n) sum[n] = row_sum(sums.sums[m][h][n]);
            const float threshold = row_sum(sums.threshold[m][h]);
            if (lane % 4 == 0) shared.threshold[warp_row + 16 * m + 8 * h + lane / 4] = r.i < 0 ? 0.0f : threshold;
            if (r.i < 0) continue;
            elem* to = a.d_q + tile.s.row * a.d_q_batch + token * a.d_q_position + r.head * a.d_q_head;
#pragma unroll
            for (int n = 0; n < ROWS_SLICE / 8; ++n)
                store_pair(to + slice_from<ROWS_SLICE>() + 8 * n + lane % 4 * 2, FACTOR_Q * d_q[m][n][2 * h],
                           FACTOR_Q * d_q[m][n][2 * h + 1]);
            if (lane % 4 == 0 && blockIdx.z == 0) store_row_values(a, x, tile.s, tile.g, r, sum);
        }
    // The threshold's gradient of a query is summed over the heads of the group.
    __syncthreads();
    if (blockIdx.z > 0) return;
    for (int i = threadIdx.x; i < tile.to - tile.from; i += THREADS) {
        double total = 0.0;
        for (int h = 0; h < GROUP; ++h) total += shared.threshold[i * GROUP + h];
        a.threshold_rows[(tile.s.row * a.hkv + tile.g) * a.n + tile.s.start + tile.from + i] = total;
    }
}

// A tile of keys and the queries that see some of them. Keys are TILE_Q consecutive ones, for the queries that have them in
// their windows, or TILE_Q of the list of a span of queries, which select them.
struct KeyTile {
    Sequence s;
    int g;
    int from, to;  // queries
    int first;     // key of the first row, of consecutive ones
    int span;      // id of the span, and first slot of the tile in its list
    int slot;
    int count;     // rows that stand for keys
};

constexpr int SPAN_TILES = (SPAN_KEYS + TILE_Q - 1) / TILE_Q;

__device__ __forceinline__ long long chunk_index(const Arguments& a, int g, int chunk) {
    return static_cast<long long>(g) * block_count<CHUNK>(a) + chunk;
}

// The keys that queries of a span select, ascending: those of its first chunk, then those that come in its second. A key
// that was there before is in the first chunk's list too: whoever leaves does not return.
struct SpanList {
    const int* first;
    const int* second;
    int in_first, count;

    __device__ __forceinline__ SpanList(const Arguments& a, const Sequence& s, int g, int block) {
        const long long at = chunk_index(a, g, first_block<CHUNK>(a, s) + 2 * block);
        first = a.chunk_keys + at * CHUNK_KEYS;
        in_first = count = a.chunk_counts[2 * at + 1];
        second = nullptr;
        if ((2 * block + 1) * CHUNK >= s.length) return;
        const int before = a.chunk_counts[2 * at + 2];
        second = first + CHUNK_KEYS + before;
        count += a.chunk_counts[2 * at + 3] - before;
    }

    __device__ __forceinline__ int key(int slot) const { return slot < in_first ? first[slot] : second[slot - in_first]; }

    // The slot of a key, which is there.
    __device__ __forceinline__ int slot_of(int j) const {
        const bool is_second = in_first == 0 || (count > in_first && second[0] <= j);
        int low = is_second ? in_first : 0, high = is_second ? count : in_first;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (key(middle) <= j) low = middle;
            else high = middle;
        }
        return low;
    }
};

// Tile number `tile` of a span's list; false where the list is shorter.
__device__ __forceinline__ bool find_selected(const Arguments& a, int span, int tile, int g, KeyTile& keys) {
    keys = {};
    int block;
    if (!find_block<SPAN>(a, span, keys.s, block)) return false;
    keys.g = g;
    keys.span = span;
    keys.slot = tile * TILE_Q;
    keys.count = min(TILE_Q, SpanList(a, keys.s, g, block).count - keys.slot);
    keys.from = block * SPAN;
    keys.to = min(keys.from + SPAN, keys.s.length);
    return keys.count > 0;
}

// A block of consecutive keys; false for an empty id.
__device__ __forceinline__ bool find_consecutive(const Arguments& a, int id, int g, KeyTile& keys) {
    keys = {};
    int block;
    if (!find_block<TILE_Q>(a, id, keys.s, block)) return false;
    keys.g = g;
    keys.first = block * TILE_Q;
    keys.count = min(TILE_Q, keys.s.length - keys.first);
    keys.from = keys.first;
    keys.to = WINDOW == 0 ? keys.first : min(keys.first + keys.count - 1 + WINDOW, keys.s.length);
    return true;
}

// The key of a row, −1 for none; of a tile whose queries are those of the whole span.
template <bool SELECTED>
__device__ __forceinline__ int key_of(const Arguments& a, const KeyTile& keys, int row) {
    if (row >= keys.count) return -1;
    return SELECTED ? SpanList(a, keys.s, keys.g, keys.from / SPAN).key(keys.slot + row) : keys.first + row;
}

// A selected key is seen from where it has left the window until it expires. Others are seen while they are in the window,
// where gates are 1.
template <bool SELECTED>
__device__ __forceinline__ Column key_column(const Arguments& a, const Uniform& x, const KeyTile& keys, int j) {
    Column c = {};
    c.j = j;
    if (j < 0) return c;
    if constexpr (SELECTED) {
        c.from = j + WINDOW;
        c.to = a.expiry[(keys.s.row * a.hkv + keys.g) * a.n + keys.s.start + j];
    } else {
        c.from = j;
        c.to = min(j + WINDOW, keys.s.length);
    }
    c.score = SELECTED ? gate_score(a, keys.s, keys.g, j) : INFINITY_F;
    load_column_values(a, x, keys.s, keys.g, c);
    return c;
}

// Streamed tile t: a block of positions of [from, to) and one part of the group's heads.
__device__ __forceinline__ Tile streamed_tile(const KeyTile& keys, int t) {
    Tile tile;
    tile.s = keys.s;
    tile.id = 0;
    tile.from = keys.from + t / StreamTile::PARTS * StreamTile::POSITIONS;
    tile.to = min(tile.from + StreamTile::POSITIONS, keys.to);
    tile.g = keys.g;
    tile.part = t % StreamTile::PARTS;
    return tile;
}

// The number of streamed tiles that hold queries of [from, to), of which the first one begins with `from`.
__device__ __forceinline__ int streamed_tiles(int from, int to) {
    return max(to - from + StreamTile::POSITIONS - 1, 0) / StreamTile::POSITIONS * StreamTile::PARTS;
}

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
                *reinterpret_cast<float2*>(to + d) = make_float2(sums.d_k[m][n][2 * h], sums.d_k[m][n][2 * h + 1]);
                *reinterpret_cast<float2*>(to + PARTIAL_V + d) = make_float2(sums.d_v[m][n][2 * h], sums.d_v[m][n][2 * h + 1]);
            }
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
                const float2 more_k = *reinterpret_cast<const float2*>(selected[h] + d);
                sums.d_k[m][n][2 * h] += more_k.x;
                sums.d_k[m][n][2 * h + 1] += more_k.y;
                const float2 more_v = *reinterpret_cast<const float2*>(selected[h] + PARTIAL_V + d);
                sums.d_v[m][n][2 * h] += more_v.x;
                sums.d_v[m][n][2 * h + 1] += more_v.y;
            }
#pragma unroll
            for (int n = 0; n < KEY_SUMS; ++n) sum[h][n] += selected[h][PARTIAL_SUMS + n];
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int own = row + 16 * m + 8 * h;
            if (own >= keys.count) continue;
            const long long token = keys.s.start + keys.first + own;
            elem* d_k = a.d_k + keys.s.row * a.d_k_batch + token * a.d_k_position + keys.g * a.d_k_head;
            elem* d_v = a.d_v + keys.s.row * a.d_v_batch + token * a.d_v_position + keys.g * a.d_v_head;
#pragma unroll
            for (int n = 0; n < SLICE / 8; ++n) {
                const int d = slice_from<SLICE>() + 8 * n + lane % 4 * 2;
                store_pair(d_k + d, FACTOR_K * sums.d_k[m][n][2 * h], FACTOR_K * sums.d_k[m][n][2 * h + 1]);
                store_pair(d_v + d, FACTOR_V * sums.d_v[m][n][2 * h], FACTOR_V * sums.d_v[m][n][2 * h + 1]);
            }
            if (lane % 4 == 0 && blockIdx.z == 0) {
                const long long entry = (keys.s.row * a.hkv + keys.g) * a.n + token;
#pragma unroll
                for (int n = 0; n < KEY_SUMS; ++n) a.key_sums[n * a.rows * a.hkv * a.n + entry] = sum[h][n];
            }
        }
    }
}

// The key sweep: a tile of keys stays, the queries that see them stream past. Gives d_k, d_v and sums over queries.
//
// Pairs in the window are swept by blocks of consecutive keys. Selected keys are swept for spans of queries, two chunks each;
// what a span gives is left in `partial`, collected over the spans in their order, and added by the window's sweep.

struct KeysShared {
    elem k[TILE_Q * ROW];
    elem v[TILE_Q * ROW];
    elem q[STAGES][TILE_KV * ROW];
    elem d_o[STAGES][TILE_KV * ROW];
    Row rows[STAGES + 1][TILE_KV];
    // In registers these would be spilled.
    Column columns[TILE_Q];
    KeyTile keys;
    int latest_from, earliest_to;
    int range_from, range_to;
};
static_assert(sizeof(KeysShared) <= KEYS_SHARED, "the launch gives less");

template <bool FULL, int M>
__device__ __forceinline__ void sweep_rows(const Uniform& x, const KeysShared& shared, const elem* q, const elem* d_o,
                                           const Row* rows, KeyGradients<M>& sums, int warp_row, int lane) {
    float scores[M][TILE_KV / 8][4], products[M][TILE_KV / 8][4];
    product<M, TILE_KV>(scores, shared.k + warp_row * ROW, q, lane);
    product<M, TILE_KV>(products, shared.v + warp_row * ROW, d_o, lane);
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const Row& r = rows[8 * n + lane % 4 * 2 + e];
#pragma unroll
            for (int m = 0; m < M; ++m)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const Column& c = shared.columns[warp_row + 16 * m + 8 * h + lane / 4];
                    const float gate = gate_of(r, c);
                    // Rows that stand for no query see nothing, in full tiles too.
                    const bool visible = (StreamTile::FILLED || r.i >= 0) && sees<FULL>(x, r, c);
                    KeyPair pair = key_pair(x, r, c, gate, scores[m][n][2 * h + e], products[m][n][2 * h + e]);
                    if (!visible) pair = {};
                    scores[m][n][2 * h + e] = pair.weight_k;
                    products[m][n][2 * h + e] = pair.weight_v;
                    if (is_fraction(gate)) sums.sums[m][h][0] += pair.sum_0;
                }
        }
    add_weighted<M, TILE_KV, SLICE>(sums.d_v, products, d_o + slice_from<SLICE>(), lane);
    add_weighted<M, TILE_KV, SLICE>(sums.d_k, scores, q + slice_from<SLICE>(), lane);
}

__device__ __forceinline__ void copy_streamed(const Arguments& a, const Tile& tile, elem* q, elem* d_o) {
    copy_query_rows<StreamTile, TILE_KV, THREADS>(q, a.q, a.q_batch, a.q_position, a.q_head, tile);
    copy_query_rows<StreamTile, TILE_KV, THREADS>(d_o, a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile);
}

// Sweeps the queries of a tile of keys, whose rows are being copied.
template <int M>
__device__ __forceinline__ void sweep_queries(const Arguments& a, const Uniform& x, KeysShared& shared, KeyGradients<M>& sums,
                                              int warp_row, int lane) {
    const KeyTile& keys = shared.keys;
    const int tiles = streamed_tiles(keys.from, keys.to);
    for (int t = 0; t < STAGES - 1; ++t) {
        if (t < tiles) copy_streamed(a, streamed_tile(keys, t), shared.q[t], shared.d_o[t]);
        commit_copies();
    }
    // A thread looks after at most one row of a tile.
    const int own = threadIdx.x;
    for (int t = 0; t < STAGES; ++t)
        if (own < TILE_KV) shared.rows[t][own] = load_row<StreamTile>(a, x, streamed_tile(keys, t), own);
    for (int t = 0; t < tiles; ++t) {
        if constexpr (STAGES > 1) wait_copies<STAGES - 2>();
        __syncthreads();
        const int coming = t + STAGES - 1;
        if (coming < tiles) copy_streamed(a, streamed_tile(keys, coming), shared.q[coming % STAGES], shared.d_o[coming % STAGES]);
        commit_copies();
        if constexpr (STAGES == 1) {
            wait_copies<0>();
            __syncthreads();
        }
        Row next = {};
        if (own < TILE_KV) next = load_row<StreamTile>(a, x, streamed_tile(keys, t + STAGES), own);
        const int from = streamed_tile(keys, t).from;
        const bool full = shared.latest_from <= from && from + StreamTile::POSITIONS <= shared.earliest_to;
        const Row* rows = shared.rows[t % (STAGES + 1)];
        const elem* q = shared.q[t % STAGES];
        const elem* d_o = shared.d_o[t % STAGES];
        if (full) sweep_rows<true>(x, shared, q, d_o, rows, sums, warp_row, lane);
        else sweep_rows<false>(x, shared, q, d_o, rows, sums, warp_row, lane);
        if (own < TILE_KV) shared.rows[(t + STAGES) % (STAGES + 1)][own] = next;
    }
    wait_copies<0>();
}

// Starts copying the keys and values of a tile.
template <bool SELECTED>
__device__ __forceinline__ void copy_stationary(const Arguments& a, const KeyTile& keys, KeysShared& shared) {
    constexpr int PER_ROW = D * sizeof(elem) / 16;
    for (int at = threadIdx.x; at < TILE_Q * PER_ROW; at += THREADS) {
        const int row = at / PER_ROW, part = at % PER_ROW * (16 / static_cast<int>(sizeof(elem)));
        const int j = key_of<SELECTED>(a, keys, row);
        const long long token = keys.s.start + max(j, 0);
        const elem* k = a.k + keys.s.row * a.k_batch + token * a.k_position + keys.g * a.k_head;
        const elem* v = a.v + keys.s.row * a.v_batch + token * a.v_position + keys.g * a.v_head;
        copy_async(shared.k + row * ROW + part, k + part, j >= 0);
        copy_async(shared.v + row * ROW + part, v + part, j >= 0);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS_PER_MULTIPROCESSOR) backward_keys_selected(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    KeysShared& shared = *reinterpret_cast<KeysShared*>(memory);
    KeyTile keys;
    if (!find_selected(a, blockIdx.x / SPAN_TILES, blockIdx.x % SPAN_TILES, blockIdx.y, keys)) return;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, keys.s, keys.g);
    copy_stationary<true>(a, keys, shared);
    if (threadIdx.x == 0) shared.latest_from = 0, shared.earliest_to = 0x7fffffff, shared.range_from = 0x7fffffff, shared.range_to = 0;
    __syncthreads();
    for (int row = threadIdx.x; row < TILE_Q; row += THREADS) {
        const Column c = key_column<true>(a, x, keys, key_of<true>(a, keys, row));
        shared.columns[row] = c;
        if (c.j >= 0) {
            atomicMax(&shared.latest_from, c.from);
            atomicMin(&shared.earliest_to, c.to);
            atomicMin(&shared.range_from, c.from);
            atomicMax(&shared.range_to, c.to);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        keys.from = max(keys.from, shared.range_from);
        keys.to = min(keys.to, shared.range_to);
        shared.keys = keys;
        shared.earliest_to = min(shared.earliest_to, keys.to);
    }
    __syncthreads();
    KeyGradients<M> sums = {};
    sweep_queries(a, x, shared, sums, warp_row, lane);
    store_partials(a, shared.keys, sums, warp_row + lane / 4, lane);
}

extern "C" __global__ void __launch_bounds__(THREADS, KEYS_BLOCKS_PER_MULTIPROCESSOR) backward_keys_window(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    constexpr int M = TILE_Q / (16 * WARPS);
    extern __shared__ __align__(16) unsigned char memory[];
    KeysShared& shared = *reinterpret_cast<KeysShared*>(memory);
    KeyTile keys;
    if (!find_consecutive(a, blockIdx.x, blockIdx.y, keys)) return;
    const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16 * M;
    const Uniform x = load_uniform(a, keys.s, keys.g);
    copy_stationary<false>(a, keys, shared);
    for (int row = threadIdx.x; row < TILE_Q; row += THREADS)
        shared.columns[row] = key_column<false>(a, x, keys, key_of<false>(a, keys, row));
    if (threadIdx.x == 0) {
        shared.keys = keys;
        shared.latest_from = keys.first + keys.count - 1;
        shared.earliest_to = min(keys.first + WINDOW, keys.s.length);
    }
    __syncthreads();
    KeyGradients<M> sums = {};
    sweep_queries(a, x, shared, sums, warp_row, lane);
    store_gradients(a, shared.keys, sums, warp_row + lane / 4, lane);
}

// The threshold's share of the score gradient. With I_i the candidates that are fractional at query i, 0 < u_j − tau_i < 1 in
// f32, h_i = (sum of the gate gradients of row i) / |I_i| and H its prefix sums, key j loses H(b_j) − H(a_j), where [a_j, b_j)
// are the queries at which it is fractional.

// Index of key or query i of a sequence in the buffers below.
__device__ __forceinline__ long long threshold_index(const Arguments& a, const Sequence& s, int g, int i) {
    return (static_cast<long long>(s.row) * a.hkv + g) * a.n + s.start + i;
}

// The first query from `from` on whose tau satisfies what all later ones satisfy too.
template <class Condition>
__device__ __forceinline__ int first_query(const float* tau, int from, int to, Condition holds) {
    while (from < to) {
        const int middle = from + (to - from) / 2;
        if (holds(tau[middle])) to = middle;
        else from = middle + 1;
    }
    return from;
}

// Adds 1 or −1 to |I| from query i on, once for all lanes of a warp that do so at the same query.
__device__ __forceinline__ void change_count(int* counts, bool changes, int i, int by) {
    const unsigned same = __match_any_sync(0xffffffffu, changes ? i : -1);
    if (changes && __ffs(same) - 1 == static_cast<int>(threadIdx.x % 32)) atomicAdd(&counts[i], by * __popc(same));
}

constexpr int RANGE_KEYS = 256;  // keys of a block, one to a thread

// Fills fraction_range, and the changes of |I_i| in fraction_count, which is zero before.
extern "C" __global__ void __launch_bounds__(RANGE_KEYS) threshold_ranges(const __grid_constant__ Arguments a) {
    Sequence s;
    int block;
    if (!find_block<RANGE_KEYS>(a, blockIdx.x, s, block)) return;
    const int g = blockIdx.y, j = block * RANGE_KEYS + threadIdx.x;
    const long long base = threshold_index(a, s, g, 0);
    int from = 0, to = 0;
    if (j >= SINKS && j < s.length - WINDOW) {
        const float score = score_at(a, s, g, j);
        if (score == score && score != -INFINITY_F) {
            const float* tau = a.tau + base;
            from = first_query(tau, j + WINDOW, s.length, [=](float t) { return score - t < 1.0f; });
            to = first_query(tau, from, s.length, [=](float t) { return !(score - t > 0.0f); });
        }
    }
    change_count(a.fraction_count + base, from < to, from, 1);
    change_count(a.fraction_count + base, from < to && to < s.length, to, -1);
    if (j < s.length) {
        a.fraction_range[2 * (base + j)] = from;
        a.fraction_range[2 * (base + j) + 1] = to;
    }
    wait_for_earlier_launches();  // nothing is read here of those beside it
}

// Inclusive scan over the threads of a block; every thread gets the sum of all in `total`.
template <class T>
__device__ __forceinline__ T inclusive_sum(T x, T& total) {
    __shared__ T of_warp[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int d = 1; d < 32; d *= 2) {
        const T y = __shfl_up_sync(0xffffffffu, x, d);
        if (lane >= d) x += y;
    }
    __syncthreads();  // of_warp of the call before has been read
    if (lane == 31) of_warp[warp] = x;
    __syncthreads();
    T before = 0;
    total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) {
        if (w == warp) before = total;
        total += of_warp[w];
    }
    return before + x;
}

// H in three steps over blocks of SUM_QUERIES queries: the change of |I| over a block; the sums of h within each block, and
// over it; the sums of the blocks before, added.
constexpr int SUM_QUERIES = 2048;
constexpr int SUM_THREADS = 512;
constexpr int SUM_SHARE = SUM_QUERIES / SUM_THREADS;  // consecutive queries of a thread

// Sum over the blocks before one within its sequence, of what is stored for each; every thread gets it.
template <class T>
__device__ __forceinline__ T sum_before(const T* of_blocks, int block) {
    T sum = 0, total;
    for (int b = threadIdx.x; b < block; b += SUM_THREADS) sum += of_blocks[b - block];
    inclusive_sum(sum, total);
    return total;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) threshold_counts(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block, total;
    if (!find_block<SUM_QUERIES>(a, blockIdx.x, s, block)) return;
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    int sum = 0;
    for (int e = 0; e < SUM_SHARE; ++e) {
        const int i = block * SUM_QUERIES + e * SUM_THREADS + threadIdx.x;
        if (i < s.length) sum += a.fraction_count[base + i];
    }
    inclusive_sum(sum, total);
    if (threadIdx.x == 0) a.threshold_block_count[static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) threshold_sums(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<SUM_QUERIES>(a, blockIdx.x, s, block)) return;
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    const long long at = static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x;
    const int first = block * SUM_QUERIES + SUM_SHARE * threadIdx.x;
    int count[SUM_SHARE], counts = 0, count_total;
    for (int e = 0; e < SUM_SHARE; ++e)
        count[e] = counts += first + e < s.length ? a.fraction_count[base + first + e] : 0;
    const int before = sum_before(a.threshold_block_count + at, block) + inclusive_sum(counts, count_total) - counts;
    double h[SUM_SHARE], sum = 0.0, total;
    for (int e = 0; e < SUM_SHARE; ++e) {
        const int size = before + count[e];
        h[e] = sum += first + e < s.length && size > 0 ? a.threshold_rows[base + first + e] / size : 0.0;
    }
    const double end = inclusive_sum(sum, total);
    for (int e = 0; e < SUM_SHARE; ++e)
        if (first + e < s.length) a.threshold_prefix[base + first + e] = end - (sum - h[e]);
    if (threadIdx.x == 0) a.threshold_block_sum[at] = total;
}

extern "C" __global__ void __launch_bounds__(SUM_THREADS) threshold_prefixes(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<SUM_QUERIES>(a, blockIdx.x, s, block)) return;
    const long long base = threshold_index(a, s, blockIdx.y, 0);
    const double before = sum_before(a.threshold_block_sum + static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x, block);
    for (int e = 0; e < SUM_SHARE; ++e) {
        const int i = block * SUM_QUERIES + e * SUM_THREADS + threadIdx.x;
        if (i < s.length) a.threshold_prefix[base + i] += before;
    }
}

// H(b_j) − H(a_j)
__device__ __forceinline__ double threshold_share(const Arguments& a, const Sequence& s, int g, int j) {
    const long long base = threshold_index(a, s, g, 0);
    const int from = a.fraction_range[2 * (base + j)], to = a.fraction_range[2 * (base + j) + 1];
    if (from >= to) return 0.0;
    return a.threshold_prefix[base + to - 1] - (from > 0 ? a.threshold_prefix[base + from - 1] : 0.0);
}

// Gradients of values that each key has, and key values that are summed further. One thread for each key. Compilers aim at
// more than two blocks of a multiprocessor where they may, and spill for it.
extern "C" __global__ void __launch_bounds__(256, 2) finish_keys(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<256>(a, blockIdx.x, s, block)) return;
    const int j = block * 256 + threadIdx.x;
    if (j >= s.length) return;
    const long long token = s.start + j;
    for (int g = 0; g < a.hkv; ++g) {
        const Uniform x = load_uniform(a, s, g);
        const long long entry = (s.row * a.hkv + g) * a.n + token;
        Column c = {};
        c.j = j;
        load_column_values(a, x, s, g, c);
        const float t47 = static_cast<float>(a.key_sums[0 * a.rows * a.hkv * a.n + entry] - threshold_share(a, s, g, j));
        a.d_u[s.row * a.d_u_batch + token * a.d_u_position + g * a.d_u_head] = t47;
    }
}

// Sums over the positions of a sequence, in the same order whatever else is in the batch. One block for each sequence
// and head.
__device__ __forceinline__ void sum_positions(double* to, const float* values, int length) {
    __shared__ double parts[256];
    double sum = 0.0;
    for (int i = threadIdx.x; i < length; i += 256) sum += values[i];
    parts[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *to = parts[0];
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(256) sum_row_values_0(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    const Sequence s = sequence_at(a, blockIdx.x);
    const long long head = blockIdx.y, heads = a.hq;
    sum_positions(a.row_values_0_total + blockIdx.x * heads + head, a.row_values_0 + (s.row * heads + head) * a.n + s.start, s.length);
}

// The same for values of few entries.
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }
__device__ __forceinline__ double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
__device__ __forceinline__ double absolute(double x) { return fabs(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ double reciprocal_square_root(double x) { return 1.0 / sqrt(x); }
__device__ __forceinline__ double divide(double a, double b) { return a / b; }
__device__ __forceinline__ double minimum(double a, double b) { return b < a ? b : a; }
__device__ __forceinline__ double maximum(double a, double b) { return b > a ? b : a; }

// Values of few entries, in f64: functions of the sequence b and the query head h, of which each uses what it varies over.
__device__ double small_t43(const Arguments& a, int b, int h) {
    double total = 0.0;
    for (b = 0; b < a.sequences; ++b) total += a.row_values_0_total[b * a.hq + h];
    return total;
}

extern "C" __global__ void __launch_bounds__(256) finish_small(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    for (int h = threadIdx.x; h < a.hq; h += 256) a.d_slope[h * a.d_slope_head] = static_cast<float>(small_t43(a, 0, h));
}
