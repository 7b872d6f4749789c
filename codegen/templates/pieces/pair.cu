<% if predicate_of_tiles %><% include "pieces/predicate_bounds.cu" %>
// Whether the user's predicates leave a pair; of bounds, whether they leave all of a tile's pairs, or none.
template <class Rows, class Columns>
__device__ __forceinline__ auto predicate(const Uniform& x, const Rows& r, const Columns& c) {
<% for l in predicate.lines %>    ${ l }$
<% endfor %>    return ${ predicate.result }$;
}
<% else %>// Whether the user's predicates leave a pair.
<% if has_predicate %>__device__ __forceinline__ bool predicate(const Uniform& x, const Row& r, const Column& c) {
<% for l in predicate.lines %>    ${ l }$
<% endfor %>    return ${ predicate.result }$;
}
<% else %>__device__ __forceinline__ bool predicate(const Uniform&, const Row&, const Column&) { return true; }
<% endif %><% endif %>
// Whether every pair of a tile is seen.
template <bool FULL>
constexpr bool SEES_ALL = FULL && ${ not has_predicate or predicate_of_tiles }$;

<% if predicate_of_tiles %>// Whether a query sees a key. In full tiles, which predicates leave whole, every query of the tile sees every key.
template <bool FULL>
__device__ __forceinline__ bool sees(const Uniform& x, const Row& r, const Column& c) {
    return FULL || ((c.from <= r.i) & (r.i < c.to) & predicate(x, r, c));
}
<% else %>// Whether a query sees a key. In full tiles every query of the tile sees every key, predicates aside.
template <bool FULL>
__device__ __forceinline__ bool sees(const Uniform& x, const Row& r, const Column& c) {
    return (FULL | ((c.from <= r.i) & (r.i < c.to))) & predicate(x, r, c);
}
<% endif %>
// The gate of a pair that is seen, clip(u − tau, 0, 1): 1 in the window, where columns have the score +inf.
<% if uses_gate %>__device__ __forceinline__ float gate_of(const Row& r, const Column& c) { return __saturatef(c.score - r.tau); }
<% else %>__device__ __forceinline__ float gate_of(const Row&, const Column&) { return 1.0f; }
<% endif %>
// Whether a gate moves with its threshold: 0 < gate < 1. The bits of numbers from 0 on grow with them, so that one comparison
// without a sign is enough.
__device__ __forceinline__ bool is_fraction(float gate) { return __float_as_uint(gate) - 1 < 0x3f7fffffu; }

<% if has_cap %>// Logits in powers of two, c tanh(x) with y = 2 x log2 e and the cap c: c − 2 c e / (1 + e) with e = 2^−|y| = exp(−2|x|) and
// the sign of x. Two have one reciprocal, since e0 / (1 + e0) = (e0 + e0 e1) / ((1 + e0) (1 + e1)).
__device__ __forceinline__ void cap_two(float& y0, float& y1) {
    const float e0 = power_of_two(-fabsf(y0)), e1 = power_of_two(-fabsf(y1));
    const float share0 = fmaf(e0, e1, e0), share1 = fmaf(e0, e1, e1);
    constexpr float PART = -0.5f / CAP;
    const float both = reciprocal(fmaf(PART, share1, fmaf(PART, e0, PART)));
    y0 = copysignf(fmaf(share0, both, CAP), y0);
    y1 = copysignf(fmaf(share1, both, CAP), y1);
}

<% endif %><% for p in pair_structs %>${ p }$
<% endfor %><% for f in pair_functions %>${ f.comment }$
__device__ __forceinline__ ${ f.returns }$ ${ f.name }$(const Uniform& x, const Row& r, const Column& c, float gate${ f.arguments }$) {
<% for l in f.lines %>    ${ l }$
<% endfor %>}

<% endfor %>
