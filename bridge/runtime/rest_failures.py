# SPDX-License-Identifier: Apache-2.0
"""Failures of REST requests: their reasons, and an operator's words for them."""

import http
from contextlib import suppress
from typing import Final

import urllib3
from keystoneauth1 import exceptions as ks_errors
from keystoneauth1.adapter import Adapter

from bridge.core.reasons import Reason
from bridge.core.redact import safe_url

_DETAIL_MAX: Final = 300
_REASONS: Final[tuple[tuple[type[Exception], Reason], ...]] = (
    (ks_errors.ConnectTimeout, Reason.TIMED_OUT),  # also keystoneauth's error for a read timeout
    (ks_errors.Unauthorized, Reason.UNAUTHORIZED),  # Keystone's own answer about our user
    (ks_errors.Forbidden, Reason.UNAUTHORIZED),
    (ks_errors.BadRequest, Reason.UNAUTHORIZED),  # Keystone: a domain or project is missing in our options
    (ks_errors.CatalogException, Reason.NO_ENDPOINT),
    (TimeoutError, Reason.TIMED_OUT),
    (urllib3.exceptions.TimeoutError, Reason.TIMED_OUT),
)


def failure_reason(ex: Exception) -> Reason:
    """Return the reason for a request that got no answer."""
    return next((reason for kind, reason in _REASONS if isinstance(ex, kind)), Reason.UNREACHABLE)


def failure_detail(ex: Exception, reason: Reason, adapter: Adapter, *, group: str, timeout: float) -> str:
    """Return the address that was tried, what happened there, and what to set in the section `group`."""
    auth_url = getattr(adapter.auth or adapter.session.auth, "auth_url", None)
    keystone = f"Keystone at {safe_url(str(auth_url))}" if auth_url else "Keystone"
    if isinstance(ex, ks_errors.HttpError):
        words = f"{keystone} answers {ex.http_status}"
        if reason is Reason.UNAUTHORIZED:
            words += (
                f": check username, password, project and domains of [{group}]"
                if ex.http_status != http.HTTPStatus.BAD_REQUEST
                else f": check user_domain_name and project_domain_name of [{group}]"
            )
        elif ex.http_status == http.HTTPStatus.NOT_FOUND:
            words += f": [{group}] auth_url is not Keystone's"
    elif isinstance(ex, ks_errors.DiscoveryFailure):
        words = f"{keystone} does not return the versions of its API: check [{group}] auth_url"
    elif reason is Reason.NO_ENDPOINT:
        words = _no_endpoint(adapter, group)
    elif reason is Reason.TIMED_OUT:
        words = f"no complete answer from {_tried(ex, adapter, group)} in {timeout:g} s"
    else:
        words = f"{_tried(ex, adapter, group)}: {_cause(ex)}"
    return _printable(words)


def _no_endpoint(wanted: Adapter, group: str) -> str:
    interface = wanted.interface if isinstance(wanted.interface, str) else " or ".join(wanted.interface or ())
    asked = f"interface {interface or 'public'}" + (f", region {wanted.region_name}" if wanted.region_name else "")
    there: list[str] = []
    with suppress(Exception):  # the token exists already, and is only needed for the text
        access = (wanted.auth or wanted.session.auth).get_access(wanted.session)
        catalogue = access.service_catalog.get_endpoints_data(service_type=wanted.service_type)
        there = sorted({f"{x.interface} in {x.region_name}" for rows in catalogue.values() for x in rows})
    has = f"it has {', '.join(there[:6])}" if there else "it has none of that type"
    return (
        f"Keystone's catalogue has no {wanted.service_type} endpoint with {asked} ({has}): set [{group}] "
        f"valid_interfaces, region_name, service_type or endpoint_override"
    )


def _tried(ex: Exception, adapter: Adapter, group: str) -> str:
    """Name the address a request went to, as far as the error or the options tell."""
    for word in str(ex).split():
        if word.startswith(("http://", "https://")):
            return safe_url(word.rstrip(":,;"))
    if adapter.endpoint_override:
        return safe_url(str(adapter.endpoint_override))
    return f"the endpoint of [{group}]"


def _cause(ex: BaseException) -> str:
    """Return the root of a chain of errors in few words."""
    root: BaseException = ex
    for _ in range(8):
        inner = root.__cause__ or root.__context__
        reason = getattr(root, "reason", None)
        if isinstance(reason, BaseException):
            inner = reason
        elif root.args and isinstance(root.args[0], BaseException):
            inner = root.args[0]
        if inner is None or inner is root:
            break
        root = inner
    return os_error(root)


def os_error(ex: BaseException) -> str:
    """Return an error of the system in few words, with its kind."""
    text = getattr(ex, "strerror", None) or " ".join(str(ex).split())
    return f"{text} ({type(ex).__name__})" if text else type(ex).__name__


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:_DETAIL_MAX]
