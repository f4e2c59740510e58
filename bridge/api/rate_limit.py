# SPDX-License-Identifier: Apache-2.0
"""How often one may knock: 429 with Retry-After, before a stranger costs Keystone or bcrypt any work.

Two rates. Every caller that proved who it is has its requests per second. Every address has its failed attempts;
where those are used up, only credentials that were good before are looked at, so that somebody who guesses cannot
lock out the listener beside him behind the same proxy.

And who was known a moment ago is known for a second: keystonemiddleware costs a third of taking an event, also for
a token that it has in its cache.
"""

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Final

import falcon

from bridge.api.faults import FaultError, fault
from bridge.api.identity import Authenticator, Identity

_MAX_KEYS: Final = 10_000
_MAX_GOOD: Final = 1_000
_KEEP: Final = 1.0  # seconds
_CREDENTIALS: Final = ("X-Auth-Token", "Authorization", "X-Service-Token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many per second, so many at once. `per_second` 0: no limit."""

    per_second: float
    burst: int


class Buckets:
    """A token bucket per key, the least recently used forgotten above 10,000 keys. Safe for several threads."""

    def __init__(self, rate: Rate, *, clock: Callable[[], float] = time.monotonic, keys: int = _MAX_KEYS) -> None:
        self._rate = rate
        self._clock = clock
        self._keys = keys
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until there is something to take; 0 now."""
        if not self._rate.per_second:
            return 0.0
        with self._lock:
            return self._short(self._level(key))

    def take(self, key: str) -> float:
        """Take one and give 0, or take nothing and give the seconds to wait."""
        if not self._rate.per_second:
            return 0.0
        with self._lock:
            level = self._level(key)
            short = self._short(level)
            self._rows[key] = (self._clock(), level if short else level - 1)
            self._rows.move_to_end(key)
            while len(self._rows) > self._keys:
                self._rows.popitem(last=False)
            return short

    def __len__(self) -> int:
        return len(self._rows)

    def _level(self, key: str) -> float:
        now = self._clock()
        at, level = self._rows.get(key, (now, float(self._rate.burst)))
        return min(self._rate.burst, level + (now - at) * self._rate.per_second)

    def _short(self, level: float) -> float:
        return 0.0 if level >= 1 else (1 - level) / self._rate.per_second


class Guard:
    """An authenticator that asks another one no more often than the rates allow."""

    def __init__(
        self, inner: Authenticator, *, requests: Rate, failures: Rate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._requests = Buckets(requests, clock=clock)
        self._failures = Buckets(failures, clock=clock)
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._good: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()

    def authenticate(self, req: falcon.Request) -> Identity:
        """As the other, and FaultError 429."""
        shown = [req.get_header(name) or "" for name in _CREDENTIALS]
        # method and path: an application credential may be good for some only
        seal = hmac.digest(self._key, "\0".join([*shown, req.method, req.path]).encode(errors="replace"), "sha256")
        who = self._known(seal)
        if who is None:
            who = self._ask(req, seal, guess=any(shown))
        wait = self._requests.take(who.user)
        if wait:
            raise _too_often(wait)
        return who

    def _ask(self, req: falcon.Request, seal: bytes, *, guess: bool) -> Identity:
        address = req.remote_addr or ""
        wait = self._failures.wait(address)
        if wait and seal not in self._good:
            raise _too_often(wait)
        try:
            who = self._inner.authenticate(req)
        except FaultError as ex:
            if ex.status == HTTPStatus.UNAUTHORIZED and guess:
                self._failures.take(address)
            raise
        with self._lock:
            self._good[seal] = (who, self._clock() + _KEEP)
            self._good.move_to_end(seal)
            while len(self._good) > _MAX_GOOD:
                self._good.popitem(last=False)
        return who

    def _known(self, seal: bytes) -> Identity | None:
        """Who that was, within the last second."""
        who, until = self._good.get(seal, (None, 0.0))
        return who if self._clock() < until else None


def _too_often(seconds: float) -> FaultError:
    wait = str(max(1, ceil(seconds)))
    return fault(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests; please come back later.", {"Retry-After": wait})
