<% include "pieces/header.cu" %>
<% include "pieces/sequence.cu" %>
<% include "pieces/score.cu" %>
<% include "pieces/scores.cu" %>
<% include "pieces/topk_sinks.cu" %>
<% if has_topk %><% include "pieces/topk_order.cu" %>
<% include "pieces/topk_lists.cu" %>
<% include "pieces/topk_sort.cu" %>
<% include "pieces/topk_root.cu" %>
<% include "pieces/topk_bounds.cu" %>
<% include "pieces/topk_expiry.cu" %>
<% include "pieces/topk_whole.cu" %>
<% include "pieces/topk_tau.cu" %>
<% else %><% include "pieces/topk_none.cu" %>
<% endif %>
