# SPDX-License-Identifier: Apache-2.0
"""`extend-bridge audit trace|report|check`."""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cliff.command import Command

from bridge.audit import logfiles, page, report, trace
from bridge.audit.entry import stamp
from bridge.audit.report import Brief, LogReport
from bridge.core.errors import OperatorError
from bridge.runtime.listing import Listing

_ABOUT_LOG: Final = f"audit log, pattern or directory; may be given several times (default: {logfiles.DEFAULT})"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", action="append", default=[], metavar="PATH", help=_ABOUT_LOG)


def _span(parser: argparse.ArgumentParser) -> None:
    form = "UTC, as 2026-01-31T12:00, or how long ago, as 90s, 15m, 2h, 7d"
    parser.add_argument("--since", metavar="WHEN", help=f"extends that began then or later: {form}")
    parser.add_argument("--until", metavar="WHEN", help="extends that began before then")
    parser.add_argument(
        "--older-than",
        default="10m",
        metavar="TIME",
        help="an extend that is open for longer counts as stuck (default: 10m)",
    )


class Trace(Listing):
    """Tell what happened to a volume, a server or a request, across all parts, as a timeline."""

    _epilog = "Example: extend-bridge audit trace VOLUME"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "what", metavar="VOLUME|SERVER|REQUEST-ID", help="also an extend's, a message's or a host's"
        )
        _logs(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """See cliff."""
        found = trace.trace(logfiles.find(parsed_args.log), parsed_args.what)
        if not found.stories and not found.beside:
            raise OperatorError(f"no line of these logs is about {parsed_args.what}", code=1)
        for line in trace.unknown(found):
            self.app.stderr.write(f"not known: {line}\n")
        entries = [(n, entry) for n, story in enumerate(found.stories, 1) for entry in story.entries]
        rows: list[tuple[Any, ...]] = []
        before: tuple[int, float] | None = None
        for number, entry in [*((0, e) for e in found.beside), *entries]:
            since = entry.at - before[1] if before is not None and before[0] == number else 0.0
            before = (number, entry.at)
            rows.append(
                (number or None, trace.clock(entry.at), f"+{since:.3f}", entry.part, trace.words(entry),
                 entry.volume, entry.server, entry.global_request_id or entry.request_id)
            )  # fmt: skip
        return ("Extend", "Time (UTC)", "Seconds", "Part", "What", "Volume", "Server", "Request"), rows


class ReportCommand(Listing):
    """Say what the logs come to: totals, outcomes, percentiles of each hop, the slowest, and what is wrong."""

    _epilog = "Example: extend-bridge audit report --since 1d --html report.html"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _logs(parser)
        _span(parser)
        parser.add_argument(
            "--html", type=Path, metavar="FILE", help="write one self-contained page with plots, too"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """See cliff."""
        made = _make(parsed_args, now=None)
        _complain(made, self.app.stderr)
        if parsed_args.html is not None:
            try:
                parsed_args.html.write_text(page.render(made), encoding="utf-8")
            except OSError as ex:
                raise OperatorError(f"{parsed_args.html} cannot be written: {ex.strerror}") from ex
        return ("Section", "Item", "Count", "p50 s", "p95 s", "p99 s", "Max s"), list(_rows(made))


class AuditCheck(Command):
    """Exit with 1 if an extend is stuck, parked or behind, and say which; for cron and monitoring."""

    _epilog = "Example: extend-bridge audit check --since 1d"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """See cliff."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _logs(parser)
        _span(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """See cliff."""
        made = _make(parsed_args, now=time.time())
        _complain(made, self.app.stderr)
        lists = {"stuck": made.stuck, "parked": made.parked, "behind": made.behind}
        for kind, briefs in lists.items():
            for brief in briefs:
                self.app.stdout.write(f"{kind}: {_who(brief)}: {brief.result}, {brief.reason or 'no reason'}\n")
        counts = ", ".join(f"{made.wrong[kind]} {kind}" for kind in lists)
        self.app.stdout.write(f"{made.extends} extends: {counts}\n")
        return 1 if made.wrong.total() else 0


def _make(parsed: argparse.Namespace, *, now: float | None) -> LogReport:
    made = report.make(
        logfiles.find(parsed.log),
        since=moment(parsed.since, "--since"),
        until=moment(parsed.until, "--until"),
        older_than=duration(parsed.older_than, "--older-than"),
        now=now,
    )
    if made.reading.foreign and not made.reading.lines:  # nothing is wrong, it would say for ever
        raise OperatorError("none of these files is an audit log: name those of [audit] file with --log")
    return made


def _rows(made: LogReport) -> Iterator[tuple[Any, ...]]:
    none = ("", "", "", "")
    yield ("total", "extends", made.extends, *none)
    yield ("total", "in the journal", made.opened, *none)
    yield ("total", "volumes", made.volumes, *none)
    yield ("total", "replayed", made.replayed, *none)
    for kind in ("stuck", "parked", "behind"):
        yield ("total", kind, made.wrong[kind], *none)
    for name, count in made.results.most_common():
        yield ("outcome", name, count, *none)
    for name, hop in made.hops.items():
        figures = [round(hop.percentile(p), 4) for p in (50, 95, 99)]
        yield ("hop", name, hop.count, *figures, round(hop.longest, 4))
    for name, count in made.reasons.most_common(30):
        yield ("reason", name, count, *none)
    for brief in made.slowest[:10]:
        yield ("slowest", f"{_who(brief)} {brief.result}", brief.attempts, "", "", "", round(brief.seconds or 0, 3))
    for kind, briefs in (("stuck", made.stuck), ("parked", made.parked), ("behind", made.behind)):
        for brief in briefs:
            yield (kind, f"{_who(brief)} {brief.result} {brief.reason or ''}".rstrip(), brief.attempts, *none)


def _who(brief: Brief) -> str:
    return f"volume {brief.volume or '-'} server {brief.server or '-'}"


def _complain(made: LogReport, stderr: Any) -> None:
    read = made.reading
    for number, what in (
        (read.torn, "files end in the middle of a line"),
        (read.damaged, "gzip files are cut short; what came before was read"),
        (read.unreadable, "lines cannot be read"),
    ):
        if number:
            stderr.write(f"note: {number} {what}\n")
    for line in made.missing:
        stderr.write(f"not known: {line}\n")


def moment(text: str | None, option: str) -> float | None:
    """Epoch seconds of a point in time or a duration ago; raises OperatorError."""
    if text is None:
        return None
    at = stamp(text)
    if at is not None:
        return at
    ago = timedelta(seconds=duration(text, option))
    return (datetime.now(UTC) - ago).timestamp()


def duration(text: str, option: str) -> float:
    """Seconds of 90s, 15m, 2h, 7d; raises OperatorError."""
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise OperatorError(
            f"{option}: {text!r} is neither a time in UTC (2026-01-31T12:00) nor as 15m, 2h, 7d"
        ) from None
