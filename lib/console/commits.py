"""What single commits did, in numbers and words: the last ones of the chain, read once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater.errors import NotFound
from headwater.limits import CONSOLE_COMMITS_KEPT
from headwater.log.chain import read_manifest
from headwater.log.intents import Intent, Manifest
from headwater.log.namespace import Namespace
from headwater.log.operations import AlterTopic, CommitOffsets, SwapFiles
from headwater.log.together import together

SHOWN = 6  # places of one operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """What an intent asked for: ``what`` in words, ``topic`` an id that it is about (0: none)."""

    what: str
    detail: str
    topic: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One manifest. ``by_topic`` is records and bytes by topic id.

    ``grew`` is records by topic and partition, ``moved`` the offsets that groups committed, by name and place.
    """

    seq: int
    time_ms: int
    writer: str
    intents: int
    merged: int
    records: int
    bytes: int
    by_topic: dict[int, tuple[int, int]]
    did: Sequence[Did]
    grew: Mapping[tuple[int, int], int]
    moved: Mapping[str, Mapping[tuple[int, int], int]]


class Commits:
    """The summaries of one namespace; a commit never changes, so each is read once."""

    def __init__(self, namespace: Namespace) -> None:
        self._space = namespace
        self._known: dict[int, Commit] = {}

    async def last(self, count: int, *, upto: int) -> list[Commit]:
        """The last ``count`` commits up to ``upto``, newest first, as far back as manifests are kept.

        Cost: 1 GET for each that was not read before.
        """
        wanted = range(max(1, upto - count + 1), upto + 1)
        missing = [seq for seq in wanted if seq not in self._known]
        for commit in await together(*(self._read(seq) for seq in missing)):
            if commit is not None:
                self._known[commit.seq] = commit
        found = [self._known[seq] for seq in reversed(wanted) if seq in self._known]
        while len(self._known) > CONSOLE_COMMITS_KEPT:
            del self._known[min(self._known)]
        return found

    async def _read(self, seq: int) -> Commit | None:
        try:
            data = await self._space.chain.read_slot(seq)
        except NotFound:
            return None
        return None if data is None else summary(read_manifest(data, seq))


def summary(manifest: Manifest) -> Commit:
    """What a manifest did. Pure."""
    by_topic: dict[int, tuple[int, int]] = {}
    grew: dict[tuple[int, int], int] = {}
    moved: dict[str, dict[tuple[int, int], int]] = {}
    for intent in manifest.intents:
        for chunk in intent.appends:
            records, size = by_topic.get(chunk.topic, (0, 0))
            by_topic[chunk.topic] = records + chunk.count, size + chunk.len
            place = chunk.topic, chunk.partition
            grew[place] = grew.get(place, 0) + chunk.count
        for op in intent.ops:
            if isinstance(op, CommitOffsets):
                moved.setdefault(op.group, {}).update({(at.topic, at.partition): at.offset for at in op.offsets})
    return Commit(
        seq=manifest.seq,
        time_ms=manifest.time,
        writer=manifest.writer,
        intents=len(manifest.intents),
        merged=len(manifest.merged),
        records=sum(records for records, _ in by_topic.values()),
        bytes=sum(size for _, size in by_topic.values()),
        by_topic=by_topic,
        did=[did for intent in manifest.intents for did in _told(intent)],
        grew=grew,
        moved=moved,
    )


def _told(intent: Intent) -> list[Did]:
    told = [
        Did(
            what=_words(type(op).__name__),
            detail=_detail(op),
            topic=op.topic if isinstance(op, AlterTopic | SwapFiles) else 0,
        )
        for op in intent.ops
    ]
    for chunk in intent.appends:
        who = f", producer {chunk.pid} epoch {chunk.epoch}" if chunk.pid >= 0 else ""
        records = f"{chunk.count:,} record{'' if chunk.count == 1 else 's'}"
        detail = f"{records} to partition {chunk.partition}, {chunk.len:,} bytes{who}"
        told.append(Did(what="append", detail=detail, topic=chunk.topic))
    return told


def _words(name: str) -> str:
    """``CommitOffsets`` as ``commit offsets``."""
    return "".join(f" {char.lower()}" if char.isupper() else char for char in name).strip()


_HIDDEN = frozenset({"hash", "stored_key", "server_key", "salt"})  # nobody's business, though nobody could use them


def _detail(op: object) -> str:
    if isinstance(op, CommitOffsets):
        where = ", ".join(f"{at.offset:,} of {at.topic}-{at.partition}" for at in op.offsets[:SHOWN])
        more = f" and {len(op.offsets) - SHOWN:,} more" if len(op.offsets) > SHOWN else ""
        return f"group {op.group}: {where}{more} (topic id and partition)"
    if isinstance(op, AlterTopic):
        return ", ".join(
            f"{name} back to its default" if value is None else f"{name} = {value[:60]}{'…' if len(value) > 60 else ''}"
            for name, value in op.config.items()
        )
    if isinstance(op, SwapFiles):
        held = f"{len(op.files) + len(op.pages):,} files hold offsets {op.base:,} to {op.end:,}"
        return f"partition {op.partition}: {held}, instead of {len(op.was):,}"
    fields = [name for name in getattr(op, "__struct_fields__", ()) if name not in _HIDDEN]
    parts = [(name, getattr(op, name)) for name in fields]
    text = ", ".join(f"{name} {value}" for name, value in parts if value not in ("", [], {}, None, -1))
    return text if len(text) <= 300 else f"{text[:300]}…"
