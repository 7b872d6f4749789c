<% include "pieces/header.cu" %>
<% include "arch/element.cu" %>
<% include "pieces/elementwise.cu" %>
<% include "pieces/sequence.cu" %>
<% include "pieces/score.cu" %>
<% include "arch/memory.cu" %>
<% include "arch/matmul.cu" %>
<% include "pieces/lanes.cu" %>
<% include "pieces/rows.cu" %>
<% include "pieces/columns.cu" %>
<% include "pieces/pair.cu" %>
<% include "pieces/topk_tiles.cu" %>
<% include "pieces/tile_columns.cu" %>
<% include "pieces/warpgroups.cu" %>
<% include "pieces/streamed_columns.cu" %>
<% if row_dots %><% include "pieces/row_dots.cu" %>
<% endif %><% if has_rows %><% include "pieces/row_values.cu" %>
<% include "skeletons/backward_rows_specialised.cu" %>
<% endif %><% if has_keys %><% include "skeletons/backward_keys_specialised.cu" %>
<% endif %><% if has_threshold %><% include "pieces/topk_threshold.cu" %>
<% endif %><% include "skeletons/finish.cu" %>
