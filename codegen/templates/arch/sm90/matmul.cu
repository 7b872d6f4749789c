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
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.${ mma_type }$.${ mma_type }$.f32 "
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

<% for m in multiplies %>// c (64 × ${ m.columns }$) = a · bᵀ; the rows of both are in shared memory.
__device__ __forceinline__ void set_rows(float (&c)[${ m.count }$][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n${ m.columns }$k16.f32.${ mma_type }$.${ mma_type }$ {${ m.registers }$}, "
                 "%${ m.accumulators }$, %${ m.accumulators + 1 }$, 0, 1, 1, 0, 0;"
                 : <% for n in m.blocks %><% if not loop.first %>, <% endif %>"=f"(c[${ n }$][0]), "=f"(c[${ n }$][1]), "=f"(c[${ n }$][2]), "=f"(c[${ n }$][3])<% endfor %>
                 : "l"(a), "l"(b));
}

// c += a · bᵀ.
__device__ __forceinline__ void add_rows(float (&c)[${ m.count }$][4], unsigned long long a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n${ m.columns }$k16.f32.${ mma_type }$.${ mma_type }$ {${ m.registers }$}, "
                 "%${ m.accumulators }$, %${ m.accumulators + 1 }$, 1, 1, 1, 0, 0;"
                 : <% for n in m.blocks %><% if not loop.first %>, <% endif %>"+f"(c[${ n }$][0]), "+f"(c[${ n }$][1]), "+f"(c[${ n }$][2]), "+f"(c[${ n }$][3])<% endfor %>
                 : "l"(a), "l"(b));
}

// The same with a in registers.
__device__ __forceinline__ void set_rows(float (&c)[${ m.count }$][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n${ m.columns }$k16.f32.${ mma_type }$.${ mma_type }$ {${ m.registers }$}, "
                 "{%${ m.accumulators }$, %${ m.accumulators + 1 }$, %${ m.accumulators + 2 }$, %${ m.accumulators + 3 }$}, %${ m.accumulators + 4 }$, 0, 1, 1, 0;"
                 : <% for n in m.blocks %><% if not loop.first %>, <% endif %>"=f"(c[${ n }$][0]), "=f"(c[${ n }$][1]), "=f"(c[${ n }$][2]), "=f"(c[${ n }$][3])<% endfor %>
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c += a · bᵀ with a in registers.
__device__ __forceinline__ void add_rows(float (&c)[${ m.count }$][4], const Left& a, unsigned long long b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n${ m.columns }$k16.f32.${ mma_type }$.${ mma_type }$ {${ m.registers }$}, "
                 "{%${ m.accumulators }$, %${ m.accumulators + 1 }$, %${ m.accumulators + 2 }$, %${ m.accumulators + 3 }$}, %${ m.accumulators + 4 }$, 1, 1, 1, 0;"
                 : <% for n in m.blocks %><% if not loop.first %>, <% endif %>"+f"(c[${ n }$][0]), "+f"(c[${ n }$][1]), "+f"(c[${ n }$][2]), "+f"(c[${ n }$][3])<% endfor %>
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b));
}

// c = a · b, or added to c; a is in registers.
__device__ __forceinline__ void multiply_weights(float (&c)[${ m.count }$][4], const Left& a, unsigned long long b, bool add) {
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %${ m.accumulators + 5 }$, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n${ m.columns }$k16.f32.${ mma_type }$.${ mma_type }$ {${ m.registers }$}, "
                 "{%${ m.accumulators }$, %${ m.accumulators + 1 }$, %${ m.accumulators + 2 }$, %${ m.accumulators + 3 }$}, %${ m.accumulators + 4 }$, add, 1, 1, 1;\n}"
                 : <% for n in m.blocks %><% if not loop.first %>, <% endif %>"+f"(c[${ n }$][0]), "+f"(c[${ n }$][1]), "+f"(c[${ n }$][2]), "+f"(c[${ n }$][3])<% endfor %>
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(b), "r"(static_cast<int>(add)));
}

<% endfor %>// scores = 64 rows of a tile of LEFT_ROWS rows · the first COLUMNS rows of a tile of ROWS rows, over the head dimension, both
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
