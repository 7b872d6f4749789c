// SparsekHard, forward: bf16, head dimension 128, k 512, window 512, groups of 4 query heads
//
// schedule  tile q 128, kv 64; warps 12; stages 5; sm90
// target    sm_90a, instructions of sm90
// input     082be7d11e840a10
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
constexpr int STAGES = 5;  // streamed tiles in flight
constexpr int POSITIONS = 32;  // positions of a tile of rows
constexpr float LOGIT_SCALE = 0.12751743f;  // powers of two for 1 of `logit`
constexpr float SLACK = 8.0f;  // powers of two that a share may exceed 1 by
constexpr bool WEIGHT_BOUNDED = true;  // a share of 0 has the weight 0
constexpr int TILE_KEYS = 543;  // keys of a tile's list, at most
constexpr int SHARED = 202752;  // bytes of a block
constexpr bool QUERIES_IN_REGISTERS = true;
constexpr bool COLUMNS_IN_TURN = false;  // whose logits a warp makes in turn
constexpr int QUERY_BUFFERS = 1;  // tiles of queries in shared memory
constexpr int BLOCKS_PER_MULTIPROCESSOR = 1;
constexpr int LOADING_REGISTERS = 88;  // of a thread that loads
constexpr int COMPUTING_REGISTERS = 208;  // of a thread that computes

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
    elem* o; long long o_batch; long long o_position; long long o_head;
    float* lse;
    const int* expiry;
    const float* u; long long u_batch; long long u_head; long long u_position;
    int* chunk_keys;
    int* chunk_counts;
    int* tile_keys;
    int* tile_counts;
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
};

__device__ __forceinline__ void load_column_values(const Arguments& a, const Uniform& x, const Sequence& s, int g, Column& c) {
    const int j = c.j;
    const long long token = s.start + j;
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
__device__ __forceinline__ float gate_of(const Row&, const Column&) { return 1.0f; }

// Whether a gate moves with its threshold: 0 < gate < 1. The bits of numbers from 0 on grow with them, so that one comparison
// without a sign is enough.
__device__ __forceinline__ bool is_fraction(float gate) { return __float_as_uint(gate) - 1 < 0x3f7fffffu; }

// The logit of a pair over its constant factor: times LOGIT_SCALE, in powers of two.
__device__ __forceinline__ float logit(const Uniform& x, const Row& r, const Column& c, float gate, float dot_qk) {
    return dot_qk;
}

// The weight of a pair's value, p being its share of the softmax.
__device__ __forceinline__ float weight(const Uniform& x, const Row& r, const Column& c, float gate, float p) {
    return p;
}

// The keys that queries [begin, end) of a tile see past their windows: of the chunk's keys those that are past the window at
// `begin` and not expired there, ascending; first the ones that are seen to the tile's end, then those that expire within; and
// then those that leave the window within the tile and are selected. A block, or several in z, makes the lists of the tiles that
// begin in a chunk, a warp at a time that of a tile: whatever its first query sees past its window is among the chunk's keys.
constexpr int CHUNK_TILES = (CHUNK + POSITIONS - 1) / POSITIONS;  // at most
extern "C" __global__ void __launch_bounds__(512) tiles(const __grid_constant__ Arguments a) {
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
    wait_for_earlier_launches();  // plan_tau, beside it, has waited for what is read here
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

// The online softmax of M × 16 rows, in powers of two: what `logit` gives counts LOGIT_SCALE of them. Each of the four lanes
// of a row holds a quarter of its sum.
template <int M>
struct Softmax {
    float reference[M][2], sum[M][2];
    float inverse[M][2], lse[M][2];

    // A row that stands for no query has a reference, so that it waits for none.
    __device__ __forceinline__ void start(const Uniform&, const Row (&rows)[M][2]) {
#pragma unroll
        for (int m = 0; m < M; ++m)
#pragma unroll
            for (int h = 0; h < 2; ++h) reference[m][h] = rows[m][h].i < 0 ? 0.0f : -INFINITY_F, sum[m][h] = 0.0f;
    }

    // Logits become exp(logit − reference); sums and the output so far shrink to a new reference.
    template <int N, int OUT>
    __device__ __forceinline__ void update(float (&x)[M][N][4], float (&o)[M][OUT][4]) {
        float shrink[M][2];
        if (exponentials(x, shrink)) rescale(o, shrink);
    }

    // Logits become exp(logit − reference). A row's reference is its maximum when that last grew by more than SLACK: shares of
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
                lse[m][h] = total > 0.0f ? reference[m][h] * (LOGIT_SCALE * LN_2) + logf(total) : -INFINITY_F;
            }
    }
};

// The most that a lane's part of a row's sum may grow by in a tile: its exponentials then are no more either.
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
        // Of a row without a reference: ∞, and −∞ + ∞ is NaN.
        const float least = -LOGIT_SCALE * softmax.reference[0][h];
        total[h] = 0.0f;
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

    __device__ __forceinline__ void write(bool valid, int at, const Column& c) {
        store_if(valid, from + at, c.from);
        store_if(valid, to + at, c.to);
        store_if(valid, j + at, c.j);
    }

    // Columns `at`, which is even, and `at` + 1.
    __device__ __forceinline__ void read(int at, Column (&c)[2]) const {
        const auto two_from = read_two(from + at), two_to = read_two(to + at), two_j = read_two(j + at);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            c[e].from = two_from.of[e];
            c[e].to = two_to.of[e];
            c[e].j = two_j.of[e];
        }
    }
};

// How a tile of columns is treated: pairs one by one, all of them seen, or all of them seen in the window, where gates are 1.
enum Kind { MASKED, FULL, WINDOWED };

// Tiles of keys of a tile of queries: at least one, which may be empty.
__device__ __forceinline__ int tile_steps(int columns) { return max(1, (columns + TILE_KV - 1) / TILE_KV); }

// Tiles of keys before these have no pair to mask, those from `full` on are in the window.
struct AllSteps {
    int full, windowed;

    // Columns that all rows see come first, the selected ones and then the window's.
    __device__ __forceinline__ void write(const TileColumns& all, const Tile&) {
        windowed = all.shared / TILE_KV;
        full = min((all.lasting + TILE_KV - 1) / TILE_KV, windowed);
    }

    // Of so many columns those up to the last that the warpgroup of a row sees: keys that come after the last of its queries are
    // behind all others.
    __device__ __forceinline__ int columns(const Tile& tile, int all, int row) const {
        const int later = tile.to - 1 - row_position<RowTile>(tile, row / 64 * 64 + 63);
        return all - (WINDOW > 0 ? max(later, 0) : 0);
    }
};

__device__ __forceinline__ Kind kind_of(int full, int windowed, int t) { return t < full ? FULL : t < windowed ? WINDOWED : MASKED; }

// While the tensor cores multiply one tile of keys, the softmax of the one before is worked on, from the last tile of keys of
// a tile of queries on to the first of the next.
constexpr int ROWS_OF_LOADER = (TILE_Q + LOADING - 1) / LOADING;  // whose values one loading thread reads
constexpr int HEADERS = QUERY_BUFFERS + 1;  // of tiles of queries: a tile is stored after its queries are free

// What computing warps are told of a tile of queries.
struct Header {
    Tile tile;
    int columns;     // keys that some row sees; −1 after the last tile of queries
    AllSteps steps;  // how tiles of keys are treated
};

struct Shared {
    alignas(1024) elem q[QUERY_BUFFERS][TILE_Q * D];
    alignas(1024) elem k[STAGES][TILE_KV * D];
    alignas(1024) elem v[STAGES][TILE_KV * D];
    Barrier q_full[QUERY_BUFFERS], q_empty[QUERY_BUFFERS];
    Barrier k_full[STAGES], k_empty[STAGES], v_full[STAGES], v_empty[STAGES];
    StreamedColumns columns[STAGES];
    Header headers[HEADERS];
    Row rows[QUERY_BUFFERS][TILE_Q];
};
static_assert(sizeof(Shared) <= SHARED, "the launch gives less");

// A place in a ring of buffers, and the parity of the phases of its barriers.
template <int SIZE>
struct Ring {
    unsigned slot = 0, parity = 0;

    __device__ __forceinline__ void advance() {
        ++slot;
        if (slot == SIZE) slot = 0, parity ^= 1;
    }
};

// Queries that do not exist become zero.
__device__ __forceinline__ void copy_queries(const Arguments& a, const Tile& tile, elem* to, int own) {
    const Vectors queries(a.q, a.q_batch, a.q_position, a.q_head, tile.s, tile.from);
    const unsigned tile_address = shared_address(to);
    const unsigned long long base = reinterpret_cast<unsigned long long>(queries.start);
#pragma unroll 2
    for (int at = own; at < TILE_Q * PIECES; at += LOADING) {
        const int row = at / PIECES, piece = at % PIECES;
        int i, h;
        const bool valid = row_exists<RowTile>(tile, row, i, h);
        const unsigned vector = valid ? queries.of(i - tile.from, h) + piece : 0;
        copy_16(tile_address + static_cast<unsigned>(sizeof(elem)) * place<TILE_Q>(row, 8 * piece), base + 16ull * vector, valid);
    }
}

// Where the loading warps are among the buffers: values follow keys by one tile.
struct Loaded {
    Ring<QUERY_BUFFERS> queries;
    Ring<HEADERS> headers;
    Ring<STAGES> keys, values;
};

// Tells the computing warps of the next tile of queries.
__device__ __forceinline__ void announce(const Arguments& a, const Tile& tile, const TileColumns& all, const Row (&rows)[ROWS_OF_LOADER],
                                         Shared& shared, Loaded& at, int own) {
    const unsigned slot = at.queries.slot;
    shared.q_empty[slot].wait(at.queries.parity ^ 1);
    copy_queries(a, tile, shared.q[slot], own);
    shared.q_full[slot].arrive_when_copied();
#pragma unroll
    for (int n = 0; n < ROWS_OF_LOADER; ++n)
        if (own + n * LOADING < TILE_Q) shared.rows[slot][own + n * LOADING] = rows[n];
    if (own == 0) {
        Header& header = shared.headers[at.headers.slot];
        header.tile = tile, header.columns = all.total;
        header.steps.write(all, tile);
    }
    shared.q_full[slot].arrive();
    at.queries.advance(), at.headers.advance();
}

// Announces one tile of queries and copies its keys, tile by tile, and the values one tile after them, since they are needed
// later. Every lane looks up one key, which is those of TOGETHER tiles at a time: two groups of tiles before a key is copied, and
// its data one group before, so that no step waits for either. The first keys are copied before the queries, which wait for the
// tile of queries before. Columns without a key get any: they are masked.
__device__ __forceinline__ void load_tile(const Arguments& a, const Tile& tile, Shared& shared, Loaded& at, int own) {
    constexpr int TOGETHER = 32 / SHARE<TILE_KV>;
    const int lane = own % 32, own_tile = lane / SHARE<TILE_KV>, column = own / 32 * SHARE<TILE_KV> + lane % SHARE<TILE_KV>;
    const int ahead = own_tile * TILE_KV + column;
    const TileColumns all = tile_columns(a, tile);
    const Uniform x = load_uniform(a, tile.s, tile.g);
    const Vectors keys(a.k, a.k_batch, a.k_position, a.k_head, tile.s, 0), values(a.v, a.v_batch, a.v_position, a.v_head, tile.s, 0);
    Row rows[ROWS_OF_LOADER];
#pragma unroll
    for (int n = 0; n < ROWS_OF_LOADER; ++n) rows[n] = load_row<RowTile>(a, x, tile, own + n * LOADING);
    const int tiles = tile_steps(all.total);
    bool window = false, next_window = false;
    int j = column_key(all, ahead, window), next = column_key(all, TOGETHER * TILE_KV + ahead, next_window);
    unsigned own_value = 0;
    Column c = load_column(a, x, tile, j, window);
#pragma unroll 1
    for (int from = 0; from <= tiles; from += TOGETHER) {
        const Column own_column = c;
        const int key = j < 0 ? tile.from : j;
        const unsigned own_key = keys.of(key, tile.g), value_before = own_value;
        own_value = values.of(key, tile.g);
        j = next, window = next_window;
        c = load_column(a, x, tile, j, window);
        next = column_key(all, (from + 2 * TOGETHER) * TILE_KV + ahead, next_window);
#pragma unroll
        for (int e = 0; e < TOGETHER; ++e) {
            if (from + e < tiles) {
                shared.k_empty[at.keys.slot].wait(at.keys.parity ^ 1);
                copy_vectors<TILE_KV, 8>(shared.k[at.keys.slot], keys.start, own_key, e * SHARE<TILE_KV>);
                shared.k_full[at.keys.slot].arrive_when_copied();
                shared.columns[at.keys.slot].write(own_tile == e, column, own_column);
                shared.k_full[at.keys.slot].arrive();
                at.keys.advance();
            }
            if (e == 0 && from == 0) {
                announce(a, tile, all, rows, shared, at, own);
            } else if (from + e <= tiles) {
                shared.v_empty[at.values.slot].wait(at.values.parity ^ 1);
                copy_vectors<TILE_KV, 8>(shared.v[at.values.slot], values.start, e > 0 ? own_value : value_before,
                                         (e + TOGETHER - 1) % TOGETHER * SHARE<TILE_KV>);
                shared.v_full[at.values.slot].arrive_when_copied();
                at.values.advance();
            }
        }
    }
}

__device__ __forceinline__ void load_tiles(const Arguments& a, Shared& shared) {
    const int own = threadIdx.x % LOADING, blocks = block_count<POSITIONS>(a);
    Loaded at;
    for (unsigned n = blockIdx.x; n < blocks * static_cast<unsigned>(a.hkv); n += gridDim.x) {
        Tile tile;
        if (find_tile_in_order<RowTile>(a, n, tile)) load_tile(a, tile, shared, at, own);
    }
    const unsigned slot = at.queries.slot;
    shared.q_empty[slot].wait(at.queries.parity ^ 1);
    if (own == 0) shared.headers[at.headers.slot].columns = -1;
    shared.q_full[slot].arrive_when_copied();
    shared.q_full[slot].arrive();
}

// Dot products become logits; unseen pairs −inf.
template <Kind KIND, int COLUMNS>
__device__ __forceinline__ void make_logits(const Uniform& x, const Row (&rows)[1][2], const StreamedColumns& columns,
                                            float (&scores)[1][COLUMNS / 8][4], int lane) {
    constexpr bool ALL = KIND != MASKED;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) {
        if (KIND == MASKED && COLUMNS_IN_TURN) __syncwarp();
        Column c[2];
        columns.read(8 * n + lane % 4 * 2, c);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[0][h];
                float& score = scores[0][n][2 * h + e];
                const float value = logit(x, r, c[e], KIND == WINDOWED ? 1.0f : gate_of(r, c[e]), score);
                score = sees<ALL>(x, r, c[e]) ? value : -INFINITY_F;
            }
    }
}

// Shares of the softmax become weights of the values.
template <Kind KIND, int COLUMNS>
__device__ __forceinline__ void make_weights(const Uniform& x, const Row (&rows)[1][2], const StreamedColumns& columns,
                                             float (&scores)[1][COLUMNS / 8][4], int lane) {
    constexpr bool ALL = KIND != MASKED;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; ++n) {
        Column c[2];
        columns.read(8 * n + lane % 4 * 2, c);
#pragma unroll
        for (int e = 0; e < 2; ++e)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Row& r = rows[0][h];
                float& p = scores[0][n][2 * h + e];
                const float value = weight(x, r, c[e], KIND == WINDOWED ? 1.0f : gate_of(r, c[e]), p);
                // Of an unseen pair p is 0, and its weight may be anything where it is not bounded.
                p = SEES_ALL<ALL> || WEIGHT_BOUNDED || p > 0.0f ? value : 0.0f;
            }
    }
}

// The 64 rows that a warpgroup works on, of which a lane has parts of two, and where it is among the buffers.
struct Work {
    Row rows[1][2];
    Left q[D / 16];
    Softmax<1> softmax;
    float o[1][D / 8][4];
    Left weights[TILE_KV / 16];  // of the tile of keys before, whose product with the values comes next
    bool begun;                  // whether o holds anything
    Ring<QUERY_BUFFERS> queries;
    Ring<HEADERS> headers;
    Ring<STAGES> keys, values;
    int row;  // the warp's first one
};

// The tile of keys that the loading warps have made ready is multiplied with the queries, or as many of its columns as are
// wanted.
template <int COLUMNS>
__device__ __forceinline__ void queue_scores(Work& work, Shared& shared, float (&scores)[1][COLUMNS / 8][4]) {
    shared.k_full[work.keys.slot].wait(work.keys.parity);
    start_products();
    const unsigned long long keys = descriptor(shared.k[work.keys.slot], 1);
    if constexpr (QUERIES_IN_REGISTERS) product<TILE_KV, COLUMNS>(scores[0], work.q, keys);
    else product<TILE_Q, TILE_KV, COLUMNS>(scores[0], descriptor(shared.q[work.queries.slot] + work.row / 64 * 64 * PANEL, 1), keys);
    commit_products();
}

// The weights of the tile of keys before are multiplied with its values.
template <int COLUMNS>
__device__ __forceinline__ void queue_values(Work& work, Shared& shared) {
    shared.v_full[work.values.slot].wait(work.values.parity);
    start_products();
    add_weighted<COLUMNS, D>(work.o[0], work.weights, descriptor(shared.v[work.values.slot], TILE_KV * PANEL / 8), work.begun);
    commit_products();
    work.begun = true;
}

// The values of the tile of keys before are done with.
__device__ __forceinline__ void release_values(Work& work, Shared& shared) {
    settle(work.o[0]);
    shared.v_empty[work.values.slot].arrive();
    work.values.advance();
}

// Scores become weights of the values, the softmax taking account of them. With ANEW references grow where they have to, and
// it returns whether the output has to shrink; else whether none had to.
template <Kind KIND, bool ANEW, int COLUMNS>
__device__ __forceinline__ bool weigh(const Uniform& x, Work& work, const StreamedColumns& columns, float (&scores)[1][COLUMNS / 8][4],
                                      float (&shrink)[1][2], int lane) {
    make_logits<KIND, COLUMNS>(x, work.rows, columns, scores, lane);
    bool result;
    if constexpr (ANEW) result = work.softmax.exponentials(scores, shrink);
    else result = exponentials_as_is(work.softmax, scores);
    make_weights<KIND, COLUMNS>(x, work.rows, *read_again(&columns), scores, lane);
    return result;
}

// Tiles of keys of which the warpgroup sees none are done with when they are there: what is in their buffers before may be in use.
__device__ __forceinline__ void pass_keys(Work& work, Shared& shared) {
    shared.k_full[work.keys.slot].wait(work.keys.parity);
    shared.k_empty[work.keys.slot].arrive();
    work.keys.advance();
}

__device__ __forceinline__ void pass_values(Work& work, Shared& shared, int& tiles) {
#pragma unroll 1
    for (; tiles > 0; --tiles) {
        shared.v_full[work.values.slot].wait(work.values.parity);
        shared.v_empty[work.values.slot].arrive();
        work.values.advance();
    }
}

__device__ __forceinline__ void let_pass(Work& work, Shared& shared, int tiles) {
#pragma unroll 1
    for (; tiles > 0; --tiles) {
        int one = 1;
        pass_keys(work, shared);
        pass_values(work, shared, one);
    }
}

// Stores what the 64 rows of a tile of queries have come to.
__device__ __forceinline__ void store_output(const Arguments& a, const Tile& tile, Work& work, int row, int lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        int i, head;
        const bool exists = row_exists<RowTile>(tile, row + 8 * h, i, head);
        elem* to = a.o + tile.s.row * a.o_batch + (tile.s.start + i) * a.o_position + head * a.o_head;
        store_vector(to, work.o[0], h, work.softmax.inverse[0][h], exists, lane);
        if (exists && lane % 4 == 0) a.lse[(tile.s.row * a.hq + head) * a.n + tile.s.start + i] = work.softmax.lse[0][h];
    }
}

// Weights of a tile of keys whose scores are ready.
template <bool ANEW>
__device__ __forceinline__ bool weigh_kind(const Uniform& x, Work& work, Shared& shared, Kind kind, float (&scores)[1][TILE_KV / 8][4],
                                           float (&shrink)[1][2], int lane) {
    const StreamedColumns& columns = shared.columns[work.keys.slot];
    if (kind == FULL) return weigh<FULL, ANEW, TILE_KV>(x, work, columns, scores, shrink, lane);
    if (kind == WINDOWED) return weigh<WINDOWED, ANEW, TILE_KV>(x, work, columns, scores, shrink, lane);
    return weigh<MASKED, ANEW, TILE_KV>(x, work, columns, scores, shrink, lane);
}

// The same from the products on, which are made again, for rows whose references have to grow: seldom, and any kind of tile can
// be masked.
__device__ __forceinline__ void weigh_anew(const Uniform& x, Work& work, Shared& shared, float (&scores)[1][TILE_KV / 8][4]) {
    const int lane = thread_again() % 32;  // else registers keep addresses through all tiles
    const elem* keys = shared.k[work.keys.slot];
    if constexpr (QUERIES_IN_REGISTERS) {
        products_again(work.q, keys, scores, lane);
    } else {
        Left q[D / 16];
        load_left<TILE_Q>(shared.q[work.queries.slot], work.row, q, lane);
        products_again(q, keys, scores, lane);
    }
    float shrink[1][2];
    if (weigh<MASKED, true, TILE_KV>(x, work, shared.columns[work.keys.slot], scores, shrink, lane)) work.softmax.rescale(work.o, shrink);
}

// Keys, with their data, and queries that scores were made of are done with.
__device__ __forceinline__ void release_keys(Work& work, Shared& shared, bool last) {
    shared.k_empty[work.keys.slot].arrive();
    if (!QUERIES_IN_REGISTERS && last) shared.q_empty[work.queries.slot].arrive();
}

// Of one tile of keys but the first: its scores are made, and the one before is multiplied with its values meanwhile.
template <int COLUMNS>
__device__ __forceinline__ void queue_tile(Work& work, Shared& shared, float (&scores)[1][COLUMNS / 8][4]) {
    queue_scores<COLUMNS>(work, shared, scores);
    queue_values<TILE_KV>(work, shared);
    wait_products<1>();
    settle(scores[0]);
}

// What is left of a tile when its weights are there.
template <int COLUMNS>
__device__ __forceinline__ void end_tile(Work& work, Shared& shared, const float (&scores)[1][COLUMNS / 8][4], bool last) {
    release_keys(work, shared, last);
    round_weights<COLUMNS>(work.weights, scores[0]);
    work.keys.advance();
}

// One tile of keys but the first; its softmax is worked on under the products of the one before.
__device__ __forceinline__ void attend(const Uniform& x, Work& work, Shared& shared, Kind kind, bool last, int lane) {
    float scores[1][TILE_KV / 8][4], shrink[1][2];
    queue_tile<TILE_KV>(work, shared, scores);
    // Waited for on either way, behind a branch: the compiler would wait before the softmax.
    if (weigh_kind<false>(x, work, shared, kind, scores, shrink, lane)) {
        wait_products<0>();
        release_values(work, shared);
    } else {
        wait_products<0>();
        release_values(work, shared);
        weigh_anew(x, work, shared, scores);
    }
    end_tile<TILE_KV>(work, shared, scores, last);
}

// The first half of the last tile, where no more of its columns have keys.
__device__ __forceinline__ void attend_half(const Uniform& x, Work& work, Shared& shared, int lane) {
    float scores[1][TILE_KV / 16][4], shrink[1][2];
    queue_tile<TILE_KV / 2>(work, shared, scores);
    const bool shrinks = weigh<MASKED, true, TILE_KV / 2>(x, work, shared.columns[work.keys.slot], scores, shrink, lane);
    wait_products<0>();
    release_values(work, shared);
    if (shrinks) work.softmax.rescale(work.o, shrink);
    end_tile<TILE_KV / 2>(work, shared, scores, true);
}

__device__ __forceinline__ void attend_tiles(const Arguments& a, Shared& shared) {
    const int thread = threadIdx.x - LOADING, lane = thread % 32, row = uniform(thread / 32) * 16;
    Work work;
    work.row = row;
    for (;; work.queries.advance(), work.headers.advance()) {
        const unsigned slot = work.queries.slot;
        shared.q_full[slot].wait(work.queries.parity);
        const Header& header = shared.headers[work.headers.slot];
        if (header.columns < 0) break;
        const int columns = header.steps.columns(header.tile, header.columns, row), tiles = tile_steps(columns);
        const int full = header.steps.full, windowed = header.steps.windowed;
        const Uniform x = load_uniform(a, header.tile.s, header.tile.g);
#pragma unroll
        for (int h = 0; h < 2; ++h) work.rows[0][h] = shared.rows[slot][row + 8 * h + lane / 4];
        if constexpr (QUERIES_IN_REGISTERS) {
            // The lane anew, else registers keep the addresses through a tile.
            load_left<TILE_Q>(shared.q[slot], row, work.q, thread_again() % 32);
            shared.q_empty[slot].arrive();
        }
        int t = 0;
        const Kind kind_of_first = kind_of(full, windowed, 0);
        float scores[1][TILE_KV / 8][4], shrink[1][2];
        queue_scores<TILE_KV>(work, shared, scores);
        wait_products<0>();
        settle(scores[0]);
        work.softmax.start(x, work.rows);
        work.begun = false;
        weigh_kind<true>(x, work, shared, kind_of_first, scores, shrink, lane);
        ++t;
        end_tile<TILE_KV>(work, shared, scores, t == tiles);
        const bool half = t < tiles && columns <= tiles * TILE_KV - TILE_KV / 2;
        const int whole = half ? tiles - 1 : tiles;
#pragma unroll 1
        for (; t < whole; ++t) attend(x, work, shared, kind_of(full, windowed, t), t + 1 == tiles, lane);
        if (half) {
            attend_half(x, work, shared, lane);
            queue_values<TILE_KV / 2>(work, shared);
        } else {
            queue_values<TILE_KV>(work, shared);
        }
        work.softmax.finish();
        wait_products<0>();
        release_values(work, shared);
        // Found again: what is kept through the sweep for this is spilled.
        const Header& again = *read_again(&header);
        let_pass(work, shared, tile_steps(again.columns) - tile_steps(again.steps.columns(again.tile, again.columns, row)));
        store_output(a, again.tile, work, row + lane / 4, lane);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_PER_MULTIPROCESSOR) forward(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    extern __shared__ __align__(1024) unsigned char memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    if (threadIdx.x == 0) {
        for (int s = 0; s < QUERY_BUFFERS; ++s) {
            shared.q_full[s].start(2 * LOADING);
            shared.q_empty[s].start(COMPUTING);
        }
        for (int s = 0; s < STAGES; ++s) {
            shared.k_full[s].start(2 * LOADING);
            shared.v_full[s].start(LOADING);
            shared.k_empty[s].start(COMPUTING);
            shared.v_empty[s].start(COMPUTING);
        }
        fence_barriers();
    }
    __syncthreads();
    if (threadIdx.x < LOADING) {
        give_registers<LOADING_REGISTERS>();
        load_tiles(a, shared);
    } else {
        take_registers<COMPUTING_REGISTERS>();
        attend_tiles(a, shared);
    }
}
