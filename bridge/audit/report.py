# SPDX-License-Identifier: Apache-2.0
"""The report on audit logs: totals, outcomes, the slowest extends, and the extends that need an operator.

Memory does not grow with the logs. Lists of stuck, parked and behind extends are cut at LISTED entries.
"""

import heapq
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.audit import logfiles
from bridge.audit.entry import Entry
from bridge.audit.grouping import by_volume
from bridge.audit.histogram import Durations
from bridge.audit.logfiles import Reading
from bridge.audit.story import Story, StoryState, newest, stories
from bridge.core.audit import AuditEvent
from bridge.core.file_systems import FsState
from bridge.core.reasons import Reason

LISTED: Final = 1000
_SLOWEST: Final = 20
_GZIP_FACTOR: Final = 15
_LEAVES_ROOM: Final = frozenset({FsState.BEHIND, FsState.REFUSED, FsState.FAILED})
PARTS: Final = ("listener", "api", "engine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A story in the form of a report. Times are epoch seconds; `bars` are (stage, start, end) for a waterfall."""

    volume: str
    server: str | None
    began: float
    ended: float | None
    result: str
    reason: str | None
    host: str | None
    attempts: int
    request: str | None
    bars: tuple[tuple[str, float, float], ...]

    @property
    def seconds(self) -> float | None:
        """The seconds from the first line to the end; None for an open extend."""
        return self.ended - self.began if self.ended is not None else None


@dataclass(slots=True)
class LogReport:
    """A report that is filled story by story.

    `file_systems` counts volumes by the newest state of their file system; `unused` lists those that leave room.

    `moments` counts extends by minute and result: by the minute of the end, or of the beginning for open extends.
    """

    since: float | None = None
    until: float | None = None
    older_than: float = 600.0
    reading: Reading = field(default_factory=Reading)
    extends: int = 0
    opened: int = 0
    volumes: int = 0
    replayed: int = 0
    oldest: float | None = None
    newest: float | None = None
    parts: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    hops: dict[str, Durations] = field(default_factory=dict)
    moments: dict[int, Counter[str]] = field(default_factory=dict)
    stuck: list[Brief] = field(default_factory=list)
    parked: list[Brief] = field(default_factory=list)
    behind: list[Brief] = field(default_factory=list)
    at_restart: list[Brief] = field(default_factory=list)
    at_restarts: int = 0
    file_systems: Counter[str] = field(default_factory=Counter)
    unused: list[Entry] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    _slowest: list[tuple[float, int, Brief]] = field(default_factory=list)
    _begun: "dict[StoryState, array[float]]" = field(default_factory=dict)
    _open: dict[StoryState, list[tuple[float, int, Brief]]] = field(default_factory=dict)

    @property
    def slowest(self) -> list[Brief]:
        """The slowest ended extends, slowest first."""
        return [brief for _, _, brief in sorted(self._slowest, reverse=True, key=lambda x: x[:2])]

    @property
    def missing(self) -> list[str]:
        """A sentence for each part without a line in the logs: the facts that are therefore unknown."""
        told = {
            "listener": "the logs have no lines of a listener: when Cinder sent its notifications, and which never "
            "reached an API, is not known",
            "api": "the logs have no lines of an API: whether delivered events were accepted is not known",
            "engine": "the logs have no lines of an engine: whether accepted extends reached their guests is not "
            "known",
        }
        return [told[part] for part in PARTS if part not in self.parts] if self.events else []

    def take(self, entries: Sequence[Entry]) -> None:
        """Count all lines of one volume; `entries` are sorted oldest first."""
        told, loose = stories(entries)
        for entry in entries:
            self._count(entry)
        for entry in loose:
            self._loose(entry, loose)
        self._take_file_systems(loose)
        last = newest(told)
        wanted = [story for story in told if self._within(story)]
        self.volumes += bool(wanted)
        for story in wanted:
            self._story(story, is_last=last[story.volume, story.server] is story)

    def _take_file_systems(self, entries: Sequence[Entry]) -> None:
        """Count the newest state of the file system of each guest that has the volume."""
        ends = {e.server: e for e in entries if e.event == AuditEvent.FILESYSTEM and "step" not in e.data}
        for entry in ends.values():
            self.file_systems[entry.outcome or FsState.UNKNOWN.value] += 1
            if entry.outcome in _LEAVES_ROOM and len(self.unused) < LISTED:
                self.unused.append(entry)

    def alone(self, entry: Entry) -> None:
        """Count a line that does not name a volume."""
        self._count(entry)
        self._loose(entry, ())

    def finish(self, now: float | None) -> None:
        """List the stuck extends. `now` is the clock; None takes the newest line, for logs of another day."""
        end = now if now is not None else (self.newest or 0.0)
        for standing, begun in self._begun.items():
            if standing is StoryState.ACCEPTED and "engine" not in self.parts:
                continue  # unknown without an engine's log; `missing` says so
            number = sum(end - began >= self.older_than for began in begun)
            self.wrong["stuck"] += number
            oldest = sorted(self._open[standing], key=lambda x: (-x[0], x[1]))[: min(number, LISTED)]
            self.stuck += [brief for _, _, brief in oldest]

    def _within(self, story: Story) -> bool:
        return (self.since is None or story.began >= self.since) and (
            self.until is None or story.began < self.until
        )

    def _count(self, entry: Entry) -> None:
        self.parts.add(entry.part)
        self.events[entry.event] += 1
        self.oldest = entry.at if self.oldest is None else min(self.oldest, entry.at)
        self.newest = entry.at if self.newest is None else max(self.newest, entry.at)
        if entry.reason and entry.event not in {AuditEvent.CLOSED, AuditEvent.POSTED}:
            self.reasons[f"{entry.event}: {entry.reason}"] += 1

    def _loose(self, entry: Entry, others: Sequence[Entry]) -> None:
        """List a message that was parked as a whole and does not name a guest."""
        if entry.event != AuditEvent.PARKED:
            return
        if any(o.event in {AuditEvent.DISCARDED, AuditEvent.REPLAYED} and o.at > entry.at for o in others):
            return
        if (self.since is None or entry.at >= self.since) and (self.until is None or entry.at < self.until):
            story = Story(volume=entry.volume or "", server=None, standing=StoryState.PARKED, last=entry)
            story.entries.append(entry)
            self._list("parked", self.parked, brief_of(story))

    def _story(self, story: Story, *, is_last: bool) -> None:
        brief = brief_of(story)
        self.extends += 1
        self.replayed += story.replayed
        self.opened += story.extend_id is not None or story.first(AuditEvent.ACCEPTED) is not None
        self.results[story.result] += 1
        moment = int((brief.ended or brief.began) // 60)
        self.moments.setdefault(moment, Counter())[story.result] += 1
        for name, seconds in story.hops():
            self.hops.setdefault(name, Durations()).add(seconds)
        if brief.seconds is not None:
            entry = (brief.seconds, self.extends, brief)
            if len(self._slowest) < _SLOWEST:
                heapq.heappush(self._slowest, entry)
            else:
                heapq.heappushpop(self._slowest, entry)
        if story.open:
            self._begun.setdefault(story.standing, array("d")).append(brief.began)
            oldest = self._open.setdefault(story.standing, [])
            heapq.heappush(oldest, (-brief.began, self.extends, brief))
            if len(oldest) > LISTED:
                heapq.heappop(oldest)  # the youngest
        elif is_last and story.standing is StoryState.PARKED:
            self._list("parked", self.parked, brief)
        elif is_last and story.standing in {StoryState.FAILED, StoryState.REFUSED}:
            self._list("behind", self.behind, brief)
        elif is_last and story.last is not None and story.last.reason == Reason.SEEN_AT_RESTART:
            self.at_restarts += 1
            if len(self.at_restart) < LISTED:
                self.at_restart.append(brief)

    def _list(self, kind: str, where: list[Brief], brief: Brief) -> None:
        self.wrong[kind] += 1
        if len(where) < LISTED:
            where.append(brief)


def brief_of(story: Story) -> Brief:
    """Return the summary of a story for a report."""
    return Brief(
        volume=story.volume,
        server=story.server,
        began=story.began,
        ended=story.ended,
        result=story.result,
        reason=story.reason,
        host=story.host,
        attempts=story.attempts,
        request=story.request,
        bars=tuple(_bars(story)),
    )


def _bars(story: Story) -> list[tuple[str, float, float]]:
    """Return a bar from each line of the story to the next line.

    Host steps are drawn by their own durations and end at the host's report.
    """
    bars: list[tuple[str, float, float]] = []
    before: tuple[str, float] | None = None
    steps: list[Entry] = []
    for entry in story.entries:
        if entry.event == AuditEvent.STEP:
            steps.append(entry)
            continue
        at = entry.at
        for step in reversed(steps):
            start = at - (step.seconds or 0.0)
            bars.append((f"step {step.data.get('step', '?')}", start, at))
            at = start
        steps.clear()
        if before is not None:
            bars.append((before[0], before[1], entry.at))
        before = (entry.event, entry.at)
    return sorted(bars, key=lambda bar: bar[1])[:40]


def make(
    paths: Sequence[Path],
    *,
    since: float | None = None,
    until: float | None = None,
    older_than: float = 600.0,
    now: float | None = None,
) -> LogReport:
    """Read the logs and return the report.

    `older_than`: seconds after which an open extend is stuck. `now`: see LogReport.finish.
    """
    report = LogReport(since=since, until=until, older_than=older_than)
    size = sum(p.stat().st_size * (_GZIP_FACTOR if p.suffix == ".gz" else 1) for p in paths)
    lines = logfiles.lines(paths, report.reading, label="reading")
    for entries in by_volume(lines, report.reading, size=size, alone=report.alone):
        report.take(entries)
    report.finish(now)
    return report
