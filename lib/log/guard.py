"""The one place where values meet the schema of their topic on the way in: before anything of them is stored.

The log does not know what a schema means. The layer above does (``headwater.schemas.guard``), and it is loaded by name
when the first batch for a topic with a schema comes by: a topic without one costs a look into the state, and imports
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.errors import Indeterminate, InvalidRequest
from headwater.log.state import State

if TYPE_CHECKING:
    from headwater.log.writer import Append

_CHECKER = "headwater.schemas.guard"


def refuse_misfits(state: State, appends: Sequence[Append], *, token: str = "") -> None:
    """Refuse batches with a value that does not fit its topic's schema, as this process knows it.

    With ``token``, that of an earlier attempt, any version will do: it may have passed by an older one. A batch that
    fits none may have been sent before the topic had a schema, and then nothing is known of that attempt.

    Raises:
        InvalidRequest: names the batch, the row and the field. Nothing was applied.
        Indeterminate: as above.
    """
    for number, append in enumerate(appends):
        topic = state.topics.get(append.topic)
        if topic is None or not topic.schemas:
            continue
        check: Any = import_module(_CHECKER).check
        batch = "the batch" if len(appends) == 1 else f"batch {number}"
        where = f"of {batch} for topic {topic.name!r}, partition {append.partition},"
        try:
            check(topic.schemas, append.batch, where, bool(token))
        except InvalidRequest as error:
            if token:
                raise Indeterminate(f"{error.message} What the first attempt did is not known.", token=token) from error
            raise
