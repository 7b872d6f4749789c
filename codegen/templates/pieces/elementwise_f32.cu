// Elementwise functions of the language, as accurate as f32 allows. Maximum and minimum return their first operand when both
// are equal.
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float absolute(float x) { return fabsf(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ float reciprocal_square_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ float divide(float a, float b) { return a / b; }
__device__ __forceinline__ float minimum(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float maximum(float a, float b) { return b > a ? b : a; }
