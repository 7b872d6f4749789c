// The element type.
__device__ __forceinline__ float to_float(elem x) { return x; }
__device__ __forceinline__ elem to_elem(float x) { return x; }

// Stores two neighbouring elements.
__device__ __forceinline__ void store_pair(elem* to, float a, float b) { *reinterpret_cast<float2*>(to) = make_float2(a, b); }
