# SPDX-License-Identifier: Apache-2.0
"""What has to hold of the reading of any message whatever."""

from collections.abc import Callable, Iterator

from bridge.core.extend import is_uuid
from bridge.core.reasons import Reason
from listener.notification import Bad, Other, Read, ResizeEnd, Unreadable, is_other_event, parse, translate

MAX_BYTES = 1 << 20
MAX_ROWS = 50
_LONGEST = 128


def read(body: bytes) -> Read:
    """As the listener reads it, with the limits of the fuzz."""
    return parse(body, max_bytes=MAX_BYTES, max_rows=MAX_ROWS)


def judged(body: bytes, secrets: frozenset[str], reader: Callable[[bytes], Read] = read) -> tuple[str, str | None]:
    """As what this message was read, and what is wrong with that, None where nothing is. Never raises."""
    try:
        is_other_event(body)
        result = reader(body)
        return type(result).__name__, next(_faults(result, secrets), None)
    except BaseException as ex:  # noqa: BLE001 - what escapes is what is looked for
        return "nothing", f"{type(ex).__name__} escaped: {ex}"[:300]


def _faults(result: object, secrets: frozenset[str]) -> Iterator[str]:
    if not isinstance(result, ResizeEnd | Other | Unreadable | Bad):
        yield f"the parser gave a {type(result).__name__}"
    if isinstance(result, Unreadable) and result.reason is Reason.PARSER_FAILED:
        yield "the parser met something it was not made for"
    if isinstance(result, ResizeEnd | Bad):
        origin = result.origin
        texts = (origin.message_id, origin.project, origin.request_id, origin.global_request_id, origin.sent)
        if any(text is not None and not (text.isprintable() and len(text) <= _LONGEST) for text in texts):
            yield "an id that is no id is handed on"
        shown = repr(result)
        if any(secret in shown for secret in secrets):
            yield "a secret is handed on"
    if isinstance(result, Bad) and result.volume_id is not None and not is_uuid(result.volume_id):
        yield "a volume id that is no UUID is handed on"
    if isinstance(result, ResizeEnd):
        yield from _of_extend(result)


def _of_extend(end: ResizeEnd) -> Iterator[str]:
    if len(end.rows) > MAX_ROWS:
        yield f"{len(end.rows)} rows, {MAX_ROWS} are allowed"
    if end.size is not None and not (type(end.size) is int and 0 < end.size < 2**31):
        yield "a size that is none"
    translation = translate(end)
    keys = set(translation.events)
    if len(keys) != len(translation.events):
        yield "one disk twice"
    if not all(is_uuid(key.server_id) and is_uuid(key.volume_id) for key in keys):
        yield "an event whose ids are no UUIDs"
    if len(translation.events) + len(translation.skipped) != max(1, len(end.rows)):
        yield "a row without an event and without a reason"
