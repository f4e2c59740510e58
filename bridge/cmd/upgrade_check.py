# SPDX-License-Identifier: Apache-2.0
"""The command `extend-bridge-status upgrade check`: a check of this node against its configuration.

The checks are those of the parts that --part names; by default the parts of the control plane. Exit codes and table
are those of oslo.upgradecheck, because every OpenStack service uses them: 0 success, 1 warnings, 2 failures.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from keystoneauth1.exceptions import ClientException
from oslo_config import cfg
from oslo_upgradecheck import upgradecheck
from oslo_upgradecheck.upgradecheck import Code, Result

from bridge.api.request import VOLUME_EXTENDED
from bridge.api.settings import API_GROUPS, api_settings, refuse_open_door
from bridge.cmd import broker_check, cinder_conf
from bridge.cmd.cinder_conf import USUAL, CinderConf
from bridge.core.errors import ConfigError, JournalUnavailableError
from bridge.engine.cinder import ADMINS_ONLY
from bridge.engine.settings import engine_groups, engine_settings
from bridge.journal import migrate
from bridge.journal.database import Database, missing_file
from bridge.journal.settings import journal_settings
from bridge.runtime import config, one_process
from bridge.runtime.broker import DUE_QUEUE, PARKED_QUEUE, REPORTS_QUEUE
from bridge.runtime.bus_url import with_rabbit_options
from bridge.runtime.endpoints import open_adapter
from hostagent.hostcheck import probes
from hostagent.settings import hostagent_groups, hostagent_settings
from listener.settings import listener_groups, listener_settings

_PROG: Final = "extend-bridge-status"
_TRIES: Final = 2
_ONLY: Final = "API and engine need it; name the parts on this node, such as --part listener"
_LOUD: Final = ("keystoneauth", "keystoneauth1", "keystonemiddleware", "urllib3", "kombu", "amqp", "oslo_messaging")
_SKEW: Final = 5.0  # seconds between our clock and Cinder's
_OK: Final = 200
_REFUSED: Final = frozenset({401, 403})
_NOT_ASKED: Final = "not configured here"
_NO_KEYSTONE: Final = frozenset({None, "none", "http_basic"})
_NEEDED: Final = (VOLUME_EXTENDED.major, VOLUME_EXTENDED.minor)
_BOUND: Final = "extend_bridge.notifications"
_QUEUES: Final[Mapping[str, Sequence[str]]] = {"listener": (DUE_QUEUE, PARKED_QUEUE), "engine": (REPORTS_QUEUE,)}
"""The queues from which messages are delivered, by the part that declares them."""
_CONTROL: Final = frozenset({"listener", "api", "engine"})
_ALL: Final = "all-in-one"
_PARTS: Final[Mapping[str, Callable[[cfg.ConfigOpts], object]]] = {
    "listener": listener_settings,
    "api": lambda conf: refuse_open_door(api_settings(conf), built_in=True),
    "engine": engine_settings,
    "hostagent": hostagent_settings,
}


_CINDER_CONF: Final = cfg.StrOpt(
    "cinder-conf",
    metavar="FILE",
    help=f"Cinder's own configuration, to check that its notifications reach the listener. Default: {USUAL}, where "
    "it can be read.",
)
_PART: Final = cfg.MultiStrOpt(
    "part",
    metavar="PART",
    help=f"A part that runs on this node: {', '.join(_PARTS)} or {_ALL}; may be given several times. Default: "
    "listener, api and engine.",
)


class UpgradeChecks(upgradecheck.UpgradeCommands):  # type: ignore[misc,unused-ignore]
    """The checks, with one method for each check. A method returns a code and a text."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        self._conf = conf
        self._named = bool(conf.part)
        self._parts = frozenset(conf.part or ()) or _CONTROL
        self._one_process = _ALL in self._parts
        if self._one_process:
            self._parts = frozenset(_PARTS)
            one_process.set_defaults(conf)
        own_api = _is_default(conf, "endpoint", "endpoint_override")
        self._cinder, self._cinder_problem = _cinders(conf.cinder_conf)
        known: tuple[tuple[str, Callable[[UpgradeChecks], Result], str], ...] = (
            ("Configuration", UpgradeChecks.configuration, "listener api engine hostagent"),
            ("Journal", UpgradeChecks.journal, "api engine"),
            ("Our bus", UpgradeChecks.bus, "listener engine hostagent"),
            ("Notifications", UpgradeChecks.notifications, "listener"),
            ("Cinder's configuration", UpgradeChecks.cinder_conf, "listener"),
            ("Queue without consumer", UpgradeChecks.drained, "listener"),
            ("Keystone", UpgradeChecks.keystone, "listener engine"),
            ("Cinder", UpgradeChecks.cinder, "engine"),
            ("Clock", UpgradeChecks.clock, "engine"),
            ("Endpoint", UpgradeChecks.endpoint, "listener"),
            ("Double path", UpgradeChecks.double_path, "listener"),
            ("This host", UpgradeChecks.host, "hostagent"),
        )
        not_yet = {"Endpoint", "Double path"} if self._one_process and own_api else set()  # it is not running yet
        self._upgrade_checks = tuple(
            (name, check)
            for name, check, parts in known
            if self._parts & set(parts.split()) and name not in not_yet
        )

    def configuration(self) -> Result:
        """Check that each part would start with this configuration."""
        wrong = []
        for part in sorted(self._parts):
            if part == "listener" and not self._conf.notifications.transport_url:
                continue
            try:
                config.read(self._conf, _PARTS[part])
            except ConfigError as ex:
                wrong.append(str(ex))
        return Result(Code.FAILURE, "; ".join(wrong)) if wrong else Result(Code.SUCCESS, "can be used")

    def keystone(self) -> Result:
        """Check that Keystone gives a token to each of our users."""
        asked = [name for name, part in (("cinder", "engine"), ("endpoint", "listener")) if part in self._parts]
        with_users = [name for name in asked if self._conf[name].auth_type not in _NO_KEYSTONE]
        for name in with_users:
            try:
                open_adapter(self._conf, name, user_agent=_PROG).get_token()
            except (ClientException, ConfigError) as ex:
                return Result(Code.FAILURE, f"[{name}] gets no token: {type(ex).__name__}")
        return Result(Code.SUCCESS, f"tokens for {', '.join(with_users)}" if with_users else _NOT_ASKED)

    def host(self) -> Result:
        """Check that the host agent can see the needed parts of its host, also from inside a container."""
        try:
            settings = config.read(self._conf, hostagent_settings)
        except ConfigError:
            return Result(Code.FAILURE, "cannot be checked with this configuration")
        found = list(probes(settings))
        wrong = [probe for probe in found if probe.wrong is not None]
        if not wrong:
            return Result(Code.SUCCESS, ", ".join(probe.about for probe in found))
        said = "; ".join(str(probe.wrong) for probe in wrong)
        return Result(Code.FAILURE if any(probe.fatal for probe in wrong) else Code.WARNING, said)

    def journal(self) -> Result:
        """Check that the journal is reachable and that its tables have the version of this code."""
        settings = journal_settings(self._conf)
        if (file := missing_file(settings.connection)) is not None:
            if not self._named and _is_default(self._conf, "journal", "connection"):
                return Result(Code.WARNING, f"[journal] is not configured: {_ONLY}")
            if self._conf.journal.sync_on_startup:
                return Result(Code.SUCCESS, f"{file} will be created at the first start")
            return Result(
                Code.FAILURE, f"{file} does not exist yet: run `extend-bridge-manage db sync` as the daemons' user"
            )
        database = Database(settings)
        try:
            why_not = migrate.problem(database)
        except JournalUnavailableError as ex:
            why_not = str(ex)
        finally:
            database.dispose()
        return Result(Code.FAILURE, why_not) if why_not else Result(Code.SUCCESS, migrate.head())

    def bus(self) -> Result:
        """Check that our own bus accepts our user, and that its release drops nothing from our queues."""
        url = config.bus_settings(self._conf).transport_url
        ours = dict.fromkeys(queue for part in sorted(self._parts) for queue in _QUEUES.get(part, ()))
        return broker_check.reached("[bus] transport_url", url, list(ours))

    def notifications(self) -> Result:
        """Check that Cinder's bus accepts our user and that our queue exists."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        settings = listener_settings(self._conf)
        topic = settings.intake.value == "topic"
        name = f"{settings.topic}.info" if topic else _BOUND
        reached = broker_check.reached(
            "[notifications] transport_url", settings.transport_url, () if topic else (_BOUND,)
        )
        if reached.code is Code.FAILURE:
            return reached
        depth = broker_check.depth(settings.transport_url, name)
        if depth is None:
            return Result(
                Code.WARNING,
                f"queue {name} does not exist yet: Cinder declares it with its first notification; does "
                "cinder.conf have [oslo_messaging_notifications] driver = messagingv2, topics = "
                f"{settings.topic}?",
            )
        if reached.code is not Code.SUCCESS:
            return reached
        return Result(Code.SUCCESS, f"{name}: {depth[0]} messages, {depth[1]} consumers; {reached.details}")

    def cinder_conf(self) -> Result:
        """Check that cinder.conf, if readable on this node, sends notifications to us in durable queues."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        if self._cinder is None:
            return self._cinder_problem or Result(
                Code.SUCCESS, f"{USUAL} does not exist on this node; --cinder-conf names another file"
            )
        settings = listener_settings(self._conf)
        topic = settings.topic if settings.intake.value == "topic" else None
        return cinder_conf.notifies(self._cinder, topic, broker_check.release_at(settings.transport_url))

    def drained(self) -> Result:
        """Check that Cinder's default queue has a consumer or does not grow."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        depth = broker_check.depth(
            with_rabbit_options(self._conf, self._conf.notifications.transport_url), "notifications.info"
        )
        if depth is None or depth[1] or not depth[0]:
            return Result(
                Code.SUCCESS,
                "notifications.info has a consumer, is empty or does not exist, or our user may not see it",
            )
        return Result(
            Code.WARNING,
            f"notifications.info has no consumer ({depth[0]} messages): remove it from Cinder's topics",
        )

    def cinder(self) -> Result:
        """Check that Cinder answers and shows volumes of every project."""
        untouched = all(_is_default(self._conf, "cinder", name) for name in ("auth_type", "endpoint_override"))
        if not self._named and untouched:
            return Result(Code.WARNING, f"[cinder] is not configured: {_ONLY}")
        status, _ = self._get("cinder", "/volumes/detail?all_tenants=1&limit=1")
        if isinstance(status, str):
            return Result(Code.FAILURE, status)
        if status in _REFUSED:
            return Result(Code.FAILURE, f"answers {status}: its user needs the role admin")
        if status != _OK:
            return Result(Code.FAILURE, f"answers {status}: is [cinder] endpoint_override Cinder's v3 API?")
        rights, _ = self._get("cinder", ADMINS_ONLY)  # without the rights Cinder silently ignores all_tenants
        if rights in _REFUSED:
            return Result(Code.FAILURE, "shows volumes of one project only: its user needs the role admin")
        return Result(Code.SUCCESS, "shows volumes of every project")

    def clock(self) -> Result:
        """Check that our clock and Cinder's clock agree."""
        status, stamp = self._get("cinder", "/volumes?limit=1")
        if isinstance(status, str) or stamp is None:
            return Result(Code.SUCCESS, "cannot be compared")
        skew = abs(time.time() - parsedate_to_datetime(stamp).timestamp())
        if skew > _SKEW:
            return Result(
                Code.WARNING,
                f"differs from Cinder's clock by {skew:.0f} s: durations in audit logs are wrong by that",
            )
        return Result(Code.SUCCESS, f"within {_SKEW:.0f} s of Cinder's clock")

    def endpoint(self) -> Result:
        """Check that the listener's endpoint answers, supports compute 2.51 and accepts our user."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        status, _ = self._get("endpoint", "/os-server-external-events")
        if isinstance(status, str):
            return Result(Code.FAILURE, status)
        if status in {401, 403}:  # every compute API that knows our user answers this GET with 404 or 405
            return Result(Code.FAILURE, f"answers {status}: it does not accept our user")
        newest = self._newest()
        if newest is None:
            return Result(Code.WARNING, "does not return a version document: is it a compute API, …/v2.1?")
        if newest < _NEEDED:
            return Result(Code.FAILURE, f"supports compute {newest[0]}.{newest[1]} at most; 2.51 is needed")
        return Result(Code.SUCCESS, f"supports compute {newest[0]}.{newest[1]}")

    def double_path(self) -> Result:
        """Check whether Cinder's own call to Nova sends the same events to the same place."""
        if not self._conf.notifications.transport_url:
            return Result(Code.SUCCESS, _NOT_ASKED)
        newest = self._newest()
        if newest is None:
            return Result(Code.SUCCESS, "not known, because the endpoint does not return a version document")
        endpoint = self._conf.endpoint.endpoint_override
        return cinder_conf.double_path(self._cinder, is_nova=newest > _NEEDED, endpoint=endpoint)

    def _newest(self) -> tuple[int, int] | None:
        """Return the newest microversion of the endpoint; None when the endpoint does not name a microversion."""
        try:
            adapter = open_adapter(self._conf, "endpoint", user_agent=_PROG)
            response = adapter.get("/", raise_exc=False, log=False)
            major, minor = json.loads(response.content)["version"]["version"].split(".")
            return int(major), int(minor)
        except (ClientException, ConfigError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _get(self, group: str, path: str) -> tuple[int | str, str | None]:
        """Return the status and the Date header of an answer, or the reason why there is no answer."""
        why = ""
        for _ in range(_TRIES):  # a keep-alive connection that the server has just closed is not a failure
            try:
                adapter = open_adapter(self._conf, group, user_agent=_PROG)
                response = adapter.get(path, raise_exc=False, log=False)
                return int(response.status_code), response.headers.get("Date")
            except (ClientException, ConfigError) as ex:
                why = f"[{group}] cannot be reached: {type(ex).__name__}"
        return why, None


def _is_default(conf: cfg.ConfigOpts, group: str, name: str) -> bool:
    """Return whether an option is not set anywhere."""
    location = conf.get_location(name, group)
    return location is None or not location.location.is_user_controlled


def _cinders(named: str | None) -> tuple[CinderConf | None, Result | None]:
    """Return Cinder's configuration, or the reason why the configuration cannot be used."""
    if named is None and not os.access(USUAL, os.R_OK):
        return None, None
    try:
        return cinder_conf.read(Path(named) if named else USUAL), None
    except ConfigError as ex:
        return None, Result(Code.FAILURE if named else Code.WARNING, str(ex))


def _groups() -> config.OptGroups:
    """Return the option groups of all parts, each once."""
    return list(
        dict([*engine_groups(), *listener_groups(), *API_GROUPS, *hostagent_groups()]).items()
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run `upgrade check`; return 0 for success, 1 for warnings, 2 for failures or wrong usage."""

    def body() -> int:
        words = list(sys.argv[1:] if argv is None else argv)
        if words[-2:] != ["upgrade", "check"] and "--help" not in words and "-h" not in words:
            raise ConfigError(f"the command comes last: {_PROG} --part listener upgrade check")
        conf = config.load(
            _PROG,
            _groups(),
            [word for word in words if word not in {"upgrade", "check"}],
            description="Checks that this node has everything that its configuration needs.",
            epilog=f"Example: {_PROG} --part listener --part api --part engine upgrade check; on a hypervisor: "
            f"{_PROG} --part hostagent upgrade check",
            cli=[_PART, _CINDER_CONF],
        )
        if unknown := [part for part in conf.part or () if part not in {*_PARTS, _ALL}]:
            raise ConfigError(f"--part {unknown[0]}: the parts are {', '.join(_PARTS)} and {_ALL}")
        config.setup_logging(conf, _PROG)
        for name in _LOUD:  # the table shows the problems
            logging.getLogger(name).setLevel(logging.CRITICAL)
        checks = UpgradeChecks(conf)
        code: int = checks.check()
        return code

    return config.run(body, _PROG)
