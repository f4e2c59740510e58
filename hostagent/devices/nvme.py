# SPDX-License-Identifier: Apache-2.0
"""NVMe-oF, both forms of its properties (os_brick/initiator/connectors/nvmeof.py: NVMeOFConnProps)."""

from typing import Any

from hostagent.devices.connected import ConnectedStrategy
from hostagent.ports import Brick


class NvmeStrategy(ConnectedStrategy):
    """os-brick finds the namespace by what the connection says; the domain's path is not told to it."""

    def __init__(self, brick: Brick) -> None:
        super().__init__(brick, "nvme", {"nvmeof": "NVMEOF"})

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """os-brick compares `ns_id` with sysfs as text, JSON makes it a number; `volume_replicas: None` ends in a
        TypeError."""
        if isinstance(data.get("ns_id"), int):
            data["ns_id"] = str(data["ns_id"])
        if data.get("volume_replicas", ...) is None:
            del data["volume_replicas"]
        return data
