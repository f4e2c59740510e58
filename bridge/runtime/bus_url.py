# SPDX-License-Identifier: Apache-2.0
"""Parsing of an oslo transport_url: hosts, virtual host, TLS; and error texts for a host that refuses a connection.

TLS is set as in every other service: in the URL's query or in [oslo_messaging_rabbit]. Here TLS is always verified.
"""

import random
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import amqp.exceptions
from kombu.exceptions import OperationalError
from oslo_config import cfg

from bridge.core.errors import ConfigError
from bridge.core.redact import safe_url
from bridge.runtime.rabbit_options import GROUP, is_set

MEMORY: Final = "memory://"
_PORT: Final = 5672
_LOGINS: Final = ("PLAIN", "AMQPLAIN", "EXTERNAL")
_TLS_FILES: Final = ("ssl_ca_file", "ssl_cert_file", "ssl_key_file")
_QUERY: Final = (
    "ssl",
    *_TLS_FILES,
    "ssl_version",
    "ssl_enforce_hostname_verification",
    "rabbit_login_method",
)
"""Options that a URL may have after its `?`, under the names of [oslo_messaging_rabbit].

Any other option is refused, because a URL with `?ssl=1` must not get a connection in clear text.
"""
_VERSIONS: Final = {
    "": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED),
    "tlsv1_2": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2),
    "sslv23": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.MAXIMUM_SUPPORTED),  # OpenSSL's old name for "negotiate"
}
_WORDS: Final[Sequence[tuple[type[BaseException] | tuple[type[BaseException], ...], str]]] = (
    (
        amqp.exceptions.AccessRefused,
        "the broker refuses the login of {user}: {reply}; check the transport_url",
    ),
    (amqp.exceptions.NotAllowed, "the broker refuses virtual host {vhost} to user {user}: {reply}"),
    (amqp.exceptions.ConnectionForced, "the broker closed the connection: {reply}"),
    (socket.gaierror, "the host name does not resolve: {strerror}"),
    (ConnectionRefusedError, "connection refused: no broker listens on this port"),
    (ssl.SSLCertVerificationError, "the broker's certificate is not trusted: {verify}; set ssl_ca_file"),
    (ssl.SSLError, "TLS failed ({reason}): does this port speak TLS, and does it want a client certificate?"),
    (TimeoutError, "no answer in time: the host or the broker is frozen, or a firewall drops our packets"),
    ((FileNotFoundError, PermissionError), "a TLS file cannot be read: {said}"),
)
"""The texts for each kind of failure; the first match counts."""
_FORM: Final = (
    "write rabbit://user:password@host:port/vhost, with : / @ # ? of user and password as %3A %2F %40 %23 %3F"
)
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


class BusError(OperationalError):
    """An error of a bus, with a text for the operator."""


class NotConnectedError(BusError):
    """A bus none of whose hosts accepts the connection. The text has the error of each host."""

    def __init__(self, failures: "Sequence[tuple[BusHost, str]]") -> None:
        hosts: dict[str, list[str]] = {}
        for host, words in failures:
            hosts.setdefault(words, []).append(host.address)
        super().__init__("; ".join(f"{', '.join(names)}: {words}" for words, names in hosts.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class BusHost:
    """A broker node and the login for it."""

    hostname: str
    port: int
    username: str
    password: str

    @property
    def address(self) -> str:
        """Host and port in the form py-amqp reads."""
        return f"[{self.hostname}]:{self.port}" if ":" in self.hostname else f"{self.hostname}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files that verify the broker and prove the client; read at each connect, so they may be renewed."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    check_hostname: bool = True
    version: str = ""

    def context(self) -> ssl.SSLContext:
        """Return the context of a new connection; raises OSError for a file that cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.check_hostname = self.check_hostname
        context.minimum_version, context.maximum_version = _VERSIONS[self.version]
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class BusUrl:
    """A parsed transport_url that can be used."""

    hosts: tuple[BusHost, ...]
    vhost: str
    tls: Tls | None
    login_method: str

    def shuffled(self) -> list[BusHost]:
        """Return the hosts in a random order, so that clients spread over a cluster."""
        return random.sample(self.hosts, len(self.hosts))

    @property
    def addresses(self) -> str:
        """Return every host and port, for a message."""
        return ", ".join(host.address for host in self.hosts)


def is_memory(url: str) -> bool:
    """Return True if the URL means "inside this process"."""
    return url.startswith(MEMORY)


def parse_bus_url(url: str, option: str = "transport_url") -> BusUrl:
    """Read a transport_url of rabbit; raises ConfigError, under the option's name, for an unusable URL."""
    try:
        parts = urlsplit(url)
        hosts = tuple(_host(text) for text in parts.netloc.split(",") if text)
    except ValueError:  # its text may hold the password
        parts, hosts = urlsplit(""), ()
    if not parts.scheme:
        raise ConfigError(f"{option}: this is not a transport_url; {_FORM}")
    if parts.fragment:
        raise ConfigError(f"{option}: a # and the text after it have no meaning in a URL; {_FORM}")
    if parts.scheme not in {"rabbit", "kombu"}:
        raise ConfigError(
            f"{option}: transport {parts.scheme!r} is unknown; use rabbit or memory://, with ?ssl=1 for "
            f"TLS; {_FORM}"
        )
    if not hosts or not all(host.hostname for host in hosts):
        raise ConfigError(f"{option}: {safe_url(url)!r} has no host name")
    query = _query(url)
    return BusUrl(
        hosts=hosts,
        vhost=unquote(parts.path[1:]) or "/",
        tls=_tls(query, option),
        login_method=_login(query.get("rabbit_login_method", "PLAIN"), option),
    )


def _host(text: str) -> BusHost:
    """Read `user:password@host:port`; raises ValueError. An IPv6 address with a port is in brackets."""
    login, _, address = text.rpartition("@")
    user, _, password = login.partition(":")
    name, port = address, ""
    if address.startswith("["):
        name, end, port = address[1:].partition("]")
        if not end or (port and not port.startswith(":")):
            raise ValueError("expected a port after the address in brackets")
        port = port[1:]
    elif address.count(":") == 1:
        name, _, port = address.partition(":")
    return BusHost(
        hostname=name,
        port=int(port or 0) or _PORT,
        username=unquote(user) or "guest",
        password=unquote(password) or "guest",
    )


def check_url(url: str, option: str) -> None:
    """Refuse a transport_url that cannot be used; raises ConfigError."""
    if is_memory(url):
        return
    bus = parse_bus_url(url, option)
    if bus.tls is not None:
        _check_files(bus.tls, option)


def with_rabbit_options(conf: cfg.ConfigOpts, url: str) -> str:
    """Return the URL with the TLS and login options of [oslo_messaging_rabbit]; the URL's own options win.

    One section serves both buses, as in every OpenStack service.
    """
    if not url or is_memory(url) or GROUP not in conf:
        return url
    section: Mapping[str, Any] = conf[GROUP]
    own = dict(_query(url))
    added = {}
    for name in _QUERY:
        value = section[name]
        if name in own or not is_set(conf, name) or value in {"", None}:
            continue
        added[name] = str(value).lower() if isinstance(value, bool) else str(value)
    tls = _BOOLEANS.get(own.get("ssl", added.get("ssl", "false")).lower(), True)
    kept = {name: value for name, value in added.items() if tls or not name.startswith("ssl")}
    if not kept:
        return url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(kept)}"


def _query(url: str) -> Mapping[str, str]:
    """Return the options after the URL's `?`, with blank values, because a blank value is a mistake to be named."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def connect_failure(bus: BusUrl, host: BusHost, error: BaseException) -> str:
    """Return why a host refuses the connection, in the broker's own words, and what to set."""
    said = " ".join(str(error).split())
    for kinds, words in _WORDS:
        if isinstance(error, kinds):
            return words.format(
                user=host.username,
                vhost=bus.vhost,
                said=said,
                reply=_reply(error),
                verify=getattr(error, "verify_message", said),
                reason=getattr(error, "reason", None) or said,
                strerror=getattr(error, "strerror", None) or said,
            )
    if _ended_early(error) and bus.tls is None:
        return f"the connection ended before the greeting ({said}): is this a TLS port? Then set ssl = true"
    if _ended_early(error):
        return f"the connection ended after the TLS handshake ({said}): does the broker want a client certificate?"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def failure_words(error: BaseException) -> str:
    """Return what went wrong on an open connection, in the broker's own words if there are any."""
    if isinstance(error, BusError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the broker did not answer in time"
    if isinstance(error, ConnectionResetError | BrokenPipeError) or "unexpectedly closed" in str(error):
        return "the connection broke"
    said = _reply(error)
    return said if isinstance(error, amqp.exceptions.AMQPError) and said else f"{type(error).__name__}: {said}"


def _ended_early(error: BaseException) -> bool:
    """Return True for a plain client's error at a TLS port: an alert instead of a frame, or the end."""
    return isinstance(error, ConnectionResetError | BrokenPipeError | amqp.exceptions.UnexpectedFrame) or (
        "unexpectedly closed" in str(error)
    )


def _reply(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reply_text", None) or error).split())


def _tls(query: Mapping[str, str], option: str) -> Tls | None:
    if unknown := sorted(set(query) - set(_QUERY)):
        raise ConfigError(
            f"{option}: ?{unknown[0]}= has no effect; a transport_url may have {', '.join(_QUERY)}"
            f"{', and the heartbeat is [bus] heartbeat' if 'heartbeat' in unknown[0] else ''}"
        )
    wanted = _boolean(query.get("ssl", "false"), "ssl", option)
    check_hostname = _boolean(
        query.get("ssl_enforce_hostname_verification", "true"), "ssl_enforce_hostname_verification", option
    )
    if not wanted:
        if alone := [name for name in query if name.startswith("ssl_")]:
            raise ConfigError(f"{option}: ?{alone[0]}= has no effect without ssl=1: add ssl=1")
        return None
    version = query.get("ssl_version", "").lower()
    if version not in _VERSIONS:
        raise ConfigError(
            f"{option}: ssl_version {query['ssl_version']} cannot be used; leave it out or use TLSv1_2"
        )
    files = {name: query.get(name) or None for name in _TLS_FILES}
    if files["ssl_key_file"] and not files["ssl_cert_file"]:
        raise ConfigError(f"{option}: ssl_key_file without ssl_cert_file")
    return Tls(
        ca_file=files["ssl_ca_file"],
        cert_file=files["ssl_cert_file"],
        key_file=files["ssl_key_file"],
        check_hostname=check_hostname,
        version=version,
    )


def _boolean(text: str, name: str, option: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ConfigError(f"{option}: {name}={text} is neither true nor false") from None


def _login(method: str, option: str) -> str:
    if method not in _LOGINS:
        raise ConfigError(
            f"{option}: rabbit_login_method {method!r} cannot be used; use one of {', '.join(_LOGINS)}"
        )
    return method


def _check_files(tls: Tls, option: str) -> None:
    for name, path in (
        ("ssl_ca_file", tls.ca_file),
        ("ssl_cert_file", tls.cert_file),
        ("ssl_key_file", tls.key_file),
    ):
        if path is not None:
            try:
                Path(path).read_bytes()
            except OSError as ex:
                raise ConfigError(f"{option}: {name} {path}: {ex.strerror}") from ex
    try:
        tls.context()
    except (OSError, ValueError) as ex:  # SSLError is an OSError
        raise ConfigError(f"{option}: the TLS files cannot be used: {' '.join(str(ex).split())}") from ex
