# SPDX-License-Identifier: Apache-2.0
"""Says whether the journal can be used, before a request finds out. For the built-in server only: a process that
uWSGI forks has no threads of ours."""

import threading
from collections.abc import Callable
from typing import Final

from bridge.core.errors import JournalUnavailableError
from bridge.runtime.daemon import Supervised
from bridge.runtime.health import Health

CHECK: Final = "api.database"


def journal_probe(
    ping: Callable[[], str | None],
    health: Health,
    *,
    prepare: Callable[[], object] | None = None,
    every: float = 5.0,
) -> Supervised:
    """A part that asks `ping` every `every` seconds: None is ready, a text is why not.

    `prepare` runs once before the first ping that is to succeed (bringing the tables up to date).
    """
    health.expect(CHECK)

    def body(stop: threading.Event) -> None:
        ready = prepare is None
        while not stop.is_set():
            try:
                if not ready and prepare is not None:
                    prepare()
                    ready = True
                why = ping()
            except JournalUnavailableError as ex:
                why = str(ex)
            if why is None:
                health.ok(CHECK)
            else:
                health.bad(CHECK, why)
            stop.wait(every)

    return Supervised(CHECK, body, health)
