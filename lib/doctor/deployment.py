"""Does a service answer, does it let us in, and does a record come back from it? And is a Kafka gateway reachable?"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, Final

from headwater.clock import Clock
from headwater.doctor.findings import Finding, failed
from headwater.errors import Forbidden, HeadwaterError, NotFound, Unauthorized, Unavailable
from headwater.limits import DOCTOR_PATIENCE_S, DOCTOR_SKEW_MS

if TYPE_CHECKING:
    from headwater.api.verbs import Verbs

AREA: Final = "service"
KAFKA: Final = "kafka"
TOPIC: Final = "headwater-doctor-"


async def examine_service(verbs: Verbs, url: str, *, clock: Clock, namespace: str) -> list[Finding]:
    """Whether it answers, how late it is, and what it says to our credentials. Cost: 2 requests."""
    from headwater.store.s3_date import read_date_ms

    before = clock.wall_ms()
    date_ms = await asyncio.to_thread(read_date_ms, f"{url.rstrip('/')}/healthz", DOCTOR_PATIENCE_S)
    middle = (before + clock.wall_ms()) // 2
    found = []
    if date_ms >= 0 and abs(date_ms - middle) > DOCTOR_SKEW_MS:
        says = f"The clock of {url} is {abs(date_ms - middle) / 1_000:.0f} s away from this machine's."
        do = "Set both by NTP; requests that are signed are refused beyond 5 minutes."
        found.append(Finding(area=AREA, check="clocks", level="warning", says=says, do=do))
    start = clock.elapsed_s()
    try:
        async with asyncio.timeout(DOCTOR_PATIENCE_S):
            info = await verbs.describe_namespace()
    except TimeoutError:
        error: HeadwaterError = Unavailable(f"{url} did not answer within {DOCTOR_PATIENCE_S:.0f} s.")
        return [*found, failed(AREA, "answers", error, "See whether it runs, and whether its address is right.")]
    except HeadwaterError as refused:
        return [*found, failed(AREA, "answers", refused, _advice(refused, namespace))]
    took_ms = (clock.elapsed_s() - start) * 1_000
    says = f"{url} serves namespace {info.name} at commit {info.commit:,}, and answers in {took_ms:.0f} ms."
    return [*found, Finding(area=AREA, check="answers", level="ok", says=says)]


def _advice(error: HeadwaterError, namespace: str) -> str:
    if isinstance(error, Unauthorized):
        return "Give --token (`headwater auth create-key` makes one), or --auth iam with AWS credentials."
    if isinstance(error, Forbidden):
        return f"Let this principal describe namespace {namespace}: `headwater auth allow`."
    if isinstance(error, NotFound):
        return "See whether the URL is that of the function `admin`, or of `headwater dev`."
    return "See whether it runs, whether its address is right, and what its log says."


async def examine_round_trip(verbs: Verbs, *, area: str, clock: Clock, rng: random.Random) -> Finding:
    """Make a topic, write a record, read it back, delete the topic. Nothing stays behind but its commits."""
    from headwater.client.consumer import Consumer
    from headwater.client.producer import Producer

    topic, value, check = f"{TOPIC}{rng.getrandbits(48):012x}", b"are you well?", "round trip"
    start = clock.elapsed_s()
    try:
        async with asyncio.timeout(4 * DOCTOR_PATIENCE_S):
            await verbs.create_topic(topic)
            try:
                async with Producer(verbs) as producer:
                    await producer.send_and_wait(topic, value)
                async with Consumer(verbs, topic, auto_offset_reset="earliest") as consumer:
                    record = await anext(aiter(consumer))
            finally:
                await verbs.delete_topic(topic)
    except TimeoutError:
        error = Unavailable(f"A record did not come back within {4 * DOCTOR_PATIENCE_S:.0f} s.")
        return failed(area, check, error, f"See the findings above; topic {topic} may be left, and can be deleted.")
    except HeadwaterError as error:
        return failed(area, check, error)
    if record.value != value:
        says = f"The record came back as {record.value!r}."
        return Finding(area=area, check=check, level="failure", says=says, do="Run `headwater verify`.")
    took_s = clock.elapsed_s() - start
    return Finding(area=area, check=check, level="ok", says=f"A record was written and read back, in {took_s:.1f} s.")


async def examine_kafka(address: str) -> list[Finding]:
    """Whether a gateway answers, and whether what it advertises can be reached from here. Cost: a few connections."""
    try:
        from aiokafka.client import AIOKafkaClient
        from aiokafka.errors import KafkaError
    except ImportError as error:
        raise HeadwaterError("To look at a gateway takes a Kafka client: pip install 'headwater[kafka]'") from error

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it would say is what we find
    client = AIOKafkaClient(bootstrap_servers=address, request_timeout_ms=int(DOCTOR_PATIENCE_S * 1_000))
    try:
        async with asyncio.timeout(DOCTOR_PATIENCE_S):
            await client.bootstrap()
        brokers = sorted(client.cluster.brokers(), key=lambda broker: broker.nodeId)
    except (KafkaError, TimeoutError, OSError) as error:
        says = f"No Kafka gateway answers at {address}: {_reason(error)}."
        do = "See whether `headwater kafka` runs, listens there (--listen), and wants TLS or SASL of its clients."
        return [Finding(area=KAFKA, check="answers", level="failure", says=says, do=do)]
    finally:
        await client.close()
    says = f"{address} answers; it advertises {', '.join(f'{b.host}:{b.port}' for b in brokers)}."
    return [
        Finding(area=KAFKA, check="answers", level="ok", says=says),
        *await asyncio.gather(*(_advertised(broker) for broker in brokers)),
    ]


async def _advertised(broker: Any) -> Finding:
    where, check = f"{broker.host}:{broker.port}", "advertised address"
    try:
        async with asyncio.timeout(DOCTOR_PATIENCE_S):
            _, writer = await asyncio.open_connection(broker.host, broker.port)
        writer.close()
    except (OSError, TimeoutError) as error:
        return Finding(
            area=KAFKA,
            check=check,
            level="failure",
            says=f"Clients are sent to {where}, which cannot be reached from here: {_reason(error)}.",
            do="Set --advertise to an address that clients can reach: they come in by the first address and go on to "
            "this one.",
        )
    return Finding(area=KAFKA, check=check, level="ok", says=f"{where} can be reached from here.")


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
