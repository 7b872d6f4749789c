// Elementwise functions of the language, rounded once, as every backend computes scores. Maximum and minimum return their
// first operand when both are equal.
__device__ __forceinline__ float exponential(float x) { return static_cast<float>(exp(static_cast<double>(x))); }
__device__ __forceinline__ float logarithm(float x) { return static_cast<float>(log(static_cast<double>(x))); }
__device__ __forceinline__ float hyperbolic_tangent(float x) { return static_cast<float>(tanh(static_cast<double>(x))); }
__device__ __forceinline__ float sigmoid(float x) { return static_cast<float>(1.0 / (1.0 + exp(-static_cast<double>(x)))); }
__device__ __forceinline__ float absolute(float x) { return fabsf(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ float reciprocal_square_root(float x) { return static_cast<float>(1.0 / sqrt(static_cast<double>(x))); }
__device__ __forceinline__ float divide(float a, float b) { return a / b; }
__device__ __forceinline__ float minimum(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float maximum(float a, float b) { return b > a ? b : a; }
