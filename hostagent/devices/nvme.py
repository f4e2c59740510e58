# SPDX-License-Identifier: Apache-2.0
"""NVMe-oF, both forms of its properties (os_brick/initiator/connectors/nvmeof.py: NVMeOFConnProps)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import sysfs
from hostagent.devices.blocks import check_paths_up, explained, same_volume
from hostagent.devices.connected import ConnectedStrategy
from hostagent.domain import Disk
from hostagent.failure import StoppedError
from hostagent.ports import Brick


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
            raise StoppedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"{disk.source}: {differs}")
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
