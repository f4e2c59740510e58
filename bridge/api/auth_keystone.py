# SPDX-License-Identifier: Apache-2.0
"""[api] auth_strategy=keystone: tokens checked as by every OpenStack API, with keystonemiddleware.

keystonemiddleware is a WSGI filter. Here the application behind the filter only notes the caller. So the order of
checks stays in `app.py`, and refusals have keystonemiddleware's own words, as in front of Nova.
`delay_auth_decision` stays off, because a delayed decision makes an unreachable Keystone look like a bad token.

A check by Keystone has one deadline for all its requests. At most half of the threads may wait for a check. One of
those places is kept for tokens that were good before. Without a free place the answer is 503 at once.
"""

import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import falcon
import webob.exc
from cachetools import LRUCache, TLRUCache
from keystoneauth1 import exceptions as ks
from keystoneauth1 import loading
from keystonemiddleware import auth_token
from keystonemiddleware.auth_token import AuthProtocol
from keystonemiddleware.auth_token import _exceptions as ks_middleware
from keystonemiddleware.exceptions import KeystoneMiddlewareException
from oslo_config import cfg
from oslo_utils import timeutils

from bridge.api.faults import FaultError, fault, unauthorized
from bridge.api.identity import Identity
from bridge.core.errors import ConfigError
from bridge.core.redact import safe_url
from bridge.http.server import StartResponse
from bridge.runtime.rest import bounded, total_deadline

LOG = logging.getLogger(__name__)

GROUP: Final = "keystone_authtoken"
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")  # other texts are never tokens
_RETRY_AFTER: Final = 5
_NOTE: Final = "extend_bridge.identity"
_CACHE: Final = "extend_bridge.token_cache"
_CACHED_TOKENS: Final = 1000
_EARLY: Final = 0.9
"""The part of token_cache_time after which a token is checked again, while its caller is still remembered."""
_SHARED_CACHE: Final = 60.0
"""Seconds a caller is remembered where memcached holds the tokens, because their age there is not known."""
_SAID_EVERY: Final = 10.0
_AWAY: Final = (ks.ClientException, webob.exc.HTTPException, KeystoneMiddlewareException, OSError)
_NOT_KEYSTONE: Final = (ValueError, LookupError, TypeError, AttributeError, NotImplementedError)
"""Errors of the libraries at an answer that is not Keystone's, such as a proxy's 200."""


_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ks.Unauthorized, "refuses the user of [{group}]: check username, password, project and domains"),
    (ks.BadRequest, "refuses the user of [{group}]: check user_domain_name and project_domain_name"),
    (ks.Forbidden, "does not let the user of [{group}] validate tokens: give it the role service or admin"),
    (ks.CatalogException, "has no identity endpoint for [{group}] interface and region_name in its catalogue"),
    (ks.DiscoveryFailure, "does not return the versions of its API: check [{group}] auth_url"),
    (ks.NotFound, "answers 404: check [{group}] auth_url"),
    (ks.HttpError, "answers {status}"),
    (ks.ConnectTimeout, "gives no complete answer in {seconds:g} s"),
    (TimeoutError, "gives no complete answer in {seconds:g} s"),
    (ks.ConnectionError, "cannot be reached: {cause}"),
    (OSError, "cannot be reached: {cause}"),
)
_STRANGE: Final = "does not answer as Keystone does: check [{group}] auth_url"


class TokenCache:
    """The validated tokens of this process, used without a configured memcached. Safe for several threads.

    keystonemiddleware's own cache keeps one unbounded table per thread. The interface is a memcached client's: keys
    are hashes, values are bytes, times are seconds, of a clock that nothing sets back.
    """

    def __init__(self, size: int = _CACHED_TOKENS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._rows: TLRUCache[str, tuple[bytes, float]] = TLRUCache(
            size, lambda _key, row, now: now + row[1], timer=clock
        )

    def get(self, key: str) -> bytes | None:
        """Return the value, None where it is absent or expired."""
        with self._lock:
            value, _ = self._rows.get(key, (None, 0.0))
            return value

    def set(self, key: str, value: bytes, time: int = 0) -> None:
        """Keep a value for `time` seconds; the least recently used value makes room."""
        with self._lock:
            self._rows[key] = (value, _EARLY * time)


class _Places:
    """The places of threads that may wait for Keystone at a time. No method waits."""

    def __init__(self, count: int) -> None:
        self._count = max(1, count)
        self._lock = threading.Lock()
        self._taken = 0

    @contextmanager
    def one(self, *, known: bool) -> Iterator[bool]:
        """Take a place; yield False where all are taken. The last of several places is for known tokens."""
        most = self._count if known or self._count == 1 else self._count - 1
        with self._lock:
            free = self._taken < most
            self._taken += free
        try:
            yield free
        finally:
            with self._lock:
                self._taken -= free


class _Filter(AuthProtocol):
    """The filter of keystonemiddleware, with its session and its own token."""

    def bound(self, seconds: float) -> None:
        """Give each request of the filter a total deadline."""
        bounded(self._session, seconds)

    def verify_own_token(self) -> None:
        """Validate the filter's own token with Keystone."""
        try:
            self._identity_server.verify_token(self._auth.get_token(self._session))
        except ks_middleware.InvalidToken:
            self._identity_server.invalidate()
            raise


class Keystone:
    """The strategy that asks Keystone for a token's owner and remembers it for token_cache_time.

    The time is the option of [keystone_authtoken]. `seconds`: the deadline of one check, all connections and
    answers together. `places`: the number of checks at a time.
    """

    def __init__(self, conf: cfg.ConfigOpts, *, seconds: float = 10.0, places: int = 4) -> None:
        """Build the filter, without a request to Keystone; raises ConfigError for options that cannot be used."""
        self._url = _auth_url(conf)
        conf.set_default("http_connect_timeout", max(1, round(seconds)), group=GROUP)
        conf.set_default("http_request_max_retries", 1, group=GROUP)
        local: dict[str, Any] = {"oslo_config_config": conf, "delay_auth_decision": False}
        section = conf[GROUP]
        if not section.www_authenticate_uri:
            local["www_authenticate_uri"] = self._url  # without it a 401 would ask Keystone's catalogue first
        if not section.memcached_servers:
            local["cache"] = _CACHE
        if not section.service_type:
            local["service_type"] = "compute"  # access rules of application credentials are matched by it
        self._challenge = f'Keystone uri="{section.www_authenticate_uri or self._url}"'
        try:
            self._filter = _Filter(_noted, local)
            self._filter.bound(seconds)
        except Exception as ex:
            raise ConfigError(f"[{GROUP}] cannot be used: {' '.join(str(ex).split())}") from ex
        self._seconds = seconds
        self._remember = float(section.token_cache_time)
        if section.memcached_servers:
            self._remember = min(self._remember, _SHARED_CACHE)
        self._cache = TokenCache()
        self._places = _Places(places)
        self._key = secrets.token_bytes(32)
        self._known: LRUCache[bytes, None] = LRUCache(_CACHED_TOKENS)
        self._lock = threading.Lock()
        self._said = float("-inf")

    def authenticate(self, req: falcon.Request) -> Identity:
        """Return the token's user; raises FaultError 401 for an absent or bad token, 503 for an unchecked token."""
        token = (req.get_header("X-Auth-Token") or "").strip()
        if not _TOKEN.fullmatch(token):
            raise unauthorized(self._challenge)
        seal = hmac.digest(self._key, token.encode(), "sha256")
        with self._lock:
            known = seal in self._known
        with self._places.one(known=known) as free:
            if not free:
                raise self._away(req, "too many requests wait for it already")
            caller = self._ask(req)
        with self._lock:
            self._known[seal] = None
        return caller

    def check(self) -> str | None:
        """Validate our own token with Keystone; return the fault and the option to set, else None."""
        try:
            with total_deadline(self._seconds):
                self._filter.verify_own_token()
        except ks_middleware.InvalidToken:
            return f"{self._name} does not know the token that it gave to the user of [{GROUP}]"
        except (*_AWAY, *_NOT_KEYSTONE) as ex:
            return f"{self._name} {self._words(ex)}"
        return None

    @property
    def _name(self) -> str:
        return f"Keystone at {safe_url(self._url)}"

    def _ask(self, req: falcon.Request) -> Identity:
        environ = {**req.env, _CACHE: self._cache}
        answers: list[str] = []

        def start(status: str, _headers: list[tuple[str, str]], *_: Any) -> None:
            answers.append(status)

        try:
            with total_deadline(self._seconds):
                self._filter(environ, start)
        except (*_AWAY, *_NOT_KEYSTONE) as ex:
            raise self._away(req, type(ex).__name__) from ex
        if _NOTE in environ:
            return _identity(environ, self._remember)
        if answers and answers[0].startswith("401"):
            raise unauthorized(self._challenge)
        raise self._away(req, answers[0] if answers else "no answer")

    def _away(self, req: falcon.Request, why: str) -> FaultError:
        """Return the refusal of a token that cannot be checked now; logged rarely, because strangers cause it."""
        now = time.monotonic()
        if now - self._said >= _SAID_EVERY:
            self._said = now
            LOG.warning(
                "request %s: answered 503, %s cannot be reached: %s; repeats within the next %.0f s are not logged",
                req.context.request_id, self._name, why, _SAID_EVERY,
            )  # fmt: skip
        return fault(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The Keystone service is temporarily unavailable.",
            {"Retry-After": str(_RETRY_AFTER)},
        )

    def _words(self, ex: BaseException) -> str:
        """Return the fault and the option to set, without any text of Keystone's answer."""
        if isinstance(ex, KeystoneMiddlewareException) and ex.__context__ is not None:
            ex = ex.__context__
        words = next((words for kind, words in _WORDS if isinstance(ex, kind)), _STRANGE)
        return words.format(
            group=GROUP, seconds=self._seconds, cause=_cause(ex), status=getattr(ex, "http_status", "")
        )


def _noted(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Note that the filter let a request through, because the filter calls this for good tokens only."""
    environ[_NOTE] = True
    start_response("204 No Content", [])
    return []


def _identity(environ: dict[str, Any], remember: float) -> Identity:
    return Identity(
        user=environ.get("HTTP_X_USER_ID", ""),
        project=environ.get("HTTP_X_PROJECT_ID"),
        domain=environ.get("HTTP_X_DOMAIN_ID"),
        system=bool(environ.get("HTTP_OPENSTACK_SYSTEM_SCOPE")),
        roles=frozenset(role for role in environ.get("HTTP_X_ROLES", "").split(",") if role),
        good_for=_good_for(environ, remember),
    )


def _good_for(environ: dict[str, Any], remember: float) -> float:
    """Return the seconds for which a token does not need a new check, at most until the token expires."""
    try:
        ends = timeutils.parse_isotime(environ["keystone.token_info"]["token"]["expires_at"])
    except (LookupError, TypeError, ValueError):
        return 1.0
    left = timeutils.delta_seconds(timeutils.utcnow(), timeutils.normalize_time(ends))
    return float(max(0.0, min(left, max(1.0, remember))))


def _cause(ex: BaseException) -> str:
    """Return the system's text of an error, from inside all errors that the libraries put around it."""
    inner: BaseException | None = ex
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return str(inner.strerror)
        inner = inner.__cause__ or inner.__context__
    return type(ex).__name__


def _auth_url(conf: cfg.ConfigOpts) -> str:
    """Return [keystone_authtoken] auth_url; raises ConfigError where the option is missing."""
    for group, opts in auth_token.list_opts():
        conf.register_opts(opts, group=group)
    section = conf[conf[GROUP].auth_section or GROUP]
    try:
        if conf[GROUP].auth_section:
            loading.register_auth_conf_options(conf, conf[GROUP].auth_section)
            section = conf[conf[GROUP].auth_section]
        if section.auth_type:
            conf.register_opts(
                loading.get_auth_plugin_conf_options(section.auth_type), group=conf[GROUP].auth_section or GROUP
            )
        url = section.auth_url if section.auth_type else None
    except (ks.ClientException, cfg.Error) as ex:
        raise ConfigError(f"[{GROUP}] cannot be used: {' '.join(str(ex).split())}") from ex
    if not url:
        raise ConfigError(
            f"[{GROUP}] needs auth_type, auth_url and a user that may validate tokens, since [api] "
            "auth_strategy=keystone"
        )
    return str(url)
