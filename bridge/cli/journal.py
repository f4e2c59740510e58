# SPDX-License-Identifier: Apache-2.0
"""The commands `extend-bridge event` and `extend-bridge host`: the operator's access to the journal."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from cliff.command import Command

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import JournalUnavailableError, OperatorError
from bridge.core.extend import new_id
from bridge.journal import migrate
from bridge.journal.admin import DISCARDED, Admin, ExtendFilter
from bridge.journal.database import Database, missing_file
from bridge.journal.settings import JOURNAL_OPTS, journal_settings
from bridge.runtime import commands, config
from bridge.runtime.listing import Listing, Showing

_GROUPS: Final = [("journal", JOURNAL_OPTS)]
HOST_TIMEOUT: Final = 60.0
"""Seconds without a heartbeat after which a host is shown as silent."""
Rows = tuple[tuple[str, ...], list[tuple[Any, ...]]]


class Reads(Command):  # type: ignore[misc,unused-ignore]
    """The base of all commands that read the journal."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        commands.add_config_option(parser)
        return parser

    @contextmanager
    def database(self, parsed: argparse.Namespace) -> Iterator[Database]:
        """Open the journal's database of the configuration file; close the database at the end of the block."""
        settings = config.read(commands.load(parsed, _GROUPS), journal_settings)
        if (file := missing_file(settings.connection)) is not None:  # SQLite would create it as this user
            raise JournalUnavailableError(
                f"the journal {file} does not exist: give the daemons' configuration file with --config-file"
            )
        database = Database(settings)
        try:
            if migrate.current(database) is None:
                raise JournalUnavailableError(str(migrate.problem(database)))
            yield database
        finally:
            database.dispose()

    @contextmanager
    def look(self, parsed: argparse.Namespace) -> Iterator[Admin]:
        """Open the journal of the configuration file for the operator's queries."""
        with self.database(parsed) as database:
            yield Admin(database)


class EventList(Reads, Listing):
    """List extends; by default the open extends, oldest first."""

    _epilog = "Example: extend-bridge event list --state all --volume VOLUME"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--state",
            default="open",
            choices=("open", "due", "dispatched", "closed", "failed", "all"),
            help="only extends in this state (default: open, which is due and dispatched)",
        )
        parser.add_argument("--server", metavar="ID", help="only extends of this server")
        parser.add_argument("--volume", metavar="ID", help="only extends of this volume")
        commands.add_limit_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """Run the command; return column names and rows."""
        wanted = ExtendFilter(
            state=parsed_args.state, server=parsed_args.server, volume=parsed_args.volume, limit=parsed_args.limit
        )
        with self.look(parsed_args) as look:
            found = look.events(wanted)
        such = "such " if parsed_args.server or parsed_args.volume else ""
        state = parsed_args.state
        self.nothing = f"the journal has no {such}extend" if state == "all" else f"no {such}extend is {state}"
        return (
            ("ID", "Server", "Volume", "State", "Outcome", "Reason", "Attempts", "Opened", "Overdue", "Waits for"),
            [
                (
                    row["id"], row["server_id"], row["volume_id"], row["state"], row["outcome"], row["reason"],
                    row["attempt"], moment(row["opened_at"]), row["overdue_at"] is not None and row["open"] == 1,
                    row["waiting_for"],
                )
                for row in found
            ],
        )  # fmt: skip


class EventShow(Reads, Showing):
    """Show one extend with its history."""

    _epilog = "Example: extend-bridge event show ID"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="id of an extend from `event list`")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Run the command; return column names and values."""
        with self.look(parsed_args) as look:
            found = look.event(parsed_args.id)
        if found is None:
            raise OperatorError(f"the journal has no extend {parsed_args.id}", code=1)
        row, history = found
        shown = {name: moment(value) if name.endswith("_at") else value for name, value in row.items()}
        lines = [f"{moment(float(line.partition(' ')[0]))} {line.partition(' ')[2]}" for line in history]
        return (*shown, "history"), (*shown.values(), "\n".join(lines))


class _Acts(Reads):
    """The base of commands that change extends one by one. Each change is written to the audit log."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser = super().get_parser(prog_name)
        parser.add_argument("id", nargs="+", metavar="ID", help="id of an extend from `event list`")
        return parser

    def write(self, parsed: argparse.Namespace, record: AuditRecord) -> None:
        """Write one audit line with the operator's name."""
        commands.audit(commands.load(parsed, _GROUPS)).write(record)


class EventRetry(_Acts):
    """Make extends due now; reopen extends that have ended."""

    _epilog = "Example: extend-bridge event retry ID"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; return the exit code."""
        code = 0
        with self.look(parsed_args) as look:
            for extend_id in parsed_args.id:
                request_id = f"req-{new_id()}"
                opened = look.retry(extend_id, request_id=request_id)
                if opened is None:
                    self.app.stderr.write(f"the journal has no extend {extend_id}\n")
                    code = 1
                    continue
                key, opened_id = opened
                self.write(
                    parsed_args,
                    AuditRecord.of(
                        key, AuditEvent.ACCEPTED, time.time(), extend_id=opened_id, request_id=request_id,
                        data={"retried": extend_id},
                    ),
                )  # fmt: skip
                self.app.stdout.write(f"volume {key.volume_id} on server {key.server_id} is due now\n")
        return code


class EventDiscard(_Acts):
    """Close open extends without a host's verification; the guest may stay behind its volume.

    Reconciliation opens the extend again while a live host reports the guest as behind.
    """

    _epilog = "Example: extend-bridge event discard ID"

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; return the exit code."""
        code = 0
        with self.look(parsed_args) as look:
            for extend_id in parsed_args.id:
                key = look.discard(extend_id)
                if key is None:
                    self.app.stderr.write(f"no extend {extend_id} is open\n")
                    code = 1
                    continue
                self.write(
                    parsed_args,
                    AuditRecord.of(key, AuditEvent.DISCARDED, time.time(), extend_id=extend_id, outcome=DISCARDED),
                )
                self.app.stdout.write(
                    f"volume {key.volume_id} on server {key.server_id} is closed without verification\n"
                )
        return code


class HostList(Reads, Listing):
    """List the hosts that have reported, with the time of each host's last report."""

    _epilog = "Example: extend-bridge host list -f json"
    nothing = "no host has reported yet"

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """Run the command; return column names and rows."""
        with self.look(parsed_args) as look:
            found = look.hosts()
        now = time.time()
        return (
            ("Host", "Alive", "Last heard", "Servers", "Capabilities"),
            [
                (
                    row["name"], now - row["heartbeat_at"] <= HOST_TIMEOUT, moment(row["heartbeat_at"]),
                    row["servers"], ", ".join(map(str, row["capabilities"])),
                )
                for row in found
            ],
        )  # fmt: skip


class HostShow(Reads, Listing):
    """Show the disks of a host's guests with the sizes that the guests see, or the host's volume types."""

    _epilog = "Example: extend-bridge host show HOST --volume-types"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="name of a host from `host list`")
        parser.add_argument(
            "--volume-types",
            action="store_true",
            help="list the volume types that the host can extend, and for each other type the reason",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """Run the command; return column names and rows."""
        with self.look(parsed_args) as look:
            host = next((row for row in look.hosts() if row["name"] == parsed_args.host), None)
            if host is None:
                raise OperatorError(f"host {parsed_args.host} has never reported", code=1)
            self.nothing = f"no guest of host {parsed_args.host} has a volume attached"
            if parsed_args.volume_types:
                self.nothing = f"host {parsed_args.host} did not say which volume types it can extend"
                known = {**dict.fromkeys(host["capabilities"], ""), **host["unsupported"]}
                return ("Volume type", "Extended", "Why not"), [
                    (t, not why, why) for t, why in sorted(known.items())
                ]
            found = look.disks(parsed_args.host)
        return ("Server", "Volume", "Bytes"), [(r["server_id"], r["volume_id"], r["size"]) for r in found]


def moment(at: float | None) -> str | None:
    """Return a time in ISO 8601 (UTC), or None for None."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None
