# SPDX-License-Identifier: Apache-2.0
"""The trace of one extend across all parts: every line, with the time since the previous line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bridge.audit import logfiles
from bridge.audit.entry import Entry, read_entry
from bridge.audit.grouping import by_volume
from bridge.audit.logfiles import Reading
from bridge.audit.story import Story, came_by_http, is_replayed, stories
from bridge.core.audit import AuditEvent
from bridge.core.reasons import Reason


@dataclass(frozen=True, slots=True)
class Traced:
    """The result of a trace: stories, lines without a story (skipped rows, messages), and the parts in the logs."""

    stories: list[Story]
    beside: list[Entry]
    parts: frozenset[str]
    reading: Reading


def trace(paths: Sequence[Path], needle: str) -> Traced:
    """Return all stories that name a volume, server, request, message or extend id, oldest first."""
    wanted = needle.lower() if len(needle) == len("00000000-0000-0000-0000-000000000000") else needle
    plain = wanted.encode()
    volumes: set[str] = set()
    beside: list[Entry] = []
    parts: set[str] = set()
    for line in logfiles.lines(paths, Reading(), label="searching"):
        if plain in line and (entry := read_entry(line)) is not None and entry.names(wanted):
            if entry.volume is not None:
                volumes.add(entry.volume)
            else:
                beside.append(entry)
    reading = Reading()
    found: list[Story] = []

    def of_interest(entry: Entry) -> bool:
        parts.add(entry.part)
        return entry.volume in volumes

    lines = logfiles.lines(paths, reading, label="reading")
    size = sum(path.stat().st_size for path in paths)
    for entries in by_volume(lines, reading, size=size, wanted=of_interest):
        told, loose = stories(entries)
        found += [story for story in told if any(entry.names(wanted) for entry in story.entries)]
        beside += [entry for entry in loose if entry.names(wanted)]
    return Traced(
        sorted(found, key=lambda story: story.began),
        sorted(beside, key=lambda entry: entry.at),
        frozenset(parts),
        reading,
    )


def unknown(traced: Traced) -> Iterator[str]:
    """Yield a sentence for each fact about these stories that the logs do not show."""
    for story in traced.stories:
        about = f"volume {story.volume} on server {story.server}"
        if (
            story.first(AuditEvent.RECEIVED, AuditEvent.POSTED) is None
            and any(came_by_http(entry) for entry in story.entries)
            and not story.replayed
        ):
            if "listener" in traced.parts:
                yield f"{about}: no listener sent this event; another client did, or the listener's log is missing"
            else:
                yield f"{about}: the logs have no lines of a listener: when Cinder sent it is not known"
        opened = story.first(AuditEvent.ACCEPTED, AuditEvent.BEHIND) is not None  # by API, operator, engine
        if not opened and story.extend_id is not None:
            yield f"{about}: no line says that an API accepted it: the API's log is missing or cut"
        if (
            story.extend_id is None
            and story.first(AuditEvent.ACCEPTED) is not None
            and "engine" not in traced.parts
        ):
            yield f"{about}: the logs have no lines of an engine: whether the size reached the guest is not known"
        if story.standing == "delivered" and "api" not in traced.parts:
            yield f"{about}: the logs have no lines of an API: whether the endpoint accepted the event is not known"


def words(entry: Entry) -> str:
    """Return the text of an audit line for a timeline."""
    data = dict(entry.data)
    said = [entry.event]
    if is_replayed(entry.global_request_id) and entry.event != AuditEvent.REPLAYED:
        said.append("(replayed)")
    if entry.event == AuditEvent.STEP:
        said.append(str(data.pop("step", "")))
    if entry.outcome:
        said.append(entry.outcome)
    if entry.host and entry.event in {
        AuditEvent.DISPATCHED,
        AuditEvent.REPORTED,
        AuditEvent.CLOSED,
        AuditEvent.FAILED,
        AuditEvent.LATE,
    }:
        said.append(f"host {entry.host}")
    if entry.attempt is not None and entry.event != AuditEvent.STEP:
        said.append(f"attempt {entry.attempt}")
    if entry.seconds is not None:
        said.append(f"{entry.seconds:.3f} s")
    said += [f"{key}={value}" for key, value in data.items() if value not in (None, "")]
    if entry.reason:
        said.append(f"({meaning(entry.reason)})")
    return " ".join(said)


def meaning(code: str) -> str:
    """Return a reason code with its explanation; the code alone when this release does not know the code."""
    known = next((reason for reason in Reason if reason.value == code), None)
    return f"{code}: {known.text}" if known is not None else code


def clock(at: float) -> str:
    """Format epoch seconds as UTC, with microseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
