// The keys that queries [begin, end) of a tile see past their windows: of the chunk's keys those that are past the window at
// `begin` and not expired there, ascending; first the ones that are seen to the tile's end, then those that expire within; and
// then those that leave the window within the tile and are selected. A block, or several in z, makes the lists of the tiles that
// begin in a chunk, a warp at a time that of a tile: whatever its first query sees past its window is among the chunk's keys.
constexpr int CHUNK_TILES = (CHUNK + POSITIONS - 1) / POSITIONS;  // at most
extern "C" __global__ void __launch_bounds__(512) tiles(const __grid_constant__ Arguments a) {
<% if not tiles_wait_last %>    wait_for_earlier_launches();
<% endif %>    extern __shared__ __align__(16) unsigned char shared_memory[];
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
<% if tiles_wait_last %>    wait_for_earlier_launches();  // plan_tau, beside it, has waited for what is read here
<% endif %>}
