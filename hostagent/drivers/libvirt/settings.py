# SPDX-License-Identifier: Apache-2.0
"""Options of the libvirt driver. They are in [hostagent], where they were before drivers existed."""

from dataclasses import dataclass

from oslo_config import cfg

from bridge.core.errors import ConfigError

LIBVIRT_OPTS = [
    cfg.StrOpt("libvirt_uri", default="qemu:///system", help="The libvirt that runs this host's guests."),
    cfg.FloatOpt(
        "libvirt_limit",
        default=20,
        min=0.1,
        help="Seconds that a libvirt call may take. After that the call is abandoned together with its connection. "
        "The agent makes no other call for this guest until the abandoned call has returned.",
    ),
    cfg.IntOpt(
        "abandoned_max",
        default=16,
        min=1,
        help="Abandoned libvirt calls at a time, at most; above it the agent makes no new call. Each occupies one "
        "of libvirtd's max_workers (20 by default), which nova-compute needs as well. At a quarter of it the "
        "inventory stops reading sizes.",
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
