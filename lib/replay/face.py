"""What notebooks and scripts call: replay, datasets, and the past, without ``await``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headwater.errors import InvalidRequest
from headwater.limits import REPLAY_BYTES
from headwater.log.history import state_at
from headwater.log.state import Committed, State
from headwater.replay.columns import Filter
from headwater.replay.dataset import ArchiveFile, dataset_of, listed
from headwater.replay.progress import Tell, check_progress, shown
from headwater.replay.ranges import Moment, Places, commit_of
from headwater.replay.session import Session
from headwater.replay.stream import Order, open_replay

if TYPE_CHECKING:
    import duckdb as duck
    import polars as pl
    import pyarrow.dataset as ds


def replay(
    url: str,
    topic: str,
    *,
    namespace: str = "default",
    partitions: Iterable[int] | None = None,
    start: Places = "earliest",
    end: Places | None = None,
    columns: Sequence[str] | None = None,
    filter: Filter | None = None,  # noqa: A002 - Arrow's word
    order: Order = "partition",
    memory_bytes: int = REPLAY_BYTES,
    progress: bool | Tell | None = None,
    as_of: Moment | None = None,
) -> pa.RecordBatchReader:
    """The records of a topic as Arrow record batches, straight from the bucket: archive and hot tail alike.

        >>> from headwater.replay import replay
        >>> for batch in replay(url, "greetings", columns=["offset", "value"]):
        ...     print(batch.to_pylist())
        [{'offset': 0, 'value': b'hello'}, {'offset': 1, 'value': b'world'}]
        >>> replay(url, "greetings", start=1, filter=[("value", "!=", b"hello")]).read_all().num_rows
        1

    Columns are ``partition`` (int32), ``offset``, ``timestamp``, ``key``, ``value``, ``headers`` and the typed ones of
    the topic's schema. ``start`` and ``end`` are each "earliest", "latest", an offset, a datetime, a ``Commit``, or a
    mapping from partitions to these (others are read whole). A datetime bounds the records' own timestamps, exactly and
    in whatever order they came: ``start <= timestamp < end``; without a zone it is UTC. ``filter`` is a
    ``pyarrow.dataset`` expression, or tuples as Arrow takes them; files and row groups in which it cannot hold are not
    read. ``as_of``, a commit's number or a datetime, reads the topic as it was then.

    Batches come in offset order, one partition after another; with ``order="timestamp"`` partitions are merged by
    timestamp, the lower partition first among equals, and each keeps its offset order whatever its timestamps do.

    All is read as of one commit. What is on its way takes about ``memory_bytes``, and at least one row group (or one
    chunk of the hot tail) for each partition that is merged. ``progress=True`` shows a bar on a terminal; a function is
    called with ``Progress``. The reader may be left or closed at any time; reading then stops.

    Raises:
        NotFound: no such topic, partition or commit; or the commit can no longer be read.
        OffsetOutOfRange: an offset that the partition does not have; its records were deleted meanwhile.
        InvalidRequest: an unknown column, a filter that does not fit, a start behind the end.
        Corrupt: stored bytes break a rule, or are gone for good; the message names the object.

    Cost: opening a namespace, then 1 GET for each row group, file footer, and page of files that is needed.
    """
    options = {
        "partitions": partitions,
        "start": start,
        "end": end,
        "columns": columns,
        "filter": filter,
        "order": order,
        "memory_bytes": memory_bytes,
        "as_of": as_of,
    }
    return _reader(Session(url, namespace), topic, progress, options)


def as_of(url: str, moment: Moment, *, namespace: str = "default") -> Cut:
    """Everything as it was after one commit: all topics and all groups' offsets, a consistent cut (P5).

        >>> from headwater.replay import as_of
        >>> past = as_of(url, 2)
        >>> past.commit, past.topics
        (2, ['greetings'])
        >>> past.replay("greetings").read_all().num_rows
        2

    ``moment`` is a commit's number, as ``Appended.commit`` and ``Fetched.commit`` name it, or a datetime: then it is
    the last commit at or before that. What was trimmed or compacted since is there to be read.

    Raises:
        NotFound: there is no such commit yet, or it can no longer be read: the message says how far back the history
            reaches. ``history.retention.ms`` of the namespace says for how long it is kept.

    Cost: opening a namespace, and what ``state_at`` costs; for a datetime about 24 GETs more.
    """
    session = Session(url, namespace)
    return Cut(session, session.call(_past(session, moment)))


def to_dataset(
    url: str,
    topic: str,
    *,
    namespace: str = "default",
    partitions: Iterable[int] | None = None,
    start: Places = "earliest",
    end: Places | None = None,
    as_of: Moment | None = None,
) -> ds.Dataset:
    """The topic as a ``pyarrow.dataset.Dataset``, for every tool that takes one.

        >>> from headwater.replay import to_dataset
        >>> to_dataset(url, "greetings").count_rows()
        2

    Files of the archive are scanned as they lie, and those opened only in which a filter on partition, offset or
    timestamp can hold; the hot tail, which is not archived yet, is read into memory now. The dataset is as of one
    commit. It lasts as long as its files: if they are compacted and collected meanwhile, a scan ends in
    ``FileNotFoundError``; make it anew then. ``replay`` goes on by itself.

    Raises: as ``replay``. Cost: 1 GET for each page of files, and the hot tail.
    """
    session = Session(url, namespace)
    return _dataset(session, topic, {"partitions": partitions, "start": start, "end": end, "as_of": as_of})


def files(
    url: str,
    topic: str,
    *,
    namespace: str = "default",
    partitions: Iterable[int] | None = None,
    start: Places = "earliest",
    end: Places | None = None,
    as_of: Moment | None = None,
) -> list[ArchiveFile]:
    """The topic's archive files, for tools that read Parquet themselves, by partition and offset.

        >>> from headwater.replay import files
        >>> [(file.partition, file.base, file.end) for file in files(url, "archived")]
        [(0, 0, 2)]

    Records that are not archived yet are in none of them.

    Raises: as ``replay``. Cost: 1 GET for each page of files.
    """
    session = Session(url, namespace)
    options = {"partitions": partitions, "start": start, "end": end, "as_of": as_of}
    return session.call(_files(session, topic, options))


def duckdb(
    url: str, topics: Iterable[str] | None = None, *, namespace: str = "default", as_of: Moment | None = None
) -> duck.DuckDBPyConnection:
    """A DuckDB connection in which topics are tables; all of them if none are named, as of one commit.

        >>> from headwater import replay
        >>> replay.duckdb(url).sql("SELECT count(*) FROM greetings").fetchall()
        [(2,)]

    A name with dots or dashes is written in double quotes. Raises: as ``to_dataset``, and ``InvalidRequest`` without
    the extra ``sql``.
    """
    try:
        import duckdb as duck
    except ImportError as error:
        raise InvalidRequest("This needs DuckDB: pip install 'headwater[sql]'") from error
    session = Session(url, namespace)
    # One commit for all topics, and the newest one is as good a cut as any.
    cut = Cut(session, session.call(_past(session, as_of)))
    connection = duck.connect()
    for topic in cut.topics if topics is None else topics:
        connection.register(topic, cut.to_dataset(topic))
    return connection


def polars(url: str, topic: str, *, namespace: str = "default", as_of: Moment | None = None) -> pl.LazyFrame:
    """The topic as a Polars ``LazyFrame``, which pushes columns and conditions down to the files.

        >>> from headwater import replay
        >>> replay.polars(url, "greetings").select("offset").collect().height
        2

    Raises: as ``to_dataset``, and ``InvalidRequest`` without the extra ``polars``.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise InvalidRequest("This needs Polars: pip install 'headwater[polars]'") from error
    return pl.scan_pyarrow_dataset(to_dataset(url, topic, namespace=namespace, as_of=as_of))


class Cut:
    """A namespace as of one commit. Nothing that happens later changes what it shows."""

    def __init__(self, session: Session, state: State) -> None:
        self._session = session
        self._state = state

    @property
    def commit(self) -> int:
        """The commit's number."""
        return self._state.seq

    @property
    def time(self) -> datetime:
        """When it was made."""
        return datetime.fromtimestamp(self._state.time_ms / 1_000, UTC)

    @property
    def topics(self) -> list[str]:
        """The names of all topics, sorted."""
        return sorted(self._state.names)

    @property
    def groups(self) -> dict[str, dict[tuple[str, int], Committed]]:
        """What each group had committed: the next offset to read, by (topic, partition)."""
        topics = self._state.topics
        return {
            name: {
                (topics[topic].name, partition): committed
                for topic, places in group.offsets.items()
                if topic in topics
                for partition, committed in places.items()
            }
            for name, group in sorted(self._state.groups.items())
        }

    def replay(self, topic: str, *, progress: bool | Tell | None = None, **options: Any) -> pa.RecordBatchReader:
        """As ``headwater.replay.replay``."""
        return _reader(self._session, topic, progress, {**options, "as_of": self.commit})

    def to_dataset(self, topic: str, **options: Any) -> ds.Dataset:
        """As ``headwater.replay.to_dataset``."""
        return _dataset(self._session, topic, {**options, "as_of": self.commit})

    def files(self, topic: str, **options: Any) -> list[ArchiveFile]:
        """As ``headwater.replay.files``."""
        return self._session.call(_files(self._session, topic, {**options, "as_of": self.commit}))

    def sql(self, statement: str) -> pa.RecordBatchReader:
        """The answer of one SQL statement in which topics are tables; see ``headwater.replay.sql``."""
        from headwater.replay.sql import query

        return query(self, statement)

    def close(self) -> None:
        """Let go of the namespace; otherwise that is done when nobody holds this any more."""
        self._session.close()

    def __repr__(self) -> str:
        return f"<{self._session.url} {self._session.namespace.name} as of commit {self.commit}, {self.time}>"


def _reader(
    session: Session, topic: str, progress: bool | Tell | None, options: Mapping[str, Any]
) -> pa.RecordBatchReader:
    check_progress(progress)
    opened = session.call(open_replay(session.namespace, topic, **options))

    def batches() -> Iterator[pa.RecordBatch]:
        with shown(progress, topic) as tell:
            for group in session.iterate(replace(opened, progress=tell).groups()):
                yield from group

    return pa.RecordBatchReader.from_batches(opened.schema, batches())


def _dataset(session: Session, topic: str, options: Mapping[str, Any]) -> ds.Dataset:
    return dataset_of(session, session.call(open_replay(session.namespace, topic, **options)))


async def _files(session: Session, topic: str, options: Mapping[str, Any]) -> list[ArchiveFile]:
    return await listed(await open_replay(session.namespace, topic, **options))


async def _past(session: Session, moment: Moment | None) -> State:
    namespace = session.namespace
    seq = await commit_of(namespace, moment)
    return await state_at(namespace.chain, namespace.state.seq if seq is None else seq)
