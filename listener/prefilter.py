# SPDX-License-Identifier: Apache-2.0
"""Seven of eight notifications are no extend: they are told apart by their bytes, before any JSON is read."""

from typing import Final

_WANTED: Final = b"volume.resize.end"
_A_NOTIFICATION: Final = b"event_type"


def is_other_event(body: bytes) -> bool:
    """Whether this surely is another notification.

    In doubt it is not: what does not look like a notification at all goes to the parser, which tells the unreadable
    from the rest. An event type is ASCII in every serializer oslo.messaging has, so the wanted one cannot hide.
    """
    return _WANTED not in body and _A_NOTIFICATION in body
