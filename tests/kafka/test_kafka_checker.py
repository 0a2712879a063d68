"""The checker of the fault runs finds each kind of anomaly when it is planted, and none in a right history."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.kafka.helpers_checker import History, Owned, Polled, Sent, Told, check, timeline

ORDERS, DONE = ("orders", 0), ("done", 0)


def right() -> History:
    return History(
        sent=[
            *(Sent("one", ORDERS, value, offset=value) for value in range(6)),
            Sent("worker", DONE, 100, offset=0, transaction="t1"),
            Sent("worker", DONE, 101, offset=1, transaction="t1"),
            Sent("worker", DONE, 102, offset=3, transaction="t2"),
        ],
        polled=[
            Polled("c1", 1, ORDERS, [(0, 0), (1, 1), (2, 2)]),
            Polled("c1", 1, ORDERS, [(3, 3)]),
            Polled("c2", 1, ORDERS, [(3, 3), (4, 4), (5, 5)]),
        ],
        owned=[Owned("g", "c1", ORDERS, 0.0, 5.0), Owned("g", "c2", ORDERS, 5.0, 9.0)],
        ends={"t1": "commit", "t2": "abort"},
        log={ORDERS: [(value, value) for value in range(6)], DONE: [(0, 100), (1, 101)]},
    )


def test_a_right_history_has_no_anomaly() -> None:
    assert [] == check(right())


def lose(history: History) -> None:
    history.log[ORDERS][2] = (2, 77)
    history.polled.clear()


def repeat(history: History) -> None:
    history.log[ORDERS].append((6, 3))


def leak(history: History) -> None:
    history.log[DONE].append((3, 102))


def leak_to_a_poll(history: History) -> None:
    history.log[DONE].append((9, 7))
    history.polled.append(Polled("c1", 1, DONE, [(3, 102)]))


def tear(history: History) -> None:
    history.ends["t1"] = ""
    history.log[DONE].pop()


def skip(history: History) -> None:
    history.polled[0].records.pop(1)


def go_back(history: History) -> None:
    history.polled[1].records = [(1, 1)]


def disorder(history: History) -> None:
    history.sent[0].offset, history.sent[1].offset = 1, 0
    history.log[ORDERS][:2] = [(0, 1), (1, 0)]
    history.polled.clear()


def share(history: History) -> None:
    history.owned[1].start_s = 4.0


def misread(history: History) -> None:
    history.polled[0].records[0] = (0, 55)


def pass_over(history: History) -> None:
    """The next owner begins past what the last one read: no assignment of its own shows it."""
    history.polled = [Polled("c1", 1, ORDERS, [(0, 0), (1, 1)], "g"), Polled("c2", 2, ORDERS, [(3, 3), (4, 4)], "g")]
    history.caught_up = {"g"}


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lose, "lost write"),
        (repeat, "duplicate"),
        (leak, "aborted read"),
        (leak_to_a_poll, "aborted read"),
        (tear, "torn transaction"),
        (skip, "poll skip"),
        (go_back, "non-monotonic poll"),
        (disorder, "non-monotonic send"),
        (share, "wrong assignment"),
        (misread, "wrong read"),
        (pass_over, "unread"),
    ],
)
def test_a_planted_anomaly_is_found(plant: Callable[[History], None], kind: str) -> None:
    history = copy.deepcopy(right())
    plant(history)
    assert kind in {found.partition(":")[0] for found in check(history)}


def test_what_a_reader_without_an_assignment_saw_is_out_of_order_for_no_one() -> None:
    history = right()
    history.polled += [Polled("c1", 0, ORDERS, [(4, 4)]), Polled("c1", 0, ORDERS, [(1, 1)])]
    assert [] == check(history)


def test_the_timeline_has_what_readers_were_told_and_given_in_order_of_time() -> None:
    history = History(
        told=[Told(9.0, "g", "c1", "revoked", [ORDERS]), Told(1.0, "g", "c1", "assigned", [ORDERS])],
        polled=[Polled("c1", 7, ORDERS, [(offset, offset)], "g", 2.0, 3.0) for offset in (4, 5, 6)],
    )
    assert timeline(history) == [
        "1.000 s g c1: assigned [('orders', 0)]",
        "3.000 s g c1: read ('orders', 0):4 to :6 under assignment 7, asked for at 2.000 s",
        "9.000 s g c1: revoked [('orders', 0)]",
    ]
