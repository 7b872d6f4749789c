// Without a top-k mask no key is selected: sinks are seen to the end, other keys while they are in the window.
extern "C" __global__ void __launch_bounds__(1024) plan_sinks(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int chunk;
    if (!find_block<CHUNK>(a, blockIdx.x, s, chunk)) return;
    const int g = blockIdx.y;
    for (int j = chunk * CHUNK + threadIdx.x; j < (chunk + 1) * CHUNK && j < s.length; j += blockDim.x) {
        const long long index = (static_cast<long long>(s.row) * a.hkv + g) * a.n + s.start + j;
        a.tau[index] = -INFINITY_F;
        a.expiry[index] = j < SINKS || j >= s.length - WINDOW ? s.length : j + WINDOW;
    }
    const long long list = static_cast<long long>(g) * block_count<CHUNK>(a) + blockIdx.x;
    const int count = write_sinks(a, s, chunk, a.chunk_keys + list * CHUNK_KEYS);
    if (threadIdx.x == 0) write_counts(a, list, sinks_before(chunk), count);
}
