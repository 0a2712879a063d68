"""SCRAM users in the fold: one entry a user and mechanism, the newest; never a password."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import structs

from headwater.limits import SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN
from headwater.log.operations import AnyOp, DropScram, SetScram
from headwater.log.state import security
from tests.log.helpers import Fold
from tests.log.helpers_groups import scram_op

LONG = "A" * 86 + "=="


def other(op: SetScram) -> SetScram:
    """The same user's password for the other mechanism."""
    return structs.replace(op, mechanism="SCRAM-SHA-512", stored_key=LONG, server_key=LONG)


def refused(fold: Fold, code: str, op: AnyOp) -> None:
    before = msgspec.json.encode(fold.state.scram)
    assert code == fold.do(op).error
    assert before == msgspec.json.encode(fold.state.scram)


def test_the_newest_password_counts_and_each_mechanism_has_its_own() -> None:
    fold = Fold()
    fold.done(scram_op("u"), other(scram_op("u")), scram_op("u", iterations=8_192, letter="B"))
    assert [8_192, 4_096] == [known.iterations for known in fold.state.scram["u"].values()]
    fold.done(scram_op("u", iterations=8_192, letter="B"))
    assert ["SCRAM-SHA-256", "SCRAM-SHA-512"] == sorted(fold.state.scram["u"])


def test_a_user_is_forgotten_with_the_last_password() -> None:
    fold = Fold()
    fold.done(scram_op("u"), other(scram_op("u")), scram_op("v"))
    fold.done(DropScram(user="u", mechanism="SCRAM-SHA-256"))
    assert ["SCRAM-SHA-512"] == list(fold.state.scram["u"])
    refused(fold, "no_user", DropScram(user="u", mechanism="SCRAM-SHA-256"))
    fold.done(DropScram(user="u", mechanism="SCRAM-SHA-512"))
    assert ["v"] == list(fold.state.scram)
    refused(fold, "no_user", DropScram(user="u", mechanism="SCRAM-SHA-512"))


def test_keys_of_the_other_mechanism_are_refused() -> None:
    refused(Fold(), "invalid", structs.replace(scram_op("u"), stored_key=LONG))
    refused(Fold(), "invalid", structs.replace(other(scram_op("u")), server_key="A" * 43 + "="))


def test_there_are_so_many_users_and_all_may_change_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "SCRAM_USERS_MAX", 2)
    fold = Fold()
    fold.done(scram_op("u"), scram_op("v"))
    refused(fold, "too_many", scram_op("w"))
    fold.done(scram_op("u", letter="B"), other(scram_op("v")))


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("iterations", SCRAM_ITERATIONS_MIN, True),
        ("iterations", SCRAM_ITERATIONS_MIN - 1, False),
        ("iterations", SCRAM_ITERATIONS_MAX, True),
        ("iterations", SCRAM_ITERATIONS_MAX + 1, False),
        ("user", "", False),
        ("salt", "", False),
        ("stored_key", "secret", False),
        ("mechanism", "PLAIN", False),
    ],
)
def test_what_makes_no_sense_is_not_decoded(name: str, value: Any, fits: bool) -> None:
    body = msgspec.json.encode(structs.replace(scram_op("u"), **{name: value}))
    if fits:
        assert value == getattr(msgspec.json.decode(body, type=AnyOp), name)
    else:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body, type=AnyOp)
