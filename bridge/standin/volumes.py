# SPDX-License-Identifier: Apache-2.0
"""The state of the Cinder stand-in: volumes, their attachments, and their extends.

The behaviour was measured with Cinder 29. An extend is answered with 202 at once. The volume is `extending` until
the backend is done. The volume then gets its old status and the new size in one step.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from bridge.core.extend import is_uuid, new_id

ATTACHED: Final = "attached"
EXTENDING: Final = "extending"
_EXTENDABLE_ATTACHED: Final = (3, 42)
"""The first microversion that extends an in-use volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One attachment of a volume.

    `connection_info` is flat as in Cinder ({"driver_volume_type": ..., ...}) and may hold secrets as in Cinder.
    An attachment with a `server_id` of None does not belong to a server (Glance's own use).
    """

    id: str = field(default_factory=new_id)
    server_id: str | None = None
    status: str = ATTACHED
    host: str | None = "cmp-1"
    device: str = "/dev/vdb"
    attach_mode: str = "rw"
    connection_info: Mapping[str, Any] = field(default_factory=dict)
    attached_at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume. `size` is in GiB.

    `encryption`: for an encrypted volume the encryption of its volume type, and the id of its key.
    """

    id: str
    size: int
    status: str
    name: str = ""
    volume_type: str = "__DEFAULT__"
    multiattach: bool = False
    encrypted: bool = False
    encryption: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)


class RefusedError(Exception):
    """The refusal of a request, with the status and Cinder's own text."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Volumes:
    """All volumes. Safe for several threads. `extend_seconds` is the duration of an extend in the backend."""

    def __init__(self, *, extend_seconds: float = 0.0, clock: Callable[[], float] = time.time) -> None:
        self.extend_seconds = extend_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._volumes: dict[str, Volume] = {}
        self._growing: dict[str, tuple[float, int, str]] = {}  # volume id: done at, new size, old status

    def add(self, volume: Volume) -> Volume:
        """Add a volume; raises ValueError for a volume that is impossible in Cinder."""
        if not is_uuid(volume.id):
            raise ValueError(f"volume id {volume.id!r}: expected a UUID")
        if not isinstance(volume.size, int) or volume.size < 1:
            raise ValueError(f"volume {volume.id}: size {volume.size!r}: expected whole GiB, at least 1")
        for attachment in volume.attachments:
            if attachment.server_id is not None and not is_uuid(attachment.server_id):
                raise ValueError(f"volume {volume.id}: server_id {attachment.server_id!r}: expected a UUID")
        with self._lock:
            self._volumes[volume.id] = volume
        return volume

    def remove(self, volume_id: str) -> None:
        """Delete a volume; later requests for the volume get 404."""
        with self._lock:
            self._volumes.pop(volume_id, None)
            self._growing.pop(volume_id, None)

    def get(self, volume_id: str) -> Volume:
        """Return the current state of a volume; raises RefusedError 404."""
        with self._lock:
            return self._now(volume_id)

    def all(self) -> list[Volume]:
        """Return the current state of all volumes."""
        with self._lock:
            return [self._now(volume_id) for volume_id in list(self._volumes)]

    def change(self, volume_id: str, **changes: Any) -> Volume:
        """Set fields directly (status, size, attachments), like an administrator's reset."""
        with self._lock:
            volume = self._now(volume_id)
            self._growing.pop(volume_id, None)
            self._volumes[volume_id] = replace(volume, updated_at=self._clock(), **changes)
            return self._volumes[volume_id]

    def attachment(self, attachment_id: str) -> tuple[Volume, Attachment]:
        """Return an attachment and its volume; raises RefusedError 404."""
        with self._lock:
            for volume in self._volumes.values():
                for attachment in volume.attachments:
                    if attachment.id == attachment_id:
                        return self._now(volume.id), attachment
        raise RefusedError(
            HTTPStatus.NOT_FOUND,
            f"Volume attachment could not be found with filter: attachment_id = {attachment_id}.",
        )

    def extend(self, volume_id: str, new_size: int, *, version: tuple[int, int] = (3, 71)) -> None:
        """Begin an extend to `new_size` GiB; raises RefusedError with the refusals of Cinder's API."""
        with self._lock:
            volume = self._now(volume_id)
            allowed = {"available", "in-use"} if version >= _EXTENDABLE_ATTACHED else {"available"}
            if volume.status not in allowed:
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST,
                    f"Invalid volume: Volume {volume_id} status must be '{{'status': 'available'}}' to extend, "
                    f"currently {volume.status}.",
                )
            if new_size <= volume.size:
                raise RefusedError(
                    HTTPStatus.BAD_REQUEST,
                    "Invalid input received: New size for extend must be greater than current size. "
                    f"(current: {volume.size}, extended: {new_size}).",
                )
            now = self._clock()
            self._volumes[volume_id] = replace(volume, status=EXTENDING, updated_at=now)
            self._growing[volume_id] = (now + self.extend_seconds, new_size, volume.status)

    def _now(self, volume_id: str) -> Volume:
        """Return the volume after applying an extend that has ended. The caller holds the lock."""
        volume = self._volumes.get(volume_id)
        if volume is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"Volume {volume_id} could not be found.")
        growing = self._growing.get(volume_id)
        if growing is not None and self._clock() >= growing[0]:
            del self._growing[volume_id]
            volume = replace(volume, size=growing[1], status=growing[2], updated_at=growing[0])
            self._volumes[volume_id] = volume
        return volume


def stamp(at: float) -> str:
    """Format a time like Cinder: UTC without a zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
