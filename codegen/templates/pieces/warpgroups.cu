// A block stays on its multiprocessor and takes tiles in turn. One warpgroup loads: it looks rows up and copies vectors, as far
// ahead as shared memory allows. The others compute, 64 rows of the tile that stays each.
constexpr int GROUPS = TILE_Q / 64;  // warpgroups that compute
constexpr int COMPUTING = 128 * GROUPS, LOADING = 128, THREADS = COMPUTING + LOADING;

// Hardware barriers: of the warps that load, of all that compute, and of each warpgroup that computes.
enum { LOADING_BARRIER = 1, COMPUTING_BARRIER = 2, GROUP_BARRIER = 3 };

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

// Where a vector starts, in units of 16 bytes from the start of a tensor's part: 32 bits reach over 64 GB.
constexpr unsigned NO_VECTOR = ~0u;

// Starts copying the vectors of the warp's rows of a tile, `own` being that of the lane's own row; rows without one become zero.
// UNROLLED copies at a time: more keep more addresses in registers.
template <int ROWS, int UNROLLED>
__device__ __forceinline__ void copy_vectors(elem* to, const elem* tensor, unsigned own) {
    constexpr int PIECES = D / 8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if constexpr (32 % PIECES == 0) {
        // A lane has the same piece of every row that it copies, and rows are exchanged in the same way every eight of them.
        constexpr int STEP = 32 / PIECES;
        const int first = place<ROWS>(warp * SHARE<ROWS> + lane / PIECES, lane % PIECES * 8);
        const elem* from = tensor + lane % PIECES * 8;
#pragma unroll UNROLLED
        for (int row = 0; row < SHARE<ROWS>; row += STEP) {
            const unsigned vector = __shfl_sync(~0u, own, row + lane / PIECES);
            const int turn = row / (64 / PANEL) % (PANEL / 8) * 8;
            copy_async(to + (first ^ turn) + row * PANEL, from + 8ull * vector, vector != NO_VECTOR);
        }
    } else {
#pragma unroll 2
        for (int base = 0; base < SHARE<ROWS> * PIECES; base += 32) {
            const int at = base + lane, row = at / PIECES, piece = at % PIECES;
            const unsigned vector = __shfl_sync(~0u, own, min(row, SHARE<ROWS> - 1));
            if (row >= SHARE<ROWS>) continue;
            copy_async(to + place<ROWS>(warp * SHARE<ROWS> + row, 8 * piece), tensor + 8ull * vector + 8 * piece, vector != NO_VECTOR);
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
