# SPDX-License-Identifier: Apache-2.0
"""Options of [qmp], and the settings that they become."""

from dataclasses import dataclass
from pathlib import PurePath

from oslo_config import cfg

from bridge.core.errors import ConfigError

QMP_OPTS = [
    cfg.ListOpt(
        "sockets",
        default=["/run/extend-bridge/qmp/*.qmp"],
        help="Patterns of the QMP sockets of this host's guests, absolute, with * and ?. Give each guest a monitor "
        "for the agent alone (QEMU: -qmp unix:/run/extend-bridge/qmp/NAME.qmp,server=on,wait=off), because QEMU "
        "serves one client of a monitor at a time. A guest's id is QEMU's -uuid, or the file's name if that is a "
        "UUID. Only users that may change guests' disks may have write access to these directories.",
    ),
    cfg.FloatOpt(
        "limit",
        default=20,
        min=0.1,
        help="Seconds that a call to one guest's QEMU may take, including the connect. After that the connection "
        "is dropped, and the guest is tried again after a pause. Other guests are not delayed.",
    ),
    cfg.FloatOpt(
        "scan_interval",
        default=1,
        min=0.1,
        help="Seconds between two scans for new and removed sockets.",
    ),
    cfg.StrOpt(
        "agent_suffix",
        default=".qga",
        help="Suffix of the socket of a guest's agent, in the same directory as the QMP socket: NAME.qga for "
        "NAME.qmp (QEMU: -chardev socket,path=...,server=on,wait=off and a virtserialport "
        "org.qemu.guest_agent.0).",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QmpSettings:
    """Values of the options; times in seconds."""

    sockets: tuple[str, ...]
    limit: float = 20.0
    scan_interval: float = 1.0
    agent_suffix: str = ".qga"


def qmp_settings(conf: cfg.ConfigOpts) -> QmpSettings:
    """Read the options; raises ConfigError."""
    section = conf.qmp
    sockets = tuple(pattern.strip() for pattern in section.sockets if pattern.strip())
    for pattern in sockets:
        if not PurePath(pattern).is_absolute() or PurePath(pattern).name in {"", ".."}:
            raise ConfigError(
                f"[qmp] sockets: {pattern!r} is not an absolute pattern of files, such as /run/qemu/*.qmp"
            )
    if not sockets:
        raise ConfigError("[qmp] sockets: name at least one pattern, such as /run/qemu/*.qmp")
    suffix = section.agent_suffix
    if not suffix.startswith(".") or "/" in suffix or len(suffix) < 2:  # noqa: PLR2004 - a dot and a letter
        raise ConfigError(f"[qmp] agent_suffix: {suffix!r} is not a suffix such as .qga")
    return QmpSettings(
        sockets=sockets, limit=section.limit, scan_interval=section.scan_interval, agent_suffix=suffix
    )
