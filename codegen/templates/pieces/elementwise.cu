// Elementwise functions of the language. Maximum and minimum return their first operand when both are equal.
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// 2^x within 2 ulp.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float exponential(float x) { return power_of_two(LOG2_E * x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ float divide(float a, float b) { return ${ divide }$; }
__device__ __forceinline__ float sigmoid(float x) { return divide(1.0f, 1.0f + power_of_two(-LOG2_E * x)); }
__device__ __forceinline__ float absolute(float x) { return fabsf(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ float reciprocal_square_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ float minimum(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float maximum(float a, float b) { return b > a ? b : a; }

// (1 − e) / (1 + e) with e = exp(−2|x|), an absolute error of about 1e-7; near 0, where that form cancels, the series.
__device__ __forceinline__ float hyperbolic_tangent(float x) {
    const float size = fabsf(x);
    const float e = power_of_two(-2.0f * LOG2_E * size);
    const float square = x * x;
    const float series = size * (1.0f + square * (-0.33333333f + square * (0.13333333f - 0.05396825f * square)));
    return copysignf(size < 0.1f ? series : divide(1.0f - e, 1.0f + e), x);
}
