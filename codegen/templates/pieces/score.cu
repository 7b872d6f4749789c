<% if has_topk %>// The score of a sequence's first key, and how far it is to the next.
__device__ __forceinline__ const float* scores_of(const Arguments& a, const Sequence& s, int g) {
    return ${ scores_of }$;
}

__device__ __forceinline__ long long score_stride(const Arguments& a) { return ${ score_stride }$; }

// The score of a key.
__device__ __forceinline__ float score_at(const Arguments& a, const Sequence& s, int g, int j) {
    return scores_of(a, s, g)[j * score_stride(a)];
}
<% endif %>
