# SPDX-License-Identifier: Apache-2.0
"""The state of the Cinder stand-in: volumes, their attachments, and what an extend does to them.

Behaves as Cinder 29 was measured to: an extend answers 202 at once, the volume is `extending` until the backend is
done and then has its status and the new size in one step.
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
"""The first microversion that extends a volume that is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One attachment. `connection_info` is flat, as Cinder gives it ({"driver_volume_type": ..., ...}); it may hold
    secrets, as Cinder's does. A `server_id` of None belongs to no server (Glance's own use)."""

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
    """One volume. `size` in GiB. `encryption`: as its type has it, where it is encrypted, and the id of its key."""

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
    """The request is refused: `status` and Cinder's own sentence."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Volumes:
    """All volumes. Safe for several threads. `extend_seconds` is how long the backend takes for an extend."""

    def __init__(self, *, extend_seconds: float = 0.0, clock: Callable[[], float] = time.time) -> None:
        self.extend_seconds = extend_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._volumes: dict[str, Volume] = {}
        self._growing: dict[str, tuple[float, int, str]] = {}  # volume id: done at, new size, status to go back to

    def add(self, volume: Volume) -> Volume:
        """Have a volume; raises ValueError for one Cinder could not hold."""
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
        """Delete it: from now on 404."""
        with self._lock:
            self._volumes.pop(volume_id, None)
            self._growing.pop(volume_id, None)

    def get(self, volume_id: str) -> Volume:
        """The volume as of now; raises RefusedError 404."""
        with self._lock:
            return self._now(volume_id)

    def all(self) -> list[Volume]:
        """All of them as of now."""
        with self._lock:
            return [self._now(volume_id) for volume_id in list(self._volumes)]

    def change(self, volume_id: str, **changes: Any) -> Volume:
        """Set fields by hand (status, size, attachments), as an administrator's reset would."""
        with self._lock:
            volume = self._now(volume_id)
            self._growing.pop(volume_id, None)
            self._volumes[volume_id] = replace(volume, updated_at=self._clock(), **changes)
            return self._volumes[volume_id]

    def attachment(self, attachment_id: str) -> tuple[Volume, Attachment]:
        """An attachment and its volume; raises RefusedError 404."""
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
        """Begin an extend to `new_size` GiB; raises RefusedError as Cinder's API refuses."""
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
        """The volume with an extend that is done by now taken over. The caller holds the lock."""
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
    """Cinder's form of a time: UTC without a zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
