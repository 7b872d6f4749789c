// What is known of a row once its sums over keys are complete.
__device__ __forceinline__ void store_row_values(const Arguments& a, const Uniform& x, const Sequence& s, int g, const Row& r,
                                                 const float (&sum)[ROW_SUMS + 1]) {
    const long long token = s.start + r.i;
<% for l in row_late_lines %>    ${ l }$
<% endfor %>}
