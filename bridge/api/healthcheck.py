# SPDX-License-Identifier: Apache-2.0
"""GET /healthcheck for load balancers: can this API take events now? Needs neither a token nor a version.

Path and words are those of oslo.middleware's healthcheck, which Nova has at the same path. Ours also asks the
journal. Under the built-in server the answer is the check that a thread keeps. A process that uWSGI forks does not
have that thread, so a request asks the journal there.
"""

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import falcon

from bridge.core.errors import JournalRefusedError, JournalUnavailableError

PATH: Final = "/healthcheck"
_KEEP: Final = 1.0  # seconds an answer of the journal counts, because many balancers ask often
_MOMENT: Final = 1.0
_GOOD_FOR: Final = 10.0  # seconds after which an answer no longer counts while the next answer is missing


class Healthcheck:
    """The resource for load balancers. `ping` returns None where the journal can be used, else the reason.

    One thread at a time asks the journal. The others answer from the last result, and hardly ever wait.
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
        """Answer 200 OK, or 503 with one word; the reason is only in the log and on the ops port."""
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
        # Beside an old answer, the pending answer is worth a short wait, unless it is late already.
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
        except (JournalRefusedError, JournalUnavailableError):
            usable = False
        self._usable, self._asked = usable, self._clock()

    @staticmethod
    def _say(resp: falcon.Response, status: HTTPStatus, word: str) -> None:
        resp.status = f"{status.value} {status.phrase}"
        resp.content_type = falcon.MEDIA_TEXT
        resp.text = word
        resp.set_headers({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
