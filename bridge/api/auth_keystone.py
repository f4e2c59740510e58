# SPDX-License-Identifier: Apache-2.0
"""[api] auth_strategy=keystone: tokens as every OpenStack API checks them, by keystonemiddleware.

keystonemiddleware is a WSGI filter. Here it stands in front of nothing but a note of who came through: so the
order of checks stays in `app.py`, and its refusals are answered in its own words, as in front of Nova.
`delay_auth_decision` stays off: delayed, an unreachable Keystone would look like a bad token.
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import falcon
import webob.exc
from keystoneauth1 import loading
from keystoneauth1.exceptions import ClientException
from keystonemiddleware import auth_token
from keystonemiddleware.auth_token import AuthProtocol
from keystonemiddleware.exceptions import KeystoneMiddlewareException
from oslo_config import cfg
from oslo_utils import timeutils

from bridge.api.faults import FaultError, fault, unauthorized
from bridge.api.identity import Identity
from bridge.core.errors import ConfigError
from bridge.http.server import StartResponse

LOG = logging.getLogger(__name__)

GROUP: Final = "keystone_authtoken"
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")  # nothing else was ever a token: not worth a question
_RETRY_AFTER: Final = 5
_NOTE: Final = "extend_bridge.identity"
_CACHE: Final = "extend_bridge.token_cache"
_CACHED_TOKENS: Final = 1000
_AWAY: Final = (ClientException, webob.exc.HTTPException, KeystoneMiddlewareException)
_NO_KEYSTONE: Final = (ValueError, LookupError, TypeError, AttributeError, NotImplementedError)
"""What becomes, in the libraries, of an answer that is none of Keystone's, as from a proxy that says 200 for it."""


class TokenCache:
    """Validated tokens in this process, for where no memcached is configured; safe for several threads.

    keystonemiddleware's own keeps one unbounded table per thread. Speaks what it speaks with memcached: keys are
    hashes, values are bytes, times are seconds.
    """

    def __init__(self, size: int = _CACHED_TOKENS) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The value, None where there is none any more."""
        with self._lock:
            until, value = self._rows.get(key, (0.0, b""))
            if until > timeutils.utcnow_ts(microsecond=True):
                self._rows.move_to_end(key)
                return value
            self._rows.pop(key, None)
            return None

    def set(self, key: str, value: bytes, time: int = 0) -> None:
        """Keep a value for so many seconds; the one that was not asked for longest makes room."""
        with self._lock:
            self._rows[key] = (timeutils.utcnow_ts(microsecond=True) + time, value)
            self._rows.move_to_end(key)
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)


class Keystone:
    """Asks Keystone who a token belongs to, and remembers it for [keystone_authtoken] token_cache_time."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Contacts nobody yet; raises ConfigError for options nobody can use."""
        url = _auth_url(conf)
        local: dict[str, Any] = {"oslo_config_config": conf, "delay_auth_decision": False}
        section = conf[GROUP]
        if not section.www_authenticate_uri:
            local["www_authenticate_uri"] = url  # else a 401 would ask Keystone's catalogue first
        if not section.memcached_servers:
            local["cache"] = _CACHE
        if not section.service_type:
            local["service_type"] = "compute"  # by which access rules of application credentials are matched
        self._challenge = f'Keystone uri="{section.www_authenticate_uri or url}"'
        try:
            self._filter = AuthProtocol(_noted, local)
        except Exception as ex:
            raise ConfigError(f"[{GROUP}] cannot be used: {' '.join(str(ex).split())}") from ex
        self._cache = TokenCache()

    def authenticate(self, req: falcon.Request) -> Identity:
        """The token's user; FaultError 401 for no or a bad token, 503 while Keystone cannot be asked."""
        token = (req.get_header("X-Auth-Token") or "").strip()
        if not _TOKEN.fullmatch(token):
            raise unauthorized(self._challenge)
        environ = {**req.env, _CACHE: self._cache}
        said: list[str] = []

        def start(status: str, _headers: list[tuple[str, str]], *_: Any) -> None:
            said.append(status)

        try:
            self._filter(environ, start)
        except (*_AWAY, *_NO_KEYSTONE) as ex:
            raise _away(req, type(ex).__name__) from ex
        if _NOTE in environ:
            who: Identity = environ[_NOTE]
            return who
        if said and said[0].startswith("401"):
            raise unauthorized(self._challenge)
        raise _away(req, said[0] if said else "no answer")


def _noted(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """What stands behind the filter: it is called for a good token only."""
    environ[_NOTE] = Identity(
        user=environ.get("HTTP_X_USER_ID", ""),
        project=environ.get("HTTP_X_PROJECT_ID"),
        domain=environ.get("HTTP_X_DOMAIN_ID"),
        system=bool(environ.get("HTTP_OPENSTACK_SYSTEM_SCOPE")),
        roles=frozenset(role for role in environ.get("HTTP_X_ROLES", "").split(",") if role),
    )
    start_response("204 No Content", [])
    return []


def _away(req: falcon.Request, why: str) -> FaultError:
    """Keystone cannot say now who this is."""
    LOG.warning("request %s: answered 503, Keystone cannot be asked: %s", req.context.request_id, why)
    return fault(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The Keystone service is temporarily unavailable.",
        {"Retry-After": str(_RETRY_AFTER)},
    )


def _auth_url(conf: cfg.ConfigOpts) -> str:
    """[keystone_authtoken] auth_url; raises ConfigError where it is missing."""
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
    except (ClientException, cfg.Error) as ex:
        raise ConfigError(f"[{GROUP}] cannot be used: {' '.join(str(ex).split())}") from ex
    if not url:
        raise ConfigError(
            f"[{GROUP}] needs auth_type, auth_url and a user that may validate tokens, since [api] "
            "auth_strategy=keystone"
        )
    return str(url)
