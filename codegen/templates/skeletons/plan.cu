<% include "pieces/header.cu" %>
<% include "pieces/sequence.cu" %>
<% include "pieces/score.cu" %>
<% include "pieces/scores.cu" %>
<% include "pieces/topk_sinks.cu" %>
<% if has_topk %><% include "pieces/topk_order.cu" %>
<% include "pieces/topk_root.cu" %>
<% include "pieces/topk_whole.cu" %>
<% if plan_by_lists %><% include "pieces/topk_lists.cu" %>
<% include "pieces/topk_sort.cu" %>
<% include "pieces/topk_bounds_lists.cu" %>
<% include "pieces/topk_earlier_lists.cu" %>
<% else %><% include "pieces/topk_earlier_scores.cu" %>
<% include "pieces/topk_bounds_sample.cu" %>
<% include "pieces/topk_bounds_kth.cu" %>
<% include "pieces/topk_bounds_scores.cu" %>
<% endif %><% include "pieces/topk_expiry.cu" %>
<% include "pieces/topk_tau.cu" %>
<% else %><% include "pieces/topk_none.cu" %>
<% endif %>
