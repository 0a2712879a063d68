"""Traces: OpenTelemetry spans from a producer's record to the commit that holds it, the poll that reads it, and on.

    send {topic}        PRODUCER   a producer's request; a child of what was active when its first record was sent
    {method} {route}    SERVER     a request over HTTP; continues the client's ``traceparent``
    headwater commit    INTERNAL   an intent: its id, the manifest that holds it, slots that were lost on the way
    {kind} {object}     CLIENT     a request to the store
    poll {topic}        CLIENT     records handed out; links to the spans that were active when they were sent
    produce {topic}     SERVER     a Produce at the Kafka gateway: a root, since Kafka's requests carry no context
    fetch {topic}       SERVER     a Fetch at the Kafka gateway that asks the bucket
    process {topic}     CONSUMER   records worked on: ``processing``, and a micro-batch of a stream job

A record carries the context of its sender as the header ``traceparent`` (and ``tracestate``) of W3C Trace Context, as
Kafka's instrumentations do, so traces go through the Kafka gateway in both directions as well. Names and attributes
are OpenTelemetry's conventions for messaging. A batch of many senders has links to at most ``TRACE_LINKS_MAX`` of them,
spread over the batch: nothing is done for each record.

Tracing is off until ``start`` or ``use`` is called. Off it imports nothing, adds no header, and costs a look at one
name (0.05 us). It needs the extra ``otel``; the SDK is set by the standard OTEL_* variables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headwater.errors import HeadwaterError, InvalidRequest
from headwater.limits import TRACE_HEADER_BYTES_MAX, TRACE_LINKS_MAX

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, Tracer, TracerProvider

SYSTEM: Final = "headwater"
PARENT: Final = "traceparent"
STATE: Final = "tracestate"
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(slots=True)
class _On:
    """What this process traces to. ``provider`` is one that ``start`` made, which is ours to flush and to end."""

    tracer: Tracer | None = None
    provider: Any = None


_on = _On()
_NOTHING: AbstractContextManager[None] = nullcontext()


def is_on() -> bool:
    """Whether spans are made."""
    return _on.tracer is not None


def is_recording() -> bool:
    """Whether a span is active here whose story somebody will see."""
    if _on.tracer is None:
        return False
    from opentelemetry.trace import get_current_span

    return get_current_span().is_recording()


def start(environment: Mapping[str, str], service: str) -> bool:
    """Trace to where OTEL_EXPORTER_OTLP_ENDPOINT says, as ``service`` unless OTEL_SERVICE_NAME says otherwise.

    Whether it does now: without an endpoint nothing happens, nor with OTEL_SDK_DISABLED=true. A second call changes
    nothing. Spans leave in the background; call ``stop`` at the end.

    Raises ``InvalidRequest`` if an endpoint is set and the extra is not installed.
    """
    wanted = any(environment.get(name) for name in ENDPOINTS)
    if not wanted or environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or _on.tracer is not None:
        return _on.tracer is not None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            f"{ENDPOINTS[0]} is set, and tracing needs {error.name}: pip install 'headwater[otel]', or unset it."
        ) from error
    name = environment.get("OTEL_SERVICE_NAME") or service
    _on.provider = Provider(resource=Resource.create({"service.name": name}))
    _on.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(_on.provider)
    return True


def use(provider: TracerProvider | None = None) -> None:
    """Trace to ``provider``, by default the program's own (``opentelemetry.trace.get_tracer_provider()``)."""
    from opentelemetry import trace

    _on.tracer = trace.get_tracer("headwater", tracer_provider=provider)


def stop() -> None:
    """Trace no more; what ``start`` began is sent first. A second call does nothing."""
    provider, _on.tracer, _on.provider = _on.provider, None, None
    if provider is not None:
        provider.shutdown()


def flush(seconds: float) -> None:
    """Send what is waiting: before a process is frozen (R10)."""
    if _on.provider is not None:
        _on.provider.force_flush(int(seconds * 1_000))


# -- spans ----------------------------------------------------------------------------------------------------


def span(
    name: str, kind: str = "INTERNAL", *, parent: Any = None, links: Sequence[Link] = (), **attributes: Any
) -> AbstractContextManager[Span | None]:
    """A span around a block, which is current in it; None if off. An error that leaves the block is the span's.

    Attributes are given with ``__`` for each dot. ``parent`` is a context, by default the current one.
    """
    return _NOTHING if _on.tracer is None else _span(_on.tracer, name, kind, parent, links, attributes)


@contextlib.contextmanager
def _span(
    tracer: Tracer, name: str, kind: str, parent: Context | None, links: Sequence[Link], attributes: Mapping[str, Any]
) -> Iterator[Span]:
    from opentelemetry.trace import SpanKind, Status, StatusCode

    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=SpanKind[kind],
        attributes=_named(attributes),
        links=links,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            made.set_attribute("error.type", type(error).__name__)
            # A message of others may quote what a client sent.
            made.set_status(Status(StatusCode.ERROR, error.message if isinstance(error, HeadwaterError) else None))
            raise


@dataclass(frozen=True, slots=True)
class Opened:
    """A span that begins in one task and ends in another. ``context`` is for ``within``: what is done below it."""

    span: Span
    context: Context

    def end(self, error: str = "") -> None:
        """It is over; with an ``error`` it has failed, for that reason."""
        if error:
            self.span.set_attribute("error.type", error)
            failed(self.span)
        self.span.end()


def opened(name: str, kind: str, **attributes: Any) -> Opened | None:
    """As ``span``, but for one that is current nowhere and that the caller ends. None if off."""
    if _on.tracer is None:
        return None
    from opentelemetry.trace import SpanKind, set_span_in_context

    made = _on.tracer.start_span(name, kind=SpanKind[kind], attributes=_named(attributes))
    return Opened(made, set_span_in_context(made))


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in attributes.items() if value not in (None, "")}


def failed(span: Span) -> None:
    """Mark a span as failed, where the error has become an answer."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR))


def processing(records: Any, *, group: str = "") -> AbstractContextManager[Span | None]:
    """A span ``process {topic}`` around the work on ``records``: one of a consumer's, or a sequence of one topic's.

    A single record's sender is its parent, unless there is an active span already; those of a sequence are linked to.
    """
    if _on.tracer is None:
        return _NOTHING
    given = records if isinstance(records, Sequence) else [records]
    if not given:
        return _NOTHING
    first, links = given[0], links_of_records(given)
    parent = None
    if len(given) == 1 and links and not inject():
        parent, links = _context_at(links[0]), []
    return span(
        f"process {first.topic}",
        "CONSUMER",
        parent=parent,
        links=links,
        messaging__system=SYSTEM,
        messaging__operation__name="process",
        messaging__operation__type="process",
        messaging__destination__name=first.topic,
        messaging__destination__partition__id=str(first.partition) if len(given) == 1 else None,
        messaging__headwater__offset=first.offset if len(given) == 1 else None,
        messaging__batch__message_count=len(given) if len(given) > 1 else None,
        messaging__consumer__group__name=group,
    )


# -- contexts on their way --------------------------------------------------------------------------------------


def inject() -> tuple[tuple[str, bytes], ...]:
    """The current context as headers of a record; nothing if off, or if no span is active."""
    if _on.tracer is None:
        return ()
    return tuple((name, value.encode("latin-1")) for name, value in carried().items())


def carried() -> dict[str, str]:
    """The current context as headers of HTTP; none if off, or if no span is active."""
    found: dict[str, str] = {}
    if _on.tracer is not None:
        _propagator().inject(found)
    return found


def here() -> Any:
    """The current context, for work that another task does for us; None if off, or if no span is active."""
    if _on.tracer is None:
        return None
    from opentelemetry import context, trace

    return context.get_current() if trace.get_current_span().get_span_context().is_valid else None


def within(found: Any) -> AbstractContextManager[None]:
    """Work in a context that ``here`` has found."""
    return _NOTHING if found is None or _on.tracer is None else _attached(found)


@contextlib.contextmanager
def _attached(found: Any) -> Iterator[None]:
    from opentelemetry import context

    token = context.attach(found)
    try:
        yield
    finally:
        context.detach(token)


def continued(headers: Mapping[str, str]) -> Any:
    """The context that headers of HTTP carry; None if off, or if there is none that is well-formed."""
    return _extracted(headers.get(PARENT), headers.get(STATE)) if _on.tracer is not None else None


def links_to(found: Sequence[Any]) -> list[Link]:
    """Links to the spans of contexts, but for the first one's, which is the parent, and for those that are there."""
    if not found:
        return []
    from opentelemetry.trace import Link, get_current_span

    spans = {span.span_id: span for span in (get_current_span(each).get_span_context() for each in found)}
    return [Link(span) for span in list(spans.values())[1:]]


def links_of_records(records: Sequence[Any]) -> list[Link]:
    """Links to the senders of a sample of consumer's records."""
    if _on.tracer is None:
        return []
    sampled = (records[at].headers for at in _spread(len(records)))
    return _links((_value(pairs, PARENT), _value(pairs, STATE)) for pairs in sampled if pairs)


def links_of_column(headers: Any) -> list[Link]:
    """Links to the senders of a sample of a column of headers, as a reader has them (list of key and value).

    Cost: nothing if no record has headers; else it takes ``TRACE_LINKS_MAX`` rows.
    """
    if _on.tracer is None or headers.null_count == len(headers):
        return []
    import pyarrow as pa
    import pyarrow.compute as pc

    pc_any: Any = pc
    filled = pc_any.indices_nonzero(pc_any.fill_null(pc_any.list_value_length(headers), 0))
    rows = filled.take(pa.array(_spread(len(filled)), pa.int64()))
    pairs = ([(each["key"], each["value"]) for each in row] for row in headers.take(rows).to_pylist())
    return _links((_value(row, PARENT), _value(row, STATE)) for row in pairs)


def header_column(count: int, carrying: Sequence[tuple[str, bytes]], kind: Any) -> Any:
    """``carrying`` as the headers of ``count`` records, of the Arrow type ``kind``."""
    import pyarrow as pa

    made: Any = pa
    return made.repeat(made.scalar([{"key": name, "value": value} for name, value in carrying], kind), count)


def _spread(count: int) -> list[int]:
    """At most ``TRACE_LINKS_MAX`` of ``count`` places, the first one and others at even distances."""
    chosen = min(count, TRACE_LINKS_MAX)
    return [at * count // chosen for at in range(chosen)]


def _links(found: Iterable[tuple[str | None, str | None]]) -> list[Link]:
    """A link for each different context that is well-formed."""
    from opentelemetry.trace import Link, get_current_span

    seen: dict[str, Link] = {}
    for parent, state in found:
        if parent and parent not in seen and (context := _extracted(parent, state)) is not None:
            seen[parent] = Link(get_current_span(context).get_span_context())
    return list(seen.values())


def _value(pairs: Iterable[tuple[str, bytes | None]], name: str) -> str | None:
    """A header as text, if it may be one of a context: what others put there is not believed."""
    for key, value in pairs:
        if key == name and value is not None and len(value) <= TRACE_HEADER_BYTES_MAX and value.isascii():
            return value.decode("ascii")
    return None


def _extracted(parent: str | None, state: str | None) -> Any:
    if not parent or len(parent) > TRACE_HEADER_BYTES_MAX:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import get_current_span

    carrier = {PARENT: parent} | ({STATE: state} if state and len(state) <= TRACE_HEADER_BYTES_MAX else {})
    found = _propagator().extract(carrier, context=Context())
    return found if get_current_span(found).get_span_context().is_valid else None


def _context_at(link: Link) -> Context:
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(link.context))


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()
