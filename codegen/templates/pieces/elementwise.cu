// Elementwise functions of the language. Maximum and minimum return their first operand when both are equal.
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// 2^x within 2 ulp.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x within 1 ulp; 0 from x = 2^126 on.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float exponential(float x) { return power_of_two(LOG2_E * x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ float divide(float a, float b) { return ${ divide }$; }
__device__ __forceinline__ float absolute(float x) { return fabsf(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ float reciprocal_square_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ float minimum(float a, float b) { return b < a ? b : a; }
__device__ __forceinline__ float maximum(float a, float b) { return b > a ? b : a; }

// The sigmoid of x = y / log2 e.
__device__ __forceinline__ float sigmoid_of_powers(float y) { return reciprocal(1.0f + power_of_two(-y)); }
__device__ __forceinline__ float sigmoid(float x) { return sigmoid_of_powers(LOG2_E * x); }

// The tangent of x = y / (2 log2 e): 1 − 2e / (1 + e) with e = 2^−|y| = exp(−2|x|), an absolute error of about 1e-7. To
// |x| = 0.08, where that form cancels, x − x³ / 3 with coefficients for which the relative error is 7e-7.
__device__ __forceinline__ float hyperbolic_tangent_of_powers(float y) {
    const float size = fabsf(y), e = power_of_two(-size);
    float tangent = copysignf(1.0f - e * reciprocal(0.5f + 0.5f * e), y);
    if (size < 0.16f * LOG2_E) tangent = y * (0.34657335f - 0.013840587f * (y * y));
    return tangent;
}
__device__ __forceinline__ float hyperbolic_tangent(float x) { return hyperbolic_tangent_of_powers(2.0f * LOG2_E * x); }
