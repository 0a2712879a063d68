"""What all operations are made of: their base, and the words that those of several modules share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from headwater.limits import NAME_BYTES_MAX, PATTERN_CHARS_MAX, TOPIC_NAME_MAX

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
Positive: TypeAlias = Annotated[int, Meta(ge=1, le=2**62)]
Position: TypeAlias = Annotated[int, Meta(ge=-2, le=2**62)]
OrNone: TypeAlias = Annotated[int, Meta(ge=-1, le=2**62)]
Name: TypeAlias = Annotated[str, Meta(max_length=NAME_BYTES_MAX)]
MemberId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_BYTES_MAX)]
TopicName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TOPIC_NAME_MAX)]
Subscribed: TypeAlias = Annotated[str, Meta(min_length=1, max_length=PATTERN_CHARS_MAX)]  # a topic, or a pattern


class Op(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="op", tag=str.lower):
    """The base of all operations other than appends."""
