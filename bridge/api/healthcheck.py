# SPDX-License-Identifier: Apache-2.0
"""GET /healthcheck for load balancers, and the readiness check of the journal.

Path and words are those of oslo.middleware's healthcheck, which Nova has at the same place; ours also asks the
journal. The readiness check is for the built-in server only: a process that uWSGI forks has no threads of ours.
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
_MOMENT: Final = 1.0
_GOOD_FOR: Final = 10.0  # seconds after which an answer says nothing while the next one does not come


class Healthcheck:
    """Answers load balancers. `ping` returns None where the journal can be used, else why not.

    One thread at a time asks the journal. The others answer from what is known, and hardly ever wait.
    """

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
        self._asking = threading.Lock()
        self._asked = self._began = float("-inf")
        self._usable = False

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 OK, or 503 with one word; the reason stands in the log and on the ops port, not here."""
        if self._file is not None and self._file.exists():
            self._say(resp, HTTPStatus.SERVICE_UNAVAILABLE, "DISABLED BY FILE")
        elif self._journal_usable():
            self._say(resp, HTTPStatus.OK, "OK")
        else:
            self._say(resp, HTTPStatus.SERVICE_UNAVAILABLE, "JOURNAL UNAVAILABLE")

    on_head = on_get

    def _journal_usable(self) -> bool:
        age = self._clock() - self._asked
        if age < _KEEP:
            return self._usable
        # with an old answer the one that is on its way is worth a moment, unless it has been late already
        wait = max(0.0, self._began + _MOMENT - self._clock()) if age >= _GOOD_FOR else 0.0
        if self._asking.acquire(timeout=wait):
            try:
                if self._clock() - self._asked >= _KEEP:
                    self._ask()
            finally:
                self._asking.release()
        return self._usable and self._clock() - self._asked < _GOOD_FOR

    def _ask(self) -> None:
        self._began = self._clock()
        try:
            usable = self._ping() is None
        except JournalUnavailableError:
            usable = False
        self._usable, self._asked = usable, self._clock()

    @staticmethod
    def _say(resp: falcon.Response, status: HTTPStatus, word: str) -> None:
        resp.status = f"{status.value} {status.phrase}"
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = word
        resp.set_headers({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
