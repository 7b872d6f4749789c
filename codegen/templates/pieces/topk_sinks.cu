// Writes the sinks that are past the window at some query of the chunk; returns how many.
__device__ int write_sinks(const Arguments& a, const Sequence& s, int chunk, int* keys) {
    const int end = s.length - chunk * CHUNK < CHUNK ? s.length : (chunk + 1) * CHUNK;
    const int past = end - WINDOW > 0 ? end - WINDOW : 0, count = past < SINKS ? past : SINKS;
    for (int i = threadIdx.x; i < count; i += blockDim.x) keys[i] = i;
    return count;
}
