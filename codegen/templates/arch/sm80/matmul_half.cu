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
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.${ mma_type }$.${ mma_type }$.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b[0]), "r"(b[1]));
}
