# SPDX-License-Identifier: Apache-2.0
"""Strategies for block devices: by os-brick's connector where connection data came, else by sysfs alone."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import paths, sysfs
from hostagent.devices.base import properties, volume_type
from hostagent.devices.checks import block_device_size, check_paths_up, explained, is_plain_block, same_volume
from hostagent.domain import Disk
from hostagent.errors import StepFailedError
from hostagent.ports import Brick, Nudge


class ConnectedStrategy:
    """A family of connectors. `protocols`: driver_volume_type to os-brick's name of the connector.

    The size that os-brick returns often is whatever is there, so the device that the domain has open is read.
    """

    def __init__(self, brick: Brick, name: str, protocols: Mapping[str, str], sys: Path = sysfs.SYS) -> None:
        self.name = name
        self._brick = brick
        self._protocols = protocols
        self._sys = sys

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        return volume_type(connection) in self._protocols and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        self._extend(self._protocols[volume_type(connection) or ""], disk, self._prepare(properties(connection)))
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        return block_device_size(disk.source or "", self._sys)

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """Correct values that make the connector fail."""
        return data

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        del disk
        self._brick.extend(protocol, data)

    def _even_out(self, disk: Disk) -> None:
        """Rescan what os-brick left behind: a path the connection data do not list, a map it does not know.

        It leaves a dm-multipath map alone while use_multipath is off, and over NVMe namespaces always.
        """
        number = sysfs.device_number(disk.source or "")
        if number is not None and sysfs.uneven(number, self._sys):
            self._brick.rescan(sysfs.nudge(number, self._sys))


_LISTS_PATHS: Final = frozenset(
    {"ISCSI", "ISER"}
)  # os-brick lists Fibre Channel's after a look at the adapters only


class ScsiStrategy(ConnectedStrategy):
    """iSCSI, iSER and Fibre Channel, single path and multipath.

    Refuses a disk that is not the connection's and names the path that is down: os-brick does neither.
    """

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        protocols = {"iscsi": "ISCSI", "iser": "ISER", "fibre_channel": "FIBRE_CHANNEL"}
        super().__init__(brick, "scsi", protocols, sys)

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        with same_volume(disk, self._brick.read_anew, self._sys), explained(disk, self._sys):
            check_paths_up(disk, self._sys)
            self._check_addresses(protocol, disk, data)
            super()._extend(protocol, disk, data)
            self._even_out(disk)

    def _check_addresses(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        """Raise StepFailedError where the disk's paths lead to another LUN than the connection's."""
        number = sysfs.device_number(disk.source or "")
        if number is None:
            return
        ours = paths.addresses(number, self._sys)
        if differs := paths.mismatch(ours, paths.connection_targets(data)):
            raise StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source}: {differs}")
        if not ours and protocol in _LISTS_PATHS:
            self._check_names(number, disk, self._brick.paths(protocol, deepcopy(dict(data))))

    def _check_names(self, number: str, disk: Disk, names: Sequence[str]) -> None:
        theirs = {theirs for name in names if (theirs := sysfs.device_number(name)) is not None}
        if theirs and not theirs & sysfs.beneath(number, self._sys):
            raise StepFailedError(
                Outcome.REFUSED,
                Reason.WRONG_DEVICE,
                f"the domain has {disk.source}, but the connection names {', '.join(names)}",
            )


class NvmeStrategy(ConnectedStrategy):
    """NVMe-oF, both forms of its properties (os_brick/initiator/connectors/nvmeof.py: NVMeOFConnProps).

    os-brick finds the namespace by what the connection says; here it must be the one the domain has.
    """

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        super().__init__(brick, "nvme", {"nvmeof": "NVMEOF"}, sys)

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """Correct values: os-brick compares `ns_id` as text, and `volume_replicas: None` ends in a TypeError."""
        if isinstance(data.get("ns_id"), int):
            data["ns_id"] = str(data["ns_id"])
        if data.get("volume_replicas", ...) is None:
            del data["volume_replicas"]
        return data

    def _extend(self, protocol: str, disk: Disk, data: Mapping[str, Any]) -> None:
        number = sysfs.device_number(disk.source or "")
        identities = sysfs.nvme_identities(number, self._sys) if number is not None else {}
        for name, ours in identities.items():
            if differs := _differs(ours, data):
                raise StepFailedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source}: {name}: {differs}")
        with same_volume(disk, self._brick.read_anew, self._sys), explained(disk, self._sys):
            check_paths_up(disk, self._sys)
            super()._extend(protocol, disk, data)
            self._even_out(disk)


def _differs(ours: Mapping[str, str], data: Mapping[str, Any]) -> str:
    """Return how a namespace differs from the connection's; empty where all values that both have are equal."""
    theirs = {"nqn": data.get("nqn", data.get("target_nqn")), "nsid": data.get("ns_id")}
    if "nqn" not in data and "volume_replicas" not in data and ours.get("uuid"):
        theirs["uuid"] = data.get("vol_uuid")
    for key, value in theirs.items():
        if value is not None and key in ours and _plain(value) != _plain(ours[key]):
            return f"its {key} is {ours[key]}, the connection says {value}"
    return ""


def _plain(value: object) -> str:
    """Drop hyphens and capitals, because backends write uuids differently."""
    return str(value).replace("-", "").lower()


def vendor_strategy(brick: Brick) -> ConnectedStrategy:
    """Return the strategy of vendors' connectors, named as Nova's drivers; not tested with real storage."""
    return ConnectedStrategy(brick, "vendor", {"scaleio": "SCALEIO", "storpool": "STORPOOL", "lightos": "LIGHTOS"})


class LocalStrategy:
    """Block devices without connection data: a SCSI disk, an NVMe namespace, or each path of a map and the map.

    Other devices (LVM, loop) grow by themselves and are only read, by os-brick's LOCAL connector.
    """

    name = "block"

    def __init__(self, brick: Brick, sys: Path = sysfs.SYS) -> None:
        self._brick = brick
        self._sys = sys

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Take plain block devices without connection data, or with Cinder's type `local`."""
        return volume_type(connection) in {None, "local"} and is_plain_block(disk)

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """Rescan; return the device's own size instead of os-brick's, because QEMU uses the device's."""
        number = sysfs.device_number(disk.source or "")
        nudge = sysfs.nudge(number, self._sys) if number is not None and connection is None else Nudge()
        if nudge == Nudge():
            self._brick.extend("LOCAL", {"device_path": disk.source})
        else:
            with same_volume(disk, self._brick.read_anew, self._sys), explained(disk, self._sys):
                check_paths_up(disk, self._sys)
                self._brick.rescan(nudge)
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        return block_device_size(disk.source or "", self._sys)
