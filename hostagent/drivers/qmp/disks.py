# SPDX-License-Identifier: Apache-2.0
"""A guest's disks, from the answers of query-block and query-named-block-nodes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.extend import is_uuid
from hostagent.domain import Disk, SourceKind

_PERIPHERAL: Final = "/machine/peripheral/"
_ANONYMOUS: Final = "/machine/peripheral-anon/"
_BACKEND: Final = "/virtio-backend"
_PREFIXES: Final = ("ua-", "virtio-")
_VIRTIO_BLK: Final = "virtio-blk"
_VIRTIO_SCSI: Final = "virtio-scsi"
_KINDS: Final = {"file": SourceKind.FILE, "host_device": SourceKind.BLOCK, "rbd": SourceKind.NETWORK}
_MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """Facts of a disk's device in QEMU's object tree. `bus_owner`: the type of the controller of its bus."""

    type: str = ""
    serial: str = ""
    bus_owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuDisk:
    """A disk and what QEMU's commands call it."""

    disk: Disk
    node: str
    device: str
    capacity: int
    source_of_size: str | None


def device_path(qdev: str) -> str:
    """Return the path of a device in QEMU's object tree; query-block names it by its id, or by that path."""
    return qdev if qdev.startswith("/") else f"{_PERIPHERAL}{qdev}"


def device_name(path: str) -> str:
    """Return the name of a device that a person gave it, else its path: `d1` of /machine/peripheral/d1/…"""
    path = path.removesuffix(_BACKEND)
    if path.startswith(_PERIPHERAL):
        return path.removeprefix(_PERIPHERAL).partition("/")[0]
    return path.removeprefix(_ANONYMOUS) if path.startswith(_ANONYMOUS) else path


def disk_blocks(answer: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the entries of query-block that are a guest's disks with something inserted."""
    found = answer if isinstance(answer, list) else []
    return tuple(
        block
        for block in found
        if isinstance(block, dict)
        and isinstance(block.get("qdev"), str)
        and isinstance(block.get("inserted"), dict)
    )


def read_disk(block: Mapping[str, Any], drivers: Mapping[str, Sequence[str]], facts: DeviceFacts) -> QemuDisk:
    """Return one disk. `drivers`: the drivers of the nodes that have a file name."""
    inserted = block["inserted"]
    image = inserted.get("image")
    image = image if isinstance(image, dict) else {}
    name = device_name(block["qdev"])
    capacity = image.get("virtual-size")
    shown = _layer(name, image, _text(inserted, "drv"), drivers)
    bottom = _bottom(name, image, drivers)
    disk = Disk(
        target=name,
        kind=shown.kind,
        source=shown.source,
        driver_format=shown.driver_format,
        volume_id=_volume_id(facts.serial, name),
        encrypted=_text(inserted, "drv") == "luks" or inserted.get("encrypted") is True,
        bottom=bottom,
        alias=name,
        type=shown.type,
        notifies=_notifies(facts),
        read_only=inserted.get("ro") is True,
        cdrom=facts.type.endswith("-cd"),
    )
    raw_file = disk.driver_format == "raw" and disk.kind in {SourceKind.FILE, SourceKind.BLOCK}
    return QemuDisk(
        disk=disk,
        node=_text(inserted, "node-name"),
        device=_text(block, "device"),
        capacity=capacity if isinstance(capacity, int) and not isinstance(capacity, bool) else -1,
        source_of_size=disk.source if raw_file else None,
    )


def protocol_drivers(nodes: Any) -> dict[str, tuple[str, ...]]:
    """Return the drivers of all nodes by their file name."""
    found: dict[str, tuple[str, ...]] = {}
    for node in nodes if isinstance(nodes, list) else []:
        if isinstance(node, dict) and (name := _text(node, "file")):
            found[name] = (*found.get(name, ()), _text(node, "drv"))
    return found


def _layer(target: str, image: Mapping[str, Any], driver: str, drivers: Mapping[str, Sequence[str]]) -> Disk:
    """Return one image of a chain. A file name that is not a plain path (json:…, nbd://…) is of another kind."""
    name = _text(image, "filename")
    found = [_KINDS[each] for each in drivers.get(name, ()) if each in _KINDS]
    kind = found[0] if found and name.startswith("/") and len(set(found)) == 1 else SourceKind.OTHER
    if kind is SourceKind.NETWORK:
        kind = SourceKind.OTHER
    return Disk(
        target=target,
        kind=kind,
        source=name if kind is not SourceKind.OTHER else None,
        driver_format=driver,
        volume_id=None,
        type=str(kind) if kind is not SourceKind.OTHER else "another kind of source",
    )


def _bottom(target: str, image: Mapping[str, Any], drivers: Mapping[str, Sequence[str]]) -> Disk | None:
    """Return the last image of the chain beneath an overlay, None without one."""
    last: Mapping[str, Any] | None = None
    for _ in range(_MAX_DEPTH):
        beneath = (last if last is not None else image).get("backing-image")
        if not isinstance(beneath, dict):
            break
        last = beneath
    return _layer(target, last, _text(last, "format"), drivers) if last is not None else None


def _notifies(facts: DeviceFacts) -> bool:
    """Return whether the guest is interrupted when the size changes: virtio-blk, and disks of virtio-scsi."""
    return facts.type.startswith(_VIRTIO_BLK) or facts.bus_owner.startswith(_VIRTIO_SCSI)


def _volume_id(serial: str, name: str) -> str | None:
    """Return the volume's id: the device's serial, else its id, as it is or behind the usual prefixes."""
    for text in (serial.strip().lower(), name.lower()):
        for prefix in ("", *_PREFIXES):
            if text.startswith(prefix) and is_uuid(text.removeprefix(prefix)):
                return text.removeprefix(prefix)
    return None


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""
