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
