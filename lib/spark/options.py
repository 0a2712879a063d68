"""What can be said with ``.option(…)``. Kafka's words where Spark's Kafka source has them.

| option | of | default | |
|---|---|---|---|
| ``path``, or ``store`` | all | | the store's URL: ``load(url)`` sets it |
| ``topic`` | all | | one topic |
| ``namespace`` | all | default | |
| ``columns`` | read | all | names with commas between them: others are not read, and not in the schema |
| ``startingOffsets`` | read | earliest; stream: latest | ``earliest``, ``latest``, JSON: ``{"0": 17, "1": "latest"}`` |
| ``endingOffsets`` | batch | latest | the same |
| ``startingTimestamp``, ``endingTimestamp`` | read; batch | | ms since 1970, or ISO 8601: the records' own times |
| ``startingCommit``, ``endingCommit`` | read; batch | | what commits up to that number made readable lies before it |
| ``asOf`` | batch | now | a commit's number: the topic as it was then |
| ``recordsPerSplit`` | read | 500,000 | records of one task |
| ``where`` | read | all rows | ``dep_delay > 60 and carrier == "UA"``: files in which it cannot hold are not read |
| ``pushFilters`` | batch | false | Spark's own filters too; read ``FilteringReader`` first |
| ``maxOffsetsPerTrigger`` | stream | no bound | records of one micro-batch, dealt out by how far partitions lag |
| ``maxBytesPerTrigger`` | stream | no bound | the same by stored bytes, from the mean size of a partition's records |
| ``failOnDataLoss`` | read | true | false: offsets that retention has deleted are skipped |
| ``groupId`` | stream | none | this group's offsets follow the stream, for whoever watches its lag |
| ``writerId`` | stream write | the query's id | under which a stream's batches are remembered |
| ``once`` | batch write | none | an idempotency key: the same job run again writes nothing, for an hour at least |

JSON of offsets may have Kafka's form, ``{"topic": {"0": 17, "1": -1}}``, in which -2 is earliest and -1 latest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from headwater.errors import InvalidRequest
from headwater.limits import SPARK_SPLIT_RECORDS
from headwater.replay.ranges import Commit, Place, Places

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS: Final = {-2: "earliest", -1: "latest"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one source or sink, checked. ``start`` and ``end`` are None where nothing was said."""

    store: str
    topic: str
    namespace: str
    columns: tuple[str, ...] | None
    start: Places | None
    end: Places | None
    as_of: int | None
    records_per_split: int
    where: str
    push_filters: bool
    trigger_offsets: int | None
    trigger_bytes: int | None
    fail_on_data_loss: bool
    group: str
    writer: str
    once: str


def settings_of(options: Mapping[str, str]) -> Settings:
    """The options as Spark hands them over, whatever their case.

    Raises:
        InvalidRequest: one is missing, or its value has no meaning; the message names it.
    """
    said = {name.lower(): value for name, value in options.items()}
    topic = said.get("topic", "")
    return Settings(
        store=_store(said),
        topic=topic or _missing("topic", "the one to read or to write"),
        namespace=said.get("namespace", "default"),
        columns=_columns(said.get("columns")),
        start=_place(said, "starting", topic),
        end=_place(said, "ending", topic),
        as_of=_number(said, "asOf", least=0),
        records_per_split=_number(said, "recordsPerSplit", least=1) or SPARK_SPLIT_RECORDS,
        where=said.get("where", ""),
        push_filters=_flag(said, "pushFilters", False),
        trigger_offsets=_number(said, "maxOffsetsPerTrigger", least=1),
        trigger_bytes=_number(said, "maxBytesPerTrigger", least=1),
        fail_on_data_loss=_flag(said, "failOnDataLoss", True),
        group=said.get("groupid", ""),
        writer=said.get("writerid", ""),
        once=said.get("once", ""),
    )


def _store(said: Mapping[str, str]) -> str:
    found = said.get("store") or said.get("path") or ""
    return found or _missing("store", "the URL of the bucket, as in s3://bucket/prefix; load(url) sets it")


def _missing(name: str, what: str) -> str:
    raise InvalidRequest(f"The option {name!r} is missing: {what}.", option=name)


def _columns(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InvalidRequest("The option 'columns' names no column.", option="columns")
    return names


def _place(said: Mapping[str, str], side: str, topic: str) -> Places | None:
    """Where to begin or to end: said in one of three ways, or not at all."""
    given = [name for name in (f"{side}Offsets", f"{side}Timestamp", f"{side}Commit") if name.lower() in said]
    if not given:
        return None
    if len(given) > 1:
        raise InvalidRequest(f"The options {' and '.join(given)} exclude each other.", option=given[0])
    (name,) = given
    text = said[name.lower()].strip()
    if name.endswith("Commit"):
        return Commit(_number(said, name, least=0) or 0)
    return _moment(name, text) if name.endswith("Timestamp") else _offsets(name, text, topic)


def _moment(name: str, text: str) -> datetime:
    try:
        if text.lstrip("-").isdigit():
            return _EPOCH + timedelta(milliseconds=int(text))
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"The option {name!r} is a time in ms or ISO 8601, not {text!r}.", option=name) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _offsets(name: str, text: str, topic: str) -> Places:
    if text in ("earliest", "latest"):
        return text
    try:
        said: Any = json.loads(text)
        said = said.get(topic, said)
        return {int(partition): _one(place) for partition, place in said.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidRequest(
            f'The option {name!r} is earliest, latest, or JSON as in {{"0": 17, "1": "latest"}}, not {text!r}.',
            option=name,
        ) from error


def _one(place: Any) -> Place:
    if place in ("earliest", "latest"):
        return str(place)
    if not isinstance(place, int) or isinstance(place, bool):
        raise TypeError(place)
    return _WORDS.get(place, place)


def _number(said: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = said.get(name.lower())
    if text is None:
        return None
    if not text.strip().isdigit() or int(text) < least:
        raise InvalidRequest(f"The option {name!r} is a whole number from {least} on, not {text!r}.", option=name)
    return int(text)


def _flag(said: Mapping[str, str], name: str, default: bool) -> bool:
    text = said.get(name.lower(), str(default)).strip().lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"The option {name!r} is true or false, not {text!r}.", option=name)
    return text == "true"
