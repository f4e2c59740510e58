# SPDX-License-Identifier: Apache-2.0
"""The program extend-bridge-manage: the journal's tables, the broker's users, and sample files."""

import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oslo_config import cfg, generator

from bridge.cmd.broker_commands import OUR_VHOST, BrokerPart, commands, virtual_host
from bridge.cmd.sample import NAMESPACES, PARTS, Deployment, sample
from bridge.core.errors import ConfigError, JournalUnavailableError, OperatorError
from bridge.journal import migrate
from bridge.journal.database import Database, missing_file
from bridge.journal.retention import Retention
from bridge.journal.settings import JOURNAL_OPTS, JournalSettings, journal_settings
from bridge.runtime import config

_SAMPLE: Final = "sample"
_PROG: Final = "extend-bridge-manage"
_BROKER: Final = "broker-commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 3 when the database cannot be reached."""

    def body() -> int:
        conf = config.load(
            _PROG,
            [("journal", JOURNAL_OPTS)],
            sys.argv[1:] if argv is None else argv,
            description="Manages the journal's tables, and prints sample configurations and commands for the "
            "broker.",
            epilog=f"Example: {_PROG} --config-dir /etc/extend-bridge db sync",
            cli=[cfg.SubCommandOpt("command", title="command", handler=_commands)],
        )
        if conf.command.name is None:
            raise ConfigError("a command is missing: db sync, db version, db purge, sample or broker-commands")
        if conf.command.name == _SAMPLE:
            return _print_sample(conf)
        if conf.command.name == _BROKER:
            return _print_broker_commands(conf)
        config.setup_logging(conf, _PROG)
        settings = config.read(conf, journal_settings)
        _not_by_root(settings.connection)
        database = Database(settings)
        try:
            sys.stdout.write(f"{_ACTIONS[conf.command.action](database, settings)}\n")
        except JournalUnavailableError as ex:
            sys.stderr.write(f"{_PROG}: the journal cannot be reached: {ex}\n")
            return config.EXIT_UNREACHABLE
        return 0

    return config.run(body, _PROG)


def _print_sample(conf: cfg.ConfigOpts) -> int:
    if conf.command.every_option:
        generator.main([word for name in NAMESPACES for word in ("--namespace", name)])
        return 0
    if conf.command.part is None or conf.command.deployment is None:
        raise ConfigError("sample: name --part and --deployment, or --every-option")
    try:
        sys.stdout.write(sample(conf.command.part, Deployment(conf.command.deployment)))
    except ValueError as ex:
        raise ConfigError(str(ex)) from ex
    return 0


def _commands(parsers: Any) -> None:
    samples = parsers.add_parser(
        _SAMPLE,
        help="print a sample configuration file",
        description="Prints the configuration file of one part, for one deployment.",
        epilog=f"Example: {_PROG} sample --part engine --deployment stand-alone",
    )
    samples.add_argument("--part", choices=PARTS, help="the part that reads the file")
    samples.add_argument(
        "--deployment",
        choices=[way.value for way in Deployment],
        help="stand-alone: Cinder and libvirt hosts, no Nova; beside-nova: Nova extends the disks; all-in-one: one "
        "node, one process",
    )
    samples.add_argument(
        "--every-option", action="store_true", help="print all options of all parts, with their help"
    )
    db = parsers.add_parser(
        "db",
        help="the journal's tables",
        description="Creates and upgrades the journal's tables, and deletes old rows.",
        epilog=f"Example: sudo -u extend-bridge {_PROG} db sync",
    )
    db.add_argument(
        "action",
        choices=sorted(_ACTIONS),
        help="sync: upgrade the tables to the newest version; version: print their version; purge: delete old rows "
        "now, as the engine does regularly ([journal] keep_closed_days and keep_gone_days)",
    )
    broker = parsers.add_parser(
        _BROKER,
        help="print the rabbitmqctl commands that create the broker's users",
        description="Prints rabbitmqctl commands that create a broker user with its permissions for each part, and "
        "for the host agent of each --host. Runs none of them. rabbitmqctl asks for each password.",
        epilog=f"Example: {_PROG} {_BROKER} --host compute-1 --host compute-2",
    )
    broker.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="the [hostagent] host of an agent; may be given several times",
    )
    broker.add_argument(
        "--part",
        action="append",
        choices=[p.value for p in BrokerPart if p is not BrokerPart.HOSTAGENT],
        help="commands for this part only; may be given several times (default: all parts; with --host alone: the "
        "agents)",
    )
    broker.add_argument(
        "--vhost", help=f"the bridge's own virtual host (default: that of [bus] transport_url, or {OUR_VHOST})"
    )
    broker.add_argument(
        "--cinder-vhost", default="/", help="the virtual host of Cinder's notifications (default: /)"
    )
    broker.add_argument(
        "--intake", choices=["topic", "bind"], default="topic", help="[notifications] intake (default: topic)"
    )


def _print_broker_commands(conf: cfg.ConfigOpts) -> int:
    chosen = conf.command
    parts = [BrokerPart(part) for part in chosen.part or []]
    if not parts and not chosen.host:
        parts = [part for part in BrokerPart if part is not BrokerPart.HOSTAGENT]
    where = conf.get_location("transport_url", "bus")
    named = where is not None and where.location.is_user_controlled
    vhost = chosen.vhost or (virtual_host(conf.bus.transport_url) if named else OUR_VHOST)
    try:
        for line in commands(parts, chosen.host, bridge=vhost, cinder=chosen.cinder_vhost, intake=chosen.intake):
            sys.stdout.write(f"{line}\n")
    except OperatorError as ex:
        raise ConfigError(str(ex)) from ex
    return 0


def _sync(database: Database, _settings: JournalSettings) -> str:
    before, after = migrate.current(database), migrate.upgrade(database)
    if before == after:
        newer = " (made by a newer release)" if after != migrate.head() else ""
        return f"the journal's tables are at version {after} already{newer}: nothing was changed"
    was = f"from version {before}" if before else "from nothing"
    return f"the journal's tables were brought {was} to version {after} ({database.name})"


def _not_by_root(connection: str) -> None:
    """Refuse to make an SQLite file as root in another user's directory, because the daemons could not write it."""
    file = missing_file(connection)
    if file is None or os.geteuid() != 0 or not Path(file).parent.is_dir():
        return
    owner = Path(file).parent.stat().st_uid
    if owner != 0:
        name = _user_name(owner)
        raise ConfigError(
            f"{file} would belong to root, and the daemons of user {name} could not write it: run `sudo -u {name} "
            f"{_PROG} db sync`"
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"  # as sudo takes the number of a user without a name


def _purge(database: Database, settings: JournalSettings) -> str:
    retention, gone = Retention(database, settings.keep), 0
    while number := retention.forget():
        gone += number
    return f"{gone} rows deleted"


def _version(database: Database, _settings: JournalSettings) -> str:
    have, want = migrate.current(database), migrate.head()
    if have is None:
        return f"the journal has no tables yet; this release needs version {want}: run db sync"
    return f"the journal's tables are at version {have}; this release needs version {want}"


_ACTIONS: Final[Mapping[str, Callable[[Database, JournalSettings], str]]] = {
    "sync": _sync,
    "version": _version,
    "purge": _purge,
}
