// The same for values of few entries.
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }
__device__ __forceinline__ double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
__device__ __forceinline__ double absolute(double x) { return fabs(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ double reciprocal_square_root(double x) { return 1.0 / sqrt(x); }
__device__ __forceinline__ double divide(double a, double b) { return a / b; }
__device__ __forceinline__ double minimum(double a, double b) { return b < a ? b : a; }
__device__ __forceinline__ double maximum(double a, double b) { return b > a ? b : a; }
