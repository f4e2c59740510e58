# SPDX-License-Identifier: Apache-2.0
"""Rate limits: answer 429 with Retry-After before a stranger costs Keystone or bcrypt any work.

There are two rates. Each caller with good credentials has its requests per second. Each address has its failed
attempts. Where those are used up, only credentials that were good before are checked. So a guesser cannot lock out
a listener behind the same proxy.

A caller is remembered for the `good_for` of its identity, at least one second. keystonemiddleware costs a third of
taking an event, also for a token in its cache. A remembered caller does not wait.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import falcon
from cachetools import LRUCache

from bridge.api.faults import FaultError, too_often
from bridge.api.forwarded import key_of
from bridge.api.identity import Authenticator, Identity

_MAX_KEYS: Final = 10_000
_MAX_GOOD: Final = 1_000
_LATE: Final = 0.1
"""The last part of a remembered caller's time, in which the credentials are checked again."""
_CREDENTIALS: Final = ("X-Auth-Token", "Authorization", "X-Service-Token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate: a number per second, and a number at once. `per_second` 0: no limit."""

    per_second: float
    burst: int


class Buckets:
    """The token buckets, one per key; the least recently used goes above 10,000 keys. Safe for several threads."""

    def __init__(self, rate: Rate, *, clock: Callable[[], float] = time.monotonic, keys: int = _MAX_KEYS) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: LRUCache[str, tuple[float, float]] = LRUCache(keys)

    def wait(self, key: str) -> float:
        """Return the seconds until the bucket has a token; 0 where it has one now."""
        if not self._rate.per_second:
            return 0.0
        with self._lock:
            return self._short(self._level(key))

    def take(self, key: str) -> float:
        """Take a token and return 0, or take nothing and return the seconds to wait."""
        if not self._rate.per_second:
            return 0.0
        with self._lock:
            level = self._level(key)
            short = self._short(level)
            self._rows[key] = (self._clock(), level if short else level - 1)
            return short

    def charge(self, key: str, seconds: float) -> None:
        """Take a token, and the tokens that the rate gave back during a check of `seconds`.

        Otherwise the time of a slow check would pay for the next guess.
        """
        if not self._rate.per_second:
            return
        with self._lock:
            level = self._level(key) - 1 - seconds * self._rate.per_second
            self._rows[key] = (self._clock(), max(level, -float(self._rate.burst)))

    def __len__(self) -> int:
        return len(self._rows)

    def _level(self, key: str) -> float:
        now = self._clock()
        at, level = self._rows.get(key, (now, float(self._rate.burst)))
        return min(self._rate.burst, level + (now - at) * self._rate.per_second)

    def _short(self, level: float) -> float:
        return 0.0 if level >= 1 else (1 - level) / self._rate.per_second


class Guard:
    """An authenticator that calls another only as often as the rates allow, and remembers the results."""

    def __init__(
        self, inner: Authenticator, *, requests: Rate, failures: Rate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inner = inner
        self._requests = Buckets(requests, clock=clock)
        self._failures = Buckets(failures, clock=clock)
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._good: LRUCache[bytes, tuple[Identity, float]] = LRUCache(_MAX_GOOD)
        self._renewing: set[bytes] = set()

    def authenticate(self, req: falcon.Request) -> Identity:
        """Return the caller; raises FaultError, 429 among others."""
        shown = [req.get_header(name) or "" for name in _CREDENTIALS]
        # with method and path, because an application credential may be good for some of them only
        seal = hmac.digest(self._key, "\0".join([*shown, req.method, req.path]).encode(errors="replace"), "sha256")
        with self._lock:
            caller, until = self._good.get(seal, (None, 0.0))
        left = until - self._clock()
        if caller is None or left <= 0:
            caller = self._ask(req, seal, guess=any(shown), known=caller is not None)
        elif left < _LATE * caller.good_for:
            caller = self._renewed(req, seal, caller)
        wait = self._requests.take(caller.user)
        if wait:
            raise too_often(wait)
        return caller

    def _renewed(self, req: falcon.Request, seal: bytes, caller: Identity) -> Identity:
        """Check credentials again before the caller is forgotten, in one thread; the other threads go on.

        While the credentials cannot be checked, the remembered identity holds until its end.
        """
        with self._lock:
            if seal in self._renewing:
                return caller
            self._renewing.add(seal)
        try:
            return self._ask(req, seal, guess=True, known=True)
        except FaultError as ex:
            if ex.status == HTTPStatus.UNAUTHORIZED:
                raise
            return caller
        finally:
            with self._lock:
                self._renewing.discard(seal)

    def _ask(self, req: falcon.Request, seal: bytes, *, guess: bool, known: bool) -> Identity:
        address = key_of(req.remote_addr or "")
        wait = self._failures.wait(address)
        if wait and not known:
            raise too_often(wait)
        started = self._clock()
        try:
            caller = self._inner.authenticate(req)
        except FaultError as ex:
            if ex.status == HTTPStatus.UNAUTHORIZED and guess:
                self._failures.charge(address, self._clock() - started)
                with self._lock:
                    self._good.pop(seal, None)
            raise
        with self._lock:
            self._good[seal] = (caller, self._clock() + caller.good_for)
        return caller
