"""The fold of `_schemas`, beside a model that knows nothing of records, and over a compacted log."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.registry import decide, records
from headwater.registry.decide import Wanted
from headwater.registry.fold import Registry, fold, plain
from headwater.registry.records import Version
from headwater.registry.refusal import Refusal
from headwater.types import Record

SUBJECTS = ("a", "b")
LEVELS = st.sampled_from(["NONE", "FULL", "backward"])
WHICH = st.sampled_from(["latest", "1", "2", "3"])
STEP = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(SUBJECTS), st.integers(0, 4)),
    st.tuples(st.just("delete"), st.sampled_from(SUBJECTS), st.booleans()),
    st.tuples(st.just("delete_version"), st.sampled_from(SUBJECTS), WHICH, st.booleans()),
    st.tuples(st.just("level"), st.sampled_from(("", *SUBJECTS)), LEVELS),
    st.tuples(st.just("unset"), st.sampled_from(("", *SUBJECTS))),
    st.tuples(st.just("mode"), st.sampled_from(("", *SUBJECTS)), st.sampled_from(["READONLY", "READWRITE"])),
)


@dataclass
class Model:
    """A registry as one would write it down: version → [id, text, deleted], by subject."""

    subjects: dict[str, dict[int, list[object]]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    given: int = 0
    readonly: dict[str, bool] = field(default_factory=dict)

    def writable(self, subject: str) -> bool:
        return not self.readonly.get(subject, self.readonly.get("", False))

    def register(self, subject: str, text: str) -> None:
        versions = self.subjects.get(subject, {})
        if any(each[1] == text and not each[2] for each in versions.values()) or not self.writable(subject):
            return
        if text not in self.ids:
            self.given += 1
            self.ids[text] = self.given
        self.subjects.setdefault(subject, {})[max(versions, default=0) + 1] = [self.ids[text], text, False]

    def delete(self, subject: str, permanent: bool) -> None:
        versions = self.subjects.get(subject, {})
        if not versions or not self.writable(subject):
            return
        if not permanent:
            for each in versions.values():
                each[2] = True
        elif all(each[2] for each in versions.values()):
            del self.subjects[subject]
            self.readonly.pop(subject, None)
            self.forget()

    def delete_version(self, subject: str, which: str, permanent: bool) -> None:
        versions = self.subjects.get(subject, {})
        chosen = [n for n, each in versions.items() if permanent or not each[2]] if which == "latest" else [int(which)]
        number = max(chosen, default=0)
        if number not in versions or not self.writable(subject) or versions[number][2] is not permanent:
            return
        if permanent:
            del versions[number]
            if not versions:
                del self.subjects[subject]
            self.forget()
        else:
            versions[number][2] = True

    def forget(self) -> None:
        """A text that no version has loses its id, and nobody gets that id again."""
        kept = {each[1] for versions in self.subjects.values() for each in versions.values()}
        self.ids = {text: number for text, number in self.ids.items() if text in kept}


def text(number: int) -> str:
    """Schemas that may follow one another at any level."""
    return json.dumps({"type": "enum", "name": "e", "symbols": ["x"], "default": "x", "doc": str(number)})


def take(registry: Registry, model: Model, step: tuple[object, ...]) -> list[Record]:
    """Do a step to both; what was written."""
    try:
        match step:
            case ("register", str(subject), int(number)):
                model.register(subject, text(number))
                return [*decide.register(registry, subject, Wanted(text=text(number))).writes]
            case ("delete", str(subject), bool(permanent)):
                model.delete(subject, permanent)
                return [*decide.delete_subject(registry, subject, permanent=permanent).writes]
            case ("delete_version", str(subject), str(which), bool(permanent)):
                model.delete_version(subject, which, permanent)
                return [*decide.delete_version(registry, subject, which, permanent=permanent).writes]
            case ("level", str(subject), str(level)):
                return [*decide.set_level(registry, subject, level).writes]
            case ("unset", str(subject)):
                model.readonly.pop(subject, None)
                return [*decide.unset_mode(registry, subject).writes]
            case ("mode", str(subject), str(mode)):
                model.readonly[subject] = mode == "READONLY"
                return [*decide.set_mode(registry, subject, mode).writes]
    except Refusal:
        return []
    raise AssertionError(step)


def compacted(log: list[Record]) -> list[Record]:
    """The newest record of each key, at its place; tombstones stay, as the topic's config has it."""
    newest = {record.key: place for place, record in enumerate(log)}
    return [record for place, record in enumerate(log) if newest[record.key] == place]


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=25), st.integers(0, 30))
def test_the_fold_is_as_a_plain_model_says_also_of_a_compacted_log(steps: list[tuple[object, ...]], cut: int) -> None:
    registry, model, log = Registry(), Model(), []
    for step in steps:
        written = take(registry, model, step)
        for record in written:
            registry.apply(record)
        log += written
    assert {
        subject: {
            number: [each.id, json.dumps(json.loads(each.schema)), each.deleted] for number, each in versions.items()
        }
        for subject, versions in registry.subjects.items()
    } == model.subjects
    assert model.given == registry.id_max
    assert plain(registry) == plain(fold(log)) == plain(fold(compacted(log)))
    assert plain(registry) == plain(fold([*compacted(log[:cut]), *log[cut:]]))
    assert sum(map(len, registry.subjects.values())) == registry.count
    assert registry.size == sum(len(v.schema) for found in registry.subjects.values() for v in found.values())


@given(st.binary(max_size=60), st.one_of(st.none(), st.binary(max_size=60)))
def test_any_bytes_are_a_record_that_is_passed_over(key: bytes, value: bytes | None) -> None:
    assert plain(Registry()) == plain(fold([Record(key=key, value=value)]))


def test_records_are_those_of_confluents_registry() -> None:
    version = Version("s", 1, 7, '"int"')
    assert b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}' == records.schema_record(version).key
    assert {"subject": "s", "version": 1, "id": 7, "schema": '"int"'} == json.loads(
        records.schema_record(version).value or b""
    )
    theirs = (
        b'{"subject":"s","version":3,"id":9,"md5":"AA==","schemaType":"JSON","schema":"{}","deleted":false,'
        b'"references":[{"name":"n","subject":"t","version":1}],"ts":1,"offset":5}'
    )
    found = fold([Record(key=b'{"magic":1,"keytype":"SCHEMA","subject":"s","version":3}', value=theirs)])
    assert (9, "JSON", "t") == (
        found.versions("s")[0].id,
        found.versions("s")[0].schema_type,
        found.versions("s")[0].references[0].subject,
    )


def test_an_id_is_never_given_again_though_its_schema_is_gone() -> None:
    registry, log = Registry(), []
    for step in (("register", "a", 1), ("register", "a", 2), ("delete", "a", False), ("delete", "a", True)):
        for record in take(registry, Model(), step):
            registry.apply(record)
            log.append(record)
    assert ({}, 2) == (registry.subjects, registry.id_max)
    after = fold(compacted(log))
    made = decide.register(after, "b", Wanted(text=text(3)))
    assert (1, 3) == (made.answer.version, made.answer.id)
