# SPDX-License-Identifier: Apache-2.0
"""Headers of a message over which kombu or py-amqp raise while they read it from the socket."""

from datetime import datetime
from typing import Any, Final


class _FarAway(datetime):
    """A time no datetime holds; py-amqp writes it as seconds since the epoch."""

    def utctimetuple(self) -> Any:
        """Ten to the twelfth days."""
        return (1970, 1, 10**12, 0, 0, 0)


ODD_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "an unknown compression": {"compression": "application/x-nothing"},
    "not compressed as it says": {"compression": "application/x-gzip"},
    "a compression that is no text": {"compression": ["application/x-gzip"]},
    "a time nobody can read": {"sent": _FarAway(1970, 1, 1)},
}
