# SPDX-License-Identifier: Apache-2.0
"""A strict reader of Cinder's volume.resize.end: bytes in, one of four values out, no exception ever.

Takes oslo.messaging's v2 envelope and the bare v1 form. Keeps an allow-list of fields: the payload carries CHAP
passwords and whole database rows (facts of a real Cinder 29), and nothing of that leaves this module.

Seven of eight notifications are no extend: they are told apart by their bytes, before any JSON is read.

Bodies that Cinder's [oslo_messaging_rabbit] kombu_compression made smaller, never larger than they may be.

From a grown volume to events: one per distinct attached server. Every row that gives none has its reason.
"""

import bz2
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.extend import ExtendKey, clean_request_id, is_uuid
from bridge.core.reasons import Reason

_WANTED: Final = b"volume.resize.end"
_A_NOTIFICATION: Final = b"event_type"


def is_other_event(body: bytes) -> bool:
    """Whether this surely is another notification.

    In doubt it is not: what does not look like a notification at all goes to the parser, which tells the unreadable
    from the rest. An event type is ASCII in every serializer oslo.messaging has, so the wanted one cannot hide.
    """
    return _WANTED not in body and _A_NOTIFICATION in body


_ANY_HEADER: Final = zlib.MAX_WBITS | 32  # zlib's, as kombu's "gzip" is, or gzip's own

_WAYS: Final[Mapping[object, Callable[[bytes, int], bytes]]] = {
    "application/x-gzip": lambda body, limit: zlib.decompressobj(_ANY_HEADER).decompress(body, limit),
    "application/x-bz2": lambda body, limit: bz2.BZ2Decompressor().decompress(body, limit),
}
"""What oslo.messaging can do, by kombu's names."""


def inflated(body: bytes, way: object, max_bytes: int) -> bytes | None:
    """The body by what its header says, at most one byte more than `max_bytes`; None where that is impossible.

    A body that ends too early is as long as it is: what is read of it then is no JSON.
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
    """One attachment row.

    `server_id` is None where the row names none (Glance's image cache) or, not `readable`, no valid one; `attached`
    is false for rows that are reserved, attaching, detaching or already detached.
    """

    server_id: str | None
    attached: bool
    readable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a message came from, for logs and records: ids only, each checked.

    `request_id` is Cinder's own id of the resize, `global_request_id` the one its caller sent, if any.
    """

    message_id: str | None = None
    project: str | None = None
    request_id: str | None = None
    global_request_id: str | None = None
    sent: str | None = None

    @property
    def carried(self) -> str | None:
        """The id the resize goes on under: the caller's where there is one, else Cinder's, which the user has."""
        return self.global_request_id or self.request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeEnd:
    """A volume has grown. `size` in GiB is for the record only: no size in a message ever reaches a disk."""

    volume_id: str
    size: int | None
    rows: tuple[Row, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A notification that is no extend."""

    reason: Reason = Reason.OTHER_EVENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Nobody can tell what this is; kept raw."""

    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A volume.resize.end that cannot be acted on; parked with what is safe to keep."""

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
    except Exception:  # noqa: BLE001 - a message nobody imagined must not stop those behind it
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
    """The message out of its envelope; without one (oslo.messaging's version 1) it is the message already."""
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
        # detach_time is set while a detached row is still listed; deleted rows are, in some releases
        attached=raw.get("attach_status") == "attached" and not raw.get("deleted") and not raw.get("detach_time"),
        readable=server_id is None or is_uuid(server_id),
    )


def _origin(message: Mapping[str, Any], payload: Mapping[str, Any]) -> Origin:
    return Origin(
        message_id=clean_request_id(message.get("message_id")),
        project=clean_request_id(payload.get("tenant_id")),
        request_id=clean_request_id(message.get("_context_request_id")),
        global_request_id=clean_request_id(message.get("_context_global_request_id")),
        sent=clean_stamp(message.get("timestamp")),
    )


def clean_stamp(text: object) -> str | None:
    """A time stamp that is safe in a log line, or None; what it says is not looked at."""
    return (
        text if isinstance(text, str) and len(text) <= _TEXT_MAX and text.isascii() and text.isprintable() else None
    )


class _UnreadableError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def _json(text: bytes | str) -> object:
    try:
        return json.loads(text, parse_int=_whole)
    except UnicodeDecodeError as ex:
        raise _UnreadableError(Reason.NOT_UTF8) from ex
    except RecursionError as ex:
        raise _UnreadableError(Reason.TOO_DEEP) from ex
    except ValueError as ex:
        raise _UnreadableError(Reason.NOT_JSON) from ex


def _whole(digits: str) -> int | None:
    """Python refuses to read whole numbers of thousands of digits; no field of ours needs one."""
    return int(digits) if len(digits) <= _DIGITS_MAX else None


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _UnreadableError(Reason.NOT_AN_OBJECT)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The events, in the order of their first rows, and a reason for each row, or message, that gives none."""

    events: tuple[ExtendKey, ...]
    skipped: tuple[Reason, ...]


def translate(end: ResizeEnd) -> Translation:
    """Cinder itself sends one event per row and tells a server with two rows twice; once is enough."""
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
