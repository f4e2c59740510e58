# SPDX-License-Identifier: Apache-2.0
"""File systems on volumes inside guests, as a host agent reports them. The words in them are a tenant's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from bridge.core import limits
from bridge.core.extend import Bytes, ExtendKey, clean_request_id, is_uuid
from bridge.core.wire import BadMessageError, mapping, word, words

_MOUNT_POINT_MAX: Final = 255
_E = TypeVar("_E", bound=StrEnum)


class FsState(StrEnum):
    """The state of the file system on a volume, beside the size of its disk."""

    FITS = "fits"  # it has the size of its disk, as far as a file system of its type can
    GROWN = "grown"  # it was grown, and the guest's agent reads the new size back
    BEHIND = "behind"  # it leaves room of its disk unused
    REFUSED = "refused"  # its owner asked for growth, and it cannot follow: nothing was touched
    FAILED = "failed"  # a step of the growth failed, or the size read back is too small; tried again
    UNKNOWN = "unknown"  # the guest's agent does not say


class FsLayout(StrEnum):
    """The layers between a volume's disk and its file system."""

    DISK = "disk"  # the file system is on the whole disk
    PARTITION = "partition"  # it is on the only partition
    SEVERAL = "several"  # the disk has several partitions
    MAPPED = "mapped"  # LVM, or encryption in the guest, lies in between
    NONE = "none"  # nothing of the disk is mounted
    UNKNOWN = "unknown"  # the guest's agent does not say


class Follow(StrEnum):
    """The answer to whether a file system can follow its disk."""

    YES = "yes"  # it can
    NO = "no"  # it cannot; the reason says why
    UNKNOWN = "unknown"  # only a look inside the guest tells


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystemStep:
    """One command inside the guest, with its answer: cleaned and bounded."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystemSeen:
    """The file systems of one volume of one guest; sizes in bytes, None where unknown.

    `disk`: the size of the disk that the guest is shown. `size`: of its file systems together. `asked`: the owner
    asked for growth.
    """

    key: ExtendKey
    state: FsState
    reason: str
    layout: FsLayout = FsLayout.UNKNOWN
    follow: Follow = Follow.UNKNOWN
    kind: str = ""
    mount_point: str = ""
    disk: Bytes | None = None
    size: Bytes | None = None
    asked: bool = False
    request_id: str | None = None
    global_request_id: str | None = None
    steps: tuple[FileSystemStep, ...] = field(default=(), compare=False)

    @property
    def unused(self) -> int | None:
        """Return the bytes of the disk that no file system has; None where a size is unknown."""
        return max(0, self.disk - self.size) if self.disk is not None and self.size is not None else None

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; keys without a value are left out."""
        wire: dict[str, Any] = {
            "server_id": self.key.server_id,
            "volume_id": self.key.volume_id,
            "state": self.state.value,
            "reason": self.reason,
            "layout": self.layout.value,
            "follow": self.follow.value,
            "type": self.kind,
            "mount_point": self.mount_point,
            "disk_bytes": self.disk,
            "size_bytes": self.size,
            "asked": self.asked or None,
            "request_id": self.request_id,
            "global_request_id": self.global_request_id,
            "steps": [
                {"name": s.name, "ok": s.ok, "seconds": round(s.seconds, 6), "detail": s.detail} for s in self.steps
            ],
        }
        return {name: value for name, value in wire.items() if value not in (None, "", [])}

    @classmethod
    def from_wire(cls, raw: object) -> "FileSystemSeen":
        """Read one file system; raises BadMessageError. A word of a newer agent reads as unknown."""
        message = mapping(raw, "file system")
        server_id, volume_id = message.get("server_id"), message.get("volume_id")
        if not is_uuid(server_id) or not is_uuid(volume_id):
            raise BadMessageError("server_id, volume_id: expected UUIDs")
        return cls(
            key=ExtendKey(str(server_id).lower(), str(volume_id).lower()),
            state=_member(FsState, message.get("state"), FsState.UNKNOWN),
            reason=word(message, "reason", limits.CODE.most),
            layout=_member(FsLayout, message.get("layout"), FsLayout.UNKNOWN),
            follow=_member(Follow, message.get("follow"), Follow.UNKNOWN),
            kind=words(message, "type", limits.CODE.most),
            mount_point=words(message, "mount_point", _MOUNT_POINT_MAX),
            disk=_size(message, "disk_bytes"),
            size=_size(message, "size_bytes"),
            asked=message.get("asked") is True,
            request_id=clean_request_id(message.get("request_id")),
            global_request_id=clean_request_id(message.get("global_request_id")),
            steps=tuple(_steps(message.get("steps"))),
        )


def _member(kind: type[_E], value: object, otherwise: _E) -> _E:
    return next((member for member in kind if member == value), otherwise)


def _size(message: Mapping[str, Any], key: str) -> Bytes | None:
    """Return a size that fits 63 bits; None for any other value, because sizes here are only shown."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limits.SIZE.most:
        return None
    return Bytes(value)


def _steps(raw: object) -> list[FileSystemStep]:
    """Return the readable steps; the others are dropped because steps are only shown."""
    steps = []
    for each in raw[: limits.STEPS.most] if isinstance(raw, list) else ():
        if not isinstance(each, Mapping) or not isinstance(each.get("name"), str):
            continue
        took = each.get("seconds")
        usable = isinstance(took, int | float) and not isinstance(took, bool) and 0 <= took <= limits.SIZE.most
        steps.append(
            FileSystemStep(
                name=words(each, "name", limits.CODE.most),
                ok=each.get("ok") is True,
                seconds=float(took) if usable and took is not None else 0.0,
                detail=words(each, "detail", limits.DETAIL.most),
            )
        )
    return steps
