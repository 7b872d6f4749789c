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
