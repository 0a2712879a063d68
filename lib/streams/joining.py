"""What a join's rows hold, for the builder and for the operators that make them."""

from __future__ import annotations

from headwater.errors import InvalidRequest
from headwater.streams.model import Join, Schema


def right_names(left: Schema, right: Schema, right_on: tuple[str, ...], suffix: str) -> dict[str, str]:
    """The right columns that a joined row has, and what they are called there: all but the key, which is the left's.

    A name that the left side has too gets ``suffix``.
    """
    return {name: f"{name}{suffix}" if name in left else name for name in right if name not in right_on}


def joined_schema(name: str, left: Schema, right: Schema, join: Join) -> Schema:
    """The columns of a join's rows. Raises ``InvalidRequest`` for keys of unequal types and names that clash."""
    if len(join.left_on) != len(join.right_on) or not join.left_on:
        raise InvalidRequest(f"Join {name!r}: it needs as many columns on the right as on the left, and at least one.")
    for mine, theirs in zip(join.left_on, join.right_on, strict=True):
        for column, schema, side in ((mine, left, "left"), (theirs, right, "right")):
            if column not in schema:
                raise InvalidRequest(
                    f"Join {name!r}: the {side} side has no column {column!r}; it has {', '.join(schema)}."
                )
        if left[mine] != right[theirs]:
            raise InvalidRequest(
                f"Join {name!r}: {mine!r} is {left[mine]} on the left and {theirs!r} is {right[theirs]} on the right; "
                "cast one of them."
            )
    schema = dict(left)
    for column, called in right_names(left, right, join.right_on, join.suffix).items():
        if called in schema:
            raise InvalidRequest(f"Join {name!r}: both sides have {called!r}; rename one, or give another suffix.")
        schema[called] = right[column]
    return schema
