// SparsekKey, backward: bf16, head dimension 128, k 512, window 512, groups of 4 query heads
//
// schedule  tile q 128, kv 64; warps 12; stages 4; sm90
// target    sm_90a, instructions of sm90
// input     93d11d6f687c7cf0
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
constexpr int TILE_Q = 128;  // rows of the tile that stays
constexpr int TILE_KV = 64;  // rows of a streamed tile
constexpr int WARPS = 12;
constexpr int STAGES = 4;  // streamed tiles in flight
constexpr int POSITIONS = 32;  // positions of a tile of rows
constexpr float FACTOR_Q = 0.088388346f;  // of the weights, taken out of their sum
constexpr float FACTOR_K = 0.088388346f;  // of the weights, taken out of their sum
constexpr float FACTOR_V = 1.0f;  // of the weights, taken out of their sum
constexpr int ROW_SUMS = 0;
constexpr int KEY_SUMS = 1;
constexpr int ROWS_HELD = 1;  // operands of a tile of rows that stay in registers
constexpr int ROWS_LOADING_REGISTERS = 88;  // of a thread that loads
constexpr int ROWS_COMPUTING_REGISTERS = 208;  // of a thread that computes
constexpr int KEYS_LOADING_REGISTERS = 72;
constexpr int KEYS_COMPUTING_REGISTERS = 216;
constexpr int STREAM = 32;  // rows of a streamed tile of the key sweep
constexpr int STREAMED = 8;  // of them in flight
constexpr bool COLUMNS_IN_TURN = false;  // whose halves of a tile are read in turn
constexpr int TILE_KEYS = 543;  // keys of a tile's list, at most
constexpr int ROWS_SHARED = 207872;  // bytes of a block
constexpr int KEYS_SHARED = 205824;  // bytes of a block
constexpr int SLICE = 128;  // columns of d_k and d_v that a block accumulates
constexpr int PARTIAL = 260;  // numbers that a span leaves for a key
constexpr int PARTIAL_V = 128;  // where those of d_v start
constexpr int PARTIAL_SUMS = 256;  // where those of sums start
constexpr int SPAN = 1024;  // queries of a span
constexpr int SPAN_KEYS = 1536;  // keys of a span's list, at most
constexpr int FILLED_TILES = 4;  // tiles that a span's list mostly has
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
    float* d_u; long long d_u_batch; long long d_u_head; long long d_u_position;
    const float* lse;
    const float* tau;
    const elem* o; long long o_batch; long long o_position; long long o_head;
    float* row_dot_delta;
    int* taken;
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

__device__ __forceinline__ unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Asynchronous copies of 16 bytes from device to shared memory. Without `valid` the 16 bytes become zero and nothing
// is read.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

// The same from an address to one in shared memory, with a condition and without.
__device__ __forceinline__ void copy_16(unsigned to, unsigned long long from, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_16(unsigned to, unsigned long long from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Stores a value to shared memory if it is valid. Behind a branch the compiler would take addresses of barriers for different ones
// in a warp's lanes, in the whole loop around it, which takes the loading warps a fifth more instructions.
__device__ __forceinline__ void store_if(bool valid, int* to, int x) {
    asm volatile("{\n"
                 ".reg .pred valid;\n"
                 "setp.ne.b32 valid, %0, 0;\n"
                 "@valid st.shared.b32 [%1], %2;\n"
                 "}" ::"r"(static_cast<int>(valid)), "r"(shared_address(to)), "r"(x) : "memory");
}
__device__ __forceinline__ void store_if(bool valid, float* to, float x) { store_if(valid, reinterpret_cast<int*>(to), __float_as_int(x)); }
__device__ __forceinline__ void store_if(bool valid, bool* to, bool x) {
    asm volatile("{\n"
                 ".reg .pred valid;\n"
                 "setp.ne.b32 valid, %0, 0;\n"
                 "@valid st.shared.b8 [%1], %2;\n"
                 "}" ::"r"(static_cast<int>(valid)), "r"(shared_address(to)), "r"(static_cast<int>(x)) : "memory");
}

// A barrier in shared memory: its phase ends with the last of a number of arrivals, and phases are told apart by their
// parity. Until the first phase has ended, waiting for parity 1 returns at once. Every thread that has read a buffer arrives
// itself, which takes no longer than one lane doing so for its warp, and which tools that look for races can follow.
struct Barrier {
    unsigned long long state;

    __device__ __forceinline__ void start(int arrivals) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&state)), "r"(arrivals) : "memory");
    }

    __device__ __forceinline__ void arrive() {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&state)) : "memory");
    }

    // Arrives when the copies that this thread has started so far are done: for matrix products too, without a fence of their
    // own. What threads store themselves is read by threads alone.
    __device__ __forceinline__ void arrive_when_copied() {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&state)) : "memory");
    }

    __device__ __forceinline__ void wait(unsigned parity) {
        asm volatile("{\n"
                     ".reg .pred done;\n"
                     "again%=:\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                     "@!done bra again%=;\n"
                     "}" ::"r"(shared_address(&state)), "r"(parity) : "memory");
    }
};

// Makes barriers that one thread has started known to the copies of others.
__device__ __forceinline__ void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Waits for `threads` threads at the hardware's barrier `id`; arriving there does not wait.
__device__ __forceinline__ void meet(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void pass(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// Hands registers from the warps that load to those that compute.
template <int COUNT>
__device__ __forceinline__ void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT>
__device__ __forceinline__ void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

// The same address by way of another lane: what was read there before is read again, which spares the registers to keep it.
template <class T>
__device__ __forceinline__ const T* read_again(const T* at) {
    return static_cast<const T*>(__cvta_shared_to_generic(__shfl_sync(~0u, shared_address(at), 0)));
}

// The thread's number, read anew: spares the registers that would keep what follows from it.
__device__ __forceinline__ int thread_again() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// Products of 16-bit tiles by wgmma.m64nNk16: a warpgroup (four warps) multiplies 64 rows, f32 accumulators.
//
// Accumulators of 64 rows × N columns: warp w of the warpgroup holds rows 16w..16w+16, of which lane l holds rows l/4 and
// l/4 + 8, columns 8n + 2(l%4) and the next, as c[n][0], c[n][1] and c[n][2], c[n][3].
//
// Tiles in shared memory are panels of PANEL columns, one below the other; a row of a panel is 128, 64 or 32 bytes, and its
// 16-byte pieces are exchanged by the row's number so that eight rows start in different banks: the hardware's swizzle.
constexpr int PANEL = D % 64 == 0 ? 64 : D % 32 == 0 ? 32 : 16;

// Where the element of a tile of ROWS rows lies.
template <int ROWS>
__device__ __forceinline__ int place(int row, int column) {
    const int piece = column % PANEL / 8 ^ row / (64 / PANEL) % (PANEL / 8);
    return (column / PANEL * ROWS + row) * PANEL + piece * 8 + column % 8;
}

// Descriptors of operands in shared memory, in units of 16 bytes: where an operand starts, how far panels and groups of
// eight rows are apart, and the swizzle. Operands further on have descriptors that are larger by how far they are.
constexpr unsigned long long SWIZZLE = PANEL == 64 ? 1 : PANEL == 32 ? 2 : 3, EIGHT_ROWS = PANEL;

// The compiler takes one for new wherever it is asked for: those of operands further on would be computed apart, each with
// its way from a thread's registers to the warp's, and take longer than the products.
__device__ __forceinline__ unsigned long long descriptor(const elem* at, unsigned long long panels_apart) {
    unsigned long long descriptor = (shared_address(at) & 0x3ffff) >> 4 | panels_apart << 16 | EIGHT_ROWS << 32 | SWIZZLE << 62;
    asm volatile("" : "+l"(descriptor));
    return descriptor;
}

// An operand whose inner index runs along the rows of a tile, from column k on.
template <int ROWS>
__device__ __forceinline__ constexpr unsigned long long along(int k) { return (k / PANEL * ROWS * PANEL + k % PANEL) / 8; }

// An operand whose inner index runs across the rows of a tile, from row k on; its columns are those of the tile.
__device__ __forceinline__ constexpr unsigned long long across(int k) { return k * PANEL / 8; }

// A left operand of 64 × 16 in registers, the 16 rows of each warp: rows l/4 and l/4 + 8, columns as accumulators have them.
struct Left { unsigned x[4]; };

// Rows row..row+16 (a warp's own) and columns k..k+16 of a tile.
template <int ROWS>
__device__ __forceinline__ Left load_left(const elem* tile, int row, int k, int lane) {
    Left a;
    const unsigned address = shared_address(tile + place<ROWS>(row + lane % 16, k + lane / 16 * 8));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a.x[0]), "=r"(a.x[1]), "=r"(a.x[2]), "=r"(a.x[3]) : "r"(address) : "memory");
    return a;
}

// The same of the first 16 STEPS columns.
template <int ROWS, int STEPS>
__device__ __forceinline__ void load_left(const elem* tile, int row, Left (&rows)[STEPS], int lane) {
#pragma unroll
    for (int k = 0; k < STEPS; ++k) rows[k] = load_left<ROWS>(tile, row, 16 * k, lane);
}

// Rows n..n+16 of a tile and columns k..k+16, as the right operands of two products of a warp: x[0] and x[1] of the first
// eight rows, x[2] and x[3] of the others.
template <int ROWS>
__device__ __forceinline__ Left load_right(const elem* tile, int n, int k, int lane) {
    Left b;
    const unsigned address = shared_address(tile + place<ROWS>(n + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 8));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b.x[0]), "=r"(b.x[1]), "=r"(b.x[2]), "=r"(b.x[3]) : "r"(address) : "memory");
    return b;
}

// c (16 × 8) += a · bᵀ, by one warp; c is held as by a warp of a warpgroup.
__device__ __forceinline__ void add_warp_product(float (&c)[4], const Left& a, unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
}

// Two neighbouring accumulators, rounded to the element type.
__device__ __forceinline__ Left round_to_left(const float (&c0)[4], const float (&c1)[4]) {
    return {{pack(c0[0], c0[1]), pack(c0[2], c0[3]), pack(c1[0], c1[1]), pack(c1[2], c1[3])}};
}

// Products are queued between start and commit, and run on their own; their accumulators and left operands in registers must
// not be touched until they have been waited for, and `settle` keeps the compiler from doing so earlier.
__device__ __forceinline__ void start_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most PENDING committed groups are under way.
template <int PENDING>
__device__ __forceinline__ void wait_products() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"); }

template <int N>
__device__ __forceinline__ void settle(float (&c)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(c[n][e])::"memory");
}

// c (64 × 32) = a · bᵀ; the rows of both are in shared memory.
__device__ __forceinline__ void set_rows(float (&c)[4][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "%16, %17, 0, 1, 1, 0, 0;"
                 : "=f"(c[0][0]), "=f"(c[0][1]), "=f"(c[0][2]), "=f"(c[0][3]), "=f"(c[1][0]), "=f"(c[1][1]), "=f"(c[1][2]), "=f"(c[1][3]), "=f"(c[2][0]), "=f"(c[2][1]), "=f"(c[2][2]), "=f"(c[2][3]), "=f"(c[3][0]), "=f"(c[3][1]), "=f"(c[3][2]), "=f"(c[3][3])
                 : "l"(a), "l"(b));
}

// c += a · bᵀ.
__device__ __forceinline__ void add_rows(float (&c)[4][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "%16, %17, 1, 1, 1, 0, 0;"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3])
                 : "l"(a), "l"(b));
}

// The same with a in registers.
__device__ __forceinline__ void set_rows(float (&c)[4][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "{%16, %17, %18, %19}, %20, 0, 1, 1, 0;"
                 : "=f"(c[0][0]), "=f"(c[0][1]), "=f"(c[0][2]), "=f"(c[0][3]), "=f"(c[1][0]), "=f"(c[1][1]), "=f"(c[1][2]), "=f"(c[1][3]), "=f"(c[2][0]), "=f"(c[2][1]), "=f"(c[2][2]), "=f"(c[2][3]), "=f"(c[3][0]), "=f"(c[3][1]), "=f"(c[3][2]), "=f"(c[3][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c += a · bᵀ with a in registers.
__device__ __forceinline__ void add_rows(float (&c)[4][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "{%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c = a · b, or added to c; a is in registers.
__device__ __forceinline__ void multiply_weights(float (&c)[4][4], const Left& a, unsigned long long b, bool add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %21, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "{%16, %17, %18, %19}, %20, add, 1, 1, 1;\n}"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b), "r"(static_cast<int>(add)));
}

// c (64 × 64) = a · bᵀ; the rows of both are in shared memory.
__device__ __forceinline__ void set_rows(float (&c)[8][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 0, 1, 1, 0, 0;"
                 : "=f"(c[0][0]), "=f"(c[0][1]), "=f"(c[0][2]), "=f"(c[0][3]), "=f"(c[1][0]), "=f"(c[1][1]), "=f"(c[1][2]), "=f"(c[1][3]), "=f"(c[2][0]), "=f"(c[2][1]), "=f"(c[2][2]), "=f"(c[2][3]), "=f"(c[3][0]), "=f"(c[3][1]), "=f"(c[3][2]), "=f"(c[3][3]), "=f"(c[4][0]), "=f"(c[4][1]), "=f"(c[4][2]), "=f"(c[4][3]), "=f"(c[5][0]), "=f"(c[5][1]), "=f"(c[5][2]), "=f"(c[5][3]), "=f"(c[6][0]), "=f"(c[6][1]), "=f"(c[6][2]), "=f"(c[6][3]), "=f"(c[7][0]), "=f"(c[7][1]), "=f"(c[7][2]), "=f"(c[7][3])
                 : "l"(a), "l"(b));
}

// c += a · bᵀ.
__device__ __forceinline__ void add_rows(float (&c)[8][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1, 1, 1, 0, 0;"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
                 : "l"(a), "l"(b));
}

// The same with a in registers.
__device__ __forceinline__ void set_rows(float (&c)[8][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, 0, 1, 1, 0;"
                 : "=f"(c[0][0]), "=f"(c[0][1]), "=f"(c[0][2]), "=f"(c[0][3]), "=f"(c[1][0]), "=f"(c[1][1]), "=f"(c[1][2]), "=f"(c[1][3]), "=f"(c[2][0]), "=f"(c[2][1]), "=f"(c[2][2]), "=f"(c[2][3]), "=f"(c[3][0]), "=f"(c[3][1]), "=f"(c[3][2]), "=f"(c[3][3]), "=f"(c[4][0]), "=f"(c[4][1]), "=f"(c[4][2]), "=f"(c[4][3]), "=f"(c[5][0]), "=f"(c[5][1]), "=f"(c[5][2]), "=f"(c[5][3]), "=f"(c[6][0]), "=f"(c[6][1]), "=f"(c[6][2]), "=f"(c[6][3]), "=f"(c[7][0]), "=f"(c[7][1]), "=f"(c[7][2]), "=f"(c[7][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c += a · bᵀ with a in registers.
__device__ __forceinline__ void add_rows(float (&c)[8][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c = a · b, or added to c; a is in registers.
__device__ __forceinline__ void multiply_weights(float (&c)[8][4], const Left& a, unsigned long long b, bool add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, add, 1, 1, 1;\n}"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b), "r"(static_cast<int>(add)));
}

// c (64 × 128) = a · bᵀ; the rows of both are in shared memory.
__device__ __forceinline__ void set_rows(float (&c)[16][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 0, 1, 1, 0, 0;"
                 : "=f"(c[0][0]), "=f"(c[0][1]), "=f"(c[0][2]), "=f"(c[0][3]), "=f"(c[1][0]), "=f"(c[1][1]), "=f"(c[1][2]), "=f"(c[1][3]), "=f"(c[2][0]), "=f"(c[2][1]), "=f"(c[2][2]), "=f"(c[2][3]), "=f"(c[3][0]), "=f"(c[3][1]), "=f"(c[3][2]), "=f"(c[3][3]), "=f"(c[4][0]), "=f"(c[4][1]), "=f"(c[4][2]), "=f"(c[4][3]), "=f"(c[5][0]), "=f"(c[5][1]), "=f"(c[5][2]), "=f"(c[5][3]), "=f"(c[6][0]), "=f"(c[6][1]), "=f"(c[6][2]), "=f"(c[6][3]), "=f"(c[7][0]), "=f"(c[7][1]), "=f"(c[7][2]), "=f"(c[7][3]), "=f"(c[8][0]), "=f"(c[8][1]), "=f"(c[8][2]), "=f"(c[8][3]), "=f"(c[9][0]), "=f"(c[9][1]), "=f"(c[9][2]), "=f"(c[9][3]), "=f"(c[10][0]), "=f"(c[10][1]), "=f"(c[10][2]), "=f"(c[10][3]), "=f"(c[11][0]), "=f"(c[11][1]), "=f"(c[11][2]), "=f"(c[11][3]), "=f"(c[12][0]), "=f"(c[12][1]), "=f"(c[12][2]), "=f"(c[12][3]), "=f"(c[13][0]), "=f"(c[13][1]), "=f"(c[13][2]), "=f"(c[13][3]), "=f"(c[14][0]), "=f"(c[14][1]), "=f"(c[14][2]), "=f"(c[14][3]), "=f"(c[15][0]), "=f"(c[15][1]), "=f"(c[15][2]), "=f"(c[15][3])
                 : "l"(a), "l"(b));
}

// c += a · bᵀ.
__device__ __forceinline__ void add_rows(float (&c)[16][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1, 1, 1, 0, 0;"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3]), "+f"(c[8][0]), "+f"(c[8][1]), "+f"(c[8][2]), "+f"(c[8][3]), "+f"(c[9][0]), "+f"(c[9][1]), "+f"(c[9][2]), "+f"(c[9][3]), "+f"(c[10][0]), "+f"(c[10][1]), "+f"(c[10][2]), "+f"(c[10][3]), "+f"(c[11][0]), "+f"(c[11][1]), "+f"(c[11][2]), "+f"(c[11][3]), "+f"(c[12][0]), "+f"(c[12][1]), "+f"(c[12][2]), "+f"(c[12][3]), "+f"(c[13][0]), "+f"(c[13][1]), "+f"(c[13][2]), "+f"(c[13][3]), "+f"(c[14][0]), "+f"(c[14][1]), "+f"(c[14][2]), "+f"(c[14][3]), "+f"(c[15][0]), "+f"(c[15][1]), "+f"(c[15][2]), "+f"(c[15][3])
                 : "l"(a), "l"(b));
}

// The same with a in registers.
__device__ __forceinline__ void set_rows(float (&c)[16][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, 0, 1, 1, 0;"
                 : "=f"(c[0][0]), "=f"(c[0][1]), "=f"(c[0][2]), "=f"(c[0][3]), "=f"(c[1][0]), "=f"(c[1][1]), "=f"(c[1][2]), "=f"(c[1][3]), "=f"(c[2][0]), "=f"(c[2][1]), "=f"(c[2][2]), "=f"(c[2][3]), "=f"(c[3][0]), "=f"(c[3][1]), "=f"(c[3][2]), "=f"(c[3][3]), "=f"(c[4][0]), "=f"(c[4][1]), "=f"(c[4][2]), "=f"(c[4][3]), "=f"(c[5][0]), "=f"(c[5][1]), "=f"(c[5][2]), "=f"(c[5][3]), "=f"(c[6][0]), "=f"(c[6][1]), "=f"(c[6][2]), "=f"(c[6][3]), "=f"(c[7][0]), "=f"(c[7][1]), "=f"(c[7][2]), "=f"(c[7][3]), "=f"(c[8][0]), "=f"(c[8][1]), "=f"(c[8][2]), "=f"(c[8][3]), "=f"(c[9][0]), "=f"(c[9][1]), "=f"(c[9][2]), "=f"(c[9][3]), "=f"(c[10][0]), "=f"(c[10][1]), "=f"(c[10][2]), "=f"(c[10][3]), "=f"(c[11][0]), "=f"(c[11][1]), "=f"(c[11][2]), "=f"(c[11][3]), "=f"(c[12][0]), "=f"(c[12][1]), "=f"(c[12][2]), "=f"(c[12][3]), "=f"(c[13][0]), "=f"(c[13][1]), "=f"(c[13][2]), "=f"(c[13][3]), "=f"(c[14][0]), "=f"(c[14][1]), "=f"(c[14][2]), "=f"(c[14][3]), "=f"(c[15][0]), "=f"(c[15][1]), "=f"(c[15][2]), "=f"(c[15][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c += a · bᵀ with a in registers.
__device__ __forceinline__ void add_rows(float (&c)[16][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3]), "+f"(c[8][0]), "+f"(c[8][1]), "+f"(c[8][2]), "+f"(c[8][3]), "+f"(c[9][0]), "+f"(c[9][1]), "+f"(c[9][2]), "+f"(c[9][3]), "+f"(c[10][0]), "+f"(c[10][1]), "+f"(c[10][2]), "+f"(c[10][3]), "+f"(c[11][0]), "+f"(c[11][1]), "+f"(c[11][2]), "+f"(c[11][3]), "+f"(c[12][0]), "+f"(c[12][1]), "+f"(c[12][2]), "+f"(c[12][3]), "+f"(c[13][0]), "+f"(c[13][1]), "+f"(c[13][2]), "+f"(c[13][3]), "+f"(c[14][0]), "+f"(c[14][1]), "+f"(c[14][2]), "+f"(c[14][3]), "+f"(c[15][0]), "+f"(c[15][1]), "+f"(c[15][2]), "+f"(c[15][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c = a · b, or added to c; a is in registers.
__device__ __forceinline__ void multiply_weights(float (&c)[16][4], const Left& a, unsigned long long b, bool add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}"
                 : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3]), "+f"(c[8][0]), "+f"(c[8][1]), "+f"(c[8][2]), "+f"(c[8][3]), "+f"(c[9][0]), "+f"(c[9][1]), "+f"(c[9][2]), "+f"(c[9][3]), "+f"(c[10][0]), "+f"(c[10][1]), "+f"(c[10][2]), "+f"(c[10][3]), "+f"(c[11][0]), "+f"(c[11][1]), "+f"(c[11][2]), "+f"(c[11][3]), "+f"(c[12][0]), "+f"(c[12][1]), "+f"(c[12][2]), "+f"(c[12][3]), "+f"(c[13][0]), "+f"(c[13][1]), "+f"(c[13][2]), "+f"(c[13][3]), "+f"(c[14][0]), "+f"(c[14][1]), "+f"(c[14][2]), "+f"(c[14][3]), "+f"(c[15][0]), "+f"(c[15][1]), "+f"(c[15][2]), "+f"(c[15][3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b), "r"(static_cast<int>(add)));
}

// scores = 64 rows of a tile of LEFT_ROWS rows · the first COLUMNS rows of a tile of ROWS rows, over the head dimension, both
// by their descriptors.
template <int LEFT_ROWS, int ROWS, int COLUMNS>
__device__ __forceinline__ void product(float (&scores)[COLUMNS / 8][4], unsigned long long left, unsigned long long right) {
    set_rows(scores, left, right);
#pragma unroll
    for (int k = 16; k < D; k += 16) add_rows(scores, left + along<LEFT_ROWS>(k), right + along<ROWS>(k));
}

// The same with left operands in registers.
template <int ROWS, int COLUMNS, int STEPS>
__device__ __forceinline__ void product(float (&scores)[COLUMNS / 8][4], const Left (&left)[STEPS], unsigned long long right) {
    set_rows(scores, left[0], right);
#pragma unroll
    for (int k = 1; k < STEPS; ++k) add_rows(scores, left[k], right + along<ROWS>(16 * k));
}

// Weights rounded to the element type, as left operands.
template <int COLUMNS, int MOST>
__device__ __forceinline__ void round_weights(Left (&left)[MOST], const float (&weights)[COLUMNS / 8][4]) {
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; ++k) left[k] = round_to_left(weights[2 * k], weights[2 * k + 1]);
}

// sum = weights · the first COLUMNS rows of a tile, by the descriptor of its columns, or added to sum.
template <int COLUMNS, int WIDTH, int MOST>
__device__ __forceinline__ void add_weighted(float (&sum)[WIDTH / 8][4], const Left (&weights)[MOST], unsigned long long right, bool add) {
#pragma unroll
    for (int k = 0; k < COLUMNS / 16; ++k) multiply_weights(sum, weights[k], right + across(16 * k), add || k > 0);
}

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
    static constexpr int POSITIONS = 32, HEADS = 4, PARTS = 1;
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
    float lse;
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
    const float delta = a.row_dot_delta[(s.row * a.hq + head) * a.n + token];
    r.lse = lse;
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
};

__device__ __forceinline__ void load_column_values(const Arguments& a, const Uniform& x, const Sequence& s, int g, Column& c) {
    const int j = c.j;
    const long long token = s.start + j;
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
struct RowPair { float weight_q, d_gate; };
// What a pair adds to the sums of a key.
struct KeyPair { float weight_k, weight_v, sum_0; };
// Those of one pair that is seen; dot_qk is q · k, dot_dov d_o · v.
__device__ __forceinline__ RowPair row_pair(const Uniform& x, const Row& r, const Column& c, float gate, float dot_qk, float dot_dov) {
    const float t9 = dot_qk * 0.088388346f;
    const float s_10 = t9 * gate;
    const float p_13 = exponential(s_10 - r.lse);
    const float d_s = p_13 * (dot_dov - r.delta);
    RowPair pair = {};
    pair.weight_q = d_s * gate;
    pair.d_gate = d_s * t9;
    return pair;
}

// Those of one pair that is seen; dot_qk is q · k, dot_dov d_o · v.
__device__ __forceinline__ KeyPair key_pair(const Uniform& x, const Row& r, const Column& c, float gate, float dot_qk, float dot_dov) {
    const float t9 = dot_qk * 0.088388346f;
    const float s_10 = t9 * gate;
    const float p_13 = exponential(s_10 - r.lse);
    const float d_s = p_13 * (dot_dov - r.delta);
    KeyPair pair = {};
    pair.weight_k = d_s * gate;
    pair.weight_v = p_13;
    pair.sum_0 = d_s * t9;
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

// A block stays on its multiprocessor and takes tiles in turn. One warpgroup loads: it looks rows up and copies vectors, as far
// ahead as shared memory allows. The others compute, 64 rows of the tile that stays each.
constexpr int GROUPS = TILE_Q / 64;  // warpgroups that compute
constexpr int COMPUTING = 128 * GROUPS, LOADING = 128, THREADS = COMPUTING + LOADING;

// Hardware barriers: of the warps that load, of all that compute, and of each warpgroup that computes.
enum { LOADING_BARRIER = 1, COMPUTING_BARRIER = 2, GROUP_BARRIER = 3, TURN_BARRIER = 5 };

// Two warpgroups that compute take turns with the tensor cores, so that one works on pairs while they multiply for the other:
// sharing them they would end at the same time and fall into step. Both take the same number of turns.
__device__ __forceinline__ void start_turns(int group) {
    if (GROUPS == 2 && group == 1) pass(TURN_BARRIER, COMPUTING);
}
__device__ __forceinline__ void take_turn(int group) {
    if (GROUPS == 2) meet(TURN_BARRIER + group, COMPUTING);
}
__device__ __forceinline__ void end_turn(int group) {
    if (GROUPS == 2) pass(TURN_BARRIER + 1 - group, COMPUTING);
}

// A number that is the same for all of a warp, in a way that the compiler knows: descriptors made of it are computed in the
// warp's registers, where products need them, and not brought there from a thread's for every product.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }

// Which of the warpgroups that compute the thread belongs to; `group_again` finds it anew, where registers are short.
__device__ __forceinline__ int own_group() { return uniform((static_cast<int>(threadIdx.x) - LOADING) / 128); }
__device__ __forceinline__ int group_again() { return (thread_again() - LOADING) / 128; }

// The first row of a tile that a computing thread has; it has the one 8 further too.
__device__ __forceinline__ int first_row(int thread) { return (thread - LOADING) / 32 * 16 + thread % 32 / 4; }

// Position in a ring of N buffers.
template <int N>
__device__ __forceinline__ int stage_of(int step) { return step % N; }
template <int N>
__device__ __forceinline__ unsigned full_parity(int step) { return step / N & 1; }
template <int N>
__device__ __forceinline__ unsigned empty_parity(int step) { return step / N & 1 ^ 1; }

// Which tile a block takes next: whoever is done first takes the next one. All threads that load get the number.
__device__ __forceinline__ int take_next(int* taken, int& shared_next) {
    meet(LOADING_BARRIER, LOADING);
    if (threadIdx.x == 0) shared_next = atomicAdd(taken, 1);
    meet(LOADING_BARRIER, LOADING);
    return shared_next;
}

// The rows of a tile that one warp of the loading warpgroup looks after, one to a lane; lanes beyond have none.
template <int ROWS>
constexpr int SHARE = ROWS / 4;

template <int ROWS>
__device__ __forceinline__ bool own_row(int& row) {
    const int lane = threadIdx.x % 32;
    row = threadIdx.x / 32 * SHARE<ROWS> + lane;
    return lane < SHARE<ROWS>;
}

// 16-byte pieces of a vector, and how many a lane copies of a tile of ROWS rows: piece 32 n + lane of its warp's share is its
// nth one.
constexpr int PIECES = D / 8;
template <int ROWS>
constexpr int COPIES = (SHARE<ROWS> * PIECES + 31) / 32;

// The row of a piece within the share, and whether there is one.
template <int ROWS>
__device__ __forceinline__ int piece_row(int n) { return min((32 * n + static_cast<int>(threadIdx.x) % 32) / PIECES, SHARE<ROWS> - 1); }
template <int ROWS>
__device__ __forceinline__ bool has_piece(int n) {
    return SHARE<ROWS> * PIECES % 32 == 0 || 32 * n + static_cast<int>(threadIdx.x) % 32 < SHARE<ROWS> * PIECES;
}

// Where the piece lies in its vector and in the tile.
__device__ __forceinline__ int piece_from(int n) { return (32 * n + static_cast<int>(threadIdx.x) % 32) % PIECES * 8; }
template <int ROWS>
__device__ __forceinline__ int piece_place(int n) {
    const int first_row = threadIdx.x / 32 * SHARE<ROWS>;
    if constexpr (32 % PIECES == 0) {
        // The same piece of every row, and rows are exchanged in the same way every eight of them.
        const int row = 32 / PIECES * n, turn = row / (64 / PANEL) % (PANEL / 8) * 8;
        return (place<ROWS>(first_row + piece_row<ROWS>(0), piece_from(0)) ^ turn) + row * PANEL;
    } else {
        return place<ROWS>(first_row + piece_row<ROWS>(n), piece_from(n));
    }
}

// Starts copying the vectors of the warp's rows of a tile, `own` being where that of a row starts, in units of 16 bytes from
// `tensor`: 32 bits reach over 64 GB. Lane `first` has the first row, and those after it the others. BATCH vectors are
// exchanged before their copies start, so that the exchanges overlap.
template <int ROWS, int BATCH>
__device__ __forceinline__ void copy_vectors(elem* to, const elem* tensor, unsigned own, int first = 0) {
    constexpr int AT_ONCE = COPIES<ROWS> < BATCH ? COPIES<ROWS> : COPIES<ROWS> % BATCH == 0 ? BATCH : 1;
    constexpr bool SAME_PIECE = 32 % PIECES == 0;
    // Addresses of bytes, from a base that the compiler does not take apart: one product with an addition each.
    const unsigned tile = shared_address(to);
    unsigned long long base = reinterpret_cast<unsigned long long>(tensor + (SAME_PIECE ? piece_from(0) : 0));
    asm volatile("" : "+l"(base));
#pragma unroll 1
    for (int n = 0; n < COPIES<ROWS>; n += AT_ONCE) {
        unsigned vectors[AT_ONCE];
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) vectors[e] = __shfl_sync(~0u, own, first + piece_row<ROWS>(n + e));
#pragma unroll
        for (int e = 0; e < AT_ONCE; ++e) {
            if (!has_piece<ROWS>(n + e)) continue;
            const unsigned long long from = base + 16ull * vectors[e] + (SAME_PIECE ? 0 : sizeof(elem) * piece_from(n + e));
            copy_16(tile + static_cast<unsigned>(sizeof(elem)) * piece_place<ROWS>(n + e), from);
        }
    }
}

// A tensor [B, N, heads, D] as the rows of a tile read it: from one position on.
struct Vectors {
    const elem* start;
    unsigned position, head;  // strides

    __device__ __forceinline__ Vectors(const elem* tensor, long long batch, long long position, long long head, const Sequence& s, int from)
        : start(tensor + s.row * batch + (s.start + from) * position), position(position / 8), head(head / 8) {}

    __device__ __forceinline__ unsigned of(int i, int h) const { return i * position + h * head; }
};

// A block accumulates all columns of the head dimension.
template <int WIDTH>
__device__ __forceinline__ int slice_from() { return 0; }

// Two values of neighbouring rows or columns, read at once.
template <class T>
struct alignas(2 * sizeof(T)) Two { T of[2]; };

template <class T>
__device__ __forceinline__ Two<T> read_two(const T* from) { return *reinterpret_cast<const Two<T>*>(from); }

// Four lanes hold four values each; lane l gets value l of every one of them, in their order.
__device__ __forceinline__ void transpose(unsigned (&x)[4], int lane) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i & bit) continue;
            const bool upper = lane & bit;
            const unsigned other = __shfl_xor_sync(~0u, upper ? x[i] : x[i + bit], bit);
            if (upper) x[i] = other;
            else x[i + bit] = other;
        }
}

// Stores the vector that four lanes hold as row `h` of accumulators, times a factor; 16 bytes at a time where its length allows.
__device__ __forceinline__ void store_vector(elem* to, const float (&c)[D / 8][4], int h, float factor, bool valid, int lane) {
    constexpr int WHOLE = D / 8 / 4 * 4;
#pragma unroll
    for (int n = 0; n < WHOLE; n += 4) {
        unsigned x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) x[i] = pack(c[n + i][2 * h] * factor, c[n + i][2 * h + 1] * factor);
        transpose(x, lane);
        if (valid) *reinterpret_cast<uint4*>(to + 8 * (n + lane % 4)) = make_uint4(x[0], x[1], x[2], x[3]);
    }
#pragma unroll
    for (int n = WHOLE; n < D / 8; ++n)
        if (valid) store_pair(to + 8 * n + lane % 4 * 2, c[n][2 * h] * factor, c[n][2 * h + 1] * factor);
}

// The data of a streamed tile's columns, value by value: those of neighbouring columns are read together.
struct StreamedColumns {
    int from[TILE_KV], to[TILE_KV];
    int j[TILE_KV];
    float score[TILE_KV];

    __device__ __forceinline__ void write(bool valid, int at, const Column& c) {
        store_if(valid, from + at, c.from);
        store_if(valid, to + at, c.to);
        store_if(valid, j + at, c.j);
        store_if(valid, score + at, c.score);
    }

    // Columns `at`, which is even, and `at` + 1.
    __device__ __forceinline__ void read(int at, Column (&c)[2]) const {
        const auto two_from = read_two(from + at), two_to = read_two(to + at), two_j = read_two(j + at);
        const auto two_score = read_two(score + at);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            c[e].from = two_from.of[e];
            c[e].to = two_to.of[e];
            c[e].j = two_j.of[e];
            c[e].score = two_score.of[e];
        }
    }
};

// How a tile of columns is treated: pairs one by one, all of them seen, or all of them seen in the window, where gates are 1.
enum Kind { MASKED, FULL, WINDOWED };

// Tiles of keys of a tile of queries: at least one, which may be empty.
__device__ __forceinline__ int tile_steps(int columns) { return max(1, (columns + TILE_KV - 1) / TILE_KV); }

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
}

// The row sweep: a tile of queries stays, the keys it sees stream past. Gives d_q and sums over keys. One warpgroup works on
// pairs while the tensor cores multiply for the other: its weights with the keys they are of, and its rows with the keys
// that come next.

// What is known of a tile of queries that stays: its rows, how many tiles of columns stream past, and how many columns every
// row sees: selected keys, then all.
struct RowsHeader {
    Row rows[TILE_Q];
    float threshold[TILE_Q];
    Tile tile;
    int tiles, lasting, seen;
};

// A tile is stored while the vectors of the next one are copied.
constexpr int HEADERS = 2;

struct RowsShared {
    alignas(1024) elem q[TILE_Q * D];
    alignas(1024) elem d_o[TILE_Q * D];
    alignas(1024) elem k[STAGES][TILE_KV * D];
    alignas(1024) elem v[STAGES][TILE_KV * D];
    RowsHeader headers[HEADERS];
    StreamedColumns columns[STAGES];
    int next;
    Barrier rows_full[HEADERS], headers_empty[HEADERS], queries_empty, full[STAGES], empty[STAGES];
};
static_assert(sizeof(RowsShared) <= ROWS_SHARED, "the launch gives less");

// Announces a tile of queries, number `taken` of the block, and starts copying its vectors.
__device__ __forceinline__ void announce(const Arguments& a, const Uniform& x, const Tile& tile, const TileColumns& all, RowsShared& shared,
                                         int taken) {
    RowsHeader& header = shared.headers[taken % HEADERS];
    int own;
    Row r = {};
    r.i = -1;
    const bool has_row = own_row<TILE_Q>(own);
    if (has_row) r = load_row<RowTile>(a, x, tile, own);
    const Vectors q(a.q, a.q_batch, a.q_position, a.q_head, tile.s, tile.from);
    const Vectors d_o(a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, tile.s, tile.from);
    // Rows that stand for no query have the vectors of some.
    const int i = r.i < 0 ? 0 : r.i - tile.from, head = r.i < 0 ? tile.g * GROUP : r.head;
    shared.headers_empty[taken % HEADERS].wait(empty_parity<HEADERS>(taken));
    if (has_row) header.rows[own] = r;
    if (threadIdx.x == 0) {
        header.tile = tile;
        header.tiles = tile_steps(all.total);
        header.lasting = all.lasting;
        header.seen = all.shared;
    }
    shared.queries_empty.wait(empty_parity<1>(taken));
    copy_vectors<TILE_Q, 8>(shared.q, q.start, q.of(i, head));
    copy_vectors<TILE_Q, 8>(shared.d_o, d_o.start, d_o.of(i, head));
    shared.rows_full[taken % HEADERS].arrive();
    shared.rows_full[taken % HEADERS].arrive_when_copied();
}

// Looks tiles of queries up and copies what they need: the first keys before the queries, which wait for the tile before.
__device__ __forceinline__ void load_row_tiles(const Arguments& a, RowsShared& shared) {
    const int blocks = block_count<POSITIONS>(a);
    int step = 0;
    for (int taken = 0;; ++taken) {
        Tile tile;
        long long id;
        do id = take_next(a.taken, shared.next);
        while (id < blocks * a.hkv && !find_tile_in_order<RowTile>(a, id, tile));
        if (id >= blocks * a.hkv) {
            shared.headers_empty[taken % HEADERS].wait(empty_parity<HEADERS>(taken));
            shared.headers[taken % HEADERS].tiles = -1;
            shared.rows_full[taken % HEADERS].arrive();
            shared.rows_full[taken % HEADERS].arrive_when_copied();
            return;
        }
        const TileColumns all = tile_columns(a, tile);
        const int tiles = tile_steps(all.total);
        const Uniform x = load_uniform(a, tile.s, tile.g);
        const Vectors k(a.k, a.k_batch, a.k_position, a.k_head, tile.s, 0), v(a.v, a.v_batch, a.v_position, a.v_head, tile.s, 0);
        int own;
        const bool has_column = own_row<TILE_KV>(own);
        bool window = false;
        int j = has_column ? column_key(all, own, window) : -1;
#pragma unroll 1
        for (int t = 0; t < tiles; ++t, ++step) {
            const Column c = load_column(a, x, tile, j, window);
            const int stage = stage_of<STAGES>(step);
            const int key = j < 0 ? tile.from : j;  // columns without a key are masked
            const unsigned own_k = k.of(key, tile.g), own_v = v.of(key, tile.g);
            j = t + 1 < tiles && has_column ? column_key(all, (t + 1) * TILE_KV + own, window) : -1;
            shared.empty[stage].wait(empty_parity<STAGES>(step));
            copy_vectors<TILE_KV, 8>(shared.k[stage], k.start, own_k);
            copy_vectors<TILE_KV, 8>(shared.v[stage], v.start, own_v);
            shared.columns[stage].write(has_column, own, c);
            shared.full[stage].arrive();
            shared.full[stage].arrive_when_copied();
            if (t == 0) announce(a, x, tile, all, shared, taken);
        }
    }
}

// Sums over keys of the two rows that a lane holds, a quarter of each.
struct RowSums {
    float threshold[2];
    float sums[2][ROW_SUMS + 1];
};

// Columns whose pairs are worked on at once, so that they hide what each waits for, where there are registers for that.
constexpr int AT_ONCE = ROWS_HELD > 0 ? 8 : 32;

// Products of vectors become weights of the keys; sums grow.
template <Kind KIND>
__device__ __forceinline__ void weigh_keys(const Uniform& x, const Row* queries, const StreamedColumns& columns,
                                           float (&scores)[TILE_KV / 8][4], const float (&products)[TILE_KV / 8][4], RowSums& sums,
                                           int lane, int none) {
    constexpr bool ALL = KIND != MASKED;
    const Row rows[2] = {queries[0], queries[8]};
    int at = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < TILE_KV / 8; ++n) {
        // Keeps the compiler from reading the data of all columns ahead, into registers that there are not. Where pairs take many
        // instructions it would still work on most of them at once: there, where columns are follows from a result before.
        if (8 * n % AT_ONCE == 0) __syncwarp();
        if (COLUMNS_IN_TURN && n > 0 && 8 * n % AT_ONCE == 0) at |= __float_as_int(scores[n - 2][3]) & none;
        Column c[2];
        columns.read(8 * n + at, c);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[h];
                const float gate = KIND == WINDOWED ? 1.0f : gate_of(r, c[e]);
                RowPair pair = row_pair(x, r, c[e], gate, scores[n][2 * h + e], products[n][2 * h + e]);
                if (!sees<ALL>(x, r, c[e])) pair = {};
                scores[n][2 * h + e] = pair.weight_q;
                if (is_fraction(gate)) sums.threshold[h] += pair.d_gate;
            }
    }
}

// The rows of a warp, as left operands of all products with keys, where there are registers for them: 64 rows and 64 keys that
// are both read from shared memory take its whole bandwidth.
struct Held { Left q[ROWS_HELD > 0 ? D / 16 : 1], d_o[ROWS_HELD > 1 ? D / 16 : 1]; };

__device__ __forceinline__ void hold_rows(const RowsShared& shared, Held& held) {
    const int thread = thread_again(), row = (thread - LOADING) / 32 * 16, lane = thread % 32;
    if constexpr (ROWS_HELD > 0) load_left<TILE_Q>(shared.q, row, held.q, lane);
    if constexpr (ROWS_HELD > 1) load_left<TILE_Q>(shared.d_o, row, held.d_o, lane);
}

// Starts the products of a streamed tile that is there: q · k and d_o · v.
__device__ __forceinline__ void multiply_keys(const RowsShared& shared, const Held& held, int stage, int group,
                                              float (&scores)[TILE_KV / 8][4], float (&products)[TILE_KV / 8][4]) {
    const unsigned long long keys = descriptor(shared.k[stage], 1), values = descriptor(shared.v[stage], 1);
    if constexpr (ROWS_HELD > 0) product<TILE_KV, TILE_KV>(scores, held.q, keys);
    else product<TILE_Q, TILE_KV, TILE_KV>(scores, descriptor(shared.q + 64 * group * PANEL, 1), keys);
    if constexpr (ROWS_HELD > 1) product<TILE_KV, TILE_KV>(products, held.d_o, values);
    else product<TILE_Q, TILE_KV, TILE_KV>(products, descriptor(shared.d_o + 64 * group * PANEL, 1), values);
    commit_products();
}

__device__ __forceinline__ void store_rows(const Arguments& a, const Uniform& x, const Tile& tile, const Row* rows,
                                           const RowSums& sums, const float (&d_q)[D / 8][4], float* threshold, int row, int lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const Row& r = rows[8 * h];
        const long long token = tile.s.start + r.i;
        float sum[ROW_SUMS + 1];
#pragma unroll
        for (int n = 0; n < ROW_SUMS; ++n) sum[n] = row_sum(sums.sums[h][n]);
        const float of_threshold = row_sum(sums.threshold[h]);
        if (lane % 4 == 0) threshold[row + 8 * h] = r.i < 0 ? 0.0f : of_threshold;
        elem* to = a.d_q + tile.s.row * a.d_q_batch + token * a.d_q_position + r.head * a.d_q_head;
        store_vector(to, d_q, h, FACTOR_Q, r.i >= 0, lane);
        if (r.i >= 0 && lane % 4 == 0) store_row_values(a, x, tile.s, tile.g, r, sum);
    }
}

// The threshold's gradient of a query is summed over the heads of the group.
__device__ __forceinline__ void store_threshold(const Arguments& a, const Tile& tile, const float* threshold, int group) {
    // Where all heads of a position belong to one warpgroup, warpgroups need not wait for each other.
    constexpr bool APART = 64 % RowTile::HEADS == 0;
    constexpr int POSITIONS_HERE = APART ? 64 / RowTile::HEADS : RowTile::POSITIONS, THREADS_HERE = APART ? 128 : COMPUTING;
    if constexpr (APART) meet(GROUP_BARRIER + group, 128);
    else meet(COMPUTING_BARRIER, COMPUTING);
    const int first = APART ? POSITIONS_HERE * group : 0, end = min(first + POSITIONS_HERE, tile.to - tile.from);
    for (int i = first + (threadIdx.x - LOADING) % THREADS_HERE; i < end; i += THREADS_HERE) {
        double total = 0.0;
        for (int h = 0; h < GROUP; ++h) total += threshold[i * GROUP + h];
        a.threshold_rows[(tile.s.row * a.hkv + tile.g) * a.n + tile.s.start + tile.from + i] = total;
    }
}

__device__ __forceinline__ void compute_rows(const Arguments& a, RowsShared& shared) {
    const int group = own_group();
    int step = 0;
    start_turns(group);
    for (int taken = 0;; ++taken) {
        RowsHeader& header = shared.headers[taken % HEADERS];
        shared.rows_full[taken % HEADERS].wait(full_parity<HEADERS>(taken));
        const int tiles = header.tiles;
        if (tiles < 0) return;
        const Uniform x = load_uniform(a, header.tile.s, header.tile.g);
        RowSums sums = {};
        float d_q[D / 8][4] = {};
        float scores[TILE_KV / 8][4], products[TILE_KV / 8][4];
        const int first = uniform(stage_of<STAGES>(step));
        shared.full[first].wait(full_parity<STAGES>(step));
        Held held;
        hold_rows(shared, held);
        take_turn(group);
        start_products();
        multiply_keys(shared, held, first, group, scores, products);
        end_turn(group);
#pragma unroll 1
        for (int t = 0;; ++t, ++step) {
            const int stage = uniform(stage_of<STAGES>(step)), next = uniform(stage_of<STAGES>(step + 1));
            wait_products<0>();
            settle(scores);
            settle(products);
            const bool more = t + 1 < tiles;
            if (!more) shared.queries_empty.arrive();
            const StreamedColumns& columns = shared.columns[stage];
            const int thread = thread_again(), lane = thread % 32;
            const Row* rows = header.rows + first_row(thread);
            // Zero, which the compiler does not know.
            const int none = COLUMNS_IN_TURN ? header.seen >> 31 : 0;
            // Columns that all rows see come first: the selected ones, then the window's.
            if ((t + 1) * TILE_KV > header.seen) weigh_keys<MASKED>(x, rows, columns, scores, products, sums, lane, none);
            else if (t * TILE_KV < header.lasting) weigh_keys<FULL>(x, rows, columns, scores, products, sums, lane, none);
            else weigh_keys<WINDOWED>(x, rows, columns, scores, products, sums, lane, none);
            Left weights[TILE_KV / 16];
            round_weights<TILE_KV>(weights, scores);
            if (more) shared.full[next].wait(full_parity<STAGES>(step + 1));
            take_turn(group);
            start_products();
            add_weighted<TILE_KV, D>(d_q, weights, descriptor(shared.k[stage], TILE_KV * PANEL / 8), true);
            commit_products();
            // The loop ends here, where no products with the next keys are under way: where its end could be reached with some,
            // ptxas would add a wait.
            if (!more) break;
            start_products();
            multiply_keys(shared, held, next, group, scores, products);
            wait_products<1>();
            shared.empty[stage].arrive();
            wait_products<0>();
            settle(scores);
            settle(products);
            end_turn(group);
        }
        end_turn(group);
        wait_products<0>();
        shared.empty[stage_of<STAGES>(step)].arrive();
        ++step;
        settle(d_q);
        const int thread = thread_again(), row = first_row(thread);
        store_rows(a, x, header.tile, header.rows + row, sums, d_q, header.threshold, row, thread % 32);
        store_threshold(a, header.tile, header.threshold, group);
        shared.headers_empty[taken % HEADERS].arrive();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_rows(const __grid_constant__ Arguments a) {
    extern __shared__ __align__(1024) unsigned char memory[];
    RowsShared& shared = *reinterpret_cast<RowsShared*>(memory);
    if (threadIdx.x == 0) {
        for (int h = 0; h < HEADERS; ++h) {
            shared.rows_full[h].start(2 * LOADING);
            shared.headers_empty[h].start(COMPUTING);
        }
        shared.queries_empty.start(COMPUTING);
        for (int s = 0; s < STAGES; ++s) {
            shared.full[s].start(2 * LOADING);
            shared.empty[s].start(COMPUTING);
        }
        fence_barriers();
    }
    __syncthreads();
    if (threadIdx.x < LOADING) {
        give_registers<ROWS_LOADING_REGISTERS>();
        load_row_tiles(a, shared);
    } else {
        take_registers<ROWS_COMPUTING_REGISTERS>();
        compute_rows(a, shared);
    }
    // The sweep of selected keys may be under way still, of which nothing is read here; what it was behind has ended.
    wait_for_earlier_launches();
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

// The key sweep: a tile of keys stays, the queries that see them stream past. Gives d_k, d_v and sums over queries. One
// warpgroup works on pairs while the tensor cores multiply for the other.
//
// Pairs in the window are swept by blocks of consecutive keys. Selected keys are swept for spans of queries, two chunks each;
// what a span gives is left in `partial`, collected over the spans in their order, and added by the window's sweep.

// The data of a streamed tile's rows, value by value: those of neighbouring rows are read together.
struct StreamedRows {
    int i[STREAM], head[STREAM];
    float tau[STREAM];
    float lse[STREAM];
    float delta[STREAM];
    int from[2];  // first position of the tile

    __device__ __forceinline__ void write(int at, const Row& r) {
        i[at] = r.i;
        head[at] = r.head;
        tau[at] = r.tau;
        lse[at] = r.lse;
        delta[at] = r.delta;
    }

    // Rows `at`, which is even, and `at` + 1.
    __device__ __forceinline__ void read(int at, Row (&r)[2]) const {
        const auto two_i = read_two(i + at), two_head = read_two(head + at);
        const auto two_tau = read_two(tau + at);
        const auto two_lse = read_two(lse + at);
        const auto two_delta = read_two(delta + at);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            r[e].i = two_i.of[e];
            r[e].head = two_head.of[e];
            r[e].tau = two_tau.of[e];
            r[e].lse = two_lse.of[e];
            r[e].delta = two_delta.of[e];
        }
    }
};

struct KeysShared {
    alignas(1024) elem k[TILE_Q * D];
    alignas(1024) elem v[TILE_Q * D];
    alignas(1024) elem q[STREAMED][STREAM * D];
    alignas(1024) elem d_o[STREAMED][STREAM * D];
    StreamedRows rows[STREAMED];
    Column columns[TILE_Q];
    // The tile that stays and the one before, whose gradients are still being stored; the queries that see some key of each
    // loading warp's share; how many tiles stream.
    KeyTile keys[2];
    int2 seen[4];
    int2 seen_whole[TILE_Q / 16];  // the queries that see all of 16 keys
    int tiles;
    int next;
    Barrier keys_full, keys_empty, full[STREAMED], empty[STREAMED];
};
static_assert(sizeof(KeysShared) <= KEYS_SHARED, "the launch gives less");

// Tile number `id` of all key-value heads; false for an empty one.
template <bool SELECTED>
__device__ __forceinline__ bool find_keys(const Arguments& a, long long id, KeyTile& keys) {
    if constexpr (SELECTED) {
        // What is beyond the tiles that most lists fill comes last: tiles of few keys, which take less time.
        const long long spans = block_count<SPAN>(a), usual = spans * a.hkv * FILLED_TILES;
        const int tiles = id < usual ? FILLED_TILES : SPAN_TILES - FILLED_TILES;
        const long long list = (id < usual ? id : id - usual) / tiles;
        const int tile = static_cast<int>((id < usual ? id : id - usual + FILLED_TILES) - list * tiles);
        return find_selected(a, list % spans, tile, list / spans, keys);
    } else {
        const int blocks = block_count<TILE_Q>(a);
        return find_consecutive(a, id % blocks, id / blocks, keys);
    }
}

template <bool SELECTED>
__device__ __forceinline__ long long key_tiles(const Arguments& a) {
    return SELECTED ? static_cast<long long>(SPAN_TILES) * block_count<SPAN>(a) * a.hkv : block_count<TILE_Q>(a) * a.hkv;
}

// The queries that see some key of the shares of loading warps [begin, end).
__device__ __forceinline__ int2 seen_by(const KeysShared& shared, int begin, int end) {
    int2 all = shared.seen[begin];
    for (int w = begin + 1; w < end; ++w) all = {min(all.x, shared.seen[w].x), max(all.y, shared.seen[w].y)};
    return all;
}

template <bool SELECTED>
__device__ __forceinline__ void load_key_tiles(const Arguments& a, KeysShared& shared) {
    const int warp = threadIdx.x / 32;
    int step = 0;
    for (int taken = 0;; ++taken) {
        KeyTile keys;
        long long id;
        do id = take_next(a.taken + (SELECTED ? 1 : 2), shared.next);
        while (id < key_tiles<SELECTED>(a) && !find_keys<SELECTED>(a, id, keys));
        const bool done = id >= key_tiles<SELECTED>(a);
        int own;
        const int j = !done && own_row<TILE_Q>(own) ? key_of<SELECTED>(a, keys, own) : -1;
        const Uniform x = done ? Uniform{} : load_uniform(a, keys.s, keys.g);
        const Column c = key_column<SELECTED>(a, x, keys, j);
        shared.keys_empty.wait(taken & 1 ^ 1);
        if (done) {
            shared.tiles = -1;
            shared.keys_full.arrive();
            shared.keys_full.arrive_when_copied();
            return;
        }
        if (own_row<TILE_Q>(own)) shared.columns[own] = c;
        const Vectors k(a.k, a.k_batch, a.k_position, a.k_head, keys.s, 0), v(a.v, a.v_batch, a.v_position, a.v_head, keys.s, 0);
        copy_vectors<TILE_Q, 2>(shared.k, k.start, k.of(max(j, 0), keys.g));
        copy_vectors<TILE_Q, 2>(shared.v, v.start, v.of(max(j, 0), keys.g));
        const int first = __reduce_min_sync(~0u, j < 0 ? 0x7fffffff : max(c.from, keys.from));
        const int last = __reduce_max_sync(~0u, j < 0 ? 0 : min(c.to, keys.to));
        if (threadIdx.x % 32 == 0) shared.seen[warp] = {first, last};
        const unsigned half = 0xffffu << threadIdx.x % 32 / 16 * 16;
        const int latest_from = __reduce_max_sync(half, j < 0 ? 0x7fffffff : c.from);
        const int earliest_to = __reduce_min_sync(half, j < 0 ? 0 : min(c.to, keys.to));
        if (own_row<TILE_Q>(own) && own % 16 == 0) shared.seen_whole[own / 16] = {latest_from, earliest_to};
        meet(LOADING_BARRIER, LOADING);
        const int2 seen = seen_by(shared, 0, 4);
        const int tiles = streamed_tiles(seen.x, seen.y);
        keys.from = seen.x;
        keys.to = seen.y;
        if (threadIdx.x == 0) {
            shared.keys[taken % 2] = keys;
            shared.tiles = tiles;
        }
        shared.keys_full.arrive();
        shared.keys_full.arrive_when_copied();

        const Vectors q(a.q, a.q_batch, a.q_position, a.q_head, keys.s, 0), d_o(a.d_o, a.d_o_batch, a.d_o_position, a.d_o_head, keys.s, 0);
#pragma unroll 1
        for (int t = 0; t < tiles; ++t, ++step) {
            const Tile tile = streamed_tile(keys, t);
            const int stage = stage_of<STREAMED>(step);
            Row r = {};
            r.i = -1;
            const bool has_row = own_row<STREAM>(own);
            if (has_row) r = load_row<StreamTile>(a, x, tile, own);
            shared.empty[stage].wait(empty_parity<STREAMED>(step));
            // Rows that stand for no query have the vectors of some.
            const int i = r.i < 0 ? tile.from : r.i, head = r.i < 0 ? keys.g * GROUP : r.head;
            copy_vectors<STREAM, 4>(shared.q[stage], q.start, q.of(i, head));
            copy_vectors<STREAM, 4>(shared.d_o[stage], d_o.start, d_o.of(i, head));
            if (has_row) shared.rows[stage].write(own, r);
            if (threadIdx.x == 0) shared.rows[stage].from[0] = tile.from;
            shared.full[stage].arrive();
            shared.full[stage].arrive_when_copied();
        }
    }
}

// Products of vectors become weights of the queries; sums grow.
template <bool SELECTED, bool FULL>
__device__ __forceinline__ void weigh_rows(const Uniform& x, const Column* keys, const StreamedRows& rows,
                                           float (&scores)[STREAM / 8][4], float (&products)[STREAM / 8][4], KeyGradients<1>& sums,
                                           int lane) {
    const int at = lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < STREAM / 8; ++n) {
        // Keeps the compiler from reading the data of many rows ahead, into registers that there are not.
        if (n % (FULL ? 4 : 2) == 0) __syncwarp();
        Row r[2];
        rows.read(8 * n + at, r);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Column& c = keys[8 * h];
                const float gate = SELECTED ? gate_of(r[e], c) : 1.0f;
                // Rows that stand for no query see nothing, in full tiles too.
                const bool visible = (StreamTile::FILLED || r[e].i >= 0) && sees<FULL>(x, r[e], c);
                KeyPair pair = key_pair(x, r[e], c, gate, scores[n][2 * h + e], products[n][2 * h + e]);
                if (!visible) pair = {};
                scores[n][2 * h + e] = pair.weight_k;
                products[n][2 * h + e] = pair.weight_v;
                if (is_fraction(gate)) sums.sums[0][h][0] += pair.sum_0;
            }
    }
}

// What is under way of a streamed tile, then known.
struct StreamedWork {
    float scores[STREAM / 8][4], products[STREAM / 8][4];
    Left of_k[STREAM / 16], of_v[STREAM / 16];
};

// Starts the products of the 64 keys of a warpgroup and a streamed tile that is there: k · q.
__device__ __forceinline__ void multiply_queries(const KeysShared& shared, int stage, int group, StreamedWork& work) {
    start_products();
    product<TILE_Q, STREAM, STREAM>(work.scores, descriptor(shared.k + 64 * group * PANEL, 1), descriptor(shared.q[stage], 1));
    commit_products();
}

// The same of v · d_o.
__device__ __forceinline__ void multiply_gradients(const KeysShared& shared, int stage, int group, StreamedWork& work) {
    start_products();
    product<TILE_Q, STREAM, STREAM>(work.products, descriptor(shared.v + 64 * group * PANEL, 1), descriptor(shared.d_o[stage], 1));
    commit_products();
}

// Starts the sums over a streamed tile's queries: of its weights with d_o and q.
__device__ __forceinline__ void add_rows_of(const KeysShared& shared, int stage, const StreamedWork& work, KeyGradients<1>& sums) {
    start_products();
    add_weighted<STREAM, D>(sums.d_v[0], work.of_v, descriptor(shared.d_o[stage], STREAM * PANEL / 8), true);
    add_weighted<STREAM, D>(sums.d_k[0], work.of_k, descriptor(shared.q[stage], STREAM * PANEL / 8), true);
    commit_products();
}

// Products of a streamed tile become weights, rounded.
template <bool SELECTED>
__device__ __forceinline__ void weigh_streamed(const Uniform& x, const KeysShared& shared, int stage, StreamedWork& work, KeyGradients<1>& sums) {
    const int thread = thread_again(), lane = thread % 32, row = first_row(thread);
    const StreamedRows& rows = shared.rows[stage];
    const int2 whole = shared.seen_whole[row / 16];
    // Asked of the warp, whose rows are all among the 16: of a condition that may differ between threads the compiler makes a second
    // copy of what follows, for warps that have come apart.
    if (__all_sync(~0u, whole.x <= rows.from[0] && rows.from[0] + StreamTile::POSITIONS <= whole.y))
        weigh_rows<SELECTED, true>(x, shared.columns + row, rows, work.scores, work.products, sums, lane);
    else
        weigh_rows<SELECTED, false>(x, shared.columns + row, rows, work.scores, work.products, sums, lane);
    round_weights<STREAM>(work.of_k, work.scores);
    round_weights<STREAM>(work.of_v, work.products);
}

// Sweeps streamed tiles, from `step` to the one before `end`, past the 64 keys of a warpgroup. In its turn it has the tensor cores
// for itself, but while the last of its products run: the sums over a tile's queries, then the products of the next. While it
// makes weights of them it is the other's turn. A sweep takes one turn more than it has tiles.
template <bool SELECTED>
__device__ __forceinline__ void sweep_queries(const Uniform& x, KeysShared& shared, KeyGradients<1>& sums, int& step, int end, int group) {
    StreamedWork work;
    const int first = uniform(stage_of<STREAMED>(step));
    shared.full[first].wait(full_parity<STREAMED>(step));
    take_turn(group_again());
    multiply_queries(shared, first, group, work);
    multiply_gradients(shared, first, group, work);
    end_turn(group_again());
    wait_products<0>();
    settle(work.scores);
    settle(work.products);
#pragma unroll 1
    for (;; ++step) {
        const int stage = uniform(stage_of<STREAMED>(step));
        weigh_streamed<SELECTED>(x, shared, stage, work, sums);
        if (step + 1 == end) break;
        const int next = uniform(stage_of<STREAMED>(step + 1));
        shared.full[next].wait(full_parity<STREAMED>(step + 1));
        take_turn(group_again());
        add_rows_of(shared, stage, work, sums);
        // Registers of both products are there only when the weights are done with.
        multiply_queries(shared, next, group, work);
        wait_products<1>();
        shared.empty[stage].arrive();
        multiply_gradients(shared, next, group, work);
        wait_products<1>();
        settle(work.scores);
        end_turn(group_again());
        wait_products<0>();
        settle(work.products);
    }
    shared.keys_empty.arrive();
    const int stage = uniform(stage_of<STREAMED>(step));
    take_turn(group_again());
    add_rows_of(shared, stage, work, sums);
    wait_products<0>();
    end_turn(group_again());
    shared.empty[stage].arrive();
    ++step;
    settle(sums.d_k[0]);
    settle(sums.d_v[0]);
}

// Lets streamed tiles pass in which nobody sees a key of the warpgroup, and as many turns.
__device__ __forceinline__ void let_pass(KeysShared& shared, int& step, int tiles) {
#pragma unroll 1
    for (; tiles > 0; --tiles, ++step) {
        shared.full[stage_of<STREAMED>(step)].wait(full_parity<STREAMED>(step));
        shared.empty[stage_of<STREAMED>(step)].arrive();
        take_turn(group_again());
        end_turn(group_again());
    }
}

template <bool SELECTED>
__device__ __forceinline__ void compute_keys(const Arguments& a, KeysShared& shared) {
    int step = 0;
    const int group = own_group();
    start_turns(group_again());
    for (int taken = 0;; ++taken) {
        shared.keys_full.wait(taken & 1);
        const int tiles = shared.tiles;
        if (tiles < 0) return;
        const KeyTile& keys = shared.keys[taken % 2];
        const Uniform x = load_uniform(a, keys.s, keys.g);
        // Of the streamed tiles, those that the warpgroup lets pass before its own.
        const int2 seen = seen_by(shared, 4 / GROUPS * group, 4 / GROUPS * (group + 1));
        const bool any = seen.x < seen.y;
        const int before = any ? (seen.x - keys.from) / StreamTile::POSITIONS * StreamTile::PARTS : tiles;
        const int own = any ? streamed_tiles(keys.from, seen.y) - before : 0;
        const int after = tiles - before - own;
        KeyGradients<1> sums = {};
        let_pass(shared, step, before);
        if (own > 0) {
            sweep_queries<SELECTED>(x, shared, sums, step, step + own, group);
        } else {
            // As many turns as a sweep takes.
            shared.keys_empty.arrive();
            take_turn(group_again());
            end_turn(group_again());
        }
        let_pass(shared, step, after);
        const int thread = thread_again(), row = first_row(thread), lane = thread % 32;
        if constexpr (SELECTED) {
            store_partials(a, keys, sums, row, lane);
        } else {
            // Here alone it reads what the launch before it wrote: collected sums.
            wait_for_earlier_launches();
            store_gradients(a, keys, sums, row, lane);
        }
    }
}

template <bool SELECTED>
__device__ __forceinline__ void sweep_keys(const Arguments& a, KeysShared& shared) {
    if (threadIdx.x == 0) {
        shared.keys_full.start(2 * LOADING);
        shared.keys_empty.start(COMPUTING);
        for (int s = 0; s < STREAMED; ++s) {
            shared.full[s].start(2 * LOADING);
            shared.empty[s].start(COMPUTING);
        }
        fence_barriers();
    }
    __syncthreads();
    if (threadIdx.x < LOADING) {
        give_registers<KEYS_LOADING_REGISTERS>();
        load_key_tiles<SELECTED>(a, shared);
    } else {
        take_registers<KEYS_COMPUTING_REGISTERS>();
        compute_keys<SELECTED>(a, shared);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_keys_selected(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(1024) unsigned char memory[];
    sweep_keys<true>(a, *reinterpret_cast<KeysShared*>(memory));
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) backward_keys_window(const __grid_constant__ Arguments a) {
    extern __shared__ __align__(1024) unsigned char memory[];
    sweep_keys<false>(a, *reinterpret_cast<KeysShared*>(memory));
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
        const float t25 = static_cast<float>(a.key_sums[0 * a.rows * a.hkv * a.n + entry] - threshold_share(a, s, g, j));
        a.d_u[s.row * a.d_u_batch + token * a.d_u_position + g * a.d_u_head] = t25;
    }
}
