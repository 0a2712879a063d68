"""The pages that show: each is a right that is checked, one look at the state, and a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import quote

import orjson

from headwater.api.access import CLUSTER
from headwater.api.app import READS
from headwater.api.messages import Call, Request, Response
from headwater.api.service import Service
from headwater.api.service_base import scrubbed
from headwater.console import charts, records, views
from headwater.console.commits import Commits
from headwater.console.decoding import FORMS
from headwater.console.jobs import job, jobs
from headwater.console.process import Served, process
from headwater.console.render import base_of, page, past_of, redirect, root_of
from headwater.console.routing import page_at, whole
from headwater.console.signing import guard
from headwater.errors import HeadwaterError, InvalidRequest, NotFound
from headwater.groups.describe import group_info, lag
from headwater.limits import CONSOLE_COMMITS, CONSOLE_FLOW_COMMITS
from headwater.log.config import NamespaceConfig
from headwater.log.history import state_at
from headwater.log.moments import commit_at
from headwater.log.operations import Operation, Resource
from headwater.log.state import State, Topic


@dataclass(frozen=True, slots=True)
class Look:
    """One look: who asks, and the state that is shown, as it is now or as of the commit ``past``.

    Rights are those of now: who may not see a topic any more does not see it in the past either.
    """

    call: Call
    service: Service
    state: State
    newest: int
    past: int | None = None

    @classmethod
    async def of(cls, call: Call) -> Look:
        """Cost: 1 GET; of the past that of ``state_at``, once for all pages that are looked at as of one commit."""
        service = cast(Service, call.verbs)
        now, past = await service.enter(fresh=True), past_of(call.request)
        if past is None:
            return cls(call, service, now, now.seq)
        return cls(call, service, await state_at(call.namespace.chain, past), now.seq, past)

    @property
    def now_ms(self) -> int:
        """The time of the state that is shown: of the past that of its commit."""
        return self.call.namespace.chain.clock.wall_ms() if self.past is None else self.state.time_ms

    def may(self, operation: Operation, resource: Resource, name: str = CLUSTER) -> bool:
        """Whether to offer something that changes what is there. The past does not change."""
        return self.past is None and self.service.may(operation, resource, name)

    def sees_topic(self, name: str) -> bool:
        return self.service.may_all or self.service.may("describe", "topic", name)

    @property
    def sees_group(self) -> views.Sees:
        return views.everything if self.service.may_all else lambda name: self.service.may("describe", "group", name)

    def sees_transaction(self, tid: str) -> bool:
        return self.service.may("describe", "transactional_id", tid) if tid else self.service.may("describe", "cluster")

    def topic(self, name: str) -> Topic:
        """The topic, if the principal may know of it."""
        self.service.check("describe", "topic", name)
        found = self.state.named(name)
        if found is None:
            raise NotFound(f"There is no topic {name!r}.", topic=name)
        return found

    def page(self, template: str, *, here: str, title: str, status: int = 200, **values: Any) -> Response:
        """A page of this namespace."""
        return page(
            template,
            status=status,
            base=base_of(self.call.request),
            root=root_of(self.call.request),
            past=self.past,
            newest=self.newest,
            path=_path_of(self.call.request),
            title=title,
            here=here,
            namespace=self.call.namespace.name,
            principal=self.call.principal,
            commit=self.state.seq,
            commit_ms=self.state.time_ms,
            now_ms=self.now_ms,
            guard=guard(self.call.request),
            **values,
        )

    async def commits(self, count: int, upto: int | None = None) -> Any:
        """The last commits; who may describe the cluster sees them all."""
        known = self.call.namespace.shared(Commits)
        return await known.last(count, upto=self.state.seq if upto is None else upto)


def _path_of(request: Request) -> str:
    """The page below the console, as it was asked for: what another commit's view of it is called."""
    if request.method not in READS:
        return ""
    below = request.raw_path.removeprefix(base_of(request))
    return f"{below}?{request.raw_query}" if request.raw_query else below


def number_in(call: Call, name: str, default: int) -> int:
    """A number of the query. Raises ``InvalidRequest``."""
    text = call.request.query.get(name, "").strip()
    return whole(name, text) if text else default


def choice_in(call: Call, name: str, choices: Any) -> str:
    """One of ``choices``, the first by default. Raises ``InvalidRequest``."""
    names = list(choices)
    text = call.request.query.get(name, "") or names[0]
    if text not in names:
        raise InvalidRequest(f"{name} is one of {', '.join(names)}, not {text[:40]!r}.")
    return text


# -- pages -----------------------------------------------------------------------------------------------------


async def _overview(call: Call) -> Response:
    look = await Look.of(call)
    state, now_ms = look.state, look.now_ms
    sees_all = look.service.may("describe", "cluster")
    commits = await look.commits(CONSOLE_FLOW_COMMITS) if sees_all else []
    since_ms = max(now_ms - views.HOUR_MS, min((c.time_ms for c in commits), default=now_ms) - 1)
    spans = charts.buckets(commits, since_ms, now_ms)
    own = None
    if sees_all and look.past is None:
        own = process(call.namespace.chain.options.meters.snapshot(), call.namespace.name)
    now_s = call.namespace.chain.clock.elapsed_s()
    shown: dict[str, Any] = {
        "out": call.namespace.shared(Served).rate(now_s, own.fetched, own.records) if own is not None else None,
        "flow": views.flow(state, commits, now_ms, look.sees_topic),
        "sees_all": sees_all,
        "span_ms": now_ms - since_ms,
        "bar_ms": max(1_000, (now_ms - since_ms) // charts.BARS),
        "peak_bytes": max(size for _, _, size in spans),
        "peak_commits": max(count for count, _, _ in spans),
        "chart_bytes": charts.bars([size for _, _, size in spans]),
        "chart_commits": charts.bars([count for count, _, _ in spans]),
        "behind": views.groups(state, look.sees_group, part="", order="lag", number=1).rows[:8],
        "process": own,
        "open": views.transactions(state, now_ms, look.sees_transaction)[:5],
        "counts": {
            "topics": len(state.topics),
            "partitions": sum(len(topic.partitions) for topic in state.topics.values()),
            "groups": len(state.groups),
            "producers": len(state.producers),
        },
    }
    return look.page("overview.html", here="overview", title="Overview", **shown)


async def _topics(call: Call) -> Response:
    look = await Look.of(call)
    part, order = call.request.query.get("q", ""), choice_in(call, "sort", views.TOPIC_ORDERS)
    internal = call.request.query.get("internal", "") == "1"
    found = views.topics(
        look.state, look.sees_topic, part=part, order=order, number=number_in(call, "page", 1), internal=internal
    )
    orders = list(views.TOPIC_ORDERS)
    return look.page(
        "topics.html", here="topics", title="Topics", found=found, q=part, sort=order, orders=orders, internal=internal
    )


async def _topic(call: Call) -> Response:
    look = await Look.of(call)
    topic = look.topic(call.parts["topic"])
    parts = views.paged(list(enumerate(topic.partitions)), number_in(call, "page", 1))
    rows = [(number, part, part.hot_bytes, views.archived_bytes(part)) for number, part in parts.rows]
    return look.page(
        "topic.html",
        here="topics",
        title=topic.name,
        topic=topic,
        row=views.topic_row(topic),
        parts=parts,
        rows=rows,
        settings=views.settings(topic),
        readers=views.readers(look.state, topic, look.sees_group),
        may_write=look.may("write", "topic", topic.name),
        may_delete=look.may("delete", "topic", topic.name),
    )


async def _messages(call: Call) -> Response:
    look = await Look.of(call)
    topic = look.topic(call.parts["topic"])
    query = records.Query.of(call.request.query, topic)
    found, wrong = None, ""
    try:
        found = await records.found(look.service, call.namespace, topic, query, look.past)
    except HeadwaterError as error:
        if isinstance(error, InvalidRequest | NotFound):
            wrong = scrubbed(error, call.namespace).message
        else:
            raise
    return look.page(
        "messages.html",
        here="topics",
        title=f"{topic.name}: messages",
        status=400 if wrong else 200,
        topic=topic,
        query=query,
        forms=FORMS,
        found=found,
        wrong=wrong,
        may_write=look.may("write", "topic", topic.name),
    )


async def _tail(call: Call) -> Response:
    """The newest records as JSON for the script of the message page: what has come at or after an offset."""
    look = await Look.of(call)
    topic = look.topic(call.parts["topic"])
    query = records.Query.of({**call.request.query, "from": call.request.query.get("offset", "latest")}, topic)
    found = await records.found(look.service, call.namespace, topic, query)
    body = {"next": found.next_offset, "html": page("rows.html", found=found, topic=topic).body.decode()}
    headers = {"content-type": "application/json", "cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(headers=headers, body=orjson.dumps(body))


async def _groups(call: Call) -> Response:
    look = await Look.of(call)
    part, order = call.request.query.get("q", ""), choice_in(call, "sort", ("lag", "name", "members"))
    found = views.groups(look.state, look.sees_group, part=part, order=order, number=number_in(call, "page", 1))
    orders = ["lag", "name", "members"]
    return look.page("groups.html", here="groups", title="Groups", found=found, q=part, sort=order, orders=orders)


async def _group(call: Call) -> Response:
    look = await Look.of(call)
    name = call.parts["group"]
    look.service.check("describe", "group", name)
    info = group_info(look.state, name)
    rows = [row for row in lag(look.state, name) if look.sees_topic(row.topic)]
    sees_all = look.service.may("describe", "cluster")
    commits = await look.commits(CONSOLE_FLOW_COMMITS) if sees_all else []
    history = views.lag_history(look.state, look.state.groups[name], commits)
    return look.page(
        "group.html",
        here="groups",
        title=name,
        info=info,
        lags=views.paged(rows, number_in(call, "page", 1)),
        total=sum(row.lag for row in rows),
        history=history,
        chart=charts.bars([float(behind) for _, behind in history]),
        may_reset=look.may("read", "group", name),
        may_delete=look.may("delete", "group", name),
    )


async def _transactions(call: Call) -> Response:
    look = await Look.of(call)
    rows = views.transactions(look.state, look.now_ms, look.sees_transaction)
    producers = sorted(
        (one for one in look.state.producers.values() if look.sees_transaction(one.tid)), key=lambda one: -one.last_ms
    )
    return look.page(
        "transactions.html",
        here="transactions",
        title="Transactions and producers",
        open=rows,
        producers=_shown_producers(look, views.paged(producers, number_in(call, "page", 1))),
        may_abort=look.may("alter", "cluster"),
    )


def _shown_producers(look: Look, found: views.Paged[Any]) -> views.Paged[views.ProducerRow]:
    rows = [views.producer_row(look.state, one) for one in found.rows]
    return views.Paged(rows, found.total, found.number, found.pages)


async def _streams(call: Call) -> Response:
    look = await Look.of(call)
    rows = [job for job in jobs(look.state) if look.sees_group(job.name)]
    return look.page("streams.html", here="streams", title="Streams", jobs=rows)


async def _stream(call: Call) -> Response:
    look = await Look.of(call)
    name = call.parts["job"]
    look.service.check("describe", "group", name)
    found = job(look.state, name)
    tasks = views.paged(found.tasks, number_in(call, "page", 1))
    return look.page("stream.html", here="streams", title=name, job=found, tasks=tasks)


async def _commits(call: Call) -> Response:
    look = await Look.of(call)
    look.service.check("describe", "cluster")
    upto = min(number_in(call, "upto", look.state.seq), look.state.seq)
    rows = await look.commits(CONSOLE_COMMITS, upto)
    return look.page(
        "commits.html",
        here="commits",
        title="Commits",
        rows=rows,
        upto=upto,
        names=_names(look.state),
        step=CONSOLE_COMMITS,
    )


async def _commit(call: Call) -> Response:
    look = await Look.of(call)
    look.service.check("describe", "cluster")
    text = call.parts["commit"]
    if not text.isdecimal() or not 1 <= int(text[:18]) <= look.state.seq:
        raise NotFound(f"There is no commit {text[:20]!r}; there are 1 to {look.state.seq}.")
    seq = int(text)
    found = await look.commits(1, seq)
    past = await state_at(call.namespace.chain, seq)
    return look.page(
        "commit.html",
        here="commits",
        title=f"Commit {seq:,}",
        seq=seq,
        did=found[0] if found else None,
        past_ms=past.time_ms,
        names=_names(past),
        topics=views.topics(past, look.sees_topic, part="", order="name", number=1, internal=False),
        groups=views.groups(past, look.sees_group, part="", order="lag", number=1),
    )


def _names(state: State) -> dict[int, str]:
    return {topic.id: topic.name for topic in state.topics.values()}


async def _storage(call: Call) -> Response:
    from headwater.console.storage import checked, kinds_of, reach

    look = await Look.of(call)
    look.service.check("describe", "cluster")
    # What lies in the bucket is known of now alone.
    is_now = look.past is None
    wanted = {name: is_now and call.request.query.get(name, "") == "1" for name in ("count", "orphans")}
    return look.page(
        "storage.html",
        here="storage",
        title="Storage",
        reach=await reach(call.namespace) if is_now else None,
        history_ms=NamespaceConfig.of(look.state.config).history_retention_ms,
        paged_upto=look.state.paged,
        pages=len(look.state.pages),
        origins=look.state.origins,
        tail_entries=look.state.tail_entries,
        topics=views.archiving(look.state, look.sees_topic, number_in(call, "page", 1)),
        kinds=await kinds_of(call.namespace) if wanted["count"] or wanted["orphans"] else None,
        checked=await checked(call.namespace) if wanted["orphans"] else None,
        config=sorted(look.state.config.items()),
    )


async def _as_of(call: Call) -> Response:
    """From a commit's number or a time to the page as it was then."""
    text, where = call.request.query.get("at", "").strip(), call.request.query.get("page", "")
    chain = call.namespace.chain
    await cast(Service, call.verbs).enter(fresh=True)
    if text.isascii() and text.isdecimal():
        seq = whole("The commit", text)
        if not 1 <= seq <= chain.state.seq:
            raise NotFound(f"There is no commit {seq:,}; there are 1 to {chain.state.seq:,}.")
    else:
        seq = await commit_at(chain, records.time_of(text))
    path, _, query = where.partition("?")
    kept = quote(path, safe="/%") + (f"?{quote(query, safe='=&%+')}" if query else "")
    return redirect(f"{root_of(call.request)}/as-of/{seq}{kept if kept.startswith('/') else ''}")


_TAIL: Final = {**records.PARAMETERS, "offset": "where to begin"}
_STORAGE: Final = {
    "count": "`1`: list and count every object",
    "orphans": "`1`: read them all, and say what nothing names",
    "page": "of topics",
}
_SEARCH: Final = {"q": "part of a name", "sort": "the order", "page": "its number"}


ROUTES: Final = (
    page_at("", _overview, "What flows, who lags, what is stuck, what it costs"),
    page_at("/topics", _topics, "Topics", {**_SEARCH, "internal": "`1`: those of the log's own too"}),
    page_at("/topics/{topic}", _topic, "A topic", {"page": "of its partitions"}),
    page_at("/topics/{topic}/messages", _messages, "Records of a topic", records.PARAMETERS),
    page_at("/topics/{topic}/tail", _tail, "Records since an offset", _TAIL),
    page_at("/groups", _groups, "Groups", _SEARCH),
    page_at("/groups/{group}", _group, "A group", {"page": "of its partitions"}),
    page_at("/transactions", _transactions, "Open transactions, and producers", {"page": "of producers"}),
    page_at("/streams", _streams, "Jobs of stream processing"),
    page_at("/streams/{job}", _stream, "A job: operators, topology, tasks", {"page": "of its tasks"}),
    page_at("/commits", _commits, "The chain of commits", {"upto": "the newest one to show"}),
    page_at("/commits/{commit}", _commit, "What a commit did, and what there was as of it"),
    page_at("/as-of", _as_of, "Any page as of a commit or a time", {"at": "which", "page": "its path"}),
    page_at("/storage", _storage, "Where bytes lie", _STORAGE),
)
