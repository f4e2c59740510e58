# SPDX-License-Identifier: Apache-2.0
"""The fuzz itself: its messages are the same for the same seed, and it finds what it is there to find."""

import dataclasses
import random

import pytest

from bridge.core.reasons import Reason
from listener.notification import Other, Read, ResizeEnd, Row, Unreadable
from tests.fuzz.judge import judged, read
from tests.fuzz.mutate import mutated
from tests.fuzz.work import portion
from tests.unit.listener.messages import one_server, recorded

BODIES = [recorded("one_server"), recorded("multiattach")]


def test_the_same_seed_gives_the_same_messages_and_another_gives_others() -> None:
    first, again, other = ([mutated(BODIES, random.Random(f"{seed} {n}")) for n in range(50)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_some_mutated_messages_are_still_extends_and_some_of_every_other_kind() -> None:
    faults, seen, _ = portion((1, 0, 200))
    assert faults == []
    assert set(seen) == {"ResizeEnd", "Other", "Unreadable", "Bad"}


def sound() -> ResizeEnd:
    end = read(recorded("one_server"))
    assert isinstance(end, ResizeEnd)
    return end


def _raises(_body: bytes) -> Read:
    raise RecursionError


WRONG = {
    "an exception": _raises,
    "another type": lambda _body: None,
    "the parser's own failure": lambda _body: Unreadable(reason=Reason.PARSER_FAILED),
    "a secret": lambda _body: dataclasses.replace(
        sound(), origin=dataclasses.replace(sound().origin, message_id="hush")
    ),
    "a line break in an id": lambda _body: dataclasses.replace(
        sound(), origin=dataclasses.replace(sound().origin, sent="a\nb")
    ),
    "a server id that is none": lambda _body: dataclasses.replace(
        sound(), rows=(Row(server_id="x", attached=True, readable=True),)
    ),
    "too many rows": lambda _body: dataclasses.replace(sound(), rows=sound().rows * 51),
    "a negative size": lambda _body: dataclasses.replace(sound(), size=-1),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_reading_is_reported(kind: str) -> None:
    _, wrong = judged(one_server(), frozenset({"hush"}), WRONG[kind])  # type: ignore[arg-type]
    assert wrong is not None


def test_a_right_reading_is_not_reported() -> None:
    assert judged(one_server(), frozenset({"hush"})) == ("ResizeEnd", None)
    assert judged(b"{}", frozenset()) == (Other.__name__, None)
