# SPDX-License-Identifier: Apache-2.0
"""The command `extend-bridge behind`: guests with a smaller size than their volume, with time and reason."""

import argparse
from collections.abc import Mapping
from typing import Any

from bridge.cli.journal import Reads, Rows, moment
from bridge.journal.behind import Behind, BehindGuest, Numbers
from bridge.journal.file_systems import BEHIND, FileSystemRow, FileSystems
from bridge.journal.sweeps import last_survey
from bridge.runtime import commands
from bridge.runtime.listing import Listing


class BehindList(Reads, Listing):
    """List the guests that are behind their volume now, longest first, with the time and the reason."""

    _epilog = "Example: extend-bridge behind --filesystem --limit 20"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--filesystem",
            action="store_true",
            help="list volumes whose file system in the guest does not fill the volume "
            "(needs [guest] filesystems on the hosts)",
        )
        which.add_argument(
            "--cannot-see",
            action="store_true",
            help="list volumes whose size in the guest is not known, each with the reason",
        )
        commands.add_limit_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """Run the command; return column names and rows."""
        if parsed_args.filesystem:
            return self._file_systems(parsed_args)
        with self.database(parsed_args) as database:
            asked = Behind(database)
            wanted = asked.unseen if parsed_args.cannot_see else asked.behind
            found = wanted(limit=parsed_args.limit)
            looked = last_survey(database).ended_at is not None
        what = "the size in every guest is known" if parsed_args.cannot_see else "no guest is behind its volume"
        self.nothing = what if looked else f"{what}, as far as known: no reconcile pass has ended yet"
        return ("Server", "Volume", "Since", "Why", "Host", "Sees", "Wanted"), [_row(lag) for lag in found]

    def _file_systems(self, parsed_args: argparse.Namespace) -> Rows:
        with self.database(parsed_args) as database:
            rows = FileSystems(database).behind(limit=parsed_args.limit)
            counts = FileSystems(database).counts()
        self.nothing = (
            "every known file system fills its disk"
            if counts
            else "no file system is known: set [guest] filesystems = see on the hosts"
        )
        names = (
            "Server",
            "Volume",
            "Since",
            "State",
            "Why",
            "Can follow",
            "Layout",
            "Type",
            "Disk",
            "Size",
            "Unused",
        )
        return (*names, "Host"), [_file_system(row) for row in rows]


def file_system_figures(counts: Mapping[str, int]) -> Mapping[str, Any]:
    """Return the numbers of file systems in the form of `extend-bridge status`."""
    behind = {state: number for state, number in counts.items() if state in BEHIND}
    return {
        "file systems seen": sum(counts.values()),
        "file systems behind": sum(behind.values()),
        "file systems why": _counted(behind),
    }


def _file_system(row: FileSystemRow) -> tuple[Any, ...]:
    seen = row.seen
    return (
        seen.key.server_id, seen.key.volume_id, moment(row.since), seen.state.value, seen.reason, seen.follow.value,
        seen.layout.value, seen.kind, seen.disk, seen.size, seen.unused, row.host,
    )  # fmt: skip


def figures(numbers: Numbers) -> Mapping[str, Any]:
    """Return the numbers of guests in the form of `extend-bridge status`."""
    return {
        "behind now": sum(numbers.behind.values()),
        "behind since": moment(numbers.since),
        "behind why": _counted(numbers.behind),
        "extending since": moment(numbers.extending_since),
        "cannot see": sum(numbers.unseen.values()),
        "cannot see why": _counted(numbers.unseen),
    }


def _counted(by_reason: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {why}" for why, number in sorted(by_reason.items(), key=lambda x: (-x[1], x[0])))


def _row(lag: BehindGuest) -> tuple[Any, ...]:
    return (lag.key.server_id, lag.key.volume_id, moment(lag.since), lag.why, lag.host, lag.size, lag.wanted)
