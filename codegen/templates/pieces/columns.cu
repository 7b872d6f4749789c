// What a column is: its key, −1 for none, the queries [from, to) that see it, its score and its values.
struct Column {
    int from, to;
    int j;
<% if uses_gate %>    float score;
<% endif %><% for f in column_fields %>    ${ f.ty }$ ${ f.name }$;
<% endfor %>};

__device__ __forceinline__ void load_column_values(const Arguments& a, const Uniform& x, const Sequence& s, int g, Column& c) {
    const int j = c.j;
    const long long token = s.start + j;
<% for l in column_lines %>    ${ l }$
<% endfor %>}

<% if uses_gate %>// The score by which a key is gated once it has left the window: +inf where it never is a candidate.
__device__ __forceinline__ float gate_score(const Arguments& a, const Sequence& s, int g, int j) {
    return j < SINKS ? INFINITY_F : score_at(a, s, g, j);
}
<% endif %>
