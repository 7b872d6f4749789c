// Writes the sinks that are past the window at some query of the chunk; returns how many.
__device__ int write_sinks(const Arguments& a, const Sequence& s, int chunk, int* keys) {
    const int end = s.length - chunk * CHUNK < CHUNK ? s.length : (chunk + 1) * CHUNK;
    const int past = end - WINDOW > 0 ? end - WINDOW : 0, count = past < SINKS ? past : SINKS;
    for (int i = threadIdx.x; i < count; i += blockDim.x) keys[i] = i;
    return count;
}

// How many of them are past the window before the chunk.
__device__ __forceinline__ int sinks_before(int chunk) {
    const int past = chunk * CHUNK - WINDOW > 0 ? chunk * CHUNK - WINDOW : 0;
    return past < SINKS ? past : SINKS;
}

// The length of a chunk's list, and of its part that was selected before the chunk.
__device__ __forceinline__ void write_counts(const Arguments& a, long long list, int before, int count) {
    a.chunk_counts[2 * list] = before;
    a.chunk_counts[2 * list + 1] = count;
}
