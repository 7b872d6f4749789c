// ${ title }$
//
// schedule  ${ schedule_line }$
// target    ${ target_name }$, instructions of ${ family }$
// input     ${ input_hash }$
<% if include_header %>#include <${ include_header }$>
<% endif %>
typedef ${ elem_type }$ elem;
#define INFINITY_F __int_as_float(0x7f800000)
#pragma nv_diag_suppress 177  // not every module uses all of what follows

<% for c in constants %>constexpr ${ c.ty }$ ${ c.name }$ = ${ c.value }$;<% if c.note %>  // ${ c.note }$<% endif %>
<% endfor %>
// The one parameter of every entry: tensors with their strides in elements, buffers, sizes.
struct Arguments {
<% for f in fields %>    ${ f }$
<% endfor %>};

// From sm_90 on a launch may begin before the one before it in the stream has ended: its blocks are on the multiprocessors
// then, and wait here for what that one writes. Every launch waits, first, or late where it needs nothing of the one before
// until then, and only then lets the next begin: so whatever was before that one has ended.
__device__ __forceinline__ void wait_for_earlier_launches() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
