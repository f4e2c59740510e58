# SPDX-License-Identifier: Apache-2.0
"""Authentication: one strategy for each [api] auth_strategy, behind rate limits.

A caller above its rate is answered 429 with Retry-After, before it costs Keystone or bcrypt any work. There are two
rates. Each caller with good credentials has its requests per second. Each address has its failed attempts. Where
those are used up, only credentials that were good before are checked. So a guesser cannot lock out a listener
behind the same proxy.

A caller is remembered for the `good_for` of its identity, at least one second. keystonemiddleware costs a third of
taking an event, also for a token in its cache. A remembered caller does not wait.
"""

import hashlib
import ipaddress
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import falcon
from cachetools import LRUCache
from oslo_config import cfg

from bridge.api.faults import FaultError, fault, too_often
from bridge.api.forwarded import key_of
from bridge.api.identity import Authenticator, Identity
from bridge.api.request import MEDIA_TYPES
from bridge.api.settings import ApiSettings, AuthStrategy, Rate

LOG = logging.getLogger(__name__)

_MAX_KEYS: Final = 10_000
_MAX_GOOD: Final = 1_000
_SEAL: Final = 32  # bytes of a keyed hash, by which credentials are remembered
_LATE: Final = 0.1
"""The last part of a remembered caller's time, in which the credentials are checked again."""
_CREDENTIALS: Final = ("HTTP_X_AUTH_TOKEN", "HTTP_AUTHORIZATION", "HTTP_X_SERVICE_TOKEN")
_ADMIN: Final = Identity(user="noauth", roles=frozenset({"admin"}), good_for=0.0)
_OF_BROWSERS: Final = {
    f"HTTP_{name.upper().replace('-', '_')}": name
    for name in ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Cookie")
}
"""Headers that browsers send for a page, by their WSGI names. Clients of this API do not send them."""
_NO_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods that change nothing here, and show only data that is open to all callers."""


class NoAuth:
    """The strategy that takes each local caller for an administrator; `refuse_open_door` keeps other hosts out.

    A page in a local browser is not such a caller. A page can send a form, or text/plain, without asking. By DNS
    rebinding, a page can send any request under its own name.
    """

    def __init__(self, *, loopback_only: bool = False) -> None:
        self._loopback_only = loopback_only
        self._names = frozenset({"localhost", *_own_names()})

    def authenticate(self, req: falcon.Request) -> Identity:
        """Return an administrator; raises FaultError 403 or 415 for a request that a page can have caused."""
        if not _OF_BROWSERS.keys().isdisjoint(req.env):
            of_browser = next(shown for name, shown in _OF_BROWSERS.items() if name in req.env)
            raise fault(
                HTTPStatus.FORBIDDEN, f"Without authentication a request must not have the header {of_browser}."
            )
        if req.method in _NO_BODY:
            return _ADMIN
        if self._loopback_only and not self._is_local(req.get_header("Host")):
            raise fault(
                HTTPStatus.FORBIDDEN,
                "Without authentication the Host of a request must be a loopback address, localhost or the name of "
                "this machine.",
            )
        if (req.content_type or "").partition(";")[0].strip() not in MEDIA_TYPES:
            raise fault(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Unsupported Content-Type")
        return _ADMIN

    def _is_local(self, host: str | None) -> bool:
        """Return True for a Host that a page of another site cannot have, and for HTTP/1.0 without a Host."""
        if host is None:
            return True
        name = host.strip().lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name.removesuffix(".") in self._names


def _own_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0]} - {""}


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
        shown = [req.env.get(name) or "" for name in _CREDENTIALS]
        # with method and path, because an application credential may be good for some of them only
        text = "\0".join([*shown, req.method, req.path]).encode(errors="replace")
        seal = hashlib.blake2b(text, key=self._key, digest_size=_SEAL).digest()
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


def guarded(strategy: Authenticator, settings: ApiSettings) -> Authenticator:
    """Return a strategy behind the rate limits of the settings."""
    return Guard(strategy, requests=settings.rate, failures=settings.failures)


def strategy(settings: ApiSettings, conf: cfg.ConfigOpts) -> Authenticator:
    """Return the strategy of the settings; raises ConfigError. Contacts no other service.

    Libraries are imported only for their strategy, because keystonemiddleware alone takes some 20 MiB.
    """
    if settings.auth_strategy is AuthStrategy.KEYSTONE:
        from bridge.api.auth_keystone import Keystone  # noqa: PLC0415

        return Keystone(conf, seconds=settings.keystone_timeout, places=max(1, settings.threads // 2))
    if settings.auth_strategy is AuthStrategy.HTTP_BASIC:
        from bridge.api.auth_basic import HttpBasic  # noqa: PLC0415

        return HttpBasic(settings.http_basic_auth_user_file)
    if settings.force_noauth:
        LOG.warning(
            "[api] force_noauth is set: each caller that can connect to this API can start work on compute hosts, "
            "without a token"
        )
    return NoAuth(loopback_only=not settings.force_noauth)
