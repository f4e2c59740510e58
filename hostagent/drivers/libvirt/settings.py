# SPDX-License-Identifier: Apache-2.0
"""Options of the libvirt driver. They stand in [hostagent], where they were before there were drivers."""

from dataclasses import dataclass

from oslo_config import cfg

from bridge.core.errors import ConfigError

LIBVIRT_OPTS = [
    cfg.StrOpt("libvirt_uri", default="qemu:///system", help="The libvirt whose guests are ours."),
    cfg.FloatOpt(
        "libvirt_limit",
        default=20,
        min=0.1,
        help="Seconds a libvirt call may take. A call that takes longer is given up on and its connection left "
        "behind; its guest is not touched again until it returned.",
    ),
    cfg.IntOpt(
        "abandoned_max",
        default=16,
        min=1,
        help="Libvirt calls given up on that may be outstanding; above it no new call is made. Each holds one "
        "of libvirtd's max_workers (20 by default), which nova-compute needs, too. The inventory stops asking for "
        "sizes at a quarter of it.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtSettings:
    """Values of the options; `limit` in seconds."""

    uri: str
    limit: float
    abandoned_max: int


def libvirt_settings(conf: cfg.ConfigOpts) -> LibvirtSettings:
    """Read the options; raises ConfigError."""
    section = conf.hostagent
    if "://" not in section.libvirt_uri:
        raise ConfigError(f"[hostagent] libvirt_uri: {section.libvirt_uri!r} is not a URI such as qemu:///system")
    return LibvirtSettings(
        uri=section.libvirt_uri, limit=section.libvirt_limit, abandoned_max=section.abandoned_max
    )
