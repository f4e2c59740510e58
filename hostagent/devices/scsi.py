# SPDX-License-Identifier: Apache-2.0
"""iSCSI, iSER and Fibre Channel, single path and multipath: os-brick rescans each path, then the map."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import sysfs
from hostagent.devices.blocks import check_paths_up, explained, same_volume
from hostagent.devices.connected import ConnectedStrategy
from hostagent.domain import Disk
from hostagent.failure import StoppedError
from hostagent.ports import Brick

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
            raise StoppedError(
                Outcome.REFUSED,
                Reason.WRONG_DEVICE,
                f"the domain has {disk.source}, the connection {', '.join(paths)}",
            )
