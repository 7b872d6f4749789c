<% if key_outputs %>// Gradients of values that each key has, and key values that are summed further. One thread for each key. Compilers aim at
// more than two blocks of a multiprocessor where they may, and spill for it.
extern "C" __global__ void __launch_bounds__(256, 2) finish_keys(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<256>(a, blockIdx.x, s, block)) return;
    const int j = block * 256 + threadIdx.x;
    if (j >= s.length) return;
    const long long token = s.start + j;
<% for o in key_folds %>    double total_${ o.name }$ = 0.0;
<% endfor %>    for (int g = 0; g < a.hkv; ++g) {
        const Uniform x = load_uniform(a, s, g);
        const long long entry = (s.row * a.hkv + g) * a.n + token;
        Column c = {};
        c.j = j;
        load_column_values(a, x, s, g, c);
<% for l in key_late_lines %>        ${ l }$
<% endfor %>    }
<% for o in key_folds %>    ${ o.store }$
<% endfor %>}
<% endif %>
<% if row_folds %>// Gradients of values that each query has for all its heads. One thread for each query.
extern "C" __global__ void __launch_bounds__(256) finish_rows(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    const long long at = blockIdx.x * 256ll + threadIdx.x;
    if (at >= a.rows * a.n) return;
    const long long row = at / a.n, token = at % a.n;
<% for o in row_folds %>    {
        double total = 0.0;
        for (int head = 0; head < a.hq; ++head) total += a.${ o.buffer }$[(row * a.hq + head) * a.n + token];
        ${ o.store }$
    }
<% endfor %>}
<% endif %>
<% if totals %>// Sums over the positions of a sequence, in the same order whatever else is in the batch. One block for each sequence
// and head.
__device__ __forceinline__ void sum_positions(double* to, const float* values, int length) {
    __shared__ double parts[256];
    double sum = 0.0;
    for (int i = threadIdx.x; i < length; i += 256) sum += values[i];
    parts[threadIdx.x] = sum;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    }
    if (threadIdx.x == 0) *to = parts[0];
    __syncthreads();
}
<% for t in totals %>
extern "C" __global__ void __launch_bounds__(256) ${ t.entry }$(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    const Sequence s = sequence_at(a, blockIdx.x);
    const long long head = blockIdx.y, heads = a.${ t.heads }$;
    sum_positions(a.${ t.buffer }$_total + blockIdx.x * heads + head, a.${ t.buffer }$ + (s.row * heads + head) * a.n + s.start, s.length);
}
<% endfor %><% endif %>
<% if small_outputs %><% include "pieces/elementwise_f64.cu" %>
// Values of few entries, in f64: functions of the sequence b and the query head h, of which each uses what it varies over.
<% for f in small_functions %>__device__ double ${ f.name }$(const Arguments& a, int b, int h) {
<% for l in f.lines %>    ${ l }$
<% endfor %>}

<% endfor %>extern "C" __global__ void __launch_bounds__(256) finish_small(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
<% for o in small_outputs %>    for (int h = threadIdx.x; h < ${ o.length }$; h += 256) a.${ o.name }$[h<% if o.strided %> * a.${ o.name }$_head<% endif %>] = static_cast<float>(${ o.function }$(a, 0, h));
<% endfor %>}
<% endif %>
