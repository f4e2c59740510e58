# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge event` and `host`: the journal for a person."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from cliff.command import Command
from cliff.lister import Lister
from cliff.show import ShowOne

from bridge.core.errors import OperatorError
from bridge.core.extend import new_id
from bridge.core.trail import Event, Record
from bridge.journal.database import Database
from bridge.journal.look import DISCARDED, Look, Wanted
from bridge.journal.settings import JOURNAL_OPTS, journal_settings
from bridge.runtime import operator
from bridge.runtime import settings as door

_GROUPS: Final = [("journal", JOURNAL_OPTS)]
HOST_TIMEOUT: Final = 60.0
"""Seconds of silence after which a host is shown as silent."""
Rows = tuple[tuple[str, ...], list[tuple[Any, ...]]]


class Reads(Command):  # type: ignore[misc,unused-ignore]
    """Options of every command that looks into the journal."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        operator.add_config_option(parser)
        return parser

    @contextmanager
    def database(self, parsed: argparse.Namespace) -> Iterator[Database]:
        """The journal's database as the configuration file names it."""
        database = Database(door.read(operator.load(parsed, _GROUPS), journal_settings))
        try:
            yield database
        finally:
            database.dispose()

    @contextmanager
    def look(self, parsed: argparse.Namespace) -> Iterator[Look]:
        """The journal of the configuration file."""
        with self.database(parsed) as database:
            yield Look(database)


class EventList(Reads, Lister):  # type: ignore[misc,unused-ignore]
    """List extends: by default the open ones, oldest first."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--state", default="open", choices=("open", "due", "dispatched", "closed", "failed", "all")
        )
        parser.add_argument("--server", metavar="ID")
        parser.add_argument("--volume", metavar="ID")
        parser.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many (default: 100)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """See cliff."""
        wanted = Wanted(
            state=parsed_args.state, server=parsed_args.server, volume=parsed_args.volume, limit=parsed_args.limit
        )
        with self.look(parsed_args) as look:
            found = look.events(wanted)
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


class EventShow(Reads, ShowOne):  # type: ignore[misc,unused-ignore]
    """Show one extend with its history."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID", help="of `event list`")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """See cliff."""
        with self.look(parsed_args) as look:
            found = look.event(parsed_args.id)
        if found is None:
            raise OperatorError(f"the journal holds no extend {parsed_args.id}", code=1)
        row, history = found
        shown = {name: moment(value) if name.endswith("_at") else value for name, value in row.items()}
        lines = [f"{moment(float(line.partition(' ')[0]))} {line.partition(' ')[2]}" for line in history]
        return (*shown, "history"), (*shown.values(), "\n".join(lines))


class _Acts(Reads):
    """A command that does something to extends, one after the other; each is in the audit log."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        parser.add_argument("id", nargs="+", metavar="ID", help="of `event list`")
        return parser

    def write(self, parsed: argparse.Namespace, record: Record) -> None:
        """One audit line under the name of the operator."""
        operator.audit(operator.load(parsed, _GROUPS)).write(record)


class EventRetry(_Acts):
    """Make extends due now; one that has ended is opened again."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
        code = 0
        with self.look(parsed_args) as look:
            for extend_id in parsed_args.id:
                request_id = f"req-{new_id()}"
                key = look.retry(extend_id, request_id=request_id)
                if key is None:
                    self.app.stderr.write(f"the journal holds no extend {extend_id}\n")
                    code = 1
                    continue
                self.write(
                    parsed_args,
                    Record(
                        event=Event.ACCEPTED, at=time.time(), server=key.server_id, volume=key.volume_id,
                        request_id=request_id, data={"retried": extend_id},
                    ),
                )  # fmt: skip
                self.app.stdout.write(f"volume {key.volume_id} on server {key.server_id} is due now\n")
        return code


class EventDiscard(_Acts):
    """Close open extends without a host's word: the guest may stay behind its volume."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
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
                    Record(
                        event=Event.DISCARDED, at=time.time(), server=key.server_id, volume=key.volume_id,
                        extend_id=extend_id, outcome=DISCARDED,
                    ),
                )  # fmt: skip
                self.app.stdout.write(f"volume {key.volume_id} on server {key.server_id} is given up\n")
        return code


class HostList(Reads, Lister):  # type: ignore[misc,unused-ignore]
    """List the hosts that report, and since when one is silent."""

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """See cliff."""
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


class HostShow(Reads, Lister):  # type: ignore[misc,unused-ignore]
    """Show the disks a host's guests have, with the size each guest sees; or which volume types it can extend."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST")
        parser.add_argument(
            "--volume-types", action="store_true", help="instead: which volume types it can extend, and why not"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """See cliff."""
        with self.look(parsed_args) as look:
            host = next((row for row in look.hosts() if row["name"] == parsed_args.host), None)
            if host is None:
                raise OperatorError(f"no host {parsed_args.host} ever reported", code=1)
            if parsed_args.volume_types:
                known = {**dict.fromkeys(host["capabilities"], ""), **host["unsupported"]}
                return ("Volume type", "Extended", "Why not"), [
                    (t, not why, why) for t, why in sorted(known.items())
                ]
            found = look.disks(parsed_args.host)
        return ("Server", "Volume", "Bytes"), [(r["server_id"], r["volume_id"], r["size"]) for r in found]


def moment(at: float | None) -> str | None:
    """A time for a person and a program, None for none."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None
