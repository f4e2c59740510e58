# SPDX-License-Identifier: Apache-2.0
"""Block devices that an os-brick connector extends, given the attachment's connection data.

iSCSI, iSER and Fibre Channel, single path and multipath: os-brick rescans each path, then the map.

NVMe-oF, both forms of its properties (os_brick/initiator/connectors/nvmeof.py: NVMeOFConnProps).

Vendors' block devices whose os-brick connector needs nothing of ours. Not proved on real storage.

Block devices of this host, known by the path the domain uses and by what sysfs says of it.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import sysfs
from hostagent.devices.base import properties, volume_type
from hostagent.devices.checks import block_device_size, check_paths_up, explained, is_plain_block, same_volume
from hostagent.domain import Disk
from hostagent.errors import StepFailedError
from hostagent.ports import Brick, Nudge


class ConnectedStrategy:
    """One family of connectors. `protocols`: driver_volume_type to os-brick's name of the connector.

    What os-brick returns is not taken for the size: it often is whatever is there. The device the domain has open
    is read afterwards.
    """

    def __init__(self, brick: Brick, name: str, protocols: Mapping[str, str], sys: Path = sysfs.SYS) -> None:
        self.name = name
        self._brick = brick
        self._protocols = protocols
        self._sys = sys

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """See Strategy."""
        return volume_type(connection) in self._protocols and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy."""
        self._extend(self._protocols[volume_type(connection) or ""], disk, self._prepare(properties(connection)))
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy."""
        return block_device_size(disk.source or "", self._sys)

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """What the connector trips over, mended."""
        return data

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        del disk
        self._brick.extend(protocol, data)


_PATHS_KNOWN: Final = frozenset({"ISCSI", "ISER"})  # Fibre Channel's need the host's adapters first


class ScsiStrategy(ConnectedStrategy):
    """Refuses a disk that is none of the connection's paths, and says which path is down: os-brick does neither."""

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        protocols = {"iscsi": "ISCSI", "iser": "ISER", "fibre_channel": "FIBRE_CHANNEL"}
        super().__init__(brick, "scsi", protocols, sys)

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        check_paths_up(disk, self._sys)
        if protocol in _PATHS_KNOWN:
            self._check_paths(disk, self._brick.paths(protocol, deepcopy(dict(data))))
        with same_volume(disk, self._sys), explained(disk, self._sys):
            super()._extend(protocol, disk, data)
            self._even_out(disk)

    def _even_out(self, disk: Disk) -> None:
        """Tell what os-brick did not: a path the connection data do not list, a map while use_multipath is off."""
        number = sysfs.device_number(disk.source or "")
        if number is not None and sysfs.uneven(number, self._sys):
            self._brick.rescan(sysfs.nudge(number, self._sys))

    def _check_paths(self, disk: Disk, paths: Sequence[str]) -> None:
        number = sysfs.device_number(disk.source or "")
        theirs = {theirs for path in paths if (theirs := sysfs.device_number(path)) is not None}
        if number is not None and theirs and not theirs & sysfs.beneath(number, self._sys):
            raise StepFailedError(
                Outcome.REFUSED,
                Reason.WRONG_DEVICE,
                f"the domain has {disk.source}, the connection {', '.join(paths)}",
            )


class NvmeStrategy(ConnectedStrategy):
    """os-brick finds the namespace by what the connection says; here it must be the one the domain has."""

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        super().__init__(brick, "nvme", {"nvmeof": "NVMEOF"}, sys)

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """os-brick compares `ns_id` with sysfs as text, JSON makes it a number; `volume_replicas: None` ends in a
        TypeError."""
        if isinstance(data.get("ns_id"), int):
            data["ns_id"] = str(data["ns_id"])
        if data.get("volume_replicas", ...) is None:
            del data["volume_replicas"]
        return data

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        number = sysfs.device_number(disk.source or "")
        ours = sysfs.nvme_identity(number, self._sys) if number is not None else {}
        if differs := _differs(ours, data):
            raise StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source}: {differs}")
        check_paths_up(disk, self._sys)
        with same_volume(disk, self._sys), explained(disk, self._sys):
            super()._extend(protocol, disk, data)


def _differs(ours: Mapping[str, str], data: Mapping[str, Any]) -> str:
    """In what the domain's namespace is not the connection's; empty where all that both sides tell agrees."""
    theirs = {"nqn": data.get("nqn", data.get("target_nqn")), "nsid": data.get("ns_id")}
    if "nqn" not in data and "volume_replicas" not in data and ours.get("uuid"):
        theirs["uuid"] = data.get("vol_uuid")
    for key, value in theirs.items():
        if value is not None and key in ours and _plain(value) != _plain(ours[key]):
            return f"its {key} is {ours[key]}, the connection says {value}"
    return ""


def _plain(value: object) -> str:
    """Without hyphens, in lower case: backends write uuids in every way."""
    return str(value).replace("-", "").lower()


def vendor_strategy(brick: Brick) -> ConnectedStrategy:
    """As Nova's drivers of the same names."""
    return ConnectedStrategy(brick, "vendor", {"scaleio": "SCALEIO", "storpool": "STORPOOL", "lightos": "LIGHTOS"})


class LocalStrategy:
    """Without connection data: rescans the SCSI disk, the NVMe namespace or each path of the map, then the map.

    What is none of these (LVM, a loop device) grows by itself and is only read, by os-brick's LOCAL connector.
    """

    name = "block"

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        self._brick = brick
        self._sys = sys

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Plain block devices that nobody calls something else; a type without a strategy is none of them."""
        return volume_type(connection) in {None, "local"} and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy. The device's own word counts, not os-brick's: that is what QEMU will find."""
        number = sysfs.device_number(disk.source or "")
        nudge = sysfs.nudge(number, self._sys) if number is not None and connection is None else Nudge()
        if nudge == Nudge():
            self._brick.extend("LOCAL", {"device_path": disk.source})
        else:
            check_paths_up(disk, self._sys)
            with same_volume(disk, self._sys), explained(disk, self._sys):
                self._brick.rescan(nudge)
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy."""
        return block_device_size(disk.source or "", self._sys)
