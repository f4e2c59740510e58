# SPDX-License-Identifier: Apache-2.0
"""The processes os-brick runs in: answers, deaths, hangs. The child here is a stand-in that speaks the protocol."""

import os
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.brick_pool import BrickPool
from hostagent.failure import StoppedError
from hostagent.settings import BrickSettings
from tests.lab.waiting import until

CHILD = textwrap.dedent("""
    import json, os, subprocess, sys, time
    json.loads(sys.stdin.readline())
    for line in sys.stdin:
        request = json.loads(line)
        what = request["protocol"]
        if what == "DIE": os._exit(3)
        if what == "HANG":
            child = subprocess.Popen(["sleep", "600"])
            open(request["properties"]["pids"], "w").write(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        if what == "NOISE": print("a library prints", flush=True)
        if what == "LATE": print(json.dumps({"id": 0, "size": 1}), flush=True)
        answer = {"id": request["id"], "size": 7}
        if request["what"] == "paths": answer = {"id": request["id"], "paths": ["/dev/a", "/dev/b"]}
        if what in ("unsupported", "no_size", "raised", "paths_down"):
            answer = {"id": request["id"], "error": what, "detail": "in words"}
        print(json.dumps(answer), flush=True)
""")


def make(limit: float = 10.0, processes: int = 1) -> BrickPool:
    settings = BrickSettings(
        processes=processes, limit=limit, lock_path="/tmp", use_multipath=False, root_helper="sudo"
    )
    return BrickPool(settings, command=[sys.executable, "-c", CHILD])


@pytest.fixture
def pool() -> Iterator[BrickPool]:
    made = make()
    yield made
    made.close()


def stopped(pool: BrickPool, protocol: str, **properties: str) -> StoppedError:
    with pytest.raises(StoppedError) as caught:
        pool.extend(protocol, properties)
    return caught.value


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_process_answers_and_is_kept(pool: BrickPool) -> None:
    """Importing os-brick is paid for once."""
    assert pool.extend("LOCAL", {}) == 7
    first = pool.pids()
    assert pool.extend("LATE", {}) == 7
    assert pool.pids() == first


def test_the_paths_of_a_volume_can_be_asked_for(pool: BrickPool) -> None:
    """With the same errors as an extend."""
    assert pool.paths("ISCSI", {}) == ["/dev/a", "/dev/b"]
    with pytest.raises(StoppedError):
        pool.paths("raised", {})


@pytest.mark.parametrize(
    ("kind", "outcome", "reason"),
    [
        ("raised", Outcome.BRICK_FAILED, Reason.BRICK_RAISED),
        ("no_size", Outcome.BRICK_FAILED, Reason.BRICK_NO_SIZE),
        ("paths_down", Outcome.PATHS_DOWN, Reason.BRICK_RAISED),
        ("unsupported", Outcome.UNSUPPORTED, Reason.NO_STRATEGY),
    ],
)
def test_errors_have_their_outcomes_and_the_process_goes_on(
    pool: BrickPool, kind: str, outcome: Outcome, reason: Reason
) -> None:
    """os-brick raising is an answer like any other."""
    error = stopped(pool, kind)
    assert (error.outcome, error.reason, error.detail) == (outcome, reason, "in words")
    assert pool.extend("LOCAL", {}) == 7


@pytest.mark.parametrize("how", ["DIE", "NOISE"])
def test_a_process_that_dies_or_babbles_fails_its_order_only(pool: BrickPool, how: str) -> None:
    """The next order gets a new process."""
    error = stopped(pool, how)
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.BRICK_DIED)
    assert pool.extend("LOCAL", {}) == 7


def test_a_process_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    """Within the limit, and its children with it: they hold os-brick's lock, too."""
    pool = make(limit=1.0)
    began = time.monotonic()
    error = stopped(pool, "HANG", pids=str(tmp_path / "pids"))
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.BRICK_TIMED_OUT)
    assert time.monotonic() - began < 5
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until(lambda: not any(map(alive, pids)), "the whole group is gone")  # the kernel takes a moment
    assert pool.extend("LOCAL", {}) == 7
    pool.close()


def test_closing_kills_a_call_on_its_way(tmp_path: Path) -> None:
    """A stop does not wait for a hanging device."""
    pool, errors = make(limit=60.0), []
    pids = tmp_path / "pids"
    caller = threading.Thread(target=lambda: errors.append(stopped(pool, "HANG", pids=str(pids))))
    caller.start()
    while not (pids.exists() and len(pids.read_text().split()) == 2):
        time.sleep(0.01)
    pool.close()
    caller.join(10)
    assert [error.reason for error in errors] == [Reason.BRICK_DIED]
    assert pool.pids() == []


def test_when_every_process_is_busy_the_wait_has_a_limit(tmp_path: Path) -> None:
    """The order comes back as retryable."""
    pool = make(limit=0.5)
    pool._free.get()
    assert stopped(pool, "LOCAL").reason is Reason.BRICK_TIMED_OUT


def test_a_program_that_is_not_there_fails_the_order() -> None:
    """No traceback, and nothing hangs."""
    pool = make()
    pool._command = ["/no/such/program"]
    assert stopped(pool, "LOCAL").reason is Reason.BRICK_DIED
    pool.start()
    assert os.getpid() not in pool.pids()
