# SPDX-License-Identifier: Apache-2.0
"""The audit record and its line: one per transition of an extend, in every part, with the same key names.

The lines of a log are a hash chain: each line of a writer has a hash over itself and its predecessor.

A writer is one open log of one process. A line ends with

    ,"chain":{"writer":"<16 hex>","seq":7,"offset":2875,"lost":2,"opens":{...},"hash":"<32 hex>"}}

`seq` counts the writer's lines from 0. `hash` is SHA-256, or HMAC-SHA-256 with a key, cut to 128 bits as RFC 4868
does. It covers the hash of the writer's line before, and the line up to `,"hash"`. The first line takes the
writer's id for the hash before it. The other keys are optional:

`offset`
    The position in the file at which the writer's previous write began. The lines of one write lie side by side.
    So the position of each line is known as soon as the writer has written again.
`lost`
    The number of lines that could not be written since the line before (full disk, stalled journal).
`opens`
    The writer's first line in this file: host, process, file, and the last lines of other writers in the file.
    In a later file also `after`, the hash before, and `from`, the number of its first line in the old file.
"""

import functools
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import quote, unquote

from bridge.core.extend import ExtendKey, trace_id

SCHEMA: Final = 1


class AuditEvent(StrEnum):
    """Stable names of the transitions of an extend, in their usual order."""

    RECEIVED = "received"  # listener: a volume.resize.end was read
    SKIPPED = "skipped"  # listener: the message, or one of its rows, is not an extend; reason says why
    UNREADABLE = "unreadable"  # listener: the message was kept raw in the unreadable lane
    POSTED = "posted"  # listener, and engine beside Nova: the endpoint answered for this event
    HELD = "held"  # listener: the endpoint is unreachable; the event is held and tried again
    DEFERRED = "deferred"  # listener: the event went into the slow lane and is sent again after its step
    PARKED = "parked"  # listener: the event was put into the parked lane
    REPLAYED = "replayed"  # an operator sent the event again, from a recording or from the parked lane
    DISCARDED = "discarded"  # an operator removed the event, from the parked lane or from the journal
    ACCEPTED = "accepted"  # API: the event is committed to the journal; also `event retry`, and a guest that moved
    REFUSED = "refused"  # API: the event got another code than 200
    WAITING = "waiting"  # engine: the extend cannot go on now; reason says what it waits for
    BEHIND = "behind"  # engine: reconciliation found the guest behind its volume and opened an extend
    SURVEYED = "surveyed"  # engine: a reconcile sweep over all volumes ended; data has its counts
    DISPATCHED = "dispatched"  # engine: an order went to a host
    OVERDUE = "overdue"  # engine: open for longer than it should be; a mark, the extend stays open
    STEP = "step"  # engine, from the host's report: one step on the host
    REPORTED = "reported"  # engine: a host reported an attempt
    LATE = "late"  # engine: a report for an attempt that no longer matters
    REOPENED = "reopened"  # engine: a newer generation makes the extend due again
    CLOSED = "closed"  # engine: the extend ended; outcome says how
    FILESYSTEM = (
        "filesystem"  # engine: the file system on a volume changed, or was grown; outcome says how it stands
    )
    ALARM = "alarm"  # engine: a host speaks for another, exceeds a limit, or contradicts a host; reason says which
    FAILED = "failed"  # engine: the extend ended as failed; `event retry` opens it again


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One line of the audit log. Empty fields are left out of the line; `data` holds sizes and the like.

    The line has the trace id of `traceparent`.
    """

    event: AuditEvent
    at: float
    server: str | None = None
    volume: str | None = None
    host: str | None = None
    project: str | None = None
    extend_id: str | None = None
    message_id: str | None = None
    request_id: str | None = None
    global_request_id: str | None = None
    attempt: int | None = None
    attempt_id: str | None = None
    outcome: str | None = None
    reason: str | None = None
    seconds: float | None = None
    traceparent: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, key: ExtendKey | None, event: AuditEvent, at: float, **more: Any) -> Self:
        """Return the record of an event of a server and a volume; without `key`, of neither."""
        if key is not None:
            more |= {"server": key.server_id, "volume": key.volume_id}
        return cls(event=event, at=at, **more)

    def words(self) -> str:
        """Return the record as a line for a person: the event, the ids of its extend, outcome and reason."""
        said = [
            f"{name}={value}"
            for name in ("server", "volume", "host", "attempt", "outcome", "reason", "seconds", "global_request_id")
            if (value := getattr(self, name)) is not None
        ]
        return " ".join([self.event.value, *said, *(f"{key}={value}" for key, value in self.data.items())])

    def to_line(self, part: str) -> str:
        """Return the JSON line without its newline; JSON escapes the control characters of every value."""
        second, fraction = f"{self.at:.6f}".split(".")
        stamp = f"{_until_second(int(second))}.{fraction}Z"
        pairs = [f'{{"schema":{SCHEMA},"time":"{stamp}","part":{_quoted(part)},"event":{_quoted(self.event.value)}']
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value is not None:
                pairs.append(f'"{name}":{_json(value)}')
        if self.traceparent is not None:
            pairs.append(f'"trace_id":{_quoted(trace_id(self.traceparent))}')
        if self.data:
            pairs.append(f'"data":{_encode(dict(self.data))}')
        return f"{','.join(pairs)}}}"


@functools.lru_cache(maxsize=8)
def _until_second(at: int) -> str:
    """Return a time in UTC without its fraction. The lines of one second share it."""
    return datetime.fromtimestamp(at, UTC).isoformat()[:-6]


_encode: Final = json.JSONEncoder(separators=(",", ":"), default=str).encode
_quoted: Final = json.encoder.encode_basestring_ascii
_OPTIONAL: Final = (
    "server", "volume", "host", "project", "extend_id", "message_id", "request_id", "global_request_id",
    "attempt", "attempt_id", "outcome", "reason", "seconds",
)  # fmt: skip


def _json(value: str | float) -> str:
    """Return a value as JSON; texts without the encoder, whose set-up costs as much as a line."""
    if isinstance(value, str):
        return _quoted(value)
    return _encode(round(value, 6) if isinstance(value, float) else value)


HASH_LENGTH: Final = 32
_BLOCK: Final = 64  # bytes of SHA-256's block
_ID: Final = r"[0-9a-f]{16}"
_HASH: Final = r"[0-9a-f]{32}"
_TAIL: Final = re.compile(
    rb',"chain":\{"writer":"(' + _ID.encode() + rb')","seq":(\d{1,15})'
    rb'(?:,"offset":(\d{1,18}))?(?:,"lost":(\d{1,12}))?(?:,"opens":(\{.*\}))?'
    rb',"hash":"(' + _HASH.encode() + rb')"\}\}$'
)
_TAIL_START: Final = b',"chain":{"writer":"'
_BEFORE_HASH: Final = len(b',"hash":"') + HASH_LENGTH + len(b'"}}')
_SEEN: Final = re.compile(f"({_ID}):([0-9]{{1,15}}):({_HASH})")
_HEAD: Final = re.compile(
    rf"audit head writer=(?P<writer>{_ID}) seq=(?P<seq>\d{{1,15}}) hash=(?P<hash>{_HASH}) part=(?P<part>\S+) "
    r"host=(?P<host>\S+) file=(?P<file>\S+) offset=(?P<offset>\d{1,18}|-) "
    r"at=(?P<at>\d{1,12}\.\d{1,6}) final=(?P<final>[01])(?: path=(?P<path>\S+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """The newest line of a writer at some moment, kept out of reach of a person who edits the log.

    `file` identifies the file by device and inode, `path` is its name while it is written. The newest write began
    at `offset` of it, at the time `at`. `final`: the writer ended in order, so a later line does not exist.
    """

    writer: str
    seq: int
    hash: str
    part: str
    host: str
    file: str
    at: float
    offset: int | None = None
    final: bool = False
    path: str = ""

    def to_text(self) -> str:
        """Return the head as a line of a daemon's own log."""
        return (
            f"audit head writer={self.writer} seq={self.seq} hash={self.hash} part={self.part or '-'} "
            f"host={self.host or '-'} file={self.file or '-'} offset={'-' if self.offset is None else self.offset} "
            f"at={self.at:.6f} final={int(self.final)} path={quote(self.path) or '-'}"
        )


@dataclass(frozen=True, slots=True)
class ChainLink:
    """The chain's part of one line, read back. `body` is what the hash covers beside the hash before."""

    writer: str
    seq: int
    offset: int | None
    lost: int
    opens: Mapping[str, Any] | None
    hash: str
    body: bytes

    def follows(self, before: str, key: bytes | None) -> bool:
        """Return True where this line's hash follows from `before`."""
        return link_hash(before, self.body, key) == self.hash

    @property
    def seen(self) -> list[tuple[str, int, str]]:
        """The heads of other writers that an opening line names: writer, seq, hash."""
        named = self.opens.get("seen") if self.opens is not None else None
        found = (_SEEN.fullmatch(text) for text in named or () if isinstance(text, str))
        return [(match[1], int(match[2]), match[3]) for match in found if match is not None]

    def opened(self, name: str) -> str:
        """Return the text `name` of the opening line, empty where the line does not have it."""
        value = self.opens.get(name) if self.opens is not None else None
        return value if isinstance(value, str) else ""


def link_hash(before: str, body: bytes, key: bytes | None) -> str:
    """Return the hash of a line: `before` is the hash of the writer's previous line, or the writer's id."""
    return _hasher(key)(before.encode() + body)


@functools.cache
def _hasher(key: bytes | None) -> Callable[[bytes], str]:
    """Return SHA-256, or HMAC-SHA-256 with the key's two blocks hashed beforehand: half the time of hmac.digest."""
    if key is None:
        return lambda text: hashlib.sha256(text).hexdigest()[:HASH_LENGTH]
    block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    first, second = (hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))

    def keyed(text: bytes) -> str:
        inner, outer = first.copy(), second.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.hexdigest()[:HASH_LENGTH]

    return keyed


def key_name(key: bytes | None) -> str:
    """Return a short name of the key, by which a reader recognizes the right key; empty without a key."""
    return hmac.digest(key, b"extend-bridge audit key", "sha256")[:4].hex() if key is not None else ""


def read_link(line: bytes) -> ChainLink | None:
    """Return the chain's part of a line without its newline; None where that part is absent or broken."""
    start = line.rfind(_TAIL_START)
    if start < 0:
        return None
    match = _TAIL.match(line, start)
    if match is None:
        return None
    writer, seq, offset, lost, opens, digest = match.groups()
    try:
        said = json.loads(opens) if opens is not None else None
    except (ValueError, RecursionError):
        return None
    return ChainLink(
        writer.decode(), int(seq), int(offset) if offset is not None else None, int(lost or 0),
        said if isinstance(said, dict) else None, digest.decode(), line[:-_BEFORE_HASH],
    )  # fmt: skip


def read_head(text: str) -> ChainHead | None:
    """Return the head that a line of a daemon's own log names, else None."""
    match = _HEAD.search(text)
    if match is None:
        return None
    said = match.groupdict()
    return ChainHead(
        writer=said["writer"], seq=int(said["seq"]), hash=said["hash"], part=said["part"], host=said["host"],
        file="" if said["file"] == "-" else said["file"], at=float(said["at"]),
        offset=None if said["offset"] == "-" else int(said["offset"]), final=said["final"] == "1",
        path="" if said["path"] in {None, "-"} else unquote(said["path"]),
    )  # fmt: skip


class ChainState:
    """The state of one writer, from which its next lines are linked. Not safe for several threads."""

    __slots__ = ("_hash", "_opened", "_opening", "_start", "hash", "lost", "offset", "seq", "writer")

    def __init__(self, writer: str, key: bytes | None = None) -> None:
        """Begin a chain; `writer` is 16 random hexadecimal digits."""
        self.writer = writer
        self.seq = 0
        self.hash = writer
        self.lost = 0
        self.offset: int | None = None
        self._opened = 0
        self._opening = 0
        self._hash = _hasher(key)
        self._start = f',"chain":{{"writer":"{writer}","seq":'

    def link(self, lines: Sequence[str], opens: Mapping[str, Any] | None = None) -> list[tuple[bytes, str]]:
        """Return each line with its chain and newline, and its hash. The state does not change before `wrote`."""
        linked = []
        before, seq, start, digest = self.hash, self.seq, self._start, self._hash
        extra = self._extra(opens)
        for line in lines:
            body = f"{line[:-1]}{start}{seq}{extra}".encode()
            before = digest(before.encode() + body)
            linked.append((b'%b,"hash":"%b"}}\n' % (body, before.encode()), before))
            seq += 1
            extra = ""
        return linked

    def wrote(self, count: int, newest: str, offset: int | None) -> None:
        """Remember that the first `count` of those lines are written; `newest` is the hash of the last of them."""
        if count:
            self._opened = self._opening
            self.seq += count
            self.hash = newest
            self.lost = 0
            self.offset = offset

    def _extra(self, opens: Mapping[str, Any] | None) -> str:
        extra = f',"offset":{self.offset}' if self.offset is not None else ""
        if self.lost:
            extra += f',"lost":{self.lost}'
        self._opening = self._opened
        if opens is not None:
            said = {**opens, "after": self.hash, "from": self._opened} if self.seq else dict(opens)
            self._opening = self.seq
            extra += f',"opens":{json.dumps(said, separators=(",", ":"))}'
        return extra
