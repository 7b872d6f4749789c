__device__ __forceinline__ unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Asynchronous copies of 16 bytes from device to shared memory. Without `valid` the 16 bytes become zero and nothing
// is read.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

// The same from an address to one in shared memory, with a condition and without.
__device__ __forceinline__ void copy_16(unsigned to, unsigned long long from, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_16(unsigned to, unsigned long long from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// Stores a value to shared memory if it is valid. Behind a branch the compiler would take addresses of barriers for different ones
// in a warp's lanes, in the whole loop around it, which takes the loading warps a fifth more instructions.
__device__ __forceinline__ void store_if(bool valid, int* to, int x) {
    asm volatile("{\n"
                 ".reg .pred valid;\n"
                 "setp.ne.b32 valid, %0, 0;\n"
                 "@valid st.shared.b32 [%1], %2;\n"
                 "}" ::"r"(static_cast<int>(valid)), "r"(shared_address(to)), "r"(x) : "memory");
}
__device__ __forceinline__ void store_if(bool valid, float* to, float x) { store_if(valid, reinterpret_cast<int*>(to), __float_as_int(x)); }
__device__ __forceinline__ void store_if(bool valid, bool* to, bool x) {
    asm volatile("{\n"
                 ".reg .pred valid;\n"
                 "setp.ne.b32 valid, %0, 0;\n"
                 "@valid st.shared.b8 [%1], %2;\n"
                 "}" ::"r"(static_cast<int>(valid)), "r"(shared_address(to)), "r"(static_cast<int>(x)) : "memory");
}

// A barrier in shared memory: its phase ends with the last of a number of arrivals, and phases are told apart by their
// parity. Until the first phase has ended, waiting for parity 1 returns at once. Every thread that has read a buffer arrives
// itself, which takes no longer than one lane doing so for its warp, and which tools that look for races can follow.
struct Barrier {
    unsigned long long state;

    __device__ __forceinline__ void start(int arrivals) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&state)), "r"(arrivals) : "memory");
    }

    __device__ __forceinline__ void arrive() {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&state)) : "memory");
    }

    // Arrives when the copies that this thread has started so far are done: for matrix products too, without a fence of their
    // own. What threads store themselves is read by threads alone.
    __device__ __forceinline__ void arrive_when_copied() {
        asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&state)) : "memory");
    }

    __device__ __forceinline__ void wait(unsigned parity) {
        asm volatile("{\n"
                     ".reg .pred done;\n"
                     "again%=:\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                     "@!done bra again%=;\n"
                     "}" ::"r"(shared_address(&state)), "r"(parity) : "memory");
    }
};

// Makes barriers that one thread has started known to the copies of others.
__device__ __forceinline__ void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Waits for `threads` threads at the hardware's barrier `id`; arriving there does not wait.
__device__ __forceinline__ void meet(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void pass(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// Hands registers from the warps that load to those that compute.
template <int COUNT>
__device__ __forceinline__ void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT>
__device__ __forceinline__ void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

// The same address by way of another lane: what was read there before is read again, which spares the registers to keep it.
template <class T>
__device__ __forceinline__ const T* read_again(const T* at) {
    return static_cast<const T*>(__cvta_shared_to_generic(__shfl_sync(~0u, shared_address(at), 0)));
}

// The thread's number, read anew: spares the registers that would keep what follows from it.
__device__ __forceinline__ int thread_again() {
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}
