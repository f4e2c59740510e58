# SPDX-License-Identifier: Apache-2.0
"""A notification of our own making: what the parser kept of Cinder's, and nothing else.

What is recorded and what is replayed has this form, so that a secret cannot be in it, whatever Cinder sends.
"""

import json
from collections.abc import Sequence
from typing import Any

from listener.parse import EVENT_TYPE, Origin, ResizeEnd, Row


def notification(volume_id: str, rows: Sequence[Row], *, size: int | None, origin: Origin) -> bytes:
    """A volume.resize.end in oslo.messaging's envelope that parses to the same values."""
    message: dict[str, Any] = {
        "event_type": EVENT_TYPE,
        "message_id": origin.message_id,
        "publisher_id": "extend-bridge",
        "priority": "INFO",
        "timestamp": origin.sent,
        "_context_request_id": origin.request_id,
        "_context_global_request_id": origin.global_request_id,
        "payload": {
            "volume_id": volume_id,
            "size": size,
            "tenant_id": origin.project,
            "volume_attachment": [_row(row) for row in rows],
        },
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def scrubbed(end: ResizeEnd) -> bytes:
    """The same volume.resize.end without anything the parser does not know."""
    return notification(end.volume_id, end.rows, size=end.size, origin=end.origin)


def _row(row: Row) -> dict[str, Any] | None:
    if not row.readable:
        return None
    return {"instance_uuid": row.server_id, "attach_status": "attached" if row.attached else "detached"}
