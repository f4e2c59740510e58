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
        help="Patterns of the QMP sockets of this host's guests, absolute, with * and ?. Each is a monitor of its "
        "own for the agent (QEMU: -qmp unix:/run/extend-bridge/qmp/NAME.qmp,server=on,wait=off), because QEMU "
        "answers one client at a time on each. A guest's id is QEMU's -uuid, or the file's name where that is a "
        "UUID. Only those who may change guests' disks may write to these directories.",
    ),
    cfg.FloatOpt(
        "limit",
        default=20,
        min=0.1,
        help="Seconds a call of one guest's QEMU may take, connecting included. Then its connection is dropped, "
        "and the guest is asked again after a pause; other guests go on meanwhile.",
    ),
    cfg.FloatOpt(
        "scan_interval",
        default=1,
        min=0.1,
        help="Seconds between looks for sockets that came or went.",
    ),
    cfg.StrOpt(
        "agent_suffix",
        default=".qga",
        help="Suffix of the socket of a guest's agent, which lies beside its QMP socket: NAME.qga beside NAME.qmp "
        "(QEMU: -chardev socket,path=...,server=on,wait=off and a virtserialport org.qemu.guest_agent.0).",
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
