# SPDX-License-Identifier: Apache-2.0
"""The volume types that this host can extend, and the reason for each other type."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from hostagent.devices import choose
from hostagent.devices.base import Strategy
from hostagent.domain import Disk, NetworkSource, SourceKind
from hostagent.drivers.base import DriverCapabilities

_BLOCK: Final = Disk(target="vda", kind=SourceKind.BLOCK, source="/dev/none", driver_format="raw", volume_id=None)
_FILE: Final = Disk(target="vda", kind=SourceKind.FILE, source="/none", driver_format="raw", volume_id=None)
_IMAGE: Final = Disk(
    target="vda", kind=SourceKind.NETWORK, source="none", driver_format="raw", volume_id=None,
    network=NetworkSource(protocol="rbd"),
)  # fmt: skip

VOLUME_TYPES: Final[Mapping[str, Disk]] = MappingProxyType(
    {
        "iscsi": _BLOCK,
        "iser": _BLOCK,
        "fibre_channel": _BLOCK,
        "nvmeof": _BLOCK,
        "scaleio": _BLOCK,
        "storpool": _BLOCK,
        "lightos": _BLOCK,
        "local": _BLOCK,
        "gpfs": _FILE,
        "nfs": _FILE,
        "quobyte": _FILE,
        "smbfs": _FILE,
        "vzstorage": _FILE,
        "rbd": _IMAGE,
    }
)
"""Cinder's driver_volume_type, and a disk as Nova attaches it."""

_TOOLS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "iscsi": ("iscsiadm", "lsscsi"),
        "iser": ("iscsiadm", "lsscsi"),
        "fibre_channel": ("lsscsi",),
        "nvmeof": ("nvme",),
        "rbd": ("qemu-img",),
    }
)
"""What os-brick, or the agent itself, runs on the host for an extend of this type."""
_OVER_PATHS: Final = frozenset({"iscsi", "iser", "fibre_channel"})
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

NO_STRATEGY: Final = "this release extends no volume of this type on a host"


def installed(tool: str) -> bool:
    """Return whether a tool is installed, also in the administrator's directories, which a service's PATH lacks."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    return shutil.which(tool, path=path) is not None


def volume_types(
    strategies: Sequence[Strategy],
    driver: DriverCapabilities,
    *,
    use_multipath: bool,
    have: Callable[[str], bool] = installed,
) -> Mapping[str, str]:
    """Return each volume type with why it cannot be extended here, "" where it can.

    The driver and the strategies decide.
    """
    return {
        name: driver.why_not(disk) or _why_not(name, disk, strategies, use_multipath=use_multipath, have=have)
        for name, disk in VOLUME_TYPES.items()
    }


def _why_not(
    name: str, disk: Disk, strategies: Sequence[Strategy], *, use_multipath: bool, have: Callable[[str], bool]
) -> str:
    if choose(strategies, disk, {"driver_volume_type": name, "data": {}}) is None:
        return NO_STRATEGY
    tools = (*_TOOLS.get(name, ()), *(("multipathd",) if use_multipath and name in _OVER_PATHS else ()))
    missing = [tool for tool in tools if not have(tool)]
    return f"not installed: {', '.join(missing)}" if missing else ""
