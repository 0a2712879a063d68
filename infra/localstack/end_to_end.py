"""The deployed whole: build, deploy to LocalStack, use it as users do, deploy again, delete. One line for each step.

usage: end_to_end.py PYTHON     the interpreter of the functions; scripts/test-localstack sees to everything else
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from emulator import ROOT, TOOLS, Emulator, resolve_localhost

from headwater.client import Admin, Consumer, Producer

FUNCTIONS = ("produce", "fetch", "groups", "admin", "maintain")
SCHEDULE = "rate(1 minute)"  # the shortest there is: it fires while other steps run
# There from the first deployment on: LocalStack fails where an update makes the condition of a resource true.
OPTIONAL = {"Console": "yes", "ProcessTopology": "lengths:lengths", "ProcessSchedule": "rate(1 day)"}
RECORDS = 500
BIG_BYTES = 7_000_000  # more than a request to a function may have: goes by a presigned PUT
UNZIPPED_MB_MAX = 250  # Lambda's own bound
COMMAND_S = 300.0
WAIT_S = 90.0
JSON = "application/vnd.kafka.json.v2+json"
V2 = "application/vnd.kafka.v2+json"


class Failed(Exception):
    """A step did not go as it must."""


class Steps:
    """Prints a line for each step: how long it took, what it is, what it found."""

    def __init__(self) -> None:
        self.start_s = time.monotonic()
        self.count = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        begun_s, notes = time.monotonic(), []  # type: ignore[var-annotated]
        try:
            yield notes
        except BaseException:
            print(f"{time.monotonic() - begun_s:7.1f} s  FAILED  {name}", flush=True)
            raise
        self.count += 1
        print(f"{time.monotonic() - begun_s:7.1f} s  {name}{': ' if notes else ''}{'; '.join(notes)}", flush=True)


def command(*arguments: str | Path, environment: dict[str, str], ok: tuple[int, ...] = (0,)) -> str:
    """Run it in the repository; its output. Whatever it started ends with it."""
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=COMMAND_S)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    if process.returncode not in ok:
        shown = " ".join(str(argument) for argument in arguments[:4])
        raise Failed(f"{shown} ended with {process.returncode}:\n{out[-3_000:]}\n{err[-3_000:]}")
    return out


def same(expected: object, actual: object, what: str) -> None:
    """Raise ``Failed`` unless they are equal."""
    if expected != actual:
        raise Failed(f"{what}: expected {str(expected)[:300]}, got {str(actual)[:300]}")


async def until(done: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again; raise ``Failed`` if it does not come true in time."""
    deadline_s = time.monotonic() + WAIT_S
    while not await done():
        if time.monotonic() > deadline_s:
            raise Failed(f"after {WAIT_S:.0f} s still not: {what}")
        await asyncio.sleep(0.2)


class Deployment:
    """The stack in the emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.outputs: dict[str, str] = {}
        self.token = ""
        sam = TOOLS / "sam/bin"
        self.environment = {
            **emulator.environment,
            "PATH": f"{sam}{os.pathsep}{os.environ['PATH']}",
            "SAM_CLI_TELEMETRY": "0",
            "JOBS": str(ROOT / "infra/localstack/jobs"),
        }

    def deploy(self, **parameters: str) -> None:
        """``scripts/deploy``, as people call it."""
        given = [f"{name}={value}" for name, value in {"AuthMode": "token", **parameters}.items()]
        environment = {**self.environment, "CONSOLE": parameters.get("Console", "no")}
        out = command(ROOT / "scripts/deploy", "localstack", *given, environment=environment)
        outputs = json.loads(out[out.rindex("\n[\n") :])
        self.outputs = {output["OutputKey"]: output["OutputValue"].rstrip("/") for output in outputs}

    def url(self, function: str) -> str:
        return self.outputs[f"{function.capitalize()}Url"]

    @property
    def store(self) -> str:
        """Where the log is, for those who need no function."""
        return f"{self.outputs['Store']}?endpoint_url={self.emulator.endpoint}"

    def headwater(self, *arguments: str) -> str:
        """The command line over the bucket itself."""
        environment = {**self.environment, "HEADWATER_STORE": self.store}
        return command(Path(sys.executable).with_name("headwater"), *arguments, environment=environment)

    def curl(self, method: str, url: str, body: str = "", *headers: str, token: bool = True) -> tuple[int, Any]:
        """Status and body, read as JSON where it is."""
        sent = [part for header in headers for part in ("--header", header)]
        if token:
            sent += ["--oauth2-bearer", self.token]
        if body:
            sent += ["--data-binary", body]
        out = command(
            "curl",
            *("--silent", "--show-error", "--max-time", "60", "--request", method, "--write-out", "\n%{http_code}"),
            *(*sent, url),
            environment=self.environment,
        )
        text, _, status = out.rpartition("\n")
        return int(status), json.loads(text) if text[:1] in ("{", "[") else text

    def function_arn(self, function: str) -> str:
        stack = self.emulator.client("cloudformation")
        found = stack.describe_stack_resource(
            StackName="headwater", LogicalResourceId=f"{function.capitalize()}Function"
        )
        name: str = found["StackResourceDetail"]["PhysicalResourceId"]
        return name


# -- what users do ------------------------------------------------------------------------------------------


async def read_all(url: str, topic: str, partitions: int, **options: Any) -> list[Any]:
    """Every record of a topic as it is now, partition by partition."""
    consumer = Consumer(url, value_deserializer="json", auto_offset_reset="earliest", **options)
    found: list[Any] = []
    async with consumer:
        places = [(topic, partition) for partition in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)

        async def finished() -> bool:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found.extend(records)
            return all([await consumer.position(place) >= end for place, end in ends.items()])

        await until(finished, f"all of {topic} is read")
    return [record.value for record in sorted(found, key=lambda record: (record.partition, record.offset))]


async def produce_and_fetch(to: Deployment, notes: list[str]) -> None:
    """Records go in over HTTP, and come out the same over HTTP and from the bucket."""
    url, token, admin = to.url("groups"), to.token, to.url("admin")
    async with Admin(url, token=token, admin_url=admin) as administration:
        await administration.create_topics({"events": 4, "copies": 1})
        same(["copies", "events"], sorted(t for t in await administration.list_topics() if t[0] != "_"), "topics")
    sent = [{"n": number, "text": "ü" * (number % 7)} for number in range(RECORDS)]
    begun_s = time.monotonic()
    async with Producer(url, token=token, value_serializer="json") as producer:
        await asyncio.gather(*[await producer.send("events", value, key=str(value["n"]).encode()) for value in sent])
    notes.append(f"{RECORDS} records written in {time.monotonic() - begun_s:.1f} s")
    got = await read_all(url, "events", 4, token=token)
    same(sorted(value["n"] for value in sent), sorted(value["n"] for value in got), "records read over HTTP")
    same(got, await read_all(to.store, "events", 4), "records read from the bucket itself")


async def big_batch(to: Deployment, notes: list[str]) -> None:
    """What no function could be handed goes past it."""
    big = [{"n": RECORDS + number, "text": os.urandom(BIG_BYTES // 20).hex()} for number in range(10)]
    producer = Producer(
        to.url("groups"),
        token=to.token,
        value_serializer="json",
        batch_size=8 << 20,
        linger_ms=200,
        compression="none",
    )
    async with producer:
        await asyncio.gather(*[await producer.send("events", value, partition=0) for value in big])
    got = await read_all(to.url("groups"), "events", 4, token=to.token)
    same(big, [value for value in got if RECORDS <= value["n"] < RECORDS + len(big)], "the large batch")
    notes.append(f"{BIG_BYTES / 1e6:.0f} MB in one batch")


async def transaction(to: Deployment, notes: list[str]) -> None:
    """Records and offsets at once; nothing of what was aborted."""
    url, token = to.url("groups"), to.token
    before = len(await read_all(url, "copies", 1, token=token))
    async with Producer(url, token=token, transactional_id="copier", value_serializer="json") as producer:
        async with producer.transaction() as whole:
            for number in range(3):
                await whole.send("copies", {"n": number})
            await whole.send_offsets({("events", 0): 3}, "copiers")
        with contextlib.suppress(KeyError):
            async with producer.transaction() as broken:
                await broken.send("copies", {"n": 99})
                raise KeyError("the program's own mistake")
    got = await read_all(url, "copies", 1, token=token)
    same([0, 1, 2], [value["n"] for value in got][before:], "what a commit and an abort left")
    async with Admin(url, token=token) as administration:
        offsets = await administration.list_group_offsets("copiers")
    same([3], [place.offset for place in offsets.values()], "the group's offset")
    notes.append("records and offsets appear together, an abort leaves nothing")


class Member:
    """A process that is a member of the group ``readers``; what it said."""

    def __init__(self, to: Deployment, log: Path) -> None:
        self.log = log
        arguments = [sys.executable, ROOT / "infra/localstack/member.py", to.url("groups"), to.token]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*arguments, "readers", "events"],
                env=to.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> list[dict[str, Any]]:
        whole, _, _ = self.log.read_text().rpartition("\n")  # behind it the member is still writing, or was killed
        lines = [line for line in whole.splitlines() if line]
        if self.process.poll() not in (None, -signal.SIGKILL) or any(line[0] != "{" for line in lines):
            raise Failed("a member of the group failed:\n" + "\n".join(lines[-20:]))
        return [json.loads(line) for line in lines]

    def owns(self) -> set[int]:
        said = self.said()
        return set(said[-1]["assigned"]) if said else set()

    def values(self) -> list[int]:
        return [value["n"] for line in self.said() for value in line["values"]]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


async def takeover(to: Deployment, notes: list[str]) -> None:
    """Two members share the partitions; one is killed, and the other takes over without a loss."""
    first = Member(to, to.emulator.scratch / "first.log")
    second = Member(to, to.emulator.scratch / "second.log")
    everything = {0, 1, 2, 3}
    try:

        async def shared() -> bool:
            return bool(first.owns() and second.owns()) and first.owns() ^ second.owns() == everything

        await until(shared, "two members share four partitions")
        first.kill()
        killed_s = time.monotonic()
        async with Producer(to.url("groups"), token=to.token, value_serializer="json") as producer:
            for number in range(40):
                await producer.send("events", {"n": 10_000 + number}, partition=number % 4)

        async def taken_over() -> bool:
            return second.owns() == everything

        await until(taken_over, "the other member has taken over")
        notes.append(f"taken over {time.monotonic() - killed_s:.1f} s after kill -9 (session 6 s)")
        wanted = {*range(RECORDS + 10), *range(10_000, 10_040)}

        async def complete() -> bool:
            return wanted <= {*first.values(), *second.values()}

        await until(complete, "every record was read by a member")
        again = len(first.values()) + len(second.values()) - len(wanted)
        notes.append(f"{len(wanted)} records, none lost, {again} read again")
    finally:
        first.kill()
        second.kill()


def rest_proxy(to: Deployment, notes: list[str]) -> None:
    """A consumer instance of the REST Proxy dialect, by curl. Each request may meet another process."""
    url = to.url("groups")
    kind, accept = f"content-type: {V2}", f"accept: {JSON}"
    settings = '{"name":"i","format":"json","auto.offset.reset":"earliest"}'
    status, made = to.curl("POST", f"{url}/consumers/rest", settings, kind)
    same((200, "i"), (status, made["instance_id"]), "a consumer instance")
    instance = f"{url}/consumers/rest/instances/i"
    same(204, to.curl("POST", f"{instance}/subscription", '{"topics":["copies"]}', kind)[0], "subscription")
    status, records = to.curl("GET", f"{instance}/records?timeout=5000", "", accept)
    same((200, [0, 1, 2]), (status, [record["value"]["n"] for record in records]), "records by REST")
    same(204, to.curl("DELETE", instance, "", kind)[0], "deletion of the instance")
    notes.append("create, subscribe, poll, delete")


def strangers(to: Deployment, notes: list[str]) -> None:
    """Whoever has no key learns nothing, at each function."""
    asked = (
        ("produce", "POST", "/topics/events"),
        ("fetch", "GET", "/topics"),
        ("groups", "GET", "/groups"),
        ("admin", "GET", "/admin/keys"),
        ("maintain", "POST", "/maintain"),
    )
    for function, method, path in asked:
        kind = JSON if path.startswith("/topics") else "application/json"
        body = '{"records":[]}' if method == "POST" else ""
        status, _ = to.curl(method, to.url(function) + path, body, f"content-type: {kind}", token=False)
        same(401, status, f"{function} without a key")
        same(200, to.curl("GET", f"{to.url(function)}/healthz", token=False)[0], f"{function} healthz")
    notes.append("401 at five functions")


def upkeep(to: Deployment) -> dict[str, Any]:
    """A run of maintain as its schedule makes it: the report."""
    answer = to.emulator.client("lambda").invoke(
        FunctionName=to.function_arn("maintain"),
        Payload=json.dumps({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}),
    )
    report: dict[str, Any] = json.loads(answer["Payload"].read())
    same(["default"], [each["namespace"] for each in report.get("reports", [])], f"upkeep {report}")
    same(([], []), (report["failed"], list(report["reports"][0]["failed"])), "chores that failed")
    return report


async def maintenance(to: Deployment, notes: list[str]) -> None:
    """The rule fires by itself, and what it calls does its chores."""
    events, functions = to.emulator.client("events"), to.emulator.client("lambda")
    settings = functions.get_function(FunctionName=to.function_arn("maintain"))["Configuration"]
    name, arn = settings["FunctionName"], settings["FunctionArn"]
    rules = [
        rule
        for rule in events.list_rules()["Rules"]
        if any(t["Arn"].startswith(arn) for t in events.list_targets_by_rule(Rule=rule["Name"])["Targets"])
    ]
    same([(SCHEDULE, "ENABLED")], [(r["ScheduleExpression"], r["State"]) for r in rules], "the schedule")
    logs = to.emulator.client("logs")

    async def fired() -> bool:
        found = await asyncio.to_thread(logs.filter_log_events, logGroupName=f"/aws/lambda/{name}")
        return any('"upkeep"' in event["message"] for event in found["events"])

    await until(fired, "the schedule has fired")
    report = upkeep(to)
    notes.append(f"{SCHEDULE} has fired; a run by hand expelled {report['reports'][0]['members_expelled']}")


async def archived(to: Deployment, notes: list[str]) -> None:
    """What maintain has made Parquet files of reads the same, through the functions and from the bucket."""
    before = await read_all(to.url("groups"), "events", 4, token=to.token)
    to.headwater("topic", "alter", "events", "--config", "archive.ms=0")

    async def done() -> bool:
        await asyncio.to_thread(upkeep, to)
        described = json.loads(to.headwater("topic", "describe", "events", "--json"))
        return all(place["archived"] == place["high_watermark"] for place in described["partitions"])

    await until(done, "every record is archived")
    files = to.headwater("topic", "files", "events", "--urls").splitlines()
    for function in ("fetch", "groups"):
        same(before, await read_all(to.url(function), "events", 4, token=to.token), f"archived records by {function}")
    same(before, await read_all(to.store, "events", 4), "archived records from the bucket itself")
    notes.append(f"{len(before)} records in {len(files)} files")


def bucket(to: Deployment, notes: list[str]) -> None:
    """What the template says of the bucket has arrived."""
    s3, name = to.emulator.client("s3"), to.outputs["Bucket"]
    statements = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    same(["OnlyConditionalCommits", "OnlyTls"], sorted(each["Sid"] for each in statements), "the bucket's policy")
    notes.append("its policy has arrived; LocalStack knows no lifecycle rules of CloudFormation, tests/deploy does")


def megabytes(function: str) -> float:
    """What a function ships, unzipped."""
    folder = ROOT / f".aws-sam/build/{function.capitalize()}Function"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def sizes(notes: list[str]) -> None:
    """What each function ships."""
    for function in FUNCTIONS:
        size = megabytes(function)
        notes.append(f"{function} {size:.0f}")
        if size > UNZIPPED_MB_MAX:
            raise Failed(f"{function} has {size:.0f} MB; Lambda takes {UNZIPPED_MB_MAX}.")


def validate(to: Deployment) -> None:
    """Three validators, each of which sees what the others do not."""
    sam, scratch = TOOLS / "sam/bin", to.emulator.scratch
    command(sam / "sam", "validate", environment=to.environment)
    command(sam / "sam", "validate", "--lint", environment=to.environment)
    command(sam / "python", "infra/translate.py", "template.yaml", scratch / "cfn.json", environment=to.environment)
    command(sam / "cfn-lint", scratch / "cfn.json", environment=to.environment)


async def redeployed(to: Deployment, before: list[Any], notes: list[str]) -> None:
    """Nothing was lost, and the functions run with the new parameters."""
    same(before, await read_all(to.url("groups"), "events", 4, token=to.token), "records after the redeployment")
    async with Producer(to.url("groups"), token=to.token, value_serializer="json") as producer:
        await producer.send_and_wait("events", {"n": -1})
    same(len(before) + 1, len(await read_all(to.url("fetch"), "events", 4, token=to.token)), "records after one more")
    status, _ = to.curl("GET", f"{to.url('fetch')}/namespaces/other/topics")
    same(401, status, "a key of another namespace")
    to.token, kept = to.headwater("auth", "create-key", "--namespace", "other", "--principal", "ops").strip(), to.token

    async def known() -> bool:  # a function that has just refused somebody looks for new keys 2 s later
        return to.curl("GET", f"{to.url('fetch')}/namespaces/other/topics") == (200, [])

    await until(known, "the new namespace is served")
    to.token = kept
    notes.append(f"{len(before)} records are there, one more was written, changed settings have arrived")


def work(to: Deployment) -> dict[str, Any]:
    """A run of the job as its schedule makes it: the report."""
    answer = to.emulator.client("lambda").invoke(
        FunctionName=to.function_arn("process"),
        Payload=json.dumps({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}),
    )
    report: dict[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise Failed(f"the job failed: {report}")
    return report


async def processed(to: Deployment, notes: list[str]) -> None:
    """A job counts what is there, and what comes later once more and not twice, each time in a new process."""
    url, token = to.url("groups"), to.token

    async def counted() -> dict[int, int]:
        for _ in range(10):
            if (await asyncio.to_thread(work, to))["done"]:
                break
        changes = await read_all(url, "lengths", 1, token=token)
        return {value["length"]: value["events"] for value in changes if value is not None}

    texts = [v["text"] for v in await read_all(url, "events", 4, token=token) if v.get("text") is not None]
    expected = {length: sum(len(text) == length for text in texts) for length in map(len, texts)}
    same(expected, await counted(), "events by length of text")
    async with Producer(url, token=token, value_serializer="json") as producer:
        await asyncio.gather(*[await producer.send("events", {"n": -2, "text": "four"}) for _ in range(100)])
    expected[4] += 100
    same(expected, await counted(), "events by length of text after 100 more")
    notes.append(f"{sum(expected.values())} events in {len(expected)} groups, by two runs of the function")


def console(to: Deployment, notes: list[str]) -> None:
    """Pages by the token of an API key; the form for whoever has none."""
    url = to.outputs["ConsoleUrl"]
    same(303, to.curl("GET", f"{url}/topics", token=False)[0], "the console without a key")
    status, form = to.curl("GET", f"{url}/sign-in", token=False)
    same((200, True), (status, 'name="token"' in form), "the form")
    files = sorted(set(re.findall(r'"(/console/static/[^"]+)"', form)))
    found = [to.curl("GET", url.removesuffix("/console") + file, token=False)[0] for file in files]
    same([200, 200, 200], found, "its files")
    # LocalStack lets a function set no cookie, so this is what a browser would send then.
    cookie = f"cookie: headwater_token={to.token}"
    status, page = to.curl("GET", f"{url}/topics/events/messages?from=earliest", "", cookie, token=False)
    same((200, True), (status, "<article" in page), "a page of messages")
    notes.append(f"the form, its files, messages by a key; {megabytes('console'):.0f} MB unzipped")


async def deleted(to: Deployment, records: int, notes: list[str]) -> None:
    """The stack is gone, and the log is whole."""
    sam = TOOLS / "sam/bin/sam"
    command(sam, "delete", "--stack-name", "headwater", "--no-prompts", environment=to.environment)
    same([], to.emulator.client("lambda").list_functions()["Functions"], "functions that are left")
    same(records, len(await read_all(to.store, "events", 4)), "records in the bucket that outlives the stack")
    to.headwater("verify")
    notes.append("the bucket is kept, and `headwater verify` finds it whole")


async def run(emulator: Emulator, steps: Steps) -> None:
    """All steps, one after the other."""
    to = Deployment(emulator)
    with steps.step("sam validate, sam validate --lint, translator output through cfn-lint"):
        validate(to)
    with steps.step("scripts/deploy localstack: sam build, sam deploy"):
        to.deploy(MaintenanceSchedule=SCHEDULE, **OPTIONAL)
    with steps.step("sizes, MB unzipped") as notes:
        sizes(notes)
    with steps.step("scripts/smoke with curl") as notes:
        to.token = to.headwater("auth", "create-key", "--principal", "ops").strip()
        command(
            ROOT / "scripts/smoke",
            to.url("groups"),
            environment={**to.environment, "HEADWATER_TOKEN": to.token, "ADMIN_URL": to.url("admin")},
        )
    with steps.step("strangers, by curl") as notes:
        strangers(to, notes)
    with steps.step("produce and fetch with headwater.client") as notes:
        await produce_and_fetch(to, notes)
    with steps.step("a batch too large for a function, by presigned URL") as notes:
        await big_batch(to, notes)
    with steps.step("a transaction") as notes:
        await transaction(to, notes)
    with steps.step("the REST Proxy dialect, by curl") as notes:
        rest_proxy(to, notes)
    with steps.step("a group of two, one of them killed") as notes:
        await takeover(to, notes)
    with steps.step("the maintenance schedule") as notes:
        await maintenance(to, notes)
    with steps.step("archive files") as notes:
        await archived(to, notes)
    with steps.step("the bucket") as notes:
        bucket(to, notes)
    before = await read_all(to.url("groups"), "events", 4, token=to.token)
    async with Admin(to.url("groups"), token=to.token, admin_url=to.url("admin")) as administration:
        await administration.create_topics({"lengths": 1})
    with steps.step("scripts/deploy again, with other parameters"):
        to.deploy(Namespaces="default,other", ControlMemory="768", **OPTIONAL)
    with steps.step("after the redeployment") as notes:
        await redeployed(to, before, notes)
    with steps.step("a job of stream processing, by its schedule's event") as notes:
        await processed(to, notes)
    with steps.step("the console, by curl") as notes:
        console(to, notes)
    with steps.step("sam delete") as notes:
        await deleted(to, len(before) + 101, notes)


def main(python: str) -> int:
    """The exit status: 0 if every step passed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up then, too
    resolve_localhost()
    steps, emulator = Steps(), Emulator(python)
    os.environ |= {name: emulator.environment[name] for name in emulator.environment if name.startswith("AWS_")}
    os.environ.pop("AWS_ENDPOINT_URL")
    try:
        with steps.step("LocalStack in host mode") as notes, contextlib.ExitStack() as stack:
            stack.enter_context(emulator)
            stack.pop_all()
            notes.append(f"{emulator.version} at {emulator.endpoint}")
        try:
            asyncio.run(run(emulator, steps))
        except BaseException:
            print(f"--- LocalStack said:\n{emulator.tail()}", file=sys.stderr)
            raise
    except Failed as error:
        print(f"test-localstack: {error}", file=sys.stderr)
        return 1
    finally:
        emulator.__exit__()
    same([], emulator.functions(), "processes that are left")
    print(f"{time.monotonic() - steps.start_s:7.1f} s  all of it: {steps.count} steps passed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
