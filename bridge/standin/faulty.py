# SPDX-License-Identifier: Apache-2.0
"""The faults that a test sets for the stand-in, and the count of requests."""

import threading
from collections import Counter
from enum import Enum


class Fault(Enum):
    """A fault of the stand-in. The list is closed."""

    INTERNAL = 500  # the API itself failed
    UNAVAILABLE = 503  # a proxy in front of the API has no backend
    UNAUTHORIZED = 401  # the token is not accepted
    FORBIDDEN = 403  # the user is not allowed
    TOO_MANY = 429  # the rate limit
    BAD_JSON = "bad_json"  # 200 with a truncated body
    HANG = "hang"  # no answer until the fault ends

    @property
    def status(self) -> int:
        """The HTTP status of this fault."""
        return self.value if isinstance(self.value, int) else 200


class Faults:
    """The current fault, and the count of requests by (method, path). Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._left: int | None = None
        self._go_on = threading.Event()
        self.requests: Counter[tuple[str, str]] = Counter()

    def set(self, fault: Fault | None, *, times: int | None = None) -> None:
        """Set a fault from now on, or for the next `times` requests.

        None ends the fault and releases hanging requests.
        """
        with self._lock:
            self._fault, self._left = fault, times
            if fault is Fault.HANG:
                self._go_on.clear()
            else:
                self._go_on.set()

    def next(self, method: str, path: str) -> Fault | None:
        """Count a request; return the fault for this request.

        A hanging request waits here until the fault ends and is then answered normally.
        """
        with self._lock:
            self.requests[method, path] += 1
            fault = self._take()
        if fault is Fault.HANG:
            self._go_on.wait()
            return None
        return fault

    def _take(self) -> Fault | None:
        if self._fault is None or self._left is None:
            return self._fault
        if self._left == 0:
            return None
        self._left -= 1
        return self._fault
