# SPDX-License-Identifier: Apache-2.0
"""The origin of a request behind proxies: [api] trusted_proxies decides whose headers count.

Forwarding headers are removed from every request before the application gets it. Headers that other software takes
for forwarding headers are removed, too. From a trusted proxy, the headers of the one chosen kind are read first.
The caller is the rightmost hop that is not a trusted proxy, because that hop wrote all hops left of it.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from bridge.core.errors import ConfigError
from bridge.http.server import StartResponse, WsgiApp

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix"
"""The value in trusted_proxies for peers without an address: a proxy on a Unix socket of the WSGI server."""

_REMEMBERED: Final = 1024
"""Addresses and names of headers that are kept read, because the same callers come again and again."""
_MAX_TEXT: Final = 4096
_MAX_HOPS: Final = 32
_MAX_HOST: Final = 255
_MAX_PREFIX: Final = 200
_SCHEMES: Final = frozenset({"http", "https"})
_HOST: Final = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)(?::[0-9]{1,5})?"
)
_SAID_HOST: Final = re.compile(r"[^\x00-\x20\x7f/?#@\\<>]{1,255}")
"""A caller's own Host header that is safe in links: returned as it was sent, as Nova does."""
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
_IPV6_KEY: Final = 64
"""Bits of an IPv6 address that distinguish callers, because each subscriber has at least a /64."""

_LOOKALIKES: Final = frozenset(
    {
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_CLIENT_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
        "HTTP_CF_CONNECTING_IPV6",
        "HTTP_FASTLY_CLIENT_IP",
        "HTTP_FRONT_END_HTTPS",
        "HTTP_REMOTE_ADDR",
        "HTTP_REMOTE_USER",
        "HTTP_SCRIPT_NAME",
        "HTTP_PATH_INFO",
        "HTTP_PROXY",
    }
)
_LOOKALIKE: Final = re.compile(
    r"HTTP_X_(?:FORWARDED.*|FORWARD_.*|REAL_.*|CLIENT_.*|CLUSTER_.*|ORIGINAL_.*|ORIGINATING_.*|PROXY.*|REMOTE_.*"
    r"|REWRITE_.*|SCRIPT_.*|HTTP_.*|HTTPS?|SSL.*|SCHEME|URL_SCHEME|HOST|PREFIX|PROTO|PORT)"
)


class ForwardedHeaders(StrEnum):
    """The kind of headers that the trusted proxies set."""

    X_FORWARDED = "x-forwarded"  # X-Forwarded-For, -Proto, -Host and -Prefix
    FORWARDED = "forwarded"  # Forwarded (RFC 7239)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The trusted proxies, and the kind of headers that they set."""

    networks: tuple[Network, ...] = ()
    unix: bool = False
    headers: ForwardedHeaders = ForwardedHeaders.X_FORWARDED

    def trusts(self, peer: str) -> bool:
        """Return True for a peer, or a hop, that is a trusted proxy."""
        if not peer:
            return self.unix
        if not self.networks:
            return False
        address = parse_address(peer)
        return address is not None and any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerOrigin:
    """The caller's address and view of the URL; None where the proxy does not say."""

    address: str
    scheme: str | None = None
    host: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingHeaders:
    """The values of one request's forwarding headers, repeated ones joined by commas."""

    forwarded: str = ""
    x_for: str = ""
    x_proto: str = ""
    x_host: str = ""
    x_prefix: str = ""


def proxies(words: Iterable[str], headers: ForwardedHeaders = ForwardedHeaders.X_FORWARDED) -> Proxies:
    """Read [api] trusted_proxies; raises ConfigError that names the wrong value."""
    networks: list[Network] = []
    unix = False
    for word in (text.strip() for text in words):
        if word == UNIX:
            unix = True
            continue
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError as ex:
            raise ConfigError(
                f"[api] trusted_proxies: {word!r} is not an address, a network such as 192.0.2.0/24, or '{UNIX}'"
            ) from ex
        if network.prefixlen == 0:
            raise ConfigError(f"[api] trusted_proxies: {word} trusts every caller; name the proxies")
        networks.append(network)
    return Proxies(networks=tuple(networks), unix=unix, headers=headers)


def parse_address(text: str) -> Address | None:
    """Return the address of a peer or a hop without its port; an IPv4 address in IPv6 form as IPv4."""
    text = text.strip()
    return _parsed(text) if len(text) <= _MAX_HOST else None


@lru_cache(maxsize=_REMEMBERED)
def _parsed(text: str) -> Address | None:
    if text.startswith("["):
        text, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not _PORT.fullmatch(rest)):
            return None
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def key_of(peer: str) -> str:
    """Return a short key that distinguishes callers: an IPv4 address, the /64 of an IPv6 address, or "-"."""
    address = parse_address(peer)
    if address is None:
        return "-"
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_KEY), strict=False))
    return str(address)


def origin(known: Proxies, peer: str, headers: ForwardingHeaders) -> CallerOrigin:
    """Return the origin of a request, by the headers of trusted proxies only."""
    if not known.trusts(peer):
        return CallerOrigin(address=peer)
    if known.headers is ForwardedHeaders.FORWARDED:
        hops = _forwarded_hops(headers.forwarded)
        nearest = hops[-1] if hops else {}
        return CallerOrigin(
            address=_caller(known, peer, [hop.get("for", "") for hop in hops]),
            scheme=_scheme(nearest.get("proto", "")),
            host=_host(nearest.get("host", "")),
        )
    return CallerOrigin(
        address=_caller(known, peer, _last(headers.x_for)),
        scheme=_scheme(_nearest(headers.x_proto)),
        host=_host(_nearest(headers.x_host)),
        prefix=_prefix(_nearest(headers.x_prefix)),
    )


def behind_proxies(app: WsgiApp, known: Proxies) -> WsgiApp:
    """Wrap an application: remove all forwarding headers, and apply the values of trusted proxies."""

    def cleaned(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR") or ""
        found = origin(known, peer, _headers(environ)) if known.trusts(peer) else CallerOrigin(address=peer)
        _take_away(environ)
        if found.address:
            environ["REMOTE_ADDR"] = found.address
        if found.scheme is not None:
            environ["wsgi.url_scheme"] = found.scheme
        elif "uwsgi.version" in environ or environ.get("wsgi.url_scheme") not in _SCHEMES:
            environ["wsgi.url_scheme"] = _own_scheme(environ)
        if found.host is not None:
            environ["HTTP_HOST"] = found.host
        elif not _SAID_HOST.fullmatch(environ.get("HTTP_HOST", "")):
            environ.pop("HTTP_HOST", None)  # an invalid Host would get into links
        if found.prefix is not None:
            environ["SCRIPT_NAME"] = found.prefix
        return app(environ, start_response)

    return cleaned


def _own_scheme(environ: dict[str, Any]) -> str:
    """Return the scheme of the server itself, because uWSGI believes the X-Forwarded-Proto of every caller."""
    secure = environ.get("HTTPS") in {"on", "1"} or "https" in {
        environ.get("UWSGI_SCHEME"),
        environ.get("REQUEST_SCHEME"),
    }
    return "https" if secure else "http"


def _headers(environ: dict[str, Any]) -> ForwardingHeaders:
    return ForwardingHeaders(
        forwarded=environ.get("HTTP_FORWARDED", ""),
        x_for=environ.get("HTTP_X_FORWARDED_FOR", ""),
        x_proto=environ.get("HTTP_X_FORWARDED_PROTO", ""),
        x_host=environ.get("HTTP_X_FORWARDED_HOST", ""),
        x_prefix=environ.get("HTTP_X_FORWARDED_PREFIX", ""),
    )


def _take_away(environ: dict[str, Any]) -> None:
    for name in [name for name in environ if name.startswith("HTTP_") and _lookalike(name)]:
        del environ[name]


@lru_cache(maxsize=_REMEMBERED)
def _lookalike(name: str) -> bool:
    return name in _LOOKALIKES or _LOOKALIKE.fullmatch(name) is not None


def _caller(known: Proxies, peer: str, hops: Sequence[str]) -> str:
    """Return the rightmost hop that is not a trusted proxy; a hop that is not an address ends the search."""
    caller = peer
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None:
            break
        caller = str(address)
        if not known.trusts(caller):
            break
    return caller


def _last(text: str) -> Sequence[str]:
    """Return a bounded number of the last hops of a list."""
    cut = len(text) > _MAX_TEXT
    hops = text[-_MAX_TEXT:].split(",")
    return hops[1 if cut else 0 :][-_MAX_HOPS:]


def _nearest(text: str) -> str:
    return text[-_MAX_TEXT:].rpartition(",")[2].strip()


def _scheme(text: str) -> str | None:
    return text.lower() if text.lower() in _SCHEMES else None


def _host(text: str) -> str | None:
    return text if len(text) <= _MAX_HOST and _HOST.fullmatch(text) else None


def _prefix(text: str) -> str | None:
    text = text.rstrip("/")
    return text if len(text) <= _MAX_PREFIX and _PREFIX.fullmatch(text) else None


def _forwarded_hops(text: str) -> Sequence[dict[str, str]]:
    """Read RFC 7239 elements; a value that is valid here never has a quoted comma or semicolon."""
    hops = []
    for element in _last(text) if text else ():
        pairs = (pair.partition("=") for pair in element.split(";"))
        hops.append({name.strip().lower(): value.strip().strip('"') for name, _, value in pairs})
    return hops
