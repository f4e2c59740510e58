# SPDX-License-Identifier: Apache-2.0
"""The allow-list of Cinder's connection data: only these keys pass, because names of secrets cannot be listed.

Source: connection_info as Cinder's targets and drivers build it (targets/iscsi.py, drivers/rbd.py, nvmeof). CHAP
passwords, keyrings and tokens are in it. A future driver can add a secret under a new name.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

CONNECTION_KEYS: Final = frozenset(
    {
        # any driver
        "access_mode", "cacheable", "device_path", "discard", "encrypted", "enforce_multipath",
        "logical_block_size", "physical_block_size", "volume_id",
        # SCSI
        "addressing_mode", "initiator_target_lun_map", "initiator_target_map", "target_discovered", "target_iqn",
        "target_iqns", "target_lun",
        "target_luns", "target_portal", "target_portals", "target_wwn", "target_wwns",
        # NVMe-oF
        "alias", "ns_id", "nqn", "portals", "target_nqn", "target_port", "transport_type", "vol_uuid",
        "volume_nguid", "volume_replicas", "replica_count",
        # RBD (the key stays with the host's own keyring)
        "auth_enabled", "auth_username", "cluster_name", "hosts", "name", "ports", "secret_type", "secret_uuid",
        # file shares (not their mount options: for SMB these hold the password, and an extend mounts nothing)
        "export", "format", "mount_point_base",
        # vendor connectors
        "scaleIO_volname", "scaleIO_volume_id", "uuid", "volume",
    }
)  # fmt: skip
"""Keys of connection data that os-brick's extend needs and that hold no secret.

`auth_username` is a Ceph user name. For CHAP it is half of a secret, so it is dropped with iSCSI below.
"""

_CHAP_TYPES: Final = frozenset({"iscsi", "iser"})
_URL_PASSWORD = re.compile(r"(//|,)([^:@/,]*):([^@/]*)@")


def scrub_connection(flat: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return Cinder's flat attachment record in os-brick's form, {driver_volume_type, data}, without secrets.

    The result is None where the record has no driver_volume_type (reserved rows, the legacy attach path).
    """
    kind = flat.get("driver_volume_type")
    if not isinstance(kind, str) or not kind:
        return None
    nested = flat.get("data")
    source: Mapping[str, Any] = nested if isinstance(nested, Mapping) else flat
    keep = CONNECTION_KEYS - {"auth_username"} if kind.lower() in _CHAP_TYPES else CONNECTION_KEYS
    return {"driver_volume_type": kind, "data": {k: v for k, v in source.items() if k in keep}}


def safe_url(url: str) -> str:
    """Return a URL fit for a log line: without the passwords of any host of a transport_url."""
    return _URL_PASSWORD.sub(r"\1\2:***@", url)
