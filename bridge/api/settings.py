# SPDX-License-Identifier: Apache-2.0
"""Options of [api]: addresses, callers, limits, and the engine to wake."""

import ipaddress
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from oslo_config import cfg
from oslo_middleware import http_proxy_to_wsgi

from bridge.api.forwarded import UNIX, ForwardedHeaders, Proxies, proxies
from bridge.core.errors import ConfigError
from bridge.http.tls import MINIMUM, TlsSettings
from bridge.journal.settings import JOURNAL_OPTS, JournalSettings, journal_settings
from bridge.runtime.config import LOCATOR_OPTS, OPS_OPTS, Driver, locator_settings, section


class AuthStrategy(StrEnum):
    """The kind of credentials that a caller must send."""

    KEYSTONE = "keystone"  # a token of Keystone, in X-Auth-Token
    HTTP_BASIC = "http_basic"  # name and password, from an htpasswd file of bcrypt hashes
    NOAUTH = "noauth"  # no credentials: loopback only


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate: a number per second, and a number at once. `per_second` 0: no limit."""

    per_second: float
    burst: int


API_OPTS = [
    cfg.HostAddressOpt("bind_host", default="127.0.0.1", help="Address the built-in server listens on."),
    cfg.PortOpt("bind_port", default=8786, help="Port the built-in server listens on; 0 picks a free one."),
    cfg.IntOpt("threads", default=8, min=1, max=256, help="Requests the built-in server answers at a time."),
    cfg.IntOpt(
        "max_connections",
        default=400,
        min=10,
        help="Connections the built-in server keeps open. Above this number it disconnects the client that has "
        "been sending its request, or reading its answer, for longest.",
    ),
    cfg.IntOpt(
        "request_timeout",
        default=10,
        min=1,
        help="Seconds that a client of the built-in server has to send its whole request, and the same time to "
        "read the answer.",
    ),
    cfg.StrOpt(
        "cert_file",
        help="Certificate chain of the built-in server, PEM. When it is set, the server accepts TLS only. SIGHUP "
        "reads it again.",
    ),
    cfg.StrOpt("key_file", help="Private key of cert_file, PEM, without a passphrase; may be in cert_file."),
    cfg.StrOpt(
        "tls_minimum_version",
        default="1.2",
        choices=sorted(MINIMUM),
        help="The oldest TLS version that the built-in server accepts.",
    ),
    cfg.ListOpt(
        "trusted_proxies",
        default=[],
        help="Addresses and networks of the proxies in front of this API, and `unix` for proxies on a Unix socket "
        "of the WSGI server. Forwarding headers from these addresses set the caller's address; from all other "
        "addresses they are removed. List every proxy of a chain: the caller is the last address that is not in "
        "this list.",
    ),
    cfg.StrOpt(
        "forwarded_headers",
        default=ForwardedHeaders.X_FORWARDED.value,
        choices=[
            (ForwardedHeaders.X_FORWARDED.value, "X-Forwarded-For, -Proto, -Host and -Prefix."),
            (ForwardedHeaders.FORWARDED.value, "Forwarded, as in RFC 7239."),
        ],
        help="The headers that the trusted proxies set. Headers of the other kind are removed, because a proxy "
        "forwards them unchanged from the caller.",
    ),
    cfg.StrOpt(
        "auth_strategy",
        default=AuthStrategy.NOAUTH.value,
        choices=[
            (AuthStrategy.KEYSTONE.value, "With a Keystone token; set [keystone_authtoken]."),
            (AuthStrategy.HTTP_BASIC.value, "With name and password; set http_basic_auth_user_file, and use TLS."),
            (AuthStrategy.NOAUTH.value, "Not at all: every caller may send events. On a loopback address only."),
        ],
        help="Authentication of callers.",
    ),
    cfg.FloatOpt(
        "keystone_timeout",
        default=10,
        min=1,
        help="Seconds to validate one token with Keystone, all requests together. Then the answer is 503. At most "
        "half of the threads validate tokens at a time. Under an external WSGI server set `threads` to the "
        "number of threads of one process.",
    ),
    cfg.StrOpt(
        "http_basic_auth_user_file",
        default="/etc/extend-bridge/htpasswd",
        help="File with the users of auth_strategy=http_basic, name:bcrypt-hash, made with `htpasswd -B -C 12`. "
        "Other users must not be able to read it. It is read again after a change.",
    ),
    cfg.FloatOpt(
        "rate_limit",
        default=200,
        min=0,
        help="Requests per second of one caller, in one process. Above it the answer is 429. A request can have "
        "about 700 events. 0: no limit.",
    ),
    cfg.IntOpt(
        "rate_burst", default=400, min=1, help="Requests that a caller may make at once before rate_limit applies."
    ),
    cfg.FloatOpt(
        "failure_limit",
        default=5,
        min=0,
        help="Failed attempts to authenticate per second of one address, in one process. Above it the answer is "
        "429, except with credentials that were valid before. 0: no limit.",
    ),
    cfg.IntOpt("failure_burst", default=20, min=1, help="Failed attempts at once before failure_limit applies."),
    cfg.BoolOpt(
        "access_log",
        default=True,
        help="Log one line per request, with the numbers of accepted and refused events.",
    ),
    cfg.StrOpt(
        "healthcheck_disable_file",
        help="While this file exists, GET /healthcheck answers 503, so that load balancers stop using this API.",
    ),
    cfg.BoolOpt(
        "force_noauth",
        default=False,
        help="Accept auth_strategy=noauth on any address and under an external WSGI server. Every caller that can "
        "connect to the port can then start work on compute hosts.",
    ),
    cfg.HostAddressOpt(
        "wake_host",
        default="127.0.0.1",
        help="Address of the engine to which the API sends a datagram when there is work. A lost datagram does no "
        "harm, because the engine polls the journal every second.",
    ),
    cfg.PortOpt("wake_port", default=9786, help="UDP port of the engine for these datagrams; 0 sends none."),
    *OPS_OPTS,
]

LOG = logging.getLogger(__name__)

_MIDDLEWARE: Final = "oslo_middleware"
_THIS_MACHINE: Final = ("127.0.0.0/8", "::1", UNIX)
_RATE: Final = Rate(per_second=200, burst=400)
_FAILURES: Final = Rate(per_second=5, burst=20)

_NO_PROXIES: Final = Proxies()

API_GROUPS: Final = (("api", API_OPTS), ("journal", JOURNAL_OPTS), ("locator", LOCATOR_OPTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The options of [api], and the journal. `known_by`: the source of known servers. `wake_port` 0: no engine."""

    journal: JournalSettings
    bind_host: str = "127.0.0.1"
    bind_port: int = 8786
    threads: int = 8
    max_connections: int = 400
    request_timeout: int = 10
    tls: TlsSettings | None = None
    auth_strategy: AuthStrategy = AuthStrategy.NOAUTH
    http_basic_auth_user_file: str = "/etc/extend-bridge/htpasswd"
    keystone_timeout: float = 10.0
    rate: Rate = _RATE
    failures: Rate = _FAILURES
    access_log: bool = True
    healthcheck_disable_file: str | None = None
    force_noauth: bool = False
    wake_host: str = "127.0.0.1"
    wake_port: int = 9786
    known_by: Driver = Driver.INVENTORY
    proxies: Proxies = _NO_PROXIES


def api_settings(conf: cfg.ConfigOpts) -> ApiSettings:
    """Read [api] and [journal]."""
    return section(
        conf,
        "api",
        ApiSettings,
        journal=journal_settings(conf),
        tls=_tls(conf),
        rate=Rate(per_second=conf.api.rate_limit, burst=conf.api.rate_burst),
        failures=Rate(per_second=conf.api.failure_limit, burst=conf.api.failure_burst),
        known_by=locator_settings(conf).driver,
        proxies=_proxies(conf),
    )


def _proxies(conf: cfg.ConfigOpts) -> Proxies:
    """Read the trusted proxies. oslo.middleware's option of 0.1.0 means proxies on this machine."""
    known = proxies(conf.api.trusted_proxies, ForwardedHeaders(conf.api.forwarded_headers))
    conf.register_opts(http_proxy_to_wsgi.OPTS, group=_MIDDLEWARE)
    if conf[_MIDDLEWARE].enable_proxy_headers_parsing and not known.networks and not known.unix:
        LOG.warning(
            "[oslo_middleware] enable_proxy_headers_parsing trusts proxies on this machine only; name the proxies "
            "in [api] trusted_proxies"
        )
        return proxies(_THIS_MACHINE)
    return known


def _tls(conf: cfg.ConfigOpts) -> TlsSettings | None:
    if not conf.api.cert_file:
        if conf.api.key_file:
            raise ConfigError("[api] key_file is set, but cert_file is not")
        return None
    return TlsSettings(
        cert_file=conf.api.cert_file, key_file=conf.api.key_file, minimum=conf.api.tls_minimum_version
    )


def refuse_open_door(settings: ApiSettings, *, built_in: bool) -> None:
    """Refuse `noauth` on an address that other machines can reach; raises ConfigError.

    Under an external WSGI server (`built_in` false) `noauth` is refused as well, because its address is not known.
    """
    if settings.auth_strategy is not AuthStrategy.NOAUTH or settings.force_noauth:
        return
    if not built_in:
        raise ConfigError(
            "[api] auth_strategy=noauth is refused under an external WSGI server, because the server's address is "
            "not known here; use extend-bridge-api on a loopback address, or set [api] force_noauth=true"
        )
    if not _is_loopback(settings.bind_host):
        raise ConfigError(
            f"[api] auth_strategy=noauth is refused on {settings.bind_host}: each caller that can connect to it "
            "can start work on compute hosts; use a loopback address, or set [api] force_noauth=true"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def list_opts() -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
    """Return the options for oslo-config-generator, without [journal], which the engine lists."""
    return [("api", API_OPTS)]
