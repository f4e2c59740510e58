# SPDX-License-Identifier: Apache-2.0
"""Addresses of SCSI paths: the target and the LUN behind each path of a disk, compared with connection data.

Sysfs knows both without a command: `fc_transport` for Fibre Channel, `iscsi_session` for iSCSI and iSER.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hostagent.devices import sysfs

_HCTL: Final = re.compile(r"(\d+):(\d+):(\d+):(\d+)")
_SESSION: Final = re.compile(r"session\d+")
_WITH_PLACES: Final = ("sd", "nvme")
_FLAT: Final = 0x4000
"""Flat space addressing (SAM-5, 4.7): the kernel shows LUN n as 0x4000 + n, and Cinder says n."""


@dataclass(frozen=True, slots=True, order=True)
class PathAddress:
    """One path of a disk: kernel name, target (WWPN without `0x`, or IQN) and LUN as the kernel counts it."""

    name: str
    target: str
    lun: int

    def __str__(self) -> str:
        return f"{self.name} is LUN {self.lun} of {self.target}"


def addresses(number: str, root: Path = sysfs.SYS) -> tuple[PathAddress, ...]:
    """Return the address of each Fibre Channel, iSCSI or iSER path beneath a device; other paths are left out."""
    found = (_address(path, root) for path in sysfs.leaves(number, root))
    return tuple(sorted(address for address in found if address is not None))


def wwids_at(known: Iterable[PathAddress], root: Path = sysfs.SYS) -> dict[str, str]:
    """Return the worldwide name of each path that still leads to the LUN it led to, by kernel name."""
    found = {}
    for path in known:
        device = root / "block" / path.name
        if _address(device, root) == path and (wwid := sysfs.text(device / "device" / "wwid")):
            found[path.name] = wwid
    return found


def places(number: str, root: Path = sysfs.SYS) -> frozenset[str]:
    """Return where the storage shows a device, for each of its paths: a LUN of a target, an id of a subsystem."""
    return frozenset(filter(None, (_place(path, root) for path in sysfs.leaves(number, root))))


def shown_at(wanted: frozenset[str], root: Path = sysfs.SYS) -> dict[str, frozenset[str]]:
    """Return the worldwide names of what the host sees at these places now, by kernel name and place."""
    found = {}
    for path in sorted((root / "block").iterdir()) if wanted else ():
        if path.name.startswith(_WITH_PLACES) and (place := _place(path, root)) in wanted:
            found[f"{path.name}, {place}"] = frozenset(sysfs.names_of(path))
    return {where: names for where, names in found.items() if names}


def _place(path: Path, root: Path) -> str:
    if (address := _address(path, root)) is not None:
        return f"LUN {address.lun} of {address.target}"
    found = sysfs.nvme_identity(path)
    return f"namespace {found['nsid']} of {found['nqn']}" if found.keys() >= {"nsid", "nqn"} else ""


def connection_targets(data: Mapping[str, Any]) -> frozenset[tuple[str, int]]:
    """Return each (target, LUN) that the connection data of iSCSI, iSER or Fibre Channel name. Pure."""
    named = {
        *_pairs(data.get("target_iqn"), data.get("target_lun")),
        *_pairs(data.get("target_iqns"), data.get("target_luns")),
        *_pairs(data.get("target_wwn"), data.get("target_lun")),
        *_pairs(data.get("target_wwns"), data.get("target_luns", data.get("target_lun"))),
    }
    with_luns = data.get("initiator_target_lun_map")
    for pairs in with_luns.values() if isinstance(with_luns, Mapping) else ():
        for pair in pairs if isinstance(pairs, Sequence) and not isinstance(pairs, str) else ():
            if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2:  # noqa: PLR2004
                named |= _pairs(pair[0], pair[1])
    return frozenset(named)


def mismatch(paths: Iterable[PathAddress], named: frozenset[tuple[str, int]]) -> str:
    """Return how these paths differ from the connection's; empty where they do not, or one side has no data. Pure.

    A target that the connection leaves out is no contradiction: discovery finds more portals than Cinder lists.
    """
    paths = tuple(paths)
    if not paths or not named:
        return ""
    targets = {target for target, _lun in named}
    wrong = [path for path in paths if path.target in targets and not _is_named(path, named)]
    if not wrong and any(_is_named(path, named) for path in paths):
        return ""
    ours = ", ".join(map(str, wrong or paths))
    theirs = ", ".join(f"LUN {lun} of {target}" for target, lun in sorted(named))
    return f"{ours}; the connection names {theirs}"


def _is_named(path: PathAddress, named: frozenset[tuple[str, int]]) -> bool:
    return (path.target, path.lun) in named or (path.target, path.lun ^ _FLAT) in named


def _address(path: Path, root: Path) -> PathAddress | None:
    device = (path / "device").resolve()
    numbers = _HCTL.fullmatch(device.name)
    if numbers is None:
        return None
    host, channel, target, lun = numbers.groups()
    port = sysfs.text(root / "class" / "fc_transport" / f"target{host}:{channel}:{target}" / "port_name")
    if port:
        return PathAddress(path.resolve().name, _plain(port), int(lun))
    session = next((part for part in device.parts if _SESSION.fullmatch(part)), "")
    iqn = sysfs.text(root / "class" / "iscsi_session" / session / "targetname") if session else ""
    return PathAddress(path.resolve().name, _plain(iqn), int(lun)) if iqn else None


def _pairs(targets: object, luns: object) -> set[tuple[str, int]]:
    """Return targets with their LUNs: one to one where both are lists, else each with the single LUN."""
    names = _texts(targets)
    numbers = [_number(lun) for lun in luns] if isinstance(luns, list | tuple) else [_number(luns)] * len(names)
    if len(numbers) != len(names):
        return set()
    return {(name, number) for name, number in zip(names, numbers, strict=True) if number is not None}


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [_plain(text) for text in values if isinstance(text, str) and text]


def _plain(target: str) -> str:
    """Return one spelling: a WWPN is written in three ways (0x5001…, 5001…, 50:01:…), an IQN in one."""
    target = target.strip().lower()
    return target if target.startswith(("iqn.", "eui.", "naa.")) else target.removeprefix("0x").replace(":", "")


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        return None
    return number if 0 <= number < 1 << 62 else None
