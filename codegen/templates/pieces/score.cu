<% if has_topk %>// The score of a key.
__device__ __forceinline__ float score_at(const Arguments& a, const Sequence& s, int g, int j) {
    return ${ score_load }$;
}
<% endif %>
