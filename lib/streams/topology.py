"""The builder of topologies: pure, typed, and checked verb by verb.

    t = Topology("delays")
    flights = t.stream("flights", schema={"origin": pl.String, "delay": pl.Float64, "ts": pl.Int64}, time="ts")
    (flights.filter(col("delay") > 0)
        .group_by("origin").window(tumbling("1h", grace="10m"))
        .aggregate(n=agg.count(), mean=agg.mean("delay"))
        .suppress()
        .to("delays-per-hour", key="origin"))

A topology does nothing by itself: ``run``, ``run_once`` and ``TestDriver`` take it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any, Literal

import polars as pl

from headwater.errors import InvalidRequest
from headwater.limits import NAME_BYTES_MAX
from headwater.log import keys as names
from headwater.streams import model
from headwater.streams.duration import Duration, millis
from headwater.streams.flowing import Keys, columns_of
from headwater.streams.joining import joined_schema
from headwater.streams.model import Format, Node, Schema, Spec
from headwater.streams.names import changelog_topic
from headwater.streams.stream import GlobalTable, Stream, Table
from headwater.streams.typing import BYTES, check_columns, schema_of


class Topology:
    """A job: what it reads, what it makes of it, and where it writes that.

    ``job`` names its consumer group and its internal topics. With ``dead_letters``, a topic, records that cannot be
    decoded and rows that a function refuses go there with the error in their headers; without it the first one stops
    the job.
    """

    def __init__(self, job: str, *, dead_letters: str = "") -> None:
        names.check_topic_name(changelog_topic(job))
        if len(job.encode()) > NAME_BYTES_MAX // 4:
            raise InvalidRequest(f"A job's name has at most {NAME_BYTES_MAX // 4} bytes: topics are named after it.")
        if dead_letters:
            names.check_topic_name(dead_letters)
        self.job = job
        self.dead_letters = dead_letters
        self.nodes: dict[str, Node] = {}
        self._counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Topology({self.job!r}, {len(self.nodes)} nodes)"

    # -- sources ---------------------------------------------------------------------------------------

    def stream(
        self,
        topic: str,
        *,
        schema: Any = None,
        format: Format | None = None,  # noqa: A002
        key: Keys | None = None,
        time: str = "",
        out_of_order: Duration = 0,
        idle: Duration | Literal[-1] = "1m",
        columns: tuple[str, ...] | list[str] | None = None,
        name: str = "",
    ) -> Stream:
        """The records of a topic.

        Args:
            topic: its name.
            schema: the columns of its values; without one they are opaque, in a column ``value``.
            format: how values are written; ``json`` if there is a schema.
            key: the columns that the record key is made of; groups and joins by them need no repartition.
            time: the column with event time, a Datetime, Date or whole milliseconds; else the record's timestamp.
            out_of_order: how far a row may be behind the newest one of its partition without being late.
            idle: a partition that was silent for this long no longer holds back the others; -1 waits for ever.
            columns: only these of the schema are decoded.
            name: of the node; the topic's by default.
        """
        keys = columns_of(key)
        made = self._source("stream", topic, schema, format, keys, name, columns, time, out_of_order, idle, "")
        return Stream(self, made)

    def table(
        self,
        topic: str,
        *,
        key: Keys,
        schema: Any,
        format: Format = "json",  # noqa: A002
        time: str = "",
        columns: tuple[str, ...] | list[str] | None = None,
        store: str = "",
        name: str = "",
    ) -> Table:
        """A topic as a table: the newest record of each key; one without a value deletes it.

        ``key`` columns make up the record key, by which the topic is partitioned.
        """
        made = self._source("table", topic, schema, format, columns_of(key), name, columns, time, 0, -1, store)
        return Table(self, made, columns_of(key))

    def global_table(
        self,
        topic: str,
        *,
        key: Keys,
        schema: Any,
        format: Format = "json",  # noqa: A002
        columns: tuple[str, ...] | list[str] | None = None,
        store: str = "",
        name: str = "",
    ) -> GlobalTable:
        """A topic as a table that every task holds whole: for small ones, whatever their partitions."""
        made = self._source("global", topic, schema, format, columns_of(key), name, columns, "", 0, -1, store)
        return GlobalTable(self, made, columns_of(key))

    def _source(
        self,
        kind: Literal["stream", "table", "global"],
        topic: str,
        schema: Any,
        format: Format | None,  # noqa: A002
        key: tuple[str, ...],
        name: str,
        columns: tuple[str, ...] | list[str] | None,
        time: str,
        out_of_order: Duration,
        idle: Duration,
        store: str,
    ) -> str:
        names.check_topic_name(topic)
        what = f"topic {topic!r}"
        whole = dict(BYTES) if schema is None else schema_of(schema, what)
        if schema is None and format not in (None, "bytes"):
            raise InvalidRequest(f"Values of {what} in the format {format} have columns: give their schema=.")
        wanted = whole if columns is None else {each: whole[each] for each in _checked(columns, whole, what)}
        if kind != "stream" and not key:
            raise InvalidRequest(f"A table has a key: name the columns of {what} that its record key is made of.")
        check_columns(key, wanted, f"The key of {what}")
        if time:
            check_columns((time,), whole, f"The event time of {what}")
            if not (whole[time].is_integer() or isinstance(whole[time], pl.Datetime | pl.Date)):
                raise InvalidRequest(
                    f"Event time is a Datetime, a Date or whole milliseconds; {time!r} is {whole[time]}."
                )
        return self.add(
            model.Source,
            kind,
            name or topic,
            schema=wanted,
            keys=key if kind != "global" else (),
            is_table=kind != "stream",
            topic=topic,
            key=key,
            format=format or ("bytes" if schema is None else "json"),
            columns=None if columns is None else tuple(wanted),
            time=time,
            out_of_order=millis(out_of_order, "out_of_order"),
            idle=-1 if idle == -1 else millis(idle, "idle"),
            kind=kind,
            store=store,
            whole=whole,
        )

    # -- nodes, for the verbs of streams and tables ----------------------------------------------------

    def named(self, kind: str, name: str = "") -> str:
        """``name``, or the next one for a node of that kind. Raises ``InvalidRequest`` if it is taken."""
        if not name:
            while not name or name in self.nodes:
                self._counts[kind] += 1
                name = f"{kind}-{self._counts[kind]}"
        if name in self.nodes:
            raise InvalidRequest(
                f"There are two nodes named {name!r}; a name belongs to one, since its state lies under it."
            )
        names.check_topic_name(name)
        return name

    def add(self, make: type[Any], kind: str, name: str, /, **fields: Any) -> str:
        """A node of a kind; its name. Parents exist already, so a topology has no cycle."""
        made = self.named(kind, name)
        for parent in fields.get("parents", ()):
            if parent not in self.nodes:
                raise InvalidRequest(f"Node {made!r} reads {parent!r}, which is not in this topology.")
        self.nodes[made] = make(name=made, **fields)
        return made

    def output(self, parent: str, output: str, *, schema: Schema, keys: tuple[str, ...]) -> str:
        """A node for another output of ``parent`` than the main one; the same one each time."""
        name = f"{parent}-{output}"
        if name not in self.nodes:
            self.add(model.Branch, "branch", name, parents=(parent,), schema=schema, keys=keys, output=output)
        return name

    def partitioned(self, parent: str, by: tuple[str, ...], name: str = "", *, always: bool = False) -> str:
        """A node with the rows of ``parent``, those that are equal in ``by`` in one partition.

        Rows lie so already if what decides their partition is among ``by``. ``always`` wants exactly ``by``.
        """
        node = self.nodes[parent]
        check_columns(by, node.schema, "repartition")
        if not by:
            raise InvalidRequest("A repartition needs at least one column.")
        if node.keys == by or (not always and node.keys and set(node.keys) <= set(by)):
            return parent
        for known, other in self.nodes.items():
            if isinstance(other, model.Repartition) and other.parents == (parent,) and other.by == by and not name:
                return known  # one topic serves all who want the same
        return self.add(
            model.Repartition,
            "repartition",
            name,
            parents=(parent,),
            schema=dict(node.schema),
            keys=by,
            is_table=node.is_table,
            by=by,
        )

    def join(self, kind: str, left: str, right: str, name: str, **fields: Any) -> str:
        """A join of two nodes, repartitioned where they do not lie by its keys."""
        made = self.named("join", name)
        for side in (left, right):
            if side not in self.nodes:
                raise InvalidRequest(f"Join {made!r} reads {side!r}, which is not in this topology.")
        draft = model.Join(name=made, kind=kind, **fields)  # type: ignore[arg-type]
        schema = joined_schema(made, self.nodes[left].schema, self.nodes[right].schema, draft)
        if kind != "global":
            left = self._beside(left, draft.left_on)
            right = self._beside(right, draft.right_on)
        joined = dataclasses.replace(
            draft,
            parents=(left, right),
            schema=schema,
            keys=self.nodes[left].keys,
            is_table=self.nodes[left].is_table,
        )
        self.nodes[made] = joined
        return made

    def _beside(self, side: str, on: tuple[str, ...]) -> str:
        """The side, its rows in the partition that exactly ``on`` decides: both sides must agree."""
        return side if self.nodes[side].keys == on else self.partitioned(side, on, always=True)

    def finalized(self, name: str) -> None:
        """Let a windowed aggregate give final rows only. Raises ``InvalidRequest`` once its updates are read."""
        node = self.nodes[name]
        if any(name in other.parents and not isinstance(other, model.Branch) for other in self.nodes.values()):
            raise InvalidRequest(f"The updates of {name!r} are read already; call suppress() first, and read its rows.")
        self.nodes[name] = dataclasses.replace(node, emit="final", is_table=False)  # type: ignore[call-arg]

    # -- the whole -------------------------------------------------------------------------------------

    def build(self) -> Spec:
        """The topology as data. Raises ``InvalidRequest`` if nothing of it would be seen."""
        if not any(isinstance(node, model.Source) for node in self.nodes.values()):
            raise InvalidRequest(f"Job {self.job!r} reads nothing; begin with stream() or table().")
        seen = any(
            isinstance(node, model.Sink | model.Process) or getattr(node, "store", "") for node in self.nodes.values()
        )
        if not seen:
            raise InvalidRequest(f"Job {self.job!r} writes nothing: end with to(…), or name a store= to query.")
        written = {node.topic for node in self.nodes.values() if isinstance(node, model.Sink)}
        for node in self.nodes.values():
            if isinstance(node, model.Source) and node.topic in written:
                raise InvalidRequest(
                    f"Job {self.job!r} reads topic {node.topic!r} and writes it: a cycle, which never ends."
                )
        return Spec(job=self.job, nodes=dict(self.nodes), dead_letters=self.dead_letters)

    def describe(self) -> str:
        """The topology as text, as Kafka Streams describes one."""
        from headwater.streams.describe import described

        return described(self.build())

    def svg(self) -> str:
        """The topology as a picture."""
        from headwater.streams.describe import cards
        from headwater.streams.svg import drawn

        spec = self.build()
        return drawn(spec.job, cards(spec.nodes))


def _checked(columns: tuple[str, ...] | list[str], schema: Schema, what: str) -> tuple[str, ...]:
    check_columns(columns, schema, f"columns= of {what}")
    return tuple(columns)
