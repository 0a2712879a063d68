"""Which operator a join is."""

from __future__ import annotations

from headwater.streams.model import Join
from headwater.streams.operator import Context, Operator, operator
from headwater.streams.ops.join_asof import AsOfJoin
from headwater.streams.ops.join_global import TableGlobalJoin
from headwater.streams.ops.join_stream import StreamStreamJoin
from headwater.streams.ops.join_table import StreamTableJoin
from headwater.streams.ops.join_tables import TableTableJoin


@operator(Join)
def join(node: Join, context: Context) -> Operator:
    """The operator of a join, by its kind."""
    if node.kind == "tables":
        return TableTableJoin(node, context)
    if node.kind == "stream":
        return StreamStreamJoin(node, context)
    if node.kind == "asof":
        return AsOfJoin(node, context)
    if node.kind == "global" and context.tables[0]:
        return TableGlobalJoin(node, context)
    return StreamTableJoin(node, context)
