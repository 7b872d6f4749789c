// The element type.
__device__ __forceinline__ float to_float(elem x) { return ${ to_float }$(x); }
__device__ __forceinline__ elem to_elem(float x) { return ${ to_elem }$(x); }

// Two numbers rounded to the element type, the first in the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
    unsigned y;
    asm("cvt.rn.${ mma_type }$x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// Stores two neighbouring elements.
__device__ __forceinline__ void store_pair(elem* to, float a, float b) { *reinterpret_cast<unsigned*>(to) = pack(a, b); }
