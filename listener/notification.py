# SPDX-License-Identifier: Apache-2.0
"""The strict reader of Cinder's volume.resize.end: bytes in, one of four values out, never an exception.

The reader takes oslo.messaging's v2 envelope and the bare v1 form. Only an allow-list of fields leaves this module.
The payload carries CHAP passwords and whole database rows (facts of a real Cinder 29).

Seven of eight notifications are not an extend. Their bytes show that, before any JSON is read.

Bodies that Cinder's [oslo_messaging_rabbit] kombu_compression compressed are inflated up to the size limit.

A grown volume becomes events: one per distinct attached server. Every row without an event has its reason.
"""

import bz2
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from bridge.core.extend import ExtendKey, clean_request_id, clean_traceparent, is_uuid, made_by
from bridge.core.reasons import Reason

_WANTED: Final = b"volume.resize.end"
_A_NOTIFICATION: Final = b"event_type"


def is_other_event(body: bytes) -> bool:
    """Return True where the body is surely another notification.

    In doubt the result is False. A body that does not look like a notification goes to the parser, which detects
    unreadable messages. Every serializer of oslo.messaging writes an event type in ASCII, so the wanted type is
    always found.
    """
    return _WANTED not in body and _A_NOTIFICATION in body


_ANY_HEADER: Final = zlib.MAX_WBITS | 32  # zlib's header, which kombu's "gzip" has, or gzip's own

_WAYS: Final[Mapping[object, Callable[[bytes, int], bytes]]] = {
    "application/x-gzip": lambda body, limit: zlib.decompressobj(_ANY_HEADER).decompress(body, limit),
    "application/x-bz2": lambda body, limit: bz2.BZ2Decompressor().decompress(body, limit),
}
"""The compressions of oslo.messaging, by kombu's names."""


def inflated(body: bytes, way: object, max_bytes: int) -> bytes | None:
    """Return the inflated body, at most one byte more than `max_bytes`; None where it cannot be inflated.

    `way` is the message's compression header. A body that ends too early stays short, and then is not JSON.
    """
    inflate = _WAYS.get(way) if isinstance(way, str) else None
    if inflate is None:
        return None
    try:
        return inflate(body, max_bytes + 1)
    except (ValueError, OSError, EOFError, zlib.error):
        return None


EVENT_TYPE: Final = "volume.resize.end"
_ENVELOPE: Final = "oslo.message"
_ENVELOPE_VERSION: Final = "oslo.version"
_TEXT_MAX: Final = 128
_DIGITS_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attachment row of the volume.

    `server_id` is None where the row names no server (Glance's image cache), or an invalid id (not `readable`).
    `attached` is false for rows that are reserved, attaching, detaching or already detached.
    """

    server_id: str | None
    attached: bool
    readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a message, for logs and records: ids only, each checked.

    `request_id` is Cinder's own id of the resize, `global_request_id` the id that its caller sent, if any.
    `traceparent` is that of Cinder's context, else one made here.
    """

    message_id: str | None = None
    project: str | None = None
    request_id: str | None = None
    global_request_id: str | None = None
    sent: str | None = None
    traceparent: str | None = None

    @property
    def carried(self) -> str | None:
        """The request id that the events carry: the caller's, else Cinder's, which the user has."""
        return self.global_request_id or self.request_id

    def to_wire(self) -> dict[str, str | None]:
        """Return the keys of a message in one of our lanes."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read the keys of a message in one of our lanes; a value that is not in our form becomes None."""
        ids = ("message_id", "project", "request_id", "global_request_id")
        return cls(
            **{name: clean_request_id(wire.get(name)) for name in ids},
            sent=clean_stamp(wire.get("sent")),
            traceparent=clean_traceparent(wire.get("traceparent")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeEnd:
    """A volume that has grown. `size` in GiB is for the record only: a size in a message never reaches a disk."""

    volume_id: str
    size: int | None
    rows: tuple[Row, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A notification that is not an extend."""

    reason: Reason = Reason.OTHER_EVENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A message that cannot be read; kept raw."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A volume.resize.end that cannot be acted on; parked with the fields that are safe to keep."""

    reason: Reason
    volume_id: str | None
    origin: Origin


Read = ResizeEnd | Other | Unreadable | Bad


def parse(body: bytes, *, max_bytes: int, max_rows: int) -> Read:
    """Read one message. `max_bytes` limits the body, `max_rows` its attachment rows."""
    if len(body) > max_bytes:
        return Unreadable(reason=Reason.TOO_LARGE)
    try:
        return _parse(body, max_rows)
    except Exception:  # noqa: BLE001 - an unforeseen message must not stop the messages behind it
        return Unreadable(reason=Reason.PARSER_FAILED)


def _parse(body: bytes, max_rows: int) -> Read:
    try:
        message = _opened(_object(_json(body)))
    except _UnreadableError as ex:
        return Unreadable(reason=ex.reason)
    if message.get("event_type") != EVENT_TYPE:
        return Other()
    return _resize_end(message, max_rows)


def _opened(outer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the message from its envelope; without an envelope (oslo.messaging's version 1), unchanged."""
    if _ENVELOPE not in outer:
        return outer
    version = outer.get(_ENVELOPE_VERSION)
    if not isinstance(version, str) or version.partition(".")[0] != "2":
        raise _UnreadableError(Reason.UNKNOWN_ENVELOPE)
    inner = outer[_ENVELOPE]
    return _object(_json(inner) if isinstance(inner, str) else inner)


def _resize_end(message: Mapping[str, Any], max_rows: int) -> ResizeEnd | Bad:
    payload = message.get("payload")
    if not isinstance(payload, Mapping):
        return Bad(reason=Reason.BAD_PAYLOAD, volume_id=None, origin=_origin(message, {}))
    origin = _origin(message, payload)
    volume_id = payload.get("volume_id")
    if not is_uuid(volume_id):
        return Bad(reason=Reason.BAD_VOLUME_ID, volume_id=None, origin=origin)
    volume_id = str(volume_id).lower()
    rows = payload.get("volume_attachment", [])
    if not isinstance(rows, list):
        return Bad(reason=Reason.BAD_ATTACHMENTS, volume_id=volume_id, origin=origin)
    if len(rows) > max_rows:
        return Bad(reason=Reason.TOO_MANY_ROWS, volume_id=volume_id, origin=origin)
    size = payload.get("size")
    return ResizeEnd(
        volume_id=volume_id,
        size=size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 2**31 else None,
        rows=tuple(map(_row, rows)),
        origin=origin,
    )


def _row(raw: object) -> Row:
    if not isinstance(raw, Mapping):
        return Row(server_id=None, attached=False, readable=False)
    server_id = raw.get("instance_uuid")
    return Row(
        server_id=str(server_id).lower() if is_uuid(server_id) else None,
        # A detached row that is still listed has detach_time; some releases list deleted rows as well.
        attached=raw.get("attach_status") == "attached" and not raw.get("deleted") and not raw.get("detach_time"),
        readable=server_id is None or is_uuid(server_id),
    )


def _origin(message: Mapping[str, Any], payload: Mapping[str, Any]) -> Origin:
    request_id = clean_request_id(message.get("_context_request_id"))
    global_request_id = clean_request_id(message.get("_context_global_request_id"))
    traceparent = clean_traceparent(message.get("_context_traceparent"))
    return Origin(
        message_id=clean_request_id(message.get("message_id")),
        project=clean_request_id(payload.get("tenant_id")),
        request_id=request_id,
        global_request_id=global_request_id,
        sent=clean_stamp(message.get("timestamp")),
        traceparent=traceparent or made_by("listener", global_request_id or request_id),
    )


def clean_stamp(text: object) -> str | None:
    """Return a time stamp that is safe in a log line, else None; the time itself is not checked."""
    return (
        text if isinstance(text, str) and len(text) <= _TEXT_MAX and text.isascii() and text.isprintable() else None
    )


class _UnreadableError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _json(text: bytes | str) -> object:
    try:
        if isinstance(text, bytes):  # as json.loads does, which makes a decoder each time
            text = text.decode(json.detect_encoding(text), "surrogatepass")
        return _DECODER.decode(text)
    except UnicodeDecodeError as ex:
        raise _UnreadableError(Reason.NOT_UTF8) from ex
    except RecursionError as ex:
        raise _UnreadableError(Reason.TOO_DEEP) from ex
    except ValueError as ex:
        raise _UnreadableError(Reason.NOT_JSON) from ex


def _whole(digits: str) -> int | None:
    """Return the number, or None beyond the limit, because Python refuses numbers of thousands of digits."""
    return int(digits) if len(digits) <= _DIGITS_MAX else None


_DECODER: Final = json.JSONDecoder(parse_int=_whole)


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _UnreadableError(Reason.NOT_AN_OBJECT)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The events, in the order of their first rows, and a reason for each row, or message, without an event."""

    events: tuple[ExtendKey, ...]
    skipped: tuple[Reason, ...]


def translate(end: ResizeEnd) -> Translation:
    """Return one event per attached server; Cinder itself sends an event per row, so twice for two rows."""
    events: dict[ExtendKey, None] = {}
    skipped: list[Reason] = []
    for row in end.rows:
        reason = _skip(row)
        key = ExtendKey(row.server_id or "", end.volume_id)
        if reason is None and key in events:
            reason = Reason.SAME_SERVER
        if reason is None:
            events[key] = None
        else:
            skipped.append(reason)
    if not end.rows:
        skipped.append(Reason.NOT_ATTACHED)
    return Translation(events=tuple(events), skipped=tuple(skipped))


def _skip(row: Row) -> Reason | None:
    if not row.readable:
        return Reason.BAD_ROW
    if row.server_id is None:
        return Reason.NO_SERVER
    return None if row.attached else Reason.ROW_NOT_ATTACHED
