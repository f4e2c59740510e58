# SPDX-License-Identifier: Apache-2.0
"""The socket of a guest's agent: the guest writes what comes from there."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.drivers.base import AGENT_ANSWER_MAX, AgentTrouble, GuestAgentError
from hostagent.drivers.qmp import agent
from tests.contract.qmp_guests import PlayedAgent

LONG = 60.0
PING = {"execute": "guest-ping"}


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket with a short name."""
    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    yield directory / "a.qga"
    shutil.rmtree(directory)


@pytest.fixture
def played(path: Path) -> Iterator[PlayedAgent]:
    """An agent that answers as told; it begins with the end of an answer to an earlier call."""
    made = PlayedAgent(path)
    yield made
    made.close()


def test_the_answer_is_the_one_to_this_call(path: Path, played: PlayedAgent) -> None:
    played.answer = b'{"return": [1, 2]}'
    assert [agent.ask(str(path), PING, LONG) for _ in range(3)] == [[1, 2]] * 3


@pytest.mark.parametrize(
    ("answer", "limit", "why"),
    [
        (b'{"error": {"class": "CommandNotFound", "desc": "guest-ping has been disabled"}}', LONG, "refused"),
        (None, 0.3, "silent"),
        (b"x" * (AGENT_ANSWER_MAX + (1 << 17)), LONG, "bad_answer"),
        (b"not JSON", LONG, "bad_answer"),
        (b'"text"', LONG, "bad_answer"),
        (b"{}", LONG, "bad_answer"),
        (b'{"error": "words"}', LONG, "bad_answer"),
        (b"[" * 100_000, LONG, "bad_answer"),
    ],
)
def test_whatever_else_it_does_is_an_error_in_words(
    path: Path, played: PlayedAgent, answer: bytes | None, limit: float, why: str
) -> None:
    played.answer = answer
    with pytest.raises(GuestAgentError) as caught:
        agent.ask(str(path), PING, limit)
    assert caught.value.why == why
    assert caught.value.detail


def test_no_agent_is_said_at_once(path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(GuestAgentError) as caught:
        agent.ask(str(path), PING, LONG)
    assert caught.value.why is AgentTrouble.ABSENT
    assert time.monotonic() - began < LONG
