"""An Apache Iceberg table over a topic's archive files, as they lie: nothing is copied or written anew.

``sync`` makes the table's newest snapshot name exactly the files that the archive has as of a commit: files that are
new are added, files that compaction or merging replaced are taken out in the same snapshot as those that stand for
them. The table itself says what it has, so there is nothing to lose: a crash between any two steps leaves the table as
it was, and of two syncs at once the slower one finds that its snapshot is no longer the newest one (Iceberg's
optimistic commit), looks again, and has nothing left to do. Each file is in the table exactly once.

What the table does not have: records that are not archived yet, and the exact log start (a file leaves when all of it
is below). Snapshots of the table reach as far back as the log's history does, ``history.retention.ms``: behind that
their files may be deleted, so they are dropped in time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import msgspec

from headwater.errors import Conflict, InvalidRequest, NotFound
from headwater.limits import ICEBERG_FILES_MAX, ICEBERG_FOOTERS_MAX, ICEBERG_TRIES_MAX
from headwater.log.config import FOREVER, NamespaceConfig
from headwater.log.history import state_at
from headwater.log.keys import archive_folder
from headwater.log.namespace import Namespace
from headwater.log.operations import File
from headwater.log.state import State, Topic
from headwater.log.together import together
from headwater.replay import iceberg_table as tables
from headwater.replay.iceberg_expiry import expire
from headwater.replay.iceberg_table import Lost, Placed, Spec
from headwater.upkeep.offload import Offload, in_thread

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

FOLDER: Final = "_iceberg"  # beside the namespaces; none can be called so
LOCAL: Final = ".headwater"  # where the embedded catalog lies when the store is no directory


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the table is. By default a catalog in SQLite: in a file store itself, else in ``./.headwater``.

    ``catalog`` names one of pyiceberg's configuration (``~/.pyiceberg.yaml`` or ``PYICEBERG_CATALOG__…``), and
    ``properties`` are added to it: with both empty the embedded one is meant. ``table`` is ``namespace.name``;
    ``warehouse`` is the folder or prefix for Iceberg's own files, by default beside the archive.
    """

    catalog: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
    table: str = ""
    warehouse: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """What a sync did. ``metadata`` is the table as of now, for tools that take a file instead of a catalog."""

    table: str
    metadata: str
    commit: int  # of the namespace: the files are those of this one
    snapshot: int | None
    added: int
    removed: int
    files: int
    records: int
    unarchived: int  # offsets that are in the log and not yet in files
    left_out: list[str]  # columns of the files that Iceberg cannot have


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The files of a topic as of a commit, by path."""

    state: State
    topic: Topic
    files: dict[str, tuple[int, File]]
    folders: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(sorted(self.files)).encode()).hexdigest()[:32]


async def sync(
    namespace: Namespace, topic: str, target: Target | None = None, *, create: bool = True, offload: Offload = in_thread
) -> Synced:
    """Make the table have exactly the files of the archive, each once. A second call adds what is new since.

    Any number of processes may call it at once, and it may be interrupted anywhere. Without ``create`` the table must
    be there.

    Raises:
        ExtraMissing: pyiceberg is not installed.
        NotFound: there is no such topic, or no such table; or a file of the archive is missing from the store.
        Conflict: the table is that of another topic, or others keep changing it. Nothing was added twice.
        InvalidRequest: the store is in memory, or a column has a type that Iceberg does not know.
        Corrupt: a file of the archive has no readable footer. The table stays as it was.
        Unavailable, Indeterminate: the catalog or the store fell silent. Call it again.

    Cost: with nothing new the tip and the catalog's answer (1 GET of table metadata). Else 1 GET for the footer of each
    new file, 1 for each Iceberg manifest, and 3 PUTs.
    """
    target = target or Target()
    for _ in range(ICEBERG_TRIES_MAX):
        wanted = await _wanted(namespace, topic)
        try:
            table = await offload(_load, _spec(namespace, wanted.topic, target), create)
            if tables.known_commit(table) > wanted.state.seq:
                continue  # another one has synced with a newer state than ours
            return await _bring_up(namespace, wanted, table, offload)
        except Lost:
            continue
    raise Conflict(f"Others changed the Iceberg table of {topic!r} {ICEBERG_TRIES_MAX} times in a row. Sync it later.")


async def _bring_up(namespace: Namespace, wanted: _Wanted, table: Table, offload: Offload) -> Synced:
    added = removed = 0
    if tables.known_digest(table) != wanted.digest and (wanted.files or table.current_snapshot() is not None):
        live: dict[str, DataFile] = await offload(tables.live_files, table)
        new = {path: place for path, place in wanted.files.items() if path not in live}
        old = [file for path, file in live.items() if path not in wanted.files and path.startswith(wanted.folders)]
        rounds = list(_rounds(new, old))
        for i, (outs, ins) in enumerate(rounds):
            placed = await _read_footers(namespace, wanted.state, ins)
            properties = _properties(wanted, whole=i == len(rounds) - 1)
            table = await offload(_change, table, outs, placed, properties)
            added, removed = added + len(ins), removed + len(outs)
        await _expire(namespace, wanted, table, offload)
    return _report(wanted, table, added, removed)


async def _expire(namespace: Namespace, wanted: _Wanted, table: Table, offload: Offload) -> None:
    kept_ms = NamespaceConfig.of(wanted.state.config).history_retention_ms
    if kept_ms != FOREVER:
        try:
            await offload(expire, table, namespace.chain.clock.wall_ms() - kept_ms)
        except Lost:
            return  # the files are there, and the next sync does the rest


def _load(spec: Spec, create: bool) -> Table:
    return tables.load(spec, create=create)


def _change(table: Table, outs: list[DataFile], placed: list[Placed], properties: dict[str, str]) -> Table:
    return tables.commit(tables.evolve(table, placed), outs, placed, properties)


def _rounds(
    new: dict[str, tuple[int, File]], old: list[DataFile]
) -> Iterator[tuple[list[DataFile], list[tuple[str, int, File]]]]:
    """Snapshots to be made: of a bounded number of files, and what replaces files together with those it replaces."""
    by_partition: dict[int, list[DataFile]] = {}
    for file in old:
        by_partition.setdefault(int(file.partition[0]), []).append(file)
    outs: list[DataFile] = []
    ins: list[tuple[str, int, File]] = []
    for partition in sorted({*by_partition, *(place[0] for place in new.values())}):
        mine = [(path, *place) for path, place in new.items() if place[0] == partition]
        replaced = by_partition.get(partition, [])
        step = len(mine) + 1 if replaced else ICEBERG_FILES_MAX
        outs += replaced
        for start in range(0, max(len(mine), 1), step):
            ins += mine[start : start + step]
            if len(ins) + len(outs) >= ICEBERG_FILES_MAX:
                yield outs, ins
                outs, ins = [], []
    if outs or ins or not new:
        yield outs, ins


def _properties(wanted: _Wanted, *, whole: bool) -> dict[str, str]:
    """What the snapshot says about the log. A snapshot that is only a part of the way has no digest."""
    ranges = {
        str(number): [
            place.archive.pages[0].base if place.archive.pages else place.archive.files[0].base,
            place.archived,
        ]
        for number, place in enumerate(wanted.topic.partitions)
        if place.archive is not None and (place.archive.pages or place.archive.files)
    }
    found = {tables.COMMIT: str(wanted.state.seq), "headwater.offsets": msgspec.json.encode(ranges).decode()}
    return {**found, tables.DIGEST: wanted.digest} if whole else found


# -- the archive --------------------------------------------------------------------------------------------


async def _wanted(namespace: Namespace, name: str) -> _Wanted:
    await namespace.refresh()
    state = await state_at(namespace.chain, namespace.state.seq)  # a copy, which does not move while files are listed
    topic = state.named(name)
    if topic is None:
        raise NotFound(f"There is no topic {name!r} in namespace {namespace.name!r}.", topic=name)
    files: dict[str, tuple[int, File]] = {}
    for number in range(len(topic.partitions)):
        async for file in namespace.lookup.files(topic.id, number, 0, state=state):
            files[_location(namespace.chain.home(file.key, state).url) + file.key] = (number, file)
    homes = [namespace.store.url]
    if namespace.chain.sibling is not None:
        homes += [namespace.chain.sibling(origin.namespace).url for origin in state.origins]
    below = archive_folder(name, 0).removesuffix("partition=0/")
    return _Wanted(state=state, topic=topic, files=files, folders=tuple(_location(home) + below for home in homes))


async def _read_footers(namespace: Namespace, state: State, files: Sequence[tuple[str, int, File]]) -> list[Placed]:
    placed: list[Placed] = []
    for start in range(0, len(files), ICEBERG_FOOTERS_MAX):
        part = files[start : start + ICEBERG_FOOTERS_MAX]
        footers = await together(*(_footer(namespace, state, file) for _, _, file in part))
        placed += [
            Placed(path=path, partition=partition, file=file, footer=footer)
            for (path, partition, file), footer in zip(part, footers, strict=True)
        ]
    return placed


async def _footer(namespace: Namespace, state: State, file: File) -> FileMetaData:
    from headwater.log import parquet

    try:
        blob = await namespace.chain.read(file.key, start=file.bytes - file.footer, end=file.bytes, state=state)
    except NotFound as error:
        raise NotFound(
            f"The archive file {file.key!r} is missing from {namespace.store.url}. Run `headwater verify`; the Iceberg "
            "table stays as it was."
        ) from error
    return parquet.read_footer(blob.data, file)


# -- places -------------------------------------------------------------------------------------------------


def _spec(namespace: Namespace, topic: Topic, target: Target) -> Spec:
    url = namespace.bucket.url
    if url.startswith("memory://"):
        raise InvalidRequest("A store in memory cannot be exported: no other process can read its files.")
    warehouse = (target.warehouse or f"{_location(url)}{FOLDER}").rstrip("/")
    properties = {"warehouse": warehouse, **_file_io(url), **target.properties}
    if not target.catalog and not target.properties:
        properties["uri"] = f"sqlite:///{_embedded(url).replace('%', '%25')}"
    identifier = _identifier(target.table or f"{namespace.name.replace('.', '_')}.{topic.name.replace('.', '_')}")
    return Spec(
        catalog=target.catalog or "headwater",
        properties=properties,
        identifier=identifier,
        location=f"{warehouse}/{'/'.join(identifier)}" if target.warehouse or not target.catalog else "",
        marks={
            "headwater.namespace": _location(namespace.store.url),
            "headwater.topic": topic.name,
            "headwater.topic-id": str(topic.id),
        },
    )


def _identifier(table: str) -> tuple[str, ...]:
    parts = tuple(table.split("."))
    if len(parts) < 2 or not all(parts):
        raise InvalidRequest(f"An Iceberg table is namespace.name, as in lake.flights; not {table[:80]!r}.")
    return parts


def _embedded(url: str) -> str:
    """The path of the embedded catalog: in the store's folder, or in the present one."""
    return f"{_location(url)[7:] if url.startswith('file://') else LOCAL + '/'}{FOLDER}/catalog.db"


def _location(url: str) -> str:
    """A store's URL as Iceberg writes locations, ending in a slash: without options, and nothing in it is escaped."""
    base = url.partition("?")[0]
    if base.startswith("file://"):
        base = unquote(base)
        if any(char in base for char in "?#"):
            raise InvalidRequest(f"Iceberg's locations cannot hold '?' or '#': {base!r}.")
    return base if base.endswith("/") else base + "/"


def _file_io(url: str) -> dict[str, str]:
    """How pyiceberg gets to the store: as the store's URL and the environment say."""
    found = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO"}
    if not url.startswith("s3://"):
        return found
    import os

    from headwater.store.s3_url import configured_region, parse_s3_url

    target = parse_s3_url(url, os.environ)
    options = {
        "s3.endpoint": target.endpoint_url,
        "s3.region": target.region or configured_region(target.profile, os.environ),
        "s3.force-virtual-addressing": "true" if target.addressing == "virtual" and target.endpoint_url else None,
        "s3.connect-timeout": str(target.connect_timeout_s),
        "s3.request-timeout": str(target.timeout_s),
        "s3.profile-name": target.profile,
    }
    return {**found, **{name: value for name, value in options.items() if value is not None}}


def _report(wanted: _Wanted, table: Table, added: int, removed: int) -> Synced:
    snapshot = table.current_snapshot()
    return Synced(
        table=".".join(table.name()),
        metadata=table.metadata_location,
        commit=wanted.state.seq,
        snapshot=None if snapshot is None else snapshot.snapshot_id,
        added=added,
        removed=removed,
        files=len(wanted.files),
        records=sum(file.count for _, file in wanted.files.values()),
        unarchived=sum(place.stable_end - max(place.archived, place.start) for place in wanted.topic.partitions),
        left_out=tables.left_out_of(table),
    )
