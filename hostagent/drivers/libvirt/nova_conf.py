# SPDX-License-Identifier: Apache-2.0
"""The settings that nova-compute on the same host must share with the agent."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from oslo_config import cfg

LOG = logging.getLogger(__name__)

_NOVA_LIBVIRT = [cfg.BoolOpt("volume_use_multipath", default=False, deprecated_name="iscsi_use_multipath")]
_LOCKS = [cfg.StrOpt("lock_path")]


def disagreements(files: Sequence[str], *, use_multipath: bool, lock_path: str) -> list[str]:
    """Return a line for each option that differs from nova-compute's; none without a nova.conf.

    If multipath differs, os-brick rescans a path and leaves its map small, or looks for a map that does not exist.
    If the lock directory differs, two processes rescan the same device at once.
    """
    there = [name for name in files if Path(name).exists()]
    if not there:
        return []
    if closed := [name for name in there if not os.access(name, os.R_OK)]:
        return [f"{', '.join(closed)} cannot be read: compare use_multipath and lock_path with Nova's by hand"]
    nova = cfg.ConfigOpts()
    nova.register_opts(_NOVA_LIBVIRT, group="libvirt")
    nova.register_opts(_LOCKS, group="oslo_concurrency")
    try:
        nova([], project="nova", default_config_files=there, default_config_dirs=[])
        multipath, locks = nova.libvirt.volume_use_multipath, nova.oslo_concurrency.lock_path
    except (cfg.Error, ValueError) as ex:
        return [f"{', '.join(there)} cannot be parsed ({type(ex).__name__}): not compared with Nova's settings"]
    found = []
    if multipath != use_multipath:
        found.append(
            f"[hostagent] use_multipath is {use_multipath}, nova-compute's [libvirt] volume_use_multipath "
            f"is {multipath}: they must be equal"
        )
    if locks and not _same(locks, lock_path):
        found.append(
            f"[hostagent] lock_path is {lock_path}, nova-compute's [oslo_concurrency] lock_path is "
            f"{locks}: they must be the same directory"
        )
    return found


def warn(files: Sequence[str], *, use_multipath: bool, lock_path: str) -> None:
    """Log a warning for each difference."""
    for line in disagreements(files, use_multipath=use_multipath, lock_path=lock_path):
        LOG.warning("%s", line)


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()
