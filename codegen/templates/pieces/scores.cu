<% if has_score_expression %><% include "pieces/elementwise_f32.cu" %>
// Scores that are an expression, computed once: every kernel reads these. One thread for each key.
struct Uniform {
<% for f in uniform_fields %>    ${ f.ty }$ ${ f.name }$;
<% endfor %>};

struct Column {
    int j;
<% for f in column_fields %>    ${ f.ty }$ ${ f.name }$;
<% endfor %>};

extern "C" __global__ void __launch_bounds__(256) scores(const __grid_constant__ Arguments a) {
    wait_for_earlier_launches();
    Sequence s;
    int block;
    if (!find_block<256>(a, blockIdx.x, s, block)) return;
    const int j = block * 256 + threadIdx.x, g = blockIdx.y;
    if (j >= s.length) return;
    const long long token = s.start + j;
    Uniform x = {};
<% for l in uniform_lines %>    ${ l }$
<% endfor %>    Column c = {};
    c.j = j;
<% for l in column_lines %>    ${ l }$
<% endfor %>    a.scores[(s.row * a.hkv + g) * a.n + token] = ${ score }$;
}
<% endif %>
