# SPDX-License-Identifier: Apache-2.0
"""Scrubbing of log records: no library logs an answer whole, and no record shows a configured secret.

keystonemiddleware, for one, logs the body of Keystone's error, which may repeat the request with our password.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from oslo_config import cfg
from oslo_utils import strutils

_OURS: Final = ("bridge", "listener", "hostagent", "extend_bridge")
_CLIENTS: Final = ("keystoneauth", "keystonemiddleware", "requests", "urllib3", "cinderclient", "novaclient")
_LONG: Final = 200
_BODY: Final = re.compile(r"[{<\n]")
_SHORTEST: Final = 4  # a shorter value is part of too many words
_KNOWN_FOR: Final = 30.0  # seconds; sections of keystoneauth are registered while a process starts
_MASK: Final = "***"


class LogScrubber:
    """A factory of log records that scrubs them. `secrets` returns the values that no record may show."""

    def __init__(
        self, secrets: Callable[[], Iterable[str]], *, factory: Callable[..., logging.LogRecord] = logging.LogRecord
    ) -> None:
        self._secrets = secrets
        self._factory = factory
        self._known: tuple[str, ...] = ()
        self._until = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Make a record like `logging` does, and scrub it."""
        record = self._factory(*args, **kwargs)
        if record.name.partition(".")[0] in _CLIENTS:
            record.args = _without_bodies(record.args)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - `logging` reports a message that does not fit its arguments
            return record
        shown = self._shown(record.name, text)
        if shown != text:
            record.msg, record.args = shown, ()
        if record.exc_info:
            self._scrub_traceback(record)
        return record

    def _shown(self, name: str, text: str) -> str:
        shown: str = text
        if name.partition(".")[0] not in _OURS:
            shown = strutils.mask_password(text, _MASK)
        for secret in self._secret_values():
            shown = shown.replace(secret, _MASK)
        return shown

    def _scrub_traceback(self, record: logging.LogRecord) -> None:
        assert record.exc_info  # noqa: S101 - asked before
        text = logging.Formatter().formatException(record.exc_info)
        shown = self._shown(record.name, text)
        if shown != text:
            record.exc_info, record.exc_text = None, shown

    def _secret_values(self) -> tuple[str, ...]:
        now = time.monotonic()
        if now >= self._until:
            self._until = now + _KNOWN_FOR
            forms = {form for value in self._secrets() for form in _forms(value)}
            self._known = tuple(sorted(forms, key=len, reverse=True))
        return self._known


def install(conf: cfg.ConfigOpts) -> None:
    """Scrub every record of this process from now on."""
    logging.setLogRecordFactory(LogScrubber(lambda: configured_secrets(conf)))


def configured_secrets(conf: cfg.ConfigOpts) -> list[str]:
    """Return the values of all secret options, of URLs the password."""
    found: list[str] = []
    for info, group in conf._all_opt_infos():  # noqa: SLF001 - oslo.config has no public way
        option = info["opt"]
        if not option.secret:
            continue
        try:
            value = conf[group.name][option.dest] if group is not None else conf[option.dest]
        except cfg.Error:
            continue
        if isinstance(value, str):
            found += _passwords(value) if "://" in value else [value]
    return found


def _passwords(url: str) -> list[str]:
    """Return the passwords of a URL of one or several hosts: scheme://user:password@host,user:password@host/path."""
    hosts = url.partition("://")[2].split(",")
    found = [host.rpartition("@")[0].partition(":")[2] for host in hosts if "@" in host]
    with suppress(ValueError):
        found.append(urlsplit(url).password or "")
    return [word for word in found if word]


def _forms(value: str) -> list[str]:
    """Return the forms in which a value may be written: unchanged, with %-escapes, and without them."""
    return [form for form in {value, quote(value, safe=""), unquote(value)} if len(form) >= _SHORTEST]


def _without_bodies(args: Any) -> Any:
    if isinstance(args, tuple):
        return tuple(_without_body(arg) for arg in args)
    if isinstance(args, dict):
        return {key: _without_body(value) for key, value in args.items()}
    return args


def _without_body(arg: object) -> object:
    if isinstance(arg, int | float):
        return arg
    text = arg.decode(errors="replace") if isinstance(arg, bytes) else str(arg)
    return f"<{len(text)} characters not shown>" if len(text) > _LONG or _BODY.search(text) else arg
