"""template.yaml as the platform would see it, and its policies as S3 would judge them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from headwater.errors import Forbidden
from headwater.store.base import Blob, Body, ObjectStore, Stat

ROOT = Path(__file__).resolve().parents[2]
JOB = "process"  # the function that is there only if there is a job for it, and takes no requests
FUNCTIONS = ("produce", "fetch", "groups", "admin", "maintain")
CONSOLE = "console"  # the function that is there only if it is asked for
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "000000000000", "AWS::StackName": "hw"}
NOTHING = object()  # what AWS::NoValue stands for


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, as their long ones."""


def _long_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _long_form)  # type: ignore[no-untyped-call]


@cache
def source() -> dict[str, Any]:
    """The template as it is written, for those who only read it."""
    document: dict[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Loader)
    return document


class Stack:
    """The template with values for its parameters: conditions decided, references and substitutions made."""

    def __init__(self, **parameters: str) -> None:
        document = source()
        unknown = parameters.keys() - document["Parameters"].keys()
        assert set() == unknown
        self._values: dict[str, Any] = {
            **PSEUDO,
            **{name: spec.get("Default") for name, spec in document["Parameters"].items()},
            **parameters,
        }
        self._resources = document["Resources"]
        self._conditions = document["Conditions"]
        self.resources: dict[str, dict[str, Any]] = {
            name: self._made(resource)
            for name, resource in self._resources.items()
            if "Condition" not in resource or self._holds(resource["Condition"])
        }
        self.globals: dict[str, Any] = self._made(document["Globals"]["Function"])
        self.outputs: dict[str, Any] = {
            name: self._made(output)
            for name, output in document["Outputs"].items()
            if "Condition" not in output or self._holds(output["Condition"])
        }

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties of the resources of a type, by logical id."""
        return {n: r.get("Properties", {}) for n, r in self.resources.items() if r["Type"] == kind}

    def function(self, name: str) -> dict[str, Any]:
        """A function's properties, those of Globals included."""
        return {**self.globals, **self.resources[f"{name.capitalize()}Function"]["Properties"]}

    def policy(self, function: str) -> Policy:
        """What a function's role may do: the stack's own managed policies, and what stands at the function."""
        managed = {f"<{n}>": p["PolicyDocument"] for n, p in self.of_type("AWS::IAM::ManagedPolicy").items()}
        documents = [managed[p] if isinstance(p, str) else p for p in self.function(function)["Policies"]]
        return Policy([statement for document in documents for statement in document["Statement"]])

    def bucket_policy(self) -> Policy:
        """What the bucket itself forbids."""
        (found,) = self.of_type("AWS::S3::BucketPolicy").values()
        return Policy(found["PolicyDocument"]["Statement"])

    @property
    def store(self) -> str:
        """Where a function keeps the log, as s3://bucket/prefix."""
        url: str = self.globals["Environment"]["Variables"]["HEADWATER_STORE"]
        return url

    def _holds(self, condition: Any) -> bool:
        if isinstance(condition, str):
            return self._holds(self._conditions[condition])
        ((name, parts),) = condition.items()
        if name == "Condition":
            return self._holds(parts)
        if name == "Fn::Equals":
            left, right = (str(self._made(part)) for part in parts)
            return left == right
        verdicts = [self._holds(part) for part in parts]
        return {"Fn::Not": not verdicts[0], "Fn::And": all(verdicts), "Fn::Or": any(verdicts)}[name]

    def _made(self, node: Any) -> Any:
        if isinstance(node, list):
            return [made for part in node if (made := self._made(part)) is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, inner),) = node.items()
            if name == "Ref":
                return self._value(inner)
            if name == "Fn::If":
                return self._made(inner[1] if self._holds(inner[0]) else inner[2])
            if name == "Fn::Sub":
                text, extra = (inner, {}) if isinstance(inner, str) else inner
                known = {key: self._made(value) for key, value in extra.items()}
                return re.sub(r"\$\{([^}]+)\}", lambda m: str(known.get(m[1]) or self._value(m[1])), text)
            if name == "Fn::GetAtt":
                return f"<{inner if isinstance(inner, str) else '.'.join(inner)}>"
        return {key: made for key, value in node.items() if (made := self._made(value)) is not NOTHING}

    def _value(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NOTHING
        if name in self._values:
            return self._values[name]
        logical = name.partition(".")[0]
        assert logical in self._resources, f"nothing is called {name}"
        return f"<{name}>"


# -- policies -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """Statements, and the verdict on a request: a matching Deny, else a matching Allow, else no."""

    statements: list[dict[str, Any]]

    def allows(self, action: str, resource: str, **context: str) -> bool:
        return not self.denies(action, resource, **context) and self._any("Allow", action, resource, context)

    def denies(self, action: str, resource: str, **context: str) -> bool:
        return self._any("Deny", action, resource, context)

    def actions(self) -> set[str]:
        return {action for statement in self.statements for action in listed(statement["Action"])}

    def resources(self) -> set[str]:
        return {resource for statement in self.statements for resource in listed(statement["Resource"])}

    def _any(self, effect: str, action: str, resource: str, context: Mapping[str, str]) -> bool:
        return any(
            statement["Effect"] == effect
            and any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"]))
            and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
            and _conditions_hold(statement.get("Condition", {}), context)
            for statement in self.statements
        )


def listed(value: Any) -> list[Any]:
    """CloudFormation takes one thing for a list of it."""
    return value if isinstance(value, list) else [value]


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    """``context`` has the keys without their service, `-` written as `_`: ``prefix``, ``if_none_match``."""
    for operator, tests in conditions.items():
        for key, wanted in tests.items():
            given = context.get(key.partition(":")[2].replace("-", "_"))
            if operator == "Null":
                holds = (given is None) == (str(wanted) == "true")
            elif given is None:
                holds = False
            elif operator == "StringLike":
                holds = any(fnmatchcase(given, pattern) for pattern in listed(wanted))
            else:
                assert operator in ("Bool", "StringEquals"), f"teach this test the operator {operator}"
                holds = given in [str(each) for each in listed(wanted)]
            if not holds:
                return False
    return True


# -- a bucket that obeys them -------------------------------------------------------------------------


@dataclass
class GuardedStore:
    """``inner`` behind a function's policy and the bucket's: what they do not allow raises ``Forbidden``."""

    inner: ObjectStore
    policy: Policy
    bucket_policy: Policy
    bucket: str  # arn:…:bucket
    prefix: str  # "headwater/"
    refused: list[str] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)  # (action, kind of object)

    def __post_init__(self) -> None:
        self.url = self.inner.url
        self.key_bytes_max = self.inner.key_bytes_max

    def _ask(self, action: str, key: str, **context: str) -> None:
        if action == "s3:ListBucket":
            resource, context = self.bucket, {**context, "prefix": self.prefix + key}
        else:
            resource = f"{self.bucket}/{self.prefix}{key}"
        context = {**context, "SecureTransport": "true"}
        denied = self.bucket_policy.denies(action, resource, **context)
        if denied or not self.policy.allows(action, resource, **context):
            self.refused.append(f"{action} {key}")
            raise Forbidden(f"{action} on {key} is not allowed.")
        parts = key.split("/")
        self.used.add((action.removeprefix("s3:"), parts[0] if parts[0] == ".probe" else parts[1]))

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> Blob:
        self._ask("s3:GetObject", key)
        return await self.inner.get(key, start=start, end=end)

    async def head(self, key: str) -> Stat:
        self._ask("s3:GetObject", key)
        return await self.inner.head(key)

    async def put(self, key: str, body: Body) -> Stat:
        self._ask("s3:PutObject", key)
        return await self.inner.put(key, body)

    async def put_if_absent(self, key: str, body: Body) -> Stat:
        self._ask("s3:PutObject", key, if_none_match="*")
        return await self.inner.put_if_absent(key, body)

    async def put_if_match(self, key: str, body: Body, etag: str) -> Stat:
        self._ask("s3:PutObject", key, if_match=etag)
        return await self.inner.put_if_match(key, body, etag)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> AsyncIterator[Stat]:
        self._ask("s3:ListBucket", prefix)
        async for stat in self.inner.list(prefix, start_after=start_after, limit=limit):
            yield stat

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._ask("s3:DeleteObject", key)
        await self.inner.delete(keys)

    async def aclose(self) -> None:
        await self.inner.aclose()
