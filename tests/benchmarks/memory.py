# SPDX-License-Identifier: Apache-2.0
"""What each process has in memory at most while 100,000 messages wait: on the bus first, then in the journal."""

import time
import uuid
from collections.abc import Iterator
from typing import Final

from bridge.core.extend import ExtendKey
from bridge.journal import migrate
from bridge.journal.claims import Claims
from tests.benchmarks.measure import Row
from tests.benchmarks.site import CONTROL, Place, place, played_host
from tests.benchmarks.workspace import Workspace
from tests.lab.waiting import until

_WAITING: Final = 100_000
_SERVERS: Final = 1000
_SETTLE: Final = 5.0  # seconds for what a process does besides: sweep, poll, probe
_BUDGETS: Final = {"listener": 64.0, "api": 100.0, "engine": 100.0, "hostagent": 100.0}
_EXTRA: Final = "[journal]\nmax_open = 1000000\n"


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    waiting, servers = workspace.count(_WAITING), workspace.count(_SERVERS)
    with place(workspace, servers, extra=_EXTRA, cinder=False) as here:
        workspace.say(f"publishing {waiting} notifications; nobody answers the listener")
        ids = [key.server_id for key in here.volumes]
        here.told([ExtendKey(ids[n % servers], str(uuid.uuid4())) for n in range(waiting)])
        here.processes.start("listener")
        until(
            lambda: here.processes.metric("listener", "extend_bridge_listener_in_hand"), "it holds some", seconds=60
        )
        time.sleep(_SETTLE)
        yield _peak(here, "listener", f"listener, {waiting:,} on the bus and no endpoint")
        _migrate(here)  # as an operator does, who leaves sync_on_startup alone: it takes one of the two 10 MiB
        here.processes.start("api", "engine")
        here.processes.wait_ready("api")  # the engine is not ready while Cinder is away
        with played_host(here):
            workspace.say("all go into the journal; Cinder is away")
            _until_open(workspace, here, waiting)
        time.sleep(_SETTLE)
        for name in CONTROL:
            yield _peak(here, name, f"{name}, {waiting:,} open extends, Cinder away")
        here.processes.start("hostagent")
        here.processes.wait_ready("hostagent")
        yield _peak(here, "hostagent", "host agent, its children not counted, idle")


def _migrate(here: Place) -> None:
    database = here.site.journal().database
    migrate.upgrade(database)
    database.dispose()


def _peak(here: Place, name: str, what: str) -> Row:
    return Row(what=f"memory: {what}", value=here.peak(name), budget=_BUDGETS[name], unit="MiB")


def _until_open(workspace: Workspace, here: Place, waiting: int) -> None:
    """Until so many extends are open; says every so often how far it is."""
    journal = here.site.journal()
    work, said = Claims(journal.database), 0.0
    deadline = time.monotonic() + 600
    while (standing := work.standing()).open < waiting:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{standing.open} of {waiting} extends are open after 600 s")
        if time.monotonic() - said > _SETTLE:
            workspace.say(f"{standing.open} of {waiting} are open")
            said = time.monotonic()
        time.sleep(0.5)
    journal.database.dispose()
