# SPDX-License-Identifier: Apache-2.0
"""The processes os-brick runs in: answers, deaths, hangs. The child here is a stand-in that speaks the protocol."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.core.encryption import Encryption
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.brick.lock import LOCK_FILE, holder
from hostagent.brick.pool import BrickPool
from hostagent.errors import StepFailedError
from hostagent.ports import Nudge
from hostagent.settings import BrickSettings
from tests.lab.waiting import until

CHILD = textwrap.dedent("""
    import fcntl, json, os, subprocess, sys, time
    options = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        request = json.loads(line)
        what = request["protocol"]
        if what == "DIE": os._exit(3)
        if what == "HANG":
            child = subprocess.Popen(["sleep", "600"])
            open(request["properties"]["pids"], "w").write(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        if what == "ISCSI" or request["what"] == "rescan":
            with open(options["lock_path"] + "/os-brick-extend_volume", "a") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX)
                time.sleep(request["properties"].get("takes", 0))
        if what == "NOISE": print("a library prints", flush=True)
        if what == "LATE": print(json.dumps({"id": 0, "size": 1}), flush=True)
        answer = {"id": request["id"], "size": 7}
        if request["what"] == "paths": answer = {"id": request["id"], "paths": ["/dev/a", "/dev/b"]}
        if what in ("unsupported", "no_size", "raised", "paths_down", "no_key", "wrong_key"):
            answer = {"id": request["id"], "error": what, "detail": "in words"}
        print(json.dumps(answer), flush=True)
""")


def make(
    limit: float = 10.0, processes: int = 1, locks: str = "/tmp", lock_limit: float = 10.0, idle: float = 60.0
) -> BrickPool:
    settings = BrickSettings(
        processes=processes, limit=limit, lock_limit=lock_limit, lock_path=locks, use_multipath=False,
        root_helper="sudo", idle=idle,
    )  # fmt: skip
    return BrickPool(settings, command=[sys.executable, "-c", CHILD])


@pytest.fixture
def pool() -> Iterator[BrickPool]:
    made = make()
    yield made
    made.close()


def stopped(pool: BrickPool, protocol: str, **properties: str) -> StepFailedError:
    with pytest.raises(StepFailedError) as caught:
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


def test_a_process_that_had_a_volumes_key_is_not_kept(pool: BrickPool) -> None:
    """Its memory goes with it; the next call gets a new one."""
    assert pool.extend("LOCAL", {}) == 7
    before = pool.pids()
    pool.grow_map("crypt-x", Encryption(key_id="k", provider="luks2", control_location="front-end"))
    assert pool.pids() == []
    assert not any(map(alive, before))
    assert pool.extend("LOCAL", {}) == 7


def test_the_paths_of_a_volume_can_be_asked_for(pool: BrickPool) -> None:
    """With the same errors as an extend."""
    assert pool.paths("ISCSI", {}) == ["/dev/a", "/dev/b"]
    with pytest.raises(StepFailedError):
        pool.paths("raised", {})


@pytest.mark.parametrize(
    ("kind", "outcome", "reason"),
    [
        ("raised", Outcome.BRICK_FAILED, Reason.BRICK_RAISED),
        ("no_size", Outcome.BRICK_FAILED, Reason.BRICK_NO_SIZE),
        ("paths_down", Outcome.PATHS_DOWN, Reason.BRICK_RAISED),
        ("unsupported", Outcome.UNSUPPORTED, Reason.NO_STRATEGY),
        ("no_key", Outcome.BRICK_FAILED, Reason.KEY_UNAVAILABLE),
        ("wrong_key", Outcome.BRICK_FAILED, Reason.KEY_WRONG),
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
    error = stopped(pool, "HANG", pids=str(tmp_path / "pids"))
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.BRICK_TIMED_OUT)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until(lambda: not any(map(alive, pids)), "the whole group is gone")  # the kernel takes a moment
    assert pool.extend("LOCAL", {}) == 7
    pool.close()


@pytest.fixture
def nova_holds(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """os-brick's lock, held by another process until it is killed."""
    hold = (
        f"import fcntl; f = open('{tmp_path}/{LOCK_FILE}', 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1); input()"
    )
    nova = subprocess.Popen(
        [sys.executable, "-uc", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert nova.stdout is not None
    assert nova.stdout.readline() == "1\n"
    yield nova
    nova.kill()
    nova.wait()


def test_a_lock_held_by_somebody_else_is_named_within_its_limit(
    tmp_path: Path, nova_holds: subprocess.Popen[str]
) -> None:
    """Whose it is, too; and once it is free the next extend goes through."""
    pool = make(locks=str(tmp_path), lock_limit=0.6)
    error = stopped(pool, "ISCSI")
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.BRICK_LOCK_HELD)
    assert f"process {nova_holds.pid} (" in error.detail
    assert pool.extend("LOCAL", {}) == 7, "which takes no lock"
    nova_holds.kill()
    nova_holds.wait()
    assert pool.extend("ISCSI", {}) == 7
    pool.close()


def test_a_rescan_without_connection_data_names_the_holder_as_well(
    tmp_path: Path, nova_holds: subprocess.Popen[str]
) -> None:
    """It takes the same lock: what it waits for is not its own time, and no time-out of os-brick's."""
    pool = make(limit=1.0, locks=str(tmp_path), lock_limit=2.0)
    with pytest.raises(StepFailedError) as caught:
        pool.rescan(Nudge(scsi=("sda",)))
    assert caught.value.reason is Reason.BRICK_LOCK_HELD
    assert f"process {nova_holds.pid} (" in caught.value.detail
    pool.close()


def test_waiting_for_the_lock_is_not_the_calls_own_time(tmp_path: Path, nova_holds: subprocess.Popen[str]) -> None:
    """Nova's extend takes longer than ours may; ours is done when it is over."""
    pool = make(locks=str(tmp_path), limit=1.0, lock_limit=30)
    release = threading.Timer(2.0, nova_holds.kill)
    release.start()
    assert pool.extend("ISCSI", {}) == 7
    release.join()
    pool.close()


def test_a_killed_process_lets_the_lock_go(tmp_path: Path) -> None:
    """Its own hold counts as its own time; its neighbours and nova-compute go on."""
    pool = make(locks=str(tmp_path), limit=1.0)
    with pytest.raises(StepFailedError) as caught:
        pool.extend("ISCSI", {"takes": 600})
    assert caught.value.reason is Reason.BRICK_TIMED_OUT
    assert holder(str(tmp_path)) is None
    assert pool.extend("ISCSI", {}) == 7
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
    caller.join(120)
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


def test_a_process_starts_with_the_first_call_and_ends_when_it_is_idle() -> None:
    """os-brick in memory is as large as the agent itself."""
    pool = make(idle=0.2)
    pool.start()
    assert pool.pids() == []
    assert pool.extend("LOCAL", {}) > 0
    assert len(pool.pids()) == 1
    until(lambda: not pool.pids(), "the idle process ended")
    assert pool.extend("LOCAL", {}) > 0, "a later call has a new one"
    pool.close()


def test_a_process_in_use_is_not_idle(tmp_path: Path) -> None:
    pool = make(idle=0.0)
    process = pool._free.get()
    assert process is None
    pool.end_idle()
    pool._free.put(process)
    assert pool.extend("LOCAL", {}) > 0
    assert len(pool.pids()) == 1, "nobody has looked since"
    pool.end_idle()
    assert pool.pids() == []
