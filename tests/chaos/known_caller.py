# SPDX-License-Identifier: Apache-2.0
"""A caller that every API has known since before any fault: a hung Keystone must not keep it waiting."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

_EVERY: Final = 1.0
_ANSWER: Final = 5.0
"""Seconds an answer may take."""
_TRIES: Final = 60
_TOKEN: Final = "known-caller-" + "t" * 50
_BODY: Final = json.dumps({"events": []}).encode()
"""Refused after the token was checked and before the journal is asked."""


class KnownCaller:
    """A thread that posts to each API once a second. `judged`: whether an answer must come now."""

    def __init__(self, urls: Mapping[str, str], judged: Callable[[], bool]) -> None:
        self._urls = urls
        self._judged = judged
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="known-caller", daemon=True)
        self.asked = 0
        self.refused: list[str] = []

    def start(self) -> None:
        """Become known, then post; raises RuntimeError where an API does not take the token at all."""
        for name, url in self._urls.items():
            for _ in range(_TRIES):
                if (why := self._post(url)) is None:
                    break
                time.sleep(_EVERY / 2)
            else:
                raise RuntimeError(f"{name} does not serve a caller with a good token: {why}")
        self._thread.start()

    def close(self) -> None:
        """Stop posting."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2 * _ANSWER)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            for name, url in self._urls.items():
                before = self._judged()
                why = self._post(url)
                if before and self._judged():
                    self.asked += 1
                    if why is not None:
                        self.refused.append(f"{name}: {why}")

    @staticmethod
    def _post(url: str) -> str | None:
        """Return why the caller was not served, None where it was."""
        headers = {"X-Auth-Token": _TOKEN, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/os-server-external-events", data=_BODY, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER) as answer:
                return f"answered {answer.status} to a request without events"
        except urllib.error.HTTPError as error:
            return None if error.code == HTTPStatus.BAD_REQUEST else f"answered {error.code}"
        except OSError as error:
            return f"no answer: {error}"
