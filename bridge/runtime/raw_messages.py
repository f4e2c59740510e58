# SPDX-License-Identifier: Apache-2.0
"""Messages as they were sent, whatever their headers say: one of them must never stop those behind it.

kombu inflates a body by the word of a header, without a limit, and raises out of the reading of the socket where it
cannot. py-amqp raises in the middle of a frame over a property it cannot represent, as a time in the year 146
billion, and then loses its place in the stream. Either way nobody could settle the message: it came again for ever.
"""

from typing import Any, Final

from amqp import serialization, spec
from kombu.transport import pyamqp

COMPRESSION: Final = "compression"
"""The header kombu says by how it compressed a body."""


class _AsSent(pyamqp.Message):
    """A message whose body is as the broker has it."""

    def __init__(self, msg: Any, channel: Any = None, **more: Any) -> None:
        headers = msg.properties.get("application_headers")
        said = headers.pop(COMPRESSION, None) if headers else None
        super().__init__(msg, channel=channel, **more)
        if said is not None:
            self.headers[COMPRESSION] = said


def as_sent(channel: Any) -> Any:
    """The channel, which now hands bodies on as they are; a bus in memory has our own messages only."""
    if isinstance(channel, pyamqp.Channel):
        channel.auto_decode = False  # py-amqp would decode bodies by their own word on their encoding
        channel.Message = _AsSent
    return channel


_read = serialization.decode_properties_basic


def _properties(buf: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """What py-amqp reads, nothing where it cannot: the body alone says what a message is."""
    try:
        read: tuple[dict[str, Any], int] = _read(buf, offset)
    except (ValueError, ArithmeticError, OSError, RecursionError):
        return {}, offset
    return read


# py-amqp has no other place for it, and makes a message before it knows its channel
serialization.PROPERTY_CLASSES[spec.Basic.CLASS_ID] = _properties
