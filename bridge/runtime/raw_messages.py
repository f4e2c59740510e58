# SPDX-License-Identifier: Apache-2.0
"""Message bodies undecoded, because one malformed header would block the queue.

kombu inflates a body by its header, without a limit. If kombu cannot, it raises while it reads the socket. py-amqp
raises in the middle of a frame over a property that it cannot represent. An example is a time in the year 146
billion. Then py-amqp loses its place in the stream. Either way the message cannot be settled and comes again for
ever.
"""

from typing import Any, Final

from amqp import serialization, spec
from kombu.transport import pyamqp

COMPRESSION: Final = "compression"
"""The header in which kombu names the compression of a body."""


class _AsSent(pyamqp.Message):
    """A message with the body that the broker has."""

    def __init__(self, msg: Any, channel: Any = None, **more: Any) -> None:
        headers = msg.properties.get("application_headers")
        compression = headers.pop(COMPRESSION, None) if headers else None
        super().__init__(msg, channel=channel, **more)
        if compression is not None:
            self.headers[COMPRESSION] = compression


def as_sent(channel: Any) -> Any:
    """Have the channel deliver bodies undecoded, and return it. A bus in memory has only the bridge's messages."""
    if isinstance(channel, pyamqp.Channel):
        channel.auto_decode = False  # py-amqp would decode bodies by the encoding that they name
        channel.Message = _AsSent
    return channel


def body_bytes(message: Any) -> bytes:
    """Return the body of a message; kombu's memory transport delivers text."""
    body = message.body
    if isinstance(body, bytes):
        return body
    return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)


_read = serialization.decode_properties_basic


def _properties(buf: bytes, offset: int) -> tuple[dict[str, Any], int]:
    """Read properties like py-amqp; return none if that fails, because only the body is used."""
    try:
        read: tuple[dict[str, Any], int] = _read(buf, offset)
    except (ValueError, ArithmeticError, OSError, RecursionError):
        return {}, offset
    return read


# py-amqp has no other hook, because it makes a message before it knows its channel
serialization.PROPERTY_CLASSES[spec.Basic.CLASS_ID] = _properties
