# SPDX-License-Identifier: Apache-2.0
"""A call that has no limit of its own is broken in time, and never after it has returned."""

import os
import socket
import threading
import time

import pytest

from bridge.journal.connect import Deadlines


@pytest.fixture
def deadlines() -> Deadlines:
    return Deadlines(every=0.01)


def test_a_peer_that_drips_is_not_waited_for_without_end(deadlines: Deadlines) -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.01):
            try:
                theirs.send(b".")
            except OSError:
                return

    peer = threading.Thread(target=drip)
    peer.start()
    with deadlines.within(0.2, lambda: ours.shutdown(socket.SHUT_RDWR)) as deadline:
        while ours.recv(1):
            pass
    assert deadline.expired
    stop.set()
    peer.join(60)
    ours.close()
    theirs.close()


def test_nothing_is_broken_after_the_call_has_returned(deadlines: Deadlines) -> None:
    cuts: list[str] = []
    with deadlines.within(0.02, lambda: cuts.append("first")) as deadline:
        pass
    with deadlines.within(60), deadlines.within(0.02, lambda: cuts.append("second")) as second:
        while not second.expired:
            time.sleep(0.01)
    assert cuts == ["second"]
    assert not deadline.expired


def test_what_is_made_after_the_time_is_over_is_broken_at_once(deadlines: Deadlines) -> None:
    cuts: list[str] = []
    with deadlines.within(0.01) as deadline:
        while not deadline.expired:
            time.sleep(0.01)
        deadline.cut_by(lambda: cuts.append("late"))
    assert cuts == ["late"]
    deadline.cut_by(lambda: cuts.append("after the end"))
    assert cuts == ["late"]


def test_a_cut_that_fails_stops_no_other(deadlines: Deadlines) -> None:
    def fails() -> None:
        raise OSError("not connected")

    with deadlines.within(0.01, fails) as first, deadlines.within(0.02) as second:
        while not (first.expired and second.expired):
            time.sleep(0.01)


def test_deadlines_hold_in_a_forked_process_as_well(deadlines: Deadlines) -> None:
    with deadlines.within(60):
        pass
    if (child := os.fork()) == 0:
        with deadlines.within(0.05) as deadline:
            until = time.monotonic() + 30
            while not deadline.expired and time.monotonic() < until:
                time.sleep(0.01)
        os._exit(0 if deadline.expired else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
