# SPDX-License-Identifier: Apache-2.0
"""Orders on their way to a host: the wire form of an oslo.messaging cast.

Version 0.1.0 sent and took orders by oslo.messaging. The form stays because either side can be the older version.
"""

import json
from collections.abc import Sequence
from typing import Final

from bridge.core.extend import new_id
from bridge.core.messages import VERSION, Order
from bridge.core.wire import BadMessageError, items, mapping

_ENVELOPE: Final = "2.0"
_INTERFACE: Final = "1.0"
_METHOD: Final = "extend"
_SIZE_MAX: Final = 16 * 1024 * 1024


def encode_cast(orders: Sequence[Order]) -> bytes:
    """Return the message that casts `extend(orders)`."""
    message = {
        "method": _METHOD,
        "args": {"version": VERSION, "orders": [order.to_wire() for order in orders]},
        "version": _INTERFACE,
        "_unique_id": new_id(),  # 0.1.0's agents drop a message whose id they have seen
    }
    return json.dumps({"oslo.version": _ENVELOPE, "oslo.message": json.dumps(message)}).encode()


def decode_cast(body: bytes) -> Sequence[object]:
    """Return the orders of a cast, each still to be read by Order.from_wire; raises BadMessageError.

    Arguments and keys that a newer engine may add are ignored.
    """
    if len(body) > _SIZE_MAX:
        raise BadMessageError(f"message: {len(body)} bytes are more than the {_SIZE_MAX} allowed")
    envelope = mapping(_json(body, "cast"), "cast")
    if envelope.get("oslo.version") != _ENVELOPE:
        raise BadMessageError(f"oslo.version: expected {_ENVELOPE}")
    message = mapping(_json(envelope.get("oslo.message"), "oslo.message"), "oslo.message")
    if message.get("method") != _METHOD:
        raise BadMessageError(f"method: expected {_METHOD}")
    arguments = mapping(message.get("args"), "args")
    version = arguments.get("version", VERSION)
    if isinstance(version, bool) or not isinstance(version, int) or version > VERSION:
        raise BadMessageError(f"version: this side reads up to {VERSION}, upgrade it")
    if not isinstance(arguments.get("orders"), list):
        raise BadMessageError("orders: expected a list")
    return items(arguments, "orders")


def _json(text: object, name: str) -> object:
    if not isinstance(text, bytes | str):
        raise BadMessageError(f"{name}: expected JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as ex:
        raise BadMessageError(f"{name}: expected JSON") from ex
