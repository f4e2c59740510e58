# SPDX-License-Identifier: Apache-2.0
"""Configuration of a process: oslo.config in, frozen settings objects out.

Each part declares its own options beside its settings class; this module holds the options that all parts share.
ConfigOpts is private to a process and never read outside `*_settings(conf)` functions.

[locator] names the source of servers' hosts. API and engine must have the same value.
"""

import bridge.runtime.no_eventlet  # noqa: F401 - first, before a library finds eventlet

# isort: split
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar, get_origin, get_type_hints

from oslo_config import cfg
from oslo_log import log as oslo_log

from bridge import VERSION
from bridge.core.errors import ConfigError
from bridge.runtime import log_lines, log_output, log_scrub, rabbit_options
from bridge.runtime.bus_url import with_rabbit_options

S = TypeVar("S")


def section(conf: cfg.ConfigOpts, group: str, settings: Callable[..., S], prefix: str = "", **more: Any) -> S:
    """Return a settings object of a dataclass whose fields have the names of the group's options.

    A field `x` is read from the option `prefix + x`. `more` gives fields that are read in another way. A field
    without an option keeps its default.
    """
    options = conf[group]
    kinds = get_type_hints(settings)
    given = {
        name: _of_kind(kind, options[prefix + name])
        for name, kind in kinds.items()
        if name not in more and prefix + name in options
    }
    return settings(**given, **more)


def _of_kind(kind: Any, value: Any) -> Any:
    """Return an option's value as the type of its field, where oslo.config does not have that type."""
    if isinstance(kind, type) and issubclass(kind, Enum | Path):
        return kind(value)
    return tuple(value) if get_origin(kind) is tuple else value


class Driver(StrEnum):
    """Source of the hosts of servers."""

    INVENTORY = "inventory"  # reports of the host agents
    NOVA = "nova"  # Nova's API


LOCATOR_OPTS = [
    cfg.StrOpt(
        "driver",
        default=Driver.INVENTORY.value,
        choices=[
            (Driver.INVENTORY.value, "The host agents' own reports; needs no Nova."),
            (Driver.NOVA.value, "Nova's API ([nova]); needs the role admin and Nova 19 (Stein) or newer."),
        ],
        help="Source of a server's host. Set the same for API and engine. With nova, the API accepts events of any "
        "server, also of one that no host agent has reported yet, and the engine asks Nova for its host.",
    ),
    cfg.FloatOpt("cache_seconds", default=10, min=0, help="Seconds for which an answer of Nova is cached."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatorSettings:
    """The options of [locator]."""

    driver: Driver = Driver.INVENTORY
    cache_seconds: float = 10


def locator_settings(conf: cfg.ConfigOpts) -> LocatorSettings:
    """Read the options of [locator]."""
    return section(conf, "locator", LocatorSettings)


EXIT_USAGE = 2
"""Exit code of bad usage or configuration."""
EXIT_UNREACHABLE = 3
"""Exit code if a needed service cannot be reached."""

LOG = logging.getLogger(__name__)
_LOOKUPS: Final = "timeout:2 attempts:2"
"""Options of glibc's resolver: a lookup ends within 16 seconds with two name servers, within 24 with three."""
_QUIET = ("alembic", "amqp", "keystoneauth", "kombu", "oslo.messaging", "oslo_messaging", "urllib3")

OptGroups = Sequence[tuple[str, Sequence[cfg.Opt]]]

BUS_OPTS = [
    cfg.StrOpt(
        "transport_url",
        secret=True,
        default="rabbit://guest:guest@127.0.0.1:5672/",
        help="The bridge's own message bus: waiting, parked and unreadable events, orders to host agents, and "
        "their reports. rabbit://user:password@host:port,user:password@host:port/vhost; memory:// stays inside "
        "one process (extend-bridge-all-in-one only).",
    ),
    cfg.IntOpt(
        "heartbeat",
        default=30,
        min=5,
        help="Seconds after which a silent broker connection counts as dead. AMQP's heartbeat interval is a third "
        "of it.",
    ),
]

OPS_OPTS = [
    cfg.HostAddressOpt(
        "ops_host",
        default="127.0.0.1",
        help="Address of /healthz/live, /healthz/ready and /metrics of this daemon.",
    ),
    cfg.PortOpt(
        "ops_port",
        help="Port of these. Unset: listener 9786, API 9787, engine 9788, host agent 9789, all in one 9790, or a "
        "free port where another process uses that one. 0: a free port. The log names the port in use.",
    ),
]
"""Options of each daemon's own group, so that all daemons can share one file."""

AUDIT_OPTS = [
    cfg.StrOpt(
        "file",
        help="File of the audit log, one JSON line per transition of each extend. Unset: standard error. logrotate "
        "can move the file at any time.",
    ),
    cfg.BoolOpt(
        "journald",
        default=False,
        help="Write the audit log to systemd's journal instead, with the ids of each line as fields "
        "EXTEND_BRIDGE_VOLUME, EXTEND_BRIDGE_SERVER and so on.",
    ),
    cfg.StrOpt(
        "key_file",
        help="File with a secret of 16 bytes or more that other users cannot read. Each line then has an "
        "HMAC-SHA-256 with it, so that the log cannot be forged without the key. Unset: a plain SHA-256 chain.",
    ),
    cfg.FloatOpt(
        "heads_interval",
        default=1,
        min=0.1,
        help="Seconds between two copies of the newest line's hash, while lines are written. API and engine store "
        "it in the journal, the listener in its own log. If a process is killed, the removal of lines after its "
        "last stored hash can go unnoticed.",
    ),
]


TRACING_OPTS = [
    cfg.URIOpt(
        "otlp_endpoint",
        schemes=["http", "https"],
        help="Address of an OpenTelemetry collector for spans, by OTLP over HTTP, such as http://127.0.0.1:4318. "
        "Needs the extra otel. Unset: no spans, but the audit log still has trace ids. Headers and certificates "
        "are set by OpenTelemetry's own environment variables (OTEL_EXPORTER_OTLP_HEADERS and others).",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSettings:
    """Address of the bridge's own bus. `heartbeat` in seconds."""

    transport_url: str
    heartbeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpsSettings:
    """Address of the health and metrics port. `or_any`: use a free port if this port is taken."""

    host: str
    port: int
    or_any: bool = False


def default_host() -> str:
    """Return a host agent's default name, which is nova-compute's `host` default as well."""
    return socket.gethostname()


def bus_settings(conf: cfg.ConfigOpts) -> BusSettings:
    """Read the options of [bus]."""
    return section(conf, "bus", BusSettings, transport_url=with_rabbit_options(conf, conf.bus.transport_url))


def ops_settings(conf: cfg.ConfigOpts, group: str) -> OpsSettings:
    """Read the ops port of one daemon's group."""
    port = conf[group].ops_port
    if port is None:
        return OpsSettings(host=conf[group].ops_host, port=OPS_PORTS.get(group, 0), or_any=True)
    return OpsSettings(host=conf[group].ops_host, port=port)


OPS_PORTS: Final = {"listener": 9786, "api": 9787, "engine": 9788, "hostagent": 9789, "all_in_one": 9790}
"""Ports of health and metrics if none is configured."""

COMMON_OPTS: OptGroups = [("bus", BUS_OPTS), ("audit", AUDIT_OPTS), ("tracing", TRACING_OPTS)]


def list_opts() -> OptGroups:
    """Return the shared options, for oslo-config-generator."""
    return [*COMMON_OPTS, (rabbit_options.GROUP, rabbit_options.USED)]


def load(
    prog: str,
    groups: OptGroups,
    argv: Sequence[str],
    *,
    description: str,
    epilog: str = "",
    cli: Iterable[cfg.Opt] = (),
) -> cfg.ConfigOpts:
    """Parse the command line and the configuration files into a private ConfigOpts.

    Raises ConfigError for a missing or unreadable file. For an unknown option argparse itself ends the process with
    status 2, as everywhere.
    """
    bound_lookups()
    conf = cfg.ConfigOpts()
    oslo_log.register_options(conf)
    rabbit_options.register(conf)
    for name, opts in [*COMMON_OPTS, *groups]:
        conf.register_opts(opts, group=name)
    conf.register_cli_opts(list(cli))
    try:
        conf(
            list(argv),
            project="extend-bridge",
            prog=prog,
            version=VERSION,
            description=description,
            epilog=epilog,
        )
    except UnicodeDecodeError as ex:  # the error does not name the file
        raise ConfigError(f"a configuration file is not text in UTF-8: {_one_line(ex)}") from ex
    except cfg.Error as ex:
        raise ConfigError(_one_line(ex)) from ex
    return conf


def read(conf: cfg.ConfigOpts, reader: Callable[[cfg.ConfigOpts], S]) -> S:
    """Turn options into a settings object; a value that cannot be read becomes a ConfigError."""
    try:
        return reader(conf)
    except (cfg.Error, ValueError) as ex:
        raise ConfigError(_one_line(ex)) from ex


def setup_logging(conf: cfg.ConfigOpts, prog: str) -> None:
    """Set up oslo.log. Libraries that log bodies or frames at debug are silenced, and all records are scrubbed."""
    conf.set_default("default_log_levels", [f"{name}=WARNING" for name in _QUIET])
    log_scrub.install(conf)
    oslo_log.setup(conf, prog, version=VERSION)
    log_lines.install()
    log_output.install()
    for name in rabbit_options.unused_options(conf):
        LOG.warning("[oslo_messaging_rabbit] %s is set, but the bridge does not use it", name)


def reload(conf: cfg.ConfigOpts) -> None:
    """Read the files again, apply the options that may change in a process (debug, log levels), and log changes.

    A file that cannot be read changes nothing. Any other change waits for the next start, and oslo.config logs its
    name.
    """
    try:
        fresh = conf.mutate_config_files()
    except (cfg.Error, OSError, UnicodeDecodeError, SystemExit) as ex:  # argparse's way of refusing a value
        LOG.error("SIGHUP: the configuration cannot be read, nothing is changed: %s", _one_line(ex))  # noqa: TRY400
        return
    changes = [f"[{group or 'DEFAULT'}] {name}: {old} -> {new}" for (group, name), (old, new) in fresh.items()]
    LOG.warning("SIGHUP: %s", "; ".join(changes) or "no option that can change at run time has changed")


def bound_lookups() -> None:
    """Limit address lookups of this process and its children, for every library, unless RES_OPTIONS says otherwise.

    No caller can interrupt a lookup. With glibc's defaults, two name servers that do not answer hold it for 40
    seconds.
    """
    os.environ.setdefault("RES_OPTIONS", _LOOKUPS)


def keep_to_ourselves() -> None:
    """Take other users' rights from the process's new files: logs, state, sockets."""
    os.umask(os.umask(0o077) | 0o027)


def run(main: Callable[[], int], prog: str) -> int:
    """Run an entry point's body; a ConfigError becomes one line on standard error and status 2."""
    keep_to_ourselves()
    try:
        return main()
    except ConfigError as ex:
        sys.stderr.write(f"{prog}: {ex}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130


def _one_line(ex: BaseException) -> str:
    return " ".join(str(ex).split())
