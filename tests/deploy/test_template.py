"""template.yaml agrees with functions/, with the environment that functions read, and with what the log must have."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from headwater.api import routes
from headwater.api.runtime import Settings
from headwater.log import keys
from tests.deploy.helpers_template import CONSOLE, FUNCTIONS, JOB, ROOT, Stack, listed, source

OWN = Stack()
FOREIGN = Stack(ExistingBucket="theirs", Prefix="logs")
PROCESSING = Stack(ProcessTopology="jobs.delays:topology")
SHOWN = Stack(Console="yes")
NOTIFIED = Stack(ProcessTopology="jobs.delays:topology", ProcessOnCommit="yes")
STACKS = pytest.mark.parametrize("stack", [OWN, FOREIGN], ids=["own bucket", "existing bucket"])
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def arn(stack: Stack, key: str = "") -> str:
    bucket, _, prefix = stack.store.removeprefix("s3://").partition("/")
    return f"arn:aws:s3:::{bucket}" + (f"/{prefix}/{key}" if key else "")


# -- functions ------------------------------------------------------------------------------------------


def test_template_folders_and_routes_name_the_same_functions() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    handlers = {
        stack: {props["Handler"].split(".")[1] for props in stack.of_type("AWS::Serverless::Function").values()}
        for stack in (OWN, PROCESSING, SHOWN)
    }
    assert {*FUNCTIONS, CONSOLE, JOB} == folders
    assert {*FUNCTIONS, JOB} == handlers[PROCESSING]
    assert set(FUNCTIONS) == handlers[OWN]
    assert {*FUNCTIONS, CONSOLE} == handlers[SHOWN] == set(routes.FUNCTIONS)


@EACH
def test_a_handler_is_what_its_function_says(name: str) -> None:
    assert f"functions.{name}.app.handler" == OWN.function(name)["Handler"]
    module = ast.parse((ROOT / "functions" / name / "app.py").read_text())
    (made,) = [node for node in module.body if isinstance(node, ast.Assign)]
    assert f"handler = function('{name}')" == ast.unparse(made)


@EACH
def test_a_function_has_a_url_a_log_and_bounds(name: str) -> None:
    made = OWN.function(name)
    assert "AWS_IAM" == made["FunctionUrlConfig"]["AuthType"]
    group = OWN.resources[made["LoggingConfig"]["LogGroup"].strip("<>")]
    assert group["Properties"]["RetentionInDays"] > 0
    assert 1 <= made["Timeout"] <= 900
    assert 256 <= made["MemorySize"] <= 10_240
    assert f"<{name.capitalize()}FunctionUrl.FunctionUrl>" == OWN.outputs[f"{name.capitalize()}Url"]["Value"]


def test_only_token_mode_opens_the_urls_to_callers_without_iam() -> None:
    modes = {mode: Stack(AuthMode=mode) for mode in source()["Parameters"]["AuthMode"]["AllowedValues"]}
    assert {"iam", "token"} == set(modes)
    for mode, stack in modes.items():
        types = {stack.function(name)["FunctionUrlConfig"]["AuthType"] for name in FUNCTIONS}
        assert {"iam": {"AWS_IAM"}, "token": {"NONE"}}[mode] == types
        assert mode == stack.globals["Environment"]["Variables"]["HEADWATER_AUTH"]


def test_the_template_sets_what_functions_read() -> None:
    variables = OWN.globals["Environment"]["Variables"]
    sources = [(ROOT / "lib" / "api" / name).read_text() for name in ("runtime.py", "figures.py")]
    read = {name for source in sources for name in re.findall(r"HEADWATER_[A-Z0-9_]+", source)}
    optional = {"HEADWATER_S3_CLIENT"}
    assert read - optional == set(variables)
    assert set(FUNCTIONS) == {
        name for name in FUNCTIONS if "Environment" not in OWN.resources[f"{name.capitalize()}Function"]["Properties"]
    }
    settings = Settings.of(variables)
    assert ("default", ("default",), "iam") == (settings.namespace, settings.namespaces, settings.auth)


@pytest.mark.parametrize(
    ("given", "expected"), [({}, None), ({"ReservedConcurrency": "-1"}, None), ({"ReservedConcurrency": "7"}, "7")]
)
def test_concurrency_is_reserved_on_demand(given: dict[str, str], expected: str | None) -> None:
    assert expected == Stack(**given).function("produce").get("ReservedConcurrentExecutions")


def test_urls_lead_to_the_newest_code_and_configuration() -> None:
    # SAM publishes no version when only a parameter changes, so an alias would go on with the old one.
    assert [] == [name for name in FUNCTIONS if "AutoPublishAlias" in OWN.function(name)]


def test_open_urls_have_both_rights_that_the_platform_asks_for() -> None:
    assert {} == OWN.of_type("AWS::Lambda::Permission")
    granted = Stack(AuthMode="token").of_type("AWS::Lambda::Permission").values()
    assert {"*"} == {permission["Principal"] for permission in granted}
    wanted = {
        (f"<{name.capitalize()}Function.Arn>", action)
        for name in FUNCTIONS
        for action in ("lambda:InvokeFunctionUrl", "lambda:InvokeFunction")
    }
    assert wanted == {(permission["FunctionName"], permission["Action"]) for permission in granted}
    # Without these two the right would be good for more than the URL.
    assert all(p.get("InvokedViaFunctionUrl") or "NONE" == p.get("FunctionUrlAuthType") for p in granted)


def test_the_console_is_open_to_all_in_either_mode_and_asks_for_a_token_itself() -> None:
    assert "ConsoleUrl" not in OWN.outputs
    for mode in ("iam", "token"):
        stack = Stack(AuthMode=mode, Console="yes")
        made = stack.function(CONSOLE)
        assert f"functions.{CONSOLE}.app.handler" == made["Handler"]
        assert "NONE" == made["FunctionUrlConfig"]["AuthType"]
        assert {"HEADWATER_AUTH": "token"} == made["Environment"]["Variables"]
        granted = {
            p["Action"]
            for p in stack.of_type("AWS::Lambda::Permission").values()
            if p["FunctionName"] == "<ConsoleFunction.Arn>"
        }
        assert {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"} == granted
        group = stack.resources[made["LoggingConfig"]["LogGroup"].strip("<>")]
        assert group["Properties"]["RetentionInDays"] > 0
        assert "<ConsoleFunctionUrl.FunctionUrl>console" == stack.outputs["ConsoleUrl"]["Value"]


def test_the_console_deletes_no_object_of_the_log_and_sits_in_no_group() -> None:
    policy = SHOWN.policy(CONSOLE)
    for key in (keys.manifest_key(1), keys.segment_key(1, "w", 2), keys.snapshot_key(3), keys.index_key(1, 2)):
        assert policy.allows("s3:PutObject", arn(SHOWN, f"default/{key}"))
        assert not policy.allows("s3:DeleteObject", arn(SHOWN, f"default/{key}"))
    for key in (keys.lease_key("g", "m"), keys.archive_key("t", 0, 0, 1, 0, "aaaa"), keys.COLLECTED):
        assert not policy.allows("s3:PutObject", arn(SHOWN, f"default/{key}"))


def test_every_default_is_one_of_the_values_that_are_allowed() -> None:
    for name, parameter in source()["Parameters"].items():
        allowed = parameter.get("AllowedValues")
        assert parameter["Default"] in allowed if allowed else "Default" in parameter, name
        pattern = parameter.get("AllowedPattern")
        assert pattern is None or re.fullmatch(pattern, parameter["Default"]), name


def test_maintenance_has_a_schedule_that_can_be_changed() -> None:
    def schedules(stack: Stack) -> list[Any]:
        events = stack.function("maintain")["Events"].values()
        return [event["Properties"].get("Schedule") or event["Properties"]["ScheduleExpression"] for event in events]

    assert ["rate(1 hour)"] == schedules(Stack(MaintenanceSchedule="rate(1 hour)"))
    (default,) = schedules(OWN)
    assert re.fullmatch(r"rate\([1-9][0-9]* (minutes?|hours?)\)", default)
    assert all("Events" not in OWN.function(name) for name in FUNCTIONS if name != "maintain")


def test_the_build_knows_every_function_and_pins_what_it_ships() -> None:
    makefile = (ROOT / "functions" / "Makefile").read_text()
    (named,) = re.findall(r"^FUNCTIONS = (.*)$", makefile, re.MULTILINE)
    assert sorted(name.capitalize() for name in (*FUNCTIONS, CONSOLE, JOB)) == sorted(named.split())
    both = Stack(ProcessTopology="jobs.delays:topology", Console="yes")
    for name in (*FUNCTIONS, CONSOLE, JOB):
        assert "makefile" == both.resources[f"{name.capitalize()}Function"]["Metadata"]["BuildMethod"]
    lock = (ROOT / "requirements.lock").read_text()
    shipped = [
        line
        for name in ("function", "console", "process")
        for line in (ROOT / "infra" / f"{name}-requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert {"jinja2", "msgspec", "obstore", "orjson", "polars", "pyarrow"} <= set(shipped)
    assert [] == [name for name in shipped if not re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE)]


# -- the bucket -----------------------------------------------------------------------------------------


def test_a_bucket_is_made_only_where_none_is_given() -> None:
    assert 1 == len(OWN.of_type("AWS::S3::Bucket"))
    assert {} == FOREIGN.of_type("AWS::S3::Bucket")
    assert {} == FOREIGN.of_type("AWS::S3::BucketPolicy")
    assert "s3://theirs/logs" == FOREIGN.store
    assert "theirs" == FOREIGN.outputs["Bucket"]["Value"]


def test_the_bucket_outlives_the_stack_and_is_closed_to_the_public() -> None:
    ((name, bucket),) = OWN.of_type("AWS::S3::Bucket").items()
    assert ("Retain", "Retain") == (OWN.resources[name]["DeletionPolicy"], OWN.resources[name]["UpdateReplacePolicy"])
    assert {True} == set(bucket["PublicAccessBlockConfiguration"].values())
    assert 4 == len(bucket["PublicAccessBlockConfiguration"])


def test_no_lifecycle_rule_expires_or_moves_an_object() -> None:
    (bucket,) = OWN.of_type("AWS::S3::Bucket").values()
    harmless = {"Id", "Status", "AbortIncompleteMultipartUpload"}
    rules = bucket["LifecycleConfiguration"]["Rules"]
    assert rules
    assert [] == [rule for rule in rules if rule.keys() - harmless]


def test_the_bucket_takes_no_request_without_tls() -> None:
    policy = OWN.bucket_policy()
    for action, resource in (("s3:GetObject", arn(OWN, "default/latest")), ("s3:ListBucket", arn(OWN))):
        assert policy.denies(action, resource, SecureTransport="false")
        assert not policy.denies(action, resource, SecureTransport="true")


def test_the_bucket_takes_only_conditional_commits() -> None:
    policy, manifest = OWN.bucket_policy(), arn(OWN, f"any/{keys.manifest_key(7)}")
    assert policy.denies("s3:PutObject", manifest, SecureTransport="true")
    assert policy.denies("s3:PutObject", manifest, SecureTransport="true", if_match="etag")
    assert not policy.denies("s3:PutObject", manifest, SecureTransport="true", if_none_match="*")
    for key in (keys.LATEST, keys.lease_key("g", "m"), keys.segment_key(1, "w", 2)):
        assert not policy.denies("s3:PutObject", arn(OWN, f"any/{key}"), SecureTransport="true")


# -- rights ---------------------------------------------------------------------------------------------


@EACH
@STACKS
def test_a_role_has_no_more_than_four_actions_on_its_own_folder(stack: Stack, name: str) -> None:
    policy = stack.policy(name)
    assert policy.actions() <= {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert [] == [action for action in policy.actions() if "*" in action]
    assert [] == [
        found for found in policy.resources() if not (found == arn(stack) or found.startswith(arn(stack, "x")[:-1]))
    ]
    assert not policy.allows("s3:ListBucket", arn(stack), prefix="")
    assert not policy.allows("s3:ListBucket", arn(stack), prefix="other/")
    assert not policy.allows("s3:GetObject", f"{arn(stack)}/other/secret")
    writes = {"s3:PutObject", "s3:DeleteObject"}
    written = [r for s in policy.statements if writes & set(listed(s["Action"])) for r in listed(s["Resource"])]
    assert arn(stack, "*") not in written


@EACH
def test_only_the_collector_deletes_what_the_log_stands_on(name: str) -> None:
    for key in (
        keys.manifest_key(1),
        keys.segment_key(1, "w", 1),
        keys.snapshot_key(1),
        keys.index_key(1, 2),
        keys.boundary_key(1),
        keys.archive_key("t", 0, 0, 1, 0, "aaaa"),
        keys.file_page_key(0, 1, 0, "aaaa"),
    ):
        allowed = OWN.policy(name).allows("s3:DeleteObject", arn(OWN, f"default/{key}"))
        assert (name == "maintain") == allowed, key
    for key in (keys.LATEST, keys.branch_key(1, "b"), keys.COLLECTED):
        assert not OWN.policy(name).allows("s3:DeleteObject", arn(OWN, f"default/{key}"))


def test_a_job_commits_and_keeps_its_seat_and_has_no_other_right() -> None:
    policy = PROCESSING.policy(JOB)
    own, others = arn(PROCESSING, "default/lease/delays/member"), arn(PROCESSING, "default/consumer/g/i")
    for action in ("s3:PutObject", "s3:DeleteObject"):
        assert policy.allows(action, own)
        assert not policy.allows(action, others)
    for key in (keys.manifest_key(1), keys.segment_key(1, "w", 2), keys.snapshot_key(3), keys.index_key(1, 2)):
        assert policy.allows("s3:PutObject", arn(PROCESSING, f"default/{key}"))
        assert not policy.allows("s3:DeleteObject", arn(PROCESSING, f"default/{key}"))
    assert {"sqs"} == {action.partition(":")[0] for action in NOTIFIED.policy(JOB).actions() - policy.actions()}


# -- the job ----------------------------------------------------------------------------------------------


def test_a_job_is_called_by_schedule_and_knows_its_topology() -> None:
    made = PROCESSING.function(JOB)
    assert f"functions.{JOB}.app.handler" == made["Handler"]
    assert {"HEADWATER_TOPOLOGY": "jobs.delays:topology"} == made["Environment"]["Variables"]
    assert "FunctionUrlConfig" not in made
    (event,) = made["Events"].values()
    assert "rate(5 minutes)" == event["Properties"]["Schedule"]
    assert 60 <= made["Timeout"] <= 900
    assert PROCESSING.resources[made["LoggingConfig"]["LogGroup"].strip("<>")]["Properties"]["RetentionInDays"] > 0


def test_commits_call_the_job_through_a_queue_on_demand() -> None:
    kinds = ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "AWS::Lambda::EventSourceMapping")
    for stack in (OWN, PROCESSING, Stack(ProcessOnCommit="yes"), Stack(ExistingBucket="theirs", ProcessOnCommit="yes")):
        assert [{}, {}, {}] == [stack.of_type(kind) for kind in kinds]
    ((queue, settings),) = NOTIFIED.of_type("AWS::SQS::Queue").items()
    (bucket,) = NOTIFIED.of_type("AWS::S3::Bucket").values()
    (notified,) = bucket["NotificationConfiguration"]["QueueConfigurations"]
    assert f"<{queue}.Arn>" == notified["Queue"]
    (rule,) = notified["Filter"]["S3Key"]["Rules"]
    assert f"headwater/default/{keys.manifest_key(7)}".startswith(rule["Value"])
    (mapping,) = NOTIFIED.of_type("AWS::Lambda::EventSourceMapping").values()
    assert (f"<{queue}.Arn>", "<ProcessFunction>") == (mapping["EventSourceArn"], mapping["FunctionName"])
    # The platform's rule for a queue that calls a function: a message stays away for six of its longest runs.
    assert settings["VisibilityTimeout"] >= 6 * source()["Parameters"]["ProcessTimeout"]["MaxValue"]
    assert "NotificationConfiguration" not in OWN.of_type("AWS::S3::Bucket")["LogBucket"]


def test_fetch_writes_nothing() -> None:
    assert {"s3:ListBucket", "s3:GetObject"} == OWN.policy("fetch").actions()
