// As much of CUDA C++ as plan kernels use, on the CPU: one block at a time, every thread of it a fiber. Fibers go on in turn, once
// upwards and once downwards, from one point where they wait for each other to the next, so what a kernel does without waiting where
// it must is found here by luck alone. AddressSanitizer watches buffers and shared memory, not what is on a fiber's stack.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <type_traits>
#include <ucontext.h>
#include <vector>

#define __CUDA_ARCH__ 890  // launches of later ones overlap, by instructions in assembly
#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __shared__ static  // of the one block that runs

struct Dimensions {
    unsigned x, y, z;
};
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(16) double2 { double x, y; };

namespace emulated {

[[noreturn]] inline void fail(const char* what, int line) {
    std::fprintf(stderr, "emulated kernel: %s, line %d\n", what, line);
    std::_Exit(3);  // not from a fiber's stack, which is one of what exit would free
}

// Threads that wait for each other.
struct Meeting {
    int members = 0, arrived = 0;
    unsigned turn = 0;
    int line = 0;  // where they do in this turn

    void release() { arrived = 0, ++turn; }
};

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Dimensions index;
    bool ended;
    unsigned exchanges;  // of its warp, so far
    const Meeting* waits_for;
    unsigned turn;
};

struct Warp {
    Meeting meeting;
    uint64_t slots[2][32];  // what lanes show each other, in turns: who is at the next exchange has read those of the last
};

constexpr size_t STACK = 256 * 1024;

inline ucontext_t scheduler;
inline std::vector<Thread> threads;
inline std::vector<Warp> warps;
inline Meeting block;
inline Thread* current;
inline std::function<void()> kernel;
inline unsigned char* dynamic_shared;

inline void wait(Meeting& meeting, int line) {
    if (meeting.arrived == 0) meeting.line = line;
    else if (meeting.line != line) fail("threads wait for each other at different places", line);
    current->turn = meeting.turn;
    if (++meeting.arrived == meeting.members) return meeting.release();
    current->waits_for = &meeting;
    swapcontext(&current->context, &scheduler);
}

inline int lane() { return static_cast<int>(current->index.x % 32); }
inline Warp& warp() { return warps[current->index.x / 32]; }

// What every lane of the warp has.
template <class T>
const uint64_t* exchange(unsigned mask, const T& mine, int line) {
    static_assert(sizeof(T) <= 8);
    if (mask != ~0u || warp().meeting.members != 32) fail("a part of a warp exchanges values", line);
    uint64_t* slots = warp().slots[current->exchanges++ % 2];
    std::memcpy(&slots[lane()], &mine, sizeof(T));
    wait(warp().meeting, line);
    return slots;
}

template <class T>
T value(const uint64_t& slot) {
    T x;
    std::memcpy(&x, &slot, sizeof(T));
    return x;
}

inline void run_thread() {
    kernel();
    current->ended = true;
    Meeting& lanes = warp().meeting;
    if (lanes.arrived > 0) fail("a thread ends for which its warp waits", lanes.line);
    --lanes.members;
    if (--block.members > 0 && block.arrived == block.members) block.release();
    swapcontext(&current->context, &scheduler);
}

inline void run_block(unsigned count) {
    threads.resize(count);
    warps.assign((count + 31) / 32, {});
    block = {static_cast<int>(count)};
    for (unsigned t = 0; t < count; ++t) {
        Thread& thread = threads[t];
        if (!thread.stack) thread.stack.reset(new char[STACK]);
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = STACK;
        makecontext(&thread.context, run_thread, 0);
        thread.index = {t, 0, 0};
        thread.ended = false;
        thread.exchanges = 0;
        thread.waits_for = nullptr;
        ++warps[t / 32].meeting.members;
    }
    bool upwards = true;
    for (unsigned left = count; left > 0; upwards = !upwards) {
        bool any = false;
        for (unsigned t = 0; t < count; ++t) {
            Thread& thread = threads[upwards ? t : count - 1 - t];
            if (thread.ended || (thread.waits_for != nullptr && thread.waits_for->turn == thread.turn)) continue;
            thread.waits_for = nullptr;
            current = &thread;
            swapcontext(&scheduler, &thread.context);
            left -= thread.ended ? 1 : 0;
            any = true;
        }
        if (any) continue;
        const auto waiting = std::find_if(threads.begin(), threads.end(), [](const Thread& thread) { return !thread.ended; });
        fail("threads wait for each other for ever", waiting->waits_for->line);
    }
}

}  // namespace emulated

inline Dimensions blockIdx, blockDim, gridDim;
#define threadIdx (emulated::current->index)

namespace emulated {

template <class Arguments>
void launch(void (*entry)(Arguments), Dimensions grid, unsigned count, unsigned shared, const std::remove_const_t<Arguments>& arguments) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, shared) != 0) fail("no memory", __LINE__);
    dynamic_shared = static_cast<unsigned char*>(memory);
    blockDim = {count, 1, 1}, gridDim = grid;
    kernel = [&] { entry(arguments); };
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                std::memset(memory, 0xa5, shared);  // nobody has written there
                run_block(count);
            }
    std::free(memory);
}

}  // namespace emulated

#define HERE int line = __builtin_LINE()

inline void __syncthreads(HERE) { emulated::wait(emulated::block, line); }
inline void __syncwarp(HERE) { emulated::wait(emulated::warp().meeting, line); }

template <class T>
T __shfl_sync(unsigned mask, T x, int from, HERE) {
    return emulated::value<T>(emulated::exchange(mask, x, line)[from % 32]);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int by, HERE) {
    return emulated::value<T>(emulated::exchange(mask, x, line)[emulated::lane() ^ by]);
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, int by, HERE) {
    const int lane = emulated::lane();
    return emulated::value<T>(emulated::exchange(mask, x, line)[lane >= by ? lane - by : lane]);
}
inline unsigned __ballot_sync(unsigned mask, bool x, HERE) {
    const uint64_t* all = emulated::exchange(mask, x, line);
    unsigned votes = 0;
    for (int l = 0; l < 32; ++l) votes |= emulated::value<bool>(all[l]) ? 1u << l : 0;
    return votes;
}
inline bool __any_sync(unsigned mask, bool x, HERE) { return __ballot_sync(mask, x, line) != 0; }

inline unsigned __reduce_add_sync(unsigned mask, unsigned x, HERE) {
    const uint64_t* all = emulated::exchange(mask, x, line);
    unsigned sum = 0;
    for (int l = 0; l < 32; ++l) sum += emulated::value<unsigned>(all[l]);
    return sum;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned x, HERE) {
    const uint64_t* all = emulated::exchange(mask, x, line);
    for (int l = 0; l < 32; ++l) x = std::min(x, emulated::value<unsigned>(all[l]));
    return x;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned x, HERE) {
    return ~__reduce_min_sync(mask, ~x, line);
}

inline int atomicAdd(int* at, int x) { return *at += x, *at - x; }

template <class To, class From>
To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To y;
    std::memcpy(&y, &x, sizeof(To));
    return y;
}
inline float __int_as_float(int x) { return bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline int __float_as_int(float x) { return bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline double __longlong_as_double(long long x) { return bits_as<double>(x); }
inline double __hiloint2double(int high, int low) {
    return bits_as<double>(static_cast<uint64_t>(static_cast<unsigned>(high)) << 32 | static_cast<unsigned>(low));
}
inline int __double2hiint(double x) { return static_cast<int>(bits_as<uint64_t>(x) >> 32); }

// To whole numbers, the nearest that there is; 0 of NaN.
template <class To, class From>
To whole_number(From rounded) {
    if (rounded != rounded) return 0;
    if (rounded >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    if (rounded <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    return static_cast<To>(rounded);
}
inline int __double2int_rn(double x) { return whole_number<int>(std::nearbyint(x)); }
inline long long __double2ll_rn(double x) { return whole_number<long long>(std::nearbyint(x)); }
inline int __float2int_rn(float x) { return whole_number<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return whole_number<int>(std::floor(x)); }
inline float __double2float_rd(double x) {
    const float near = static_cast<float>(x);
    return static_cast<double>(near) > x ? std::nextafter(near, -INFINITY) : near;
}

inline float __fdividef(float x, float y) { return x / y; }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0.0f ? std::min(x, 1.0f) : 0.0f; }
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __viaddmin_s32_relu(int x, int y, int z) {
    const int sum = static_cast<int>(static_cast<unsigned>(x) + static_cast<unsigned>(y));
    return std::max(std::min(sum, z), 0);
}
template <class T>
T __ldg(const T* at) { return *at; }
