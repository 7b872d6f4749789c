// Whether the user's predicates leave a pair.
<% if has_predicate %>__device__ __forceinline__ bool predicate(const Uniform& x, const Row& r, const Column& c) {
<% for l in predicate.lines %>    ${ l }$
<% endfor %>    return ${ predicate.result }$;
}
<% else %>__device__ __forceinline__ bool predicate(const Uniform&, const Row&, const Column&) { return true; }
<% endif %>
// Whether every pair of a tile is seen.
template <bool FULL>
constexpr bool SEES_ALL = FULL && ${ not has_predicate }$;

// Whether a query sees a key. In full tiles every query of the tile sees every key, predicates aside.
template <bool FULL>
__device__ __forceinline__ bool sees(const Uniform& x, const Row& r, const Column& c) {
    return (FULL | ((c.from <= r.i) & (r.i < c.to))) & predicate(x, r, c);
}

// The gate of a pair that is seen: 1 in the window.
<% if uses_gate %>template <bool FULL>
__device__ __forceinline__ float gate_of(const Row& r, const Column& c) {
    const float gate = candidate_gate(r, c);
    return !FULL && r.i - c.j < WINDOW ? 1.0f : gate;
}
<% else %>template <bool FULL>
__device__ __forceinline__ float gate_of(const Row&, const Column&) { return 1.0f; }
<% endif %>
<% for p in pair_structs %>${ p }$
<% endfor %><% for f in pair_functions %>${ f.comment }$
__device__ __forceinline__ ${ f.returns }$ ${ f.name }$(const Uniform& x, const Row& r, const Column& c, float gate${ f.arguments }$) {
<% for l in f.lines %>    ${ l }$
<% endfor %>}

<% endfor %>
