"""Giving a topic a schema, and the next version of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from headwater.errors import Conflict, InvalidRequest
from headwater.log import columns
from headwater.log.operations import SetSchema
from headwater.schemas import datums, documents, texts
from headwater.schemas.compile import check_format, compile_schema, definition_text

if TYPE_CHECKING:
    from headwater.log.namespace import Namespace
    from headwater.log.state import Schema, Topic

TRIES_MAX: Final = 5  # others may set a schema at the same moment; each try sees one more of them


async def set_schema(
    namespace: Namespace,
    topic: str,
    format: str,  # noqa: A002
    definition: Any,
    *,
    version: int = 0,
) -> Schema:
    """Make ``definition`` the newest version of a topic's schema, and answer it. A repetition changes nothing.

    Args:
        namespace: where the topic is.
        topic: its name.
        format: how values are written: ``json``, ``avro`` or ``arrow``.
        definition: see ``compile.compile_schema``.
        version: the version that this is to be; 0 is whichever comes next.

    Raises:
        InvalidRequest: the definition cannot be expressed; the message names the path.
        Conflict: it cannot follow the present version, or ``version`` is taken.
        NotFound: no such topic.

    Cost: 1 GET, and 1 commit if it is new.
    """
    for attempt in range(TRIES_MAX):
        await namespace.refresh()
        found = namespace.topic(topic)
        op = planned(found, format, definition, version)
        if op is not None:
            try:
                await namespace.writer.commit(ops=[op])
            except Conflict as error:
                if error.data.get("reason") != "stale" or version or attempt == TRIES_MAX - 1:
                    raise
                continue
        schema = namespace.topic(topic).schema
        assert schema is not None
        return schema
    raise AssertionError("the last try answers or raises")


def planned(topic: Topic, format: str, definition: Any, version: int = 0) -> SetSchema | None:  # noqa: A002
    """The operation that gives the topic this schema; None if it has it. Pure. Raises as ``set_schema``."""
    kind = check_format(format)
    text = definition_text(kind, definition)
    present = topic.schema
    repeated = present is not None and version in (0, present.version) and present.format == kind
    if present is not None and repeated and documents.same(present.definition, text):
        return None
    wanted = compile_schema(kind, text)
    if kind == "avro":
        datums.check_definition(text)
    else:
        texts.check_definition(kind, text)
    following = present.version + 1 if present else 1
    if version not in (0, following):
        raise Conflict(
            f"Topic {topic.name!r} has version {following - 1} of its schema, so the next one is {following}, "
            f"not {version}.",
            reason="stale",
        )
    reason = columns.refusal(present.columns if present else [], wanted)
    if reason:  # the fold would say the same; so the caller hears it without a commit
        raise (Conflict if present else InvalidRequest)(
            f"Topic {topic.name!r} cannot have this schema: {reason}", reason="incompatible"
        )
    return SetSchema(topic=topic.id, version=following, format=kind, definition=text, columns=wanted)
