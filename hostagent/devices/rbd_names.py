# SPDX-License-Identifier: Apache-2.0
"""Name of an RBD image in its cluster: the id that Ceph gives to each image, and never gives again.

An image that was deleted and made anew, or renamed, leaves its name to another one. `rbd` of Ceph's common package
tells the id; Nova needs that package on each host with RBD volumes. Without it, images have no name to compare.
"""

import base64
import json
import logging
import os
from collections.abc import Sequence
from typing import Any, Final

from hostagent.devices.commands import run_within
from hostagent.domain import Disk, NetworkSource

LOG = logging.getLogger(__name__)

_PORT: Final = "6789"
_ID_MAX: Final = 64
_WORDS: Final = 200  # of what rbd says at its end


def image_names(
    disk: Disk, key: bytes | None, *, limit: float, command: Sequence[str] = ("rbd",)
) -> frozenset[str]:
    """Return the image's name as `kind value`; empty where `rbd` is missing or does not tell it in `limit` seconds.

    `key`: the domain's own key, None for the host's keyring.
    """
    network, parts = disk.network, (disk.source or "").split("/")
    if network is None or network.protocol != "rbd" or len(parts) not in {2, 3} or not all(parts):
        return frozenset()
    image = [f"--pool={parts[0]}", f"--image={parts[-1]}", *(f"--namespace={name}" for name in parts[1:-1])]
    descriptor = os.memfd_create("key") if key is not None else None  # the key is on no disk and no command line
    try:
        if descriptor is not None:
            os.write(descriptor, base64.b64encode(key or b""))
        access = _access(network, descriptor)
        info = _info([*command, "info", "--format=json", *access, *image], limit, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    image_id = info.get("id")
    if not isinstance(image_id, str) or not 0 < len(image_id) <= _ID_MAX:
        return frozenset()
    return frozenset({f"rbd-image {image_id}"})


def _info(command: Sequence[str], limit: float, descriptor: int | None) -> dict[str, Any]:
    try:
        code, said, complaint = run_within(limit, command, () if descriptor is None else (descriptor,))
    except FileNotFoundError:
        return {}
    except TimeoutError:
        LOG.warning("rbd info took longer than %g s: the image is not compared", limit)
        return {}
    try:
        info = json.loads(said) if code == 0 else None
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        LOG.warning("rbd info ended with %d: the image is not compared: %s", code, complaint.strip()[-_WORDS:])
        return {}
    return info


def _access(network: NetworkSource, descriptor: int | None) -> list[str]:
    """Return the options of `rbd` for the domain's own way to the cluster. Pure."""
    options = []
    if network.conf is not None:
        options.append(f"--conf={network.conf}")
    if network.hosts:
        hosts = ",".join(f"{_bracketed(host)}:{port or _PORT}" for host, port in network.hosts)
        options.append(f"--mon_host={hosts}")
    if network.user is not None:
        options.append(f"--id={network.user}")
    if descriptor is not None:
        options.append(f"--keyfile=/dev/fd/{descriptor}")
    return options


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
