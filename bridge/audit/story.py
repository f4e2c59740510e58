# SPDX-License-Identifier: Apache-2.0
"""Stories from the lines of one volume: one story for each extend of one disk of one guest.

A story begins when a listener reads an extend or an API accepts an extend. The story ends when the engine closes
the extend. Only the engine's lines name the extend. Earlier lines belong to the disk's open story, because the
journal assigns events in the same way.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bridge.audit.entry import Entry, stamp
from bridge.core.audit import AuditEvent
from bridge.core.extend import REPLAY_MARK
from bridge.core.outcome import THEN, Then


class StoryState(StrEnum):
    """The progress of an extend, from the last line that changes the progress."""

    RECEIVED = "received"  # the listener read the extend and has no answer yet
    WAITING = "waiting"  # the listener holds the extend or put it into the slow lane
    DELIVERED = "delivered"  # the endpoint accepted the extend; no line of our own API
    REFUSED = "refused"  # our own API refused the extend, and no listener retries
    PARKED = "parked"  # the message waits for an operator in the parked lane
    ACCEPTED = "accepted"  # committed to the journal; no line of an engine
    WORKING = "working"  # the engine works on the extend
    CLOSED = "closed"  # ended; `outcome` gives the result
    FAILED = "failed"  # ended, and the guest does not have the size
    DISCARDED = "discarded"  # an operator discarded the extend


OPEN: Final = frozenset({StoryState.RECEIVED, StoryState.WAITING, StoryState.ACCEPTED, StoryState.WORKING})
_WORK: Final = frozenset(
    {
        AuditEvent.WAITING,
        AuditEvent.DISPATCHED,
        AuditEvent.OVERDUE,
        AuditEvent.STEP,
        AuditEvent.REPORTED,
        AuditEvent.REOPENED,
    }
)
_SOURCE: Final = frozenset({AuditEvent.POSTED, AuditEvent.HELD, AuditEvent.DEFERRED, AuditEvent.PARKED})
_PLAIN: Final[Mapping[str, StoryState]] = {
    **dict.fromkeys(_WORK, StoryState.WORKING),
    AuditEvent.POSTED: StoryState.DELIVERED,
    AuditEvent.REFUSED: StoryState.REFUSED,
    AuditEvent.DISCARDED: StoryState.DISCARDED,
    AuditEvent.REPLAYED: StoryState.RECEIVED,
    AuditEvent.HELD: StoryState.WAITING,
    AuditEvent.DEFERRED: StoryState.WAITING,
    AuditEvent.PARKED: StoryState.PARKED,
    AuditEvent.ACCEPTED: StoryState.ACCEPTED,
    AuditEvent.CLOSED: StoryState.CLOSED,
    AuditEvent.FAILED: StoryState.FAILED,
}


@dataclass(slots=True)
class Story:
    """One extend. `last` is the line that gave `standing` its value."""

    volume: str
    server: str | None
    entries: list[Entry] = field(default_factory=list)
    extend_id: str | None = None
    standing: StoryState = StoryState.RECEIVED
    last: Entry | None = None

    @property
    def began(self) -> float:
        """The time of the first line, in epoch seconds."""
        return self.entries[0].at

    @property
    def open(self) -> bool:
        """True while further lines are expected."""
        return self.standing in OPEN

    @property
    def ended(self) -> float | None:
        """The time of the closing line; None for an extend that is not closed."""
        over = self.standing in {StoryState.CLOSED, StoryState.FAILED} and self.last is not None
        return self.last.at if over and self.last is not None else None

    @property
    def result(self) -> str:
        """The outcome of an ended extend, else the state."""
        over = self.standing in {StoryState.CLOSED, StoryState.FAILED} and self.last is not None
        return (self.last.outcome if over and self.last is not None else None) or self.standing.value

    @property
    def reason(self) -> str | None:
        """The newest reason in the lines."""
        return next((e.reason for e in reversed(self.entries) if e.reason and e.event != AuditEvent.SKIPPED), None)

    @property
    def host(self) -> str | None:
        """The last host that worked on the extend."""
        return next((e.host for e in reversed(self.entries) if e.host), None)

    @property
    def attempts(self) -> int:
        """The number of orders that were cast."""
        return sum(e.event == AuditEvent.DISPATCHED for e in self.entries)

    @property
    def request(self) -> str | None:
        """The request id of the user's own resize."""
        return next((e.global_request_id or e.request_id for e in self.entries if e.global_request_id), None)

    @property
    def replayed(self) -> bool:
        """True when an operator replayed the extend."""
        return any(e.event == AuditEvent.REPLAYED or is_replayed(e.global_request_id) for e in self.entries)

    def first(self, *events: AuditEvent) -> Entry | None:
        """Return the first line with one of these events."""
        return next((e for e in self.entries if e.event in events), None)

    def sent(self) -> float | None:
        """Return the time at which Cinder sent the notification, by Cinder's clock."""
        received = self.first(AuditEvent.RECEIVED)
        return stamp(received.data.get("sent")) if received is not None else None

    def hops(self) -> Iterator[tuple[str, float]]:
        """Yield the name and the seconds of each hop whose two ends are in the logs."""
        sent, received = self.sent(), self.first(AuditEvent.RECEIVED)
        accepted, dispatched = self.first(AuditEvent.ACCEPTED), self.first(AuditEvent.DISPATCHED)
        posted = next((e for e in self.entries if e.event == AuditEvent.POSTED and e.outcome == "delivered"), None)
        end = self.last if self.standing is StoryState.CLOSED else None
        marks = {
            "cinder to listener": (sent, received.at if received else None),
            "listener to endpoint": (received.at if received else None, posted.at if posted else None),
            "accepted to dispatched": (accepted.at if accepted else None, dispatched.at if dispatched else None),
            "dispatched to closed": (dispatched.at if dispatched else None, end.at if end else None),
            "accepted to closed": (accepted.at if accepted else None, end.at if end else None),
            "cinder to guest": (sent, end.at if end else None),
        }
        for name, (start, stop) in marks.items():
            if start is not None and stop is not None:
                yield name, max(0.0, stop - start)
        for entry in self.entries:
            if entry.event == AuditEvent.STEP and entry.seconds is not None:
                yield f"step {entry.data.get('step', '?')}", entry.seconds

    def take(self, entry: Entry) -> None:
        """Add the next line, in the order of time."""
        self.entries.append(entry)
        self.extend_id = self.extend_id or entry.extend_id
        standing = _standing(self.standing, entry)
        if standing is not None:
            self.standing, self.last = standing, entry


def came_by_http(entry: Entry) -> bool:
    """Return whether a line says that the API accepted an event, not an operator or the engine by itself."""
    return entry.event == AuditEvent.ACCEPTED and not entry.data.keys() & {"retried", "source"}


def is_replayed(request_id: str | None) -> bool:
    """Return whether a request id carries the mark of `extend-bridge replay`."""
    return request_id is not None and request_id.startswith(REPLAY_MARK)


def _standing(now: StoryState, entry: Entry) -> StoryState | None:
    """Return the new state after a line; None when the line does not change the state."""
    event = entry.event
    match event:
        case _ if now in _OVER and event != AuditEvent.REOPENED:
            return None  # another engine, or a host, still worked on the extend
        case AuditEvent.LATE:
            return _told_late(entry)
        case AuditEvent.POSTED if entry.outcome != "delivered":
            return None
        case _ if _about_a_message(entry) and now not in _UNDELIVERED:
            return None  # the journal has the extend
        case AuditEvent.REFUSED if now is not StoryState.REFUSED:
            return None  # the listener that posted the extend retries
    return _PLAIN.get(event)


def _about_a_message(entry: Entry) -> bool:
    """Return whether a line tells of a message at the listener or in a lane, not of an extend in the journal."""
    return entry.event in _OF_MESSAGES or (entry.event == AuditEvent.DISCARDED and entry.extend_id is None)


def _told_late(entry: Entry) -> StoryState | None:
    """Return the final state from a late report without an age; None for other reports.

    A late report has no age when an engine was killed between closing the extend and writing the audit line.
    The report was then delivered again.
    """
    if entry.seconds is not None or entry.outcome not in _ENDS:
        return None
    return StoryState.FAILED if _ENDS[entry.outcome] is Then.FAIL else StoryState.CLOSED


_ENDS: Final = {o.value: then for o, then in THEN.items() if then in {Then.CLOSE, Then.FAIL, Then.DROP}}
_OF_MESSAGES: Final = _SOURCE | {AuditEvent.REPLAYED}
_OVER: Final = frozenset({StoryState.CLOSED, StoryState.FAILED, StoryState.DISCARDED})
_SET_ASIDE: Final = frozenset({StoryState.PARKED, StoryState.DISCARDED})
_UNDELIVERED: Final = frozenset({StoryState.RECEIVED, StoryState.WAITING, StoryState.PARKED, StoryState.REFUSED})


def stories(entries: Sequence[Entry]) -> tuple[list[Story], list[Entry]]:
    """Return the stories of one volume's lines (sorted by time), and the lines that do not name a guest."""
    pairs: dict[str, _Disk] = {}
    loose: list[Entry] = []
    for entry in entries:
        if entry.server is None or entry.event == AuditEvent.FILESYSTEM:  # no step of an extend
            loose.append(entry)
        else:
            disk = pairs.get(entry.server)
            if disk is None:
                disk = pairs[entry.server] = _Disk(entry.server)
            disk.take(entry)
    return [story for disk in pairs.values() for story in disk.stories], loose


class _Disk:
    """The stories of one disk of one guest while lines are added."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.stories: list[Story] = []
        self._by_extend: dict[str, Story] = {}
        self._by_message: dict[str, Story] = {}
        self._by_request: dict[str, Story] = {}

    def take(self, entry: Entry) -> None:
        story = self._owner(entry)
        story.take(entry)
        if entry.extend_id is not None:
            self._by_extend[entry.extend_id] = story
        if entry.message_id is not None:
            self._by_message[entry.message_id] = story
        if came_by_http(entry) and entry.global_request_id is not None:
            self._by_request[entry.global_request_id] = story

    def _owner(self, entry: Entry) -> Story:
        newest = self.stories[-1] if self.stories else None
        if entry.extend_id is not None:
            known = self._by_extend.get(entry.extend_id)
            if known is not None:
                return known
            if newest is not None and newest.extend_id is None and newest.standing not in _SET_ASIDE:
                return newest
            return self._new(entry)
        sent = self._owner_of_a_post(entry)
        if sent is not None:
            return sent
        if newest is None or newest.ended is not None or newest.standing is StoryState.DISCARDED:
            return self._new(entry)
        return newest

    def _owner_of_a_post(self, entry: Entry) -> Story | None:
        """Return the story of a listener's line, because a later post of a message opens an extend of its own."""
        if entry.event == AuditEvent.POSTED and entry.outcome == "delivered":
            accepted = self._by_request.get(str(entry.data.get("posted_as") or entry.global_request_id))
            if accepted is not None:
                return accepted
        if entry.event in _SOURCE and entry.message_id is not None:
            return self._by_message.get(entry.message_id)  # an answer may be written after the closing line
        return None

    def _new(self, entry: Entry) -> Story:
        standing = StoryState.REFUSED if entry.event == AuditEvent.REFUSED else StoryState.RECEIVED
        story = Story(volume=entry.volume or "", server=self.server, standing=standing, last=entry)
        self.stories.append(story)
        return story


def newest(told: Iterable[Story]) -> dict[tuple[str, str | None], Story]:
    """Return the last story of each disk, which decides whether the guest has the volume's size."""
    last: dict[tuple[str, str | None], Story] = {}
    for story in told:
        key = (story.volume, story.server)
        if key not in last or story.began >= last[key].began:
            last[key] = story
    return last
