# SPDX-License-Identifier: Apache-2.0
"""The command `extend-bridge reconcile`: a comparison of Cinder's sizes with the guests' sizes.

With --once the command opens extends for guests that are behind.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tqdm import tqdm

from bridge.cli.journal import Reads, Rows
from bridge.core.errors import OperatorError
from bridge.core.extend import is_uuid, new_id
from bridge.engine.cinder import LARGEST_ANSWER, CinderReader, Gone, NotNow, Page
from bridge.engine.compare import Comparison
from bridge.engine.reconcile import open_found, survey_page
from bridge.engine.settings import engine_groups, engine_settings
from bridge.journal.accept import Journal
from bridge.journal.findings import FindingState
from bridge.runtime import commands, config
from bridge.runtime.config import EXIT_UNREACHABLE
from bridge.runtime.endpoints import open_client
from bridge.runtime.listing import Listing

_MINUTE: Final = 60.0


class Reconcile(Reads, Listing):
    """Compare Cinder's volume sizes with the sizes that guests see; list guests with other or unknown sizes.

    --once opens an extend for each guest that is behind, at most [engine] reconcile_opens per minute. The engines'
    own passes continue meanwhile. The exit code is 1 if a guest stays behind without an open extend.
    """

    _epilog = "Example: extend-bridge reconcile --dry-run"
    nothing = "nothing to do: every guest sees its volume's size"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser = super().get_parser(prog_name)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--dry-run", action="store_true", help="only list the volumes whose guests are behind")
        what.add_argument(
            "--once", action="store_true", help="open an extend for each volume whose guest is behind"
        )
        parser.add_argument("--volume", metavar="ID", help="this volume alone")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; return the exit code."""
        self.code = 0
        return super().run(parsed_args) or self.code

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        """Run the command; return column names and rows."""
        volume = parsed_args.volume
        if volume is not None and not is_uuid(volume):
            raise OperatorError(f"--volume: {volume!r} is not a UUID")
        conf = commands.load(parsed_args, engine_groups())
        settings = config.read(conf, engine_settings)
        cinder = CinderReader(
            open_client(conf, "cinder", user_agent="extend-bridge-reconcile", largest=LARGEST_ANSWER)
        )
        rows: list[tuple[Any, ...]] = []
        audit, request_id = commands.audit(conf), f"req-{new_id()}"
        portion = max(1, settings.reconcile_opens // 6)
        with (
            self.database(parsed_args) as database,
            commands.stoppable() as stop,
            tqdm(unit=" volumes", disable=None, leave=False, file=sys.stderr) as bar,
        ):
            journal = Journal(database, max_open=settings.journal.max_open)
            for page in _pages(cinder, volume, settings.reconcile_page, stop):
                found = survey_page(database, page, now=time.time(), host_timeout=settings.host_timeout)
                behind = [finding for finding in found if finding.sight is FindingState.BEHIND]
                opened = 0
                while parsed_args.once and opened < len(behind) and not stop.is_set():
                    some = behind[opened : opened + portion]
                    open_found(some, journal, audit, request_id=request_id, now=time.time())
                    opened += len(some)
                    if opened < len(behind):
                        stop.wait(_MINUTE * len(some) / settings.reconcile_opens)
                rows += _rows(found, behind[:opened])
                bar.update(len(page.volumes))
            if stop.is_set():
                raise OperatorError(
                    "interrupted; the extends opened so far stay open; run the same command to continue", code=1
                )
        left = any(
            row[2] == FindingState.FAILED.value or (row[2] == FindingState.BEHIND.value and not row[7])
            for row in rows
        )
        self.code = 1 if left else 0
        return ("Server", "Volume", "Sight", "Why", "Host", "Sees", "Wanted", "Opened"), rows


def _pages(cinder: CinderReader, volume_id: str | None, size: int, stop: threading.Event) -> Iterator[Page]:
    """Yield a page with the requested volume, or pages of all volumes in use; raises OperatorError."""
    if volume_id is not None:
        answer = cinder.volume(volume_id.lower())
        if isinstance(answer, NotNow):
            raise OperatorError(str(answer), code=EXIT_UNREACHABLE)
        if isinstance(answer, Gone):
            raise OperatorError(f"Cinder does not know volume {volume_id}", code=1)
        if answer.extending:
            raise OperatorError(f"Cinder is still extending volume {volume_id}", code=1)
        yield Page(volumes=(answer,), marker=None)
        return
    marker: str | None = None
    while not stop.is_set():
        page = cinder.in_use(marker=marker, limit=size)
        if isinstance(page, NotNow):
            raise OperatorError(str(page), code=EXIT_UNREACHABLE)
        if isinstance(page, Gone):
            raise OperatorError("a volume was deleted while the list was read; run it again", code=1)
        yield page
        if page.marker is None:
            return
        marker = page.marker


def _rows(found: Sequence[Comparison], opened: Sequence[Comparison]) -> list[tuple[Any, ...]]:
    return [
        (
            finding.key.server_id, finding.key.volume_id, finding.sight.value, finding.reason, finding.host,
            finding.size, finding.wanted, finding in opened,
        )
        for finding in found
        if finding.sight is not FindingState.FINE
    ]  # fmt: skip
