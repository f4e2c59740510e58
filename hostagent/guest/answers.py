# SPDX-License-Identifier: Apache-2.0
"""Answers of a guest's agent, read strictly and within bounds. Pure.

Every word in them is the tenant's. A row that cannot be read is left out and counted; the rest is used.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.reasons import Reason
from hostagent.guest.errors import GuestLookError

ROWS_MAX: Final = 4096  # file systems or disks of one guest; a node of Kubernetes has a thousand mounts
PRINTED_MAX: Final = 256 * 1024  # bytes of a command's output
_PATH_MAX: Final = 4096
_SERIAL_MAX: Final = 256
_SIZE_MAX: Final = 2**63 - 1
_DEVICES_MAX: Final = 64  # devices one file system or disk depends on
_DEVICE: Final = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9._+/-]{0,200}")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORBIDDEN: Final = ("commandnotfound", "has been disabled", "has not been found")
_NO_FILE: Final = ("no such file or directory", "failed to execute child process")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFileSystem:
    """A mounted file system of a guest. `device`: what is mounted, as /dev/NAME; `serials`: of its disks.

    `total` and `used` in bytes; None from an agent that does not say.
    """

    device: str
    mount_point: str
    kind: str
    total: int | None
    used: int | None
    serials: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDisk:
    """A disk, a partition, or a device made of them, in a guest. `beneath`: the devices it lies on."""

    device: str
    partition: bool
    beneath: tuple[str, ...] = ()
    serial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """The end of a command in a guest: its exit code, negative for a signal, and its output."""

    code: int
    out: str
    err: str


def refused(words: str) -> GuestLookError:
    """Return the error of an agent that answered one, by its words: the protocol has no other sign."""
    said = words[:_PATH_MAX].lower()
    if "frozen" in said:  # by a backup, for as long as that takes
        return GuestLookError(Reason.FS_AGENT_SILENT, words)
    if any(part in said for part in _FORBIDDEN):
        return GuestLookError(Reason.FS_AGENT_FORBIDS, words)
    if any(part in said for part in _NO_FILE):
        return GuestLookError(Reason.FS_TOOL_MISSING, words)
    return GuestLookError(Reason.FS_AGENT_ERROR, words)


def read_file_systems(value: Any) -> tuple[GuestFileSystem, ...]:
    """Return the readable rows of guest-get-fsinfo."""
    rows = (_file_system(row) for row in _rows(value))
    return tuple(row for row in rows if row is not None)


def read_disks(value: Any) -> tuple[GuestDisk, ...]:
    """Return the rows of guest-get-disks. Raises GuestLookError where a row names no device.

    A row left out could hide what lies behind a partition, so an unreadable row makes the whole answer unusable.
    """
    return tuple(disk for disk in map(_disk, _rows(value)) if disk is not None)


def read_pid(value: Any) -> int:
    """Return the process id of guest-exec."""
    pid = value.get("pid") if isinstance(value, Mapping) else None
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < _SIZE_MAX:
        raise bad("guest-exec: no process id")
    return pid


def read_status(value: Any) -> Printed | None:
    """Return the end of a command of guest-exec-status; None while it runs."""
    if not isinstance(value, Mapping) or not isinstance(value.get("exited"), bool):
        raise bad("guest-exec-status: not a status")
    if not value["exited"]:
        return None
    code, signal = value.get("exitcode"), value.get("signal")
    if isinstance(code, int) and not isinstance(code, bool) and -(2**31) <= code < 2**32:
        ended = code
    elif isinstance(signal, int) and not isinstance(signal, bool) and 0 < signal < 2**16:
        ended = -signal
    else:
        raise bad("guest-exec-status: no exit code")
    return Printed(code=ended, out=_text(value.get("out-data")), err=_text(value.get("err-data")))


def is_device(value: object) -> bool:
    """Return whether a text is a plain device path: no parent directory, nothing a tool takes for an option."""
    return isinstance(value, str) and _DEVICE.fullmatch(value) is not None and ".." not in value


def bad(detail: str) -> GuestLookError:
    """Return the error of an answer that is not one."""
    return GuestLookError(Reason.FS_AGENT_BAD_ANSWER, detail)


def _rows(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise bad("not a list")
    if len(value) > ROWS_MAX:
        raise bad(f"a list of {len(value)} rows")
    return value


def _file_system(row: Any) -> GuestFileSystem | None:
    if not isinstance(row, Mapping):
        return None
    name, point, kind = row.get("name"), row.get("mountpoint"), row.get("type")
    device = f"/dev/{name}"
    if not isinstance(name, str) or not is_device(device):
        return None
    if not isinstance(point, str) or not 0 < len(point) <= _PATH_MAX or not point.isprintable():
        return None
    if not isinstance(kind, str) or _WORD.fullmatch(kind) is None:
        return None
    devices = row.get("disk")
    on = devices[:_DEVICES_MAX] if isinstance(devices, list) else []
    serials = (_serial(each) for each in on if isinstance(each, Mapping))
    total = _size(row.get("total-bytes"))
    return GuestFileSystem(
        device=device,
        mount_point=point,
        kind=kind,
        total=total,
        used=_size(row.get("used-bytes")) if total is not None else None,
        serials=tuple(serial for serial in serials if serial is not None),
    )


def _disk(row: Any) -> GuestDisk | None:
    if not isinstance(row, Mapping):
        raise bad("guest-get-disks: a row that is not an object")
    device, partition, beneath = row.get("name"), row.get("partition"), row.get("dependencies")
    if not is_device(device):
        raise bad("guest-get-disks: a row that is not a device")
    on = beneath if isinstance(beneath, list) else []
    if not isinstance(partition, bool) or len(on) > _DEVICES_MAX or not all(map(is_device, on)):
        raise bad("guest-get-disks: a row that cannot be read")
    address = row.get("address")
    return GuestDisk(
        device=str(device),
        partition=partition,
        beneath=tuple(on),
        serial=_serial(address) if isinstance(address, Mapping) else None,
    )


def _serial(address: Mapping[str, Any]) -> str | None:
    serial = address.get("serial")
    if not isinstance(serial, str) or len(serial) > _SERIAL_MAX or not serial.isprintable():
        return None
    return serial.strip() or None


def _size(value: Any) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _SIZE_MAX:
        return None
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad("guest-exec-status: output that is not a text")
    if len(value) > 2 * PRINTED_MAX:
        raise bad(f"output of {len(value)} characters")
    try:
        return base64.b64decode(value, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError) as ex:
        raise bad("guest-exec-status: output that is not base64") from ex
