# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge event`, `host` and `status`: the journal for a person."""

import argparse
import time
from collections.abc import Iterator, Mapping
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
_HOST_TIMEOUT: Final = 60.0
Rows = tuple[tuple[str, ...], list[tuple[Any, ...]]]


class _Reads(Command):  # type: ignore[misc,unused-ignore]
    """Options of every command that looks into the journal."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        operator.add_config_option(parser)
        return parser

    @contextmanager
    def look(self, parsed: argparse.Namespace) -> Iterator[Look]:
        """The journal of the configuration file."""
        database = Database(door.read(operator.load(parsed, _GROUPS), journal_settings))
        try:
            yield Look(database)
        finally:
            database.dispose()


class EventList(_Reads, Lister):  # type: ignore[misc,unused-ignore]
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
                    row["attempt"], _time(row["opened_at"]), row["overdue_at"] is not None and row["open"] == 1,
                    row["waiting_for"],
                )
                for row in found
            ],
        )  # fmt: skip


class EventShow(_Reads, ShowOne):  # type: ignore[misc,unused-ignore]
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
        shown = {name: _time(value) if name.endswith("_at") else value for name, value in row.items()}
        lines = [f"{_time(float(line.partition(' ')[0]))} {line.partition(' ')[2]}" for line in history]
        return (*shown, "history"), (*shown.values(), "\n".join(lines))


class _Acts(_Reads):
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


class HostList(_Reads, Lister):  # type: ignore[misc,unused-ignore]
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
                    row["name"], now - row["heartbeat_at"] <= _HOST_TIMEOUT, _time(row["heartbeat_at"]),
                    row["servers"], ", ".join(map(str, row["capabilities"])),
                )
                for row in found
            ],
        )  # fmt: skip


class HostShow(_Reads, Lister):  # type: ignore[misc,unused-ignore]
    """Show the disks a host's guests have, with the size each guest sees."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """See cliff."""
        with self.look(parsed_args) as look:
            if all(row["name"] != parsed_args.host for row in look.hosts()):
                raise OperatorError(f"no host {parsed_args.host} ever reported", code=1)
            found = look.disks(parsed_args.host)
        return ("Server", "Volume", "Bytes"), [(r["server_id"], r["volume_id"], r["size"]) for r in found]


class Status(_Reads, ShowOne):  # type: ignore[misc,unused-ignore]
    """Everything on one screen: open, oldest, overdue, failed, hosts. Exits with 1 if a person is needed."""

    def run(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
        self.code = 0
        return super().run(parsed_args) or self.code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """See cliff."""
        with self.look(parsed_args) as look:
            now = look.standing(host_timeout=_HOST_TIMEOUT)
        self.code = 1 if now.overdue or now.failed else 0
        shown: Mapping[str, Any] = {
            "open": now.open,
            "dispatched": now.dispatched,
            "oldest open": _time(now.oldest),
            "overdue": now.overdue,
            "behind (failed)": now.failed,
            "hosts": now.hosts,
            "silent hosts": now.silent,
        }
        return tuple(shown), tuple(shown.values())


def _time(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else None
