# SPDX-License-Identifier: Apache-2.0
"""From the notification to the closed extend: listener, API and engine as processes, over SQLite and RabbitMQ."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.benchmarks.bare_hops import BareHops
from tests.benchmarks.measure import Row, quantile
from tests.benchmarks.site import CONTROL, Place, place, played_host
from tests.benchmarks.workspace import Workspace
from tests.lab.waiting import until

_EXTENDS: Final = 3000
_IDLE: Final = 300
_VOLUMES: Final = 200
_WARM: Final = 60  # of them first, not counted: in a process's first seconds Python's collector stops it for 30 ms
_PAUSE: Final = 0.03  # seconds of silence before each notification of the idle ones


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    with place(workspace, _VOLUMES) as here:
        here.processes.start(*CONTROL)
        here.processes.wait_ready(*CONTROL)
        with played_host(here):
            yield from _idle(workspace, here)
    with place(workspace, workspace.count(_EXTENDS)) as here:
        here.processes.start(*CONTROL)
        here.processes.wait_ready(*CONTROL)
        with played_host(here):
            yield from _rate(workspace, here)


def _rate(workspace: Workspace, here: Place) -> Iterator[Row]:
    """All notifications wait when the listener is let go; until the last extend is closed."""
    count = len(here.volumes)
    workspace.say(f"whole path: {count} extends wait")
    listener = here.processes.pid("listener")
    os.kill(listener, signal.SIGSTOP)  # not started late: the CPU of its imports is none of an extend's
    here.told(here.volumes)
    closed = 'extend_bridge_engine_closed_total{outcome="resized"}'
    before, began = here.cpu_of(*CONTROL), time.monotonic()
    os.kill(listener, signal.SIGCONT)
    until(lambda: here.processes.metric("engine", closed) >= count, "every extend is closed", seconds=300)
    took, used = time.monotonic() - began, here.cpu_of(*CONTROL) - before
    yield Row(
        what="control plane, extends per second of CPU, Cinder's reads included", value=count / used,
        budget=300, least=True, unit="/s",
    )  # fmt: skip
    yield Row(what="the same by the clock, everything on this machine", value=count / took, unit="/s")


def _idle(workspace: Workspace, here: Place) -> Iterator[Row]:
    """One at a time: from just before the notification is published until the host has the order.

    Between them the same hops with nothing of ours, one after the other: what is slow there is the machine's.
    """
    waits: list[float] = []
    alone: list[float] = []
    with BareHops(here) as hops:
        for number in range(_WARM + workspace.count(_IDLE)):
            key = here.volumes[number % len(here.volumes)]
            time.sleep(_PAUSE)
            began = time.perf_counter()
            hops.once(key.volume_id)
            alone.append((time.perf_counter() - began) * 1e3)
            time.sleep(_PAUSE)
            sent = time.time()
            here.told([key])
            until(partial(_cast_after, here, key.volume_id, sent), "the cast", seconds=30)
            waits.append((here.cast()[key.volume_id] - sent) * 1e3)
    for name, share, budget in (("median", 0.5, None), ("p99", 0.99, 25)):
        yield Row(
            what=f"notification to cast received, idle, {name}", value=quantile(waits[_WARM:], share),
            budget=budget, bare=quantile(alone[_WARM:], share), bare_what="the same hops, bare libraries",
            unit="ms",
        )  # fmt: skip


def _cast_after(here: Place, volume_id: str, sent: float) -> bool:
    return here.cast().get(volume_id, 0) > sent
