// ${ title }$
//
// schedule  ${ schedule_line }$
// target    ${ target_name }$, instructions of ${ family }$
// input     ${ input_hash }$
<% if include_header %>#include <${ include_header }$>
<% endif %>
typedef ${ elem_type }$ elem;
constexpr float INFINITY_F = __builtin_inff();

<% for c in constants %>constexpr ${ c.ty }$ ${ c.name }$ = ${ c.value }$;<% if c.note %>  // ${ c.note }$<% endif %>
<% endfor %>
// The one parameter of every entry: tensors with their strides in elements, buffers, sizes.
struct Arguments {
<% for f in fields %>    ${ f }$
<% endfor %>};
