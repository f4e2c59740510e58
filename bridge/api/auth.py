# SPDX-License-Identifier: Apache-2.0
"""Authentication: one strategy for each [api] auth_strategy, behind the guard that counts attempts."""

import ipaddress
import logging
import socket
from http import HTTPStatus
from typing import Final

import falcon
from oslo_config import cfg

from bridge.api.faults import fault
from bridge.api.identity import Authenticator, Identity
from bridge.api.rate_limit import Guard
from bridge.api.request import MEDIA_TYPES
from bridge.api.settings import ApiSettings, AuthStrategy

LOG = logging.getLogger(__name__)

_ADMIN: Final = Identity(user="noauth", roles=frozenset({"admin"}), good_for=0.0)
_OF_BROWSERS: Final = ("Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Cookie")
"""Headers that browsers send for a page. Clients of this API do not send them."""
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
        of_browser = next((name for name in _OF_BROWSERS if req.get_header(name) is not None), None)
        if of_browser is not None:
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
            "[api] force_noauth is set: whoever reaches this API can make compute hosts act, without a token"
        )
    return NoAuth(loopback_only=not settings.force_noauth)
