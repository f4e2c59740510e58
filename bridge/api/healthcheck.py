# SPDX-License-Identifier: Apache-2.0
"""GET /healthcheck, for load balancers: whether this API can take events now. No token, no version.

The paths and words of oslo.middleware's healthcheck, which Nova has at the same place; ours also asks the journal.

Says whether the journal can be used, before a request finds out. For the built-in server only: a process that
uWSGI forks has no threads of ours.
"""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import falcon

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


PATH: Final = "/healthcheck"
_KEEP: Final = 1.0  # seconds an answer of the journal is good for: balancers ask often, and from everywhere


class Healthcheck:
    """`ping` gives None where the journal can be used, else why not."""

    def __init__(
        self,
        ping: Callable[[], str | None],
        *,
        disable_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ping = ping
        self._file = Path(disable_file) if disable_file else None
        self._clock = clock
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._usable = False

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """200 OK, or 503 with one word; why stands in the log and on the ops port, not here."""
        if self._file is not None and self._file.exists():
            self._say(resp, HTTPStatus.SERVICE_UNAVAILABLE, "DISABLED BY FILE")
        elif self._journal_usable():
            self._say(resp, HTTPStatus.OK, "OK")
        else:
            self._say(resp, HTTPStatus.SERVICE_UNAVAILABLE, "JOURNAL UNAVAILABLE")

    on_head = on_get

    def _journal_usable(self) -> bool:
        with self._lock:
            if self._clock() - self._asked >= _KEEP:
                try:
                    self._usable = self._ping() is None
                except JournalUnavailableError:
                    self._usable = False
                self._asked = self._clock()
            return self._usable

    @staticmethod
    def _say(resp: falcon.Response, status: HTTPStatus, word: str) -> None:
        resp.status = f"{status.value} {status.phrase}"
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = word
        resp.set_headers({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
