# SPDX-License-Identifier: Apache-2.0
"""Commands of `extend-bridge audit`: trace, report, check, schema, verify."""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cliff.command import Command

from bridge.audit import logfiles, page, report, trace
from bridge.audit.entry import stamp
from bridge.audit.evidence import LogFinding, Verified
from bridge.audit.report import Brief, LogReport
from bridge.audit.schema import audit_schema
from bridge.audit.verify import in_order, verify
from bridge.core.audit import ChainHead, read_head
from bridge.core.errors import JournalUnavailableError, OperatorError
from bridge.journal.audit_heads import AuditHeads
from bridge.journal.database import Database, missing_file
from bridge.journal.settings import JOURNAL_OPTS, journal_settings
from bridge.runtime import commands, config
from bridge.runtime.audit_heads import read_key
from bridge.runtime.listing import Listing

_ABOUT_LOG: Final = (
    "audit log, pattern or directory; may be given several times (default: [audit] file of the configuration and "
    f"its rotated files, else {logfiles.DEFAULT})"
)
_READINGS: Final = 3  # attempts to read a log that is rotated during reading
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", action="append", default=[], metavar="PATH", help=_ABOUT_LOG)
    commands.add_config_option(parser)


def _proof(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        help="the key file of the audit log (default: [audit] key_file of the configuration)",
    )
    parser.add_argument(
        "--heads",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a daemon's own log (`journalctl -u extend-bridge-listener > FILE`), which contains stored hashes of "
        "the audit log",
    )


class _Where:
    """The files, heads and key of the command line and the configuration."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        self._parsed = parsed
        self._conf = commands.load(parsed, [("journal", JOURNAL_OPTS)])
        file = self._conf.audit.file
        self._names: list[str] = list(parsed.log) or ([f"{file}*"] if file else [])

    def logs(self) -> list[Path]:
        """Return the log files; raises OperatorError."""
        return logfiles.find(self._names)

    def verified(self) -> tuple[Verified, str | None]:
        """Verify the logs; return the result, and the reason when the journal's heads are missing.

        Heads are read before the logs, because daemons continue to write. Raises OperatorError and ConfigError.
        """
        key = read_key(self._parsed.key_file or self._conf.audit.key_file)
        complete = not self._names or not all(Path(name).is_file() for name in self._names)
        for _ in range(_READINGS):
            kept, why_not = self._journals()
            files = self.logs()
            heads = [*kept, *_told_heads(self._parsed.heads)]
            made = verify(in_order(files), heads=heads, key=key, complete=complete)
            if set(self.logs()) == set(files):
                break
        return made, why_not

    def _journals(self) -> tuple[list[ChainHead], str | None]:
        settings = config.read(self._conf, journal_settings)
        if (file := missing_file(settings.connection)) is not None:
            return [], f"the journal {file} does not exist"
        database = Database(settings)
        try:
            return AuditHeads(database).all(), None
        except JournalUnavailableError as ex:
            return [], str(ex)
        finally:
            database.dispose()


def _told_heads(files: Sequence[Path]) -> Iterator[ChainHead]:
    for path in files:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from (head for line in file if (head := read_head(line)) is not None)
        except OSError as ex:
            raise OperatorError(f"--heads: {path} cannot be read: {ex.strerror}") from ex


def _span(parser: argparse.ArgumentParser) -> None:
    form = "a time in UTC such as 2026-01-31T12:00, or an age such as 90s, 15m, 2h or 7d"
    parser.add_argument("--since", metavar="WHEN", help=f"only extends that began at this time or later: {form}")
    parser.add_argument("--until", metavar="WHEN", help="only extends that began before this time")
    parser.add_argument(
        "--older-than",
        default="10m",
        metavar="TIME",
        help="an extend that is open for longer counts as stuck (default: 10m)",
    )


class Trace(Listing):
    """Show the events of a volume, a server or a request in all parts as a timeline."""

    _epilog = "Example: extend-bridge audit trace VOLUME"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            "what",
            metavar="VOLUME|SERVER|REQUEST-ID",
            help="the id of a volume, server, request, extend, message or trace, or the name of a host",
        )
        _logs(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Run the command; return column names and rows."""
        found = trace.trace(_Where(parsed_args).logs(), parsed_args.what)
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
                 entry.volume, entry.server, entry.global_request_id or entry.request_id, entry.trace_id)
            )  # fmt: skip
        return ("Extend", "Time (UTC)", "Seconds", "Part", "What", "Volume", "Server", "Request", "Trace"), rows


class ReportCommand(Listing):
    """Report totals, outcomes, percentiles of each hop, and the slowest, stuck, parked and behind extends."""

    _epilog = "Example: extend-bridge audit report --since 1d --html report.html"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _logs(parser)
        _span(parser)
        parser.add_argument(
            "--html", type=Path, metavar="FILE", help="also write one self-contained HTML page with plots"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Run the command; return column names and rows."""
        made = _make(parsed_args, now=None)
        _complain(made, self.app.stderr)
        if parsed_args.html is not None:
            try:
                parsed_args.html.write_text(page.render(made), encoding="utf-8")
            except OSError as ex:
                raise OperatorError(f"{parsed_args.html} cannot be written: {ex.strerror}") from ex
        return ("Section", "Item", "Count", "p50 s", "p95 s", "p99 s", "Max s"), list(_rows(made))


class AuditCheck(Command):
    """List stuck, parked and behind extends, and changed lines of the log; exit with 1 if there are any."""

    _epilog = "Example: extend-bridge audit check --since 1d"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _logs(parser)
        _span(parser)
        _proof(parser)
        parser.add_argument("--no-verify", action="store_true", help="do not check whether the log was changed")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; return the exit code."""
        made = _make(parsed_args, now=time.time())
        _complain(made, self.app.stderr)
        lists = {"stuck": made.stuck, "parked": made.parked, "behind": made.behind}
        for kind, briefs in lists.items():
            for brief in briefs:
                self.app.stdout.write(f"{kind}: {_who(brief)}: {brief.result}, {brief.reason or 'no reason'}\n")
        counts = ", ".join(f"{made.wrong[kind]} {kind}" for kind in lists)
        self.app.stdout.write(f"{made.extends} extends: {counts}\n")
        changed = [] if parsed_args.no_verify else self._changed(parsed_args)
        return 1 if made.wrong.total() or changed else 0

    def _changed(self, parsed: argparse.Namespace) -> list[LogFinding]:
        found = _Where(parsed).verified()[0].findings
        for finding in found:
            where = f"{finding.file}:{finding.line}"
            self.app.stdout.write(f"{finding.kind}: {where}: {finding.text}\n")
        if found:
            self.app.stdout.write(f"the log was changed in {len(found)} places\n")
        return found


class AuditSchema(Command):
    """Print the JSON Schema of a line of the audit log."""

    _epilog = "Example: extend-bridge audit schema"

    def take_action(self, parsed_args: argparse.Namespace) -> None:  # noqa: ARG002 - of cliff
        """Print the schema to standard output."""
        self.app.stdout.write(f"{json.dumps(audit_schema(), indent=2)}\n")


class AuditVerify(Listing):
    """List each line of the log that was edited, removed, moved, cut off or inserted; exit with 1 if any was."""

    nothing = "no line was changed"
    _epilog = "Example: extend-bridge audit verify --key-file /etc/extend-bridge/audit.key"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the options of the command."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _logs(parser)
        _proof(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; return 1 when a line was changed."""
        self._changed = False
        code: int = super().run(parsed_args)
        return 1 if self._changed else code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Run the command; return the findings, followed by the notes on unproved lines."""
        made, why_not = _Where(parsed_args).verified()
        self._changed = bool(made.findings)
        counts = f"{made.lines} lines: {made.proved} proved by the chains of {made.writers} writers"
        self.app.stderr.write(f"{counts}, {made.plain} without a chain; {len(made.findings)} findings\n")
        if why_not is not None:
            self.app.stderr.write(f"not known: the hashes in the journal: {why_not}\n")
        rows = [(f.kind.value, f.file, f.line or None, f.text) for f in [*made.findings, *made.notes]]
        return ("Kind", "File", "Line", "What"), rows


def _make(parsed: argparse.Namespace, *, now: float | None) -> LogReport:
    made = report.make(
        _Where(parsed).logs(),
        since=moment(parsed.since, "--since"),
        until=moment(parsed.until, "--until"),
        older_than=duration(parsed.older_than, "--older-than"),
        now=now,
    )
    if made.reading.foreign and not made.reading.lines:  # a report on other files would never find a problem
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
    yield ("total", "at restart", made.at_restarts, *none)
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
    for brief in made.at_restart:
        yield ("at restart", f"{_who(brief)} {brief.result}", brief.attempts, *none)


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
    """Return the epoch seconds of a point in time, or of a duration before now; raises OperatorError."""
    if text is None:
        return None
    at = stamp(text)
    if at is not None:
        return at
    ago = timedelta(seconds=duration(text, option))
    return (datetime.now(UTC) - ago).timestamp()


def duration(text: str, option: str) -> float:
    """Return the seconds of a text such as 90s, 15m, 2h or 7d; raises OperatorError."""
    number, unit = text[:-1], text[-1:]
    try:
        return float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise OperatorError(
            f"{option}: {text!r} is neither a time in UTC (2026-01-31T12:00) nor a duration such as 15m, 2h, 7d"
        ) from None
