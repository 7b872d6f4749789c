// A block stays on its multiprocessor and takes tiles in turn. One warpgroup loads: it looks rows up and copies vectors, as far
// ahead as shared memory allows. The others compute, 64 rows of the tile that stays each.
constexpr int GROUPS = TILE_Q / 64;  // warpgroups that compute
constexpr int COMPUTING = 128 * GROUPS, LOADING = 128, THREADS = COMPUTING + LOADING;

// Hardware barriers: of the warps that load, of all that compute, and of each warpgroup that computes.
enum { LOADING_BARRIER = 1, COMPUTING_BARRIER = 2, GROUP_BARRIER = 3 };

// Position in a ring of STAGES buffers.
__device__ __forceinline__ int stage_of(int step) { return step % STAGES; }
__device__ __forceinline__ unsigned full_parity(int step) { return step / STAGES & 1; }
__device__ __forceinline__ unsigned empty_parity(int step) { return step / STAGES & 1 ^ 1; }

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

// Starts copying the vectors of the warp's rows of a tile, `from` being that of the lane's own row; rows without one become
// zero.
template <int ROWS>
__device__ __forceinline__ void copy_vectors(elem* to, const elem* from) {
    constexpr int PIECES = D / 8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 4
    for (int at = lane; at < SHARE<ROWS> * PIECES; at += 32) {
        const int row = at / PIECES, piece = at % PIECES;
        const elem* vector = reinterpret_cast<const elem*>(__shfl_sync(~0u, reinterpret_cast<unsigned long long>(from), row));
        copy_async(to + place<ROWS>(warp * SHARE<ROWS> + row, 8 * piece), vector + 8 * piece, vector != nullptr);
    }
}

// The vector of a row that exists in a tensor [B, N, Hq, D].
__device__ __forceinline__ const elem* query_vector(const elem* tensor, long long batch, long long position, long long head,
                                                    const Tile& tile, const Row& r) {
    return r.i < 0 ? nullptr : tensor + tile.s.row * batch + (tile.s.start + r.i) * position + r.head * head;
}

// The vector of a key that exists in a tensor [B, N, Hkv, D].
__device__ __forceinline__ const elem* key_vector(const elem* tensor, long long batch, long long position, long long head,
                                                  const Sequence& s, int g, int j) {
    return j < 0 ? nullptr : tensor + s.row * batch + (s.start + j) * position + g * head;
}

// Two values of neighbouring rows or columns, read at once.
template <class T>
struct alignas(2 * sizeof(T)) Two { T of[2]; };

template <class T>
__device__ __forceinline__ Two<T> read_two(const T* from) { return *reinterpret_cast<const Two<T>*>(from); }
