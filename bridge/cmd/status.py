# SPDX-License-Identifier: Apache-2.0
"""extend-bridge-status upgrade check: whether this node has what its configuration says it needs.

What is not configured here is not asked: the same command serves every node. Exit codes and table are those of
oslo.upgradecheck, as of every OpenStack service: 0 well, 1 warnings, 2 failures.
"""

import sys
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Final

import kombu
from keystoneauth1.exceptions import ClientException
from oslo_config import cfg
from oslo_upgradecheck import upgradecheck
from oslo_upgradecheck.upgradecheck import Code, Result

from bridge.core.errors import JournalUnavailableError
from bridge.engine.settings import engine_groups
from bridge.journal import schema
from bridge.journal.database import Database
from bridge.journal.settings import journal_settings
from bridge.runtime import settings as door
from bridge.runtime.sessions import open_adapter
from bridge.runtime.transport import BROKER_ERRORS, check_url, is_memory, kombu_connection
from listener.settings import listener_groups, listener_settings

_PROG: Final = "extend-bridge-status"
_SKEW: Final = 5.0  # seconds between our clock and another's
_OK: Final = 200
_NOT_ASKED: Final = "not configured here"


class Checks(upgradecheck.UpgradeCommands):  # type: ignore[misc,unused-ignore]
    """One method a check; each returns what it found in words."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        self._conf = conf
        found: tuple[tuple[str, Callable[[Checks], Result]], ...] = (
            ("Journal", Checks.journal),
            ("Our bus", Checks.bus),
            ("Notifications", Checks.notifications),
            ("Queue nobody drains", Checks.drained),
            ("Cinder", Checks.cinder),
            ("Clock", Checks.clock),
            ("Endpoint", Checks.endpoint),
        )
        self._upgrade_checks = found

    def journal(self) -> Result:
        """Reachable, its tables at the version of this code."""
        database = Database(journal_settings(self._conf))
        try:
            why_not = schema.problem(database)
        except JournalUnavailableError as ex:
            why_not = str(ex)
        finally:
            database.dispose()
        return Result(Code.FAILURE, why_not) if why_not else Result(Code.SUCCESS, schema.head())

    def bus(self) -> Result:
        """Our own bus takes our user."""
        return _reached("[bus] transport_url", self._conf.bus.transport_url)

    def notifications(self) -> Result:
        """Cinder's bus takes our user, and our queue is there."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        settings = listener_settings(self._conf)
        reached = _reached("[notifications] transport_url", settings.transport_url)
        if reached.code is not Code.SUCCESS:
            return reached
        name = f"{settings.topic}.info" if settings.intake.value == "topic" else "extend_bridge.notifications"
        depth = _depth(settings.transport_url, name)
        if depth is None:
            return Result(
                Code.WARNING,
                f"no queue {name} yet: Cinder makes it with its first notification; does cinder.conf say "
                f"[oslo_messaging_notifications] driver = messagingv2, topics = notifications,{settings.topic}?",
            )
        return Result(Code.SUCCESS, f"{name}: {depth[0]} messages, {depth[1]} consumers")

    def drained(self) -> Result:
        """Cinder's usual queue has a reader, or does not grow."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        depth = _depth(self._conf.notifications.transport_url, "notifications.info")
        if depth is None or depth[1] or not depth[0]:
            return Result(Code.SUCCESS, "notifications.info is drained, or not there")
        return Result(
            Code.WARNING,
            f"nobody drains notifications.info ({depth[0]} messages): take `notifications` out of Cinder's topics",
        )

    def cinder(self) -> Result:
        """Answers, and shows us volumes of every project."""
        status, _ = self._get("cinder", "/volumes?all_tenants=1&limit=1")
        if isinstance(status, str):
            return Result(Code.FAILURE, status)
        if status == _OK:
            return Result(Code.SUCCESS, "shows volumes of every project")
        return Result(Code.FAILURE, f"answers {status}: its user needs the role admin")

    def clock(self) -> Result:
        """Ours and Cinder's agree."""
        status, stamp = self._get("cinder", "/volumes?limit=1")
        if isinstance(status, str) or stamp is None:
            return Result(Code.SUCCESS, "cannot be compared")
        skew = abs(time.time() - parsedate_to_datetime(stamp).timestamp())
        if skew > _SKEW:
            return Result(
                Code.WARNING, f"{skew:.0f} s away from Cinder's: durations in audit logs are wrong by that"
            )
        return Result(Code.SUCCESS, f"within {_SKEW:.0f} s of Cinder's")

    def endpoint(self) -> Result:
        """Something answers where the listener sends."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        status, _ = self._get("endpoint", "/os-server-external-events")
        if isinstance(status, str):
            return Result(Code.FAILURE, status)
        # a GET of it is 404 or 405 on every compute API, and 401 or 403 where our user is refused
        refused = status in {401, 403}
        return Result(Code.FAILURE if refused else Code.SUCCESS, f"answers {status}")

    def _get(self, group: str, path: str) -> tuple[int | str, str | None]:
        """Status and Date header, or why there is none."""
        try:
            adapter = open_adapter(self._conf, group, user_agent=_PROG)
            response = adapter.get(path, raise_exc=False, log=False)
        except (ClientException, door.ConfigError) as ex:
            return f"[{group}] cannot be reached: {type(ex).__name__}", None
        return int(response.status_code), response.headers.get("Date")


def _reached(option: str, url: str) -> Result:
    check_url(url, option)
    if is_memory(url):
        return Result(Code.SUCCESS, "inside the process")
    try:
        with kombu_connection(url, heartbeat=0, name=_PROG) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
    except BROKER_ERRORS as ex:
        return Result(Code.FAILURE, f"{option} cannot be reached: {type(ex).__name__}")
    return Result(Code.SUCCESS, "takes our user")


def _depth(url: str, queue: str) -> tuple[int, int] | None:
    """Messages and consumers, None where there is no such queue or nobody lets us look."""
    if is_memory(url):
        return None
    with kombu_connection(url, heartbeat=0, name=_PROG) as connection:
        try:
            with connection.channel() as channel:
                found = kombu.Queue(queue, channel=channel).queue_declare(passive=True)
        except (*connection.channel_errors, *BROKER_ERRORS):
            return None
        return found.message_count, found.consumer_count


def main(argv: Sequence[str] | None = None) -> int:
    """`upgrade check`; 0 well, 1 warnings, 2 failures or wrong usage."""

    def body() -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        if words[-2:] != ["upgrade", "check"] and "--help" not in words and "-h" not in words:
            raise door.ConfigError("say what to do: [--config-file FILE] upgrade check")
        conf = door.load(
            _PROG,
            [*engine_groups(), *listener_groups()],
            [word for word in words if word not in {"upgrade", "check"}],
            description="Says whether this node has what its configuration needs.",
            epilog=f"Example: {_PROG} --config-file /etc/extend-bridge/extend-bridge.conf upgrade check",
        )
        door.setup_logging(conf, _PROG)
        checks = Checks(conf)
        code: int = checks.check()
        return code

    return door.run(body, _PROG)
