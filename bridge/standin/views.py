# SPDX-License-Identifier: Apache-2.0
"""The JSON of the Cinder stand-in, with the same keys as a Cinder 29 at 3.71 returns to an administrator."""

from typing import Any, Final

from bridge.standin.volumes import ATTACHED, Attachment, Volume, stamp

MIN: Final = (3, 0)
MAX: Final = (3, 71)
_USER: Final = "0" * 32
_TYPE_ID: Final = "00000000-0000-4000-8000-00000000000a"
_SERVICE_ID: Final = "00000000-0000-4000-8000-00000000000b"
_KEY_ID: Final = "00000000-0000-4000-8000-00000000000c"
DESCRIPTION: Final = "A stand-in of Extend Bridge, not a Cinder: volumes are kept in memory"


def volume_view(volume: Volume, project: str, base: str) -> dict[str, Any]:
    """Return the answer to GET /volumes/{id}: only attached rows, each with the volume's own id."""
    path = f"{project}/volumes/{volume.id}"
    return {
        "id": volume.id,
        "status": volume.status,
        "size": volume.size,
        "availability_zone": "nova",
        "created_at": stamp(volume.created_at),
        "updated_at": stamp(volume.updated_at),
        "name": volume.name,
        "description": None,
        "volume_type": volume.volume_type,
        "snapshot_id": None,
        "source_volid": None,
        "metadata": dict(volume.metadata),
        "links": [
            {"rel": "self", "href": f"{base}/v3/{path}"},
            {"rel": "bookmark", "href": f"{base}/{path}"},
        ],
        "user_id": _USER,
        "bootable": "false",
        "encrypted": volume.encrypted,
        "replication_status": None,
        "consistencygroup_id": None,
        "multiattach": volume.multiattach,
        "attachments": [
            {
                "id": volume.id,
                "attachment_id": attachment.id,
                "volume_id": volume.id,
                "server_id": attachment.server_id,
                "host_name": attachment.host,
                "device": attachment.device,
                "attached_at": stamp(attachment.attached_at),
            }
            for attachment in volume.attachments
            if attachment.status == ATTACHED
        ],
        "migration_status": None,
        "group_id": None,
        "provider_id": None,
        "shared_targets": False,
        "service_uuid": _SERVICE_ID,
        "cluster_name": None,
        "volume_type_id": _TYPE_ID,
        "consumes_quota": True,
        "os-vol-tenant-attr:tenant_id": project,
        "os-vol-mig-status-attr:migstat": None,
        "os-vol-mig-status-attr:name_id": None,
        "os-vol-host-attr:host": "standin@memory#memory",
    }


def encryption_view(volume: Volume) -> dict[str, Any]:
    """Return the answer to GET /volumes/{id}/encryption, which is flat.

    An unencrypted volume has only `encryption_key_id`, which is null.
    """
    if not volume.encrypted:
        return {"encryption_key_id": None}
    usual = {
        "encryption_key_id": _KEY_ID,
        "control_location": "front-end",
        "cipher": "aes-xts-plain64",
        "key_size": 256,
        "provider": "luks",
    }
    return {**usual, **volume.encryption}


def attachment_summary(volume: Volume, attachment: Attachment) -> dict[str, Any]:
    """Return a row of GET /attachments, which has no connection data."""
    return {
        "id": attachment.id,
        "status": attachment.status,
        "instance": attachment.server_id,
        "volume_id": volume.id,
    }


def attachment_view(volume: Volume, attachment: Attachment) -> dict[str, Any]:
    """Return the answer to GET /attachments/{id}, or a row of /attachments/detail; connection_info is flat."""
    info = {
        **attachment.connection_info,
        **({"attachment_id": attachment.id} if attachment.connection_info else {}),
    }
    return {
        **attachment_summary(volume, attachment),
        "attached_at": stamp(attachment.attached_at) if attachment.status == ATTACHED else "",
        "detached_at": "",
        "attach_mode": attachment.attach_mode,
        "connection_info": info,
    }


def versions_view(base: str) -> dict[str, Any]:
    """Return the answer to GET / and GET /v3/."""
    return {
        "versions": [
            {
                "id": "v3.0",
                "status": "CURRENT",
                "version": f"{MAX[0]}.{MAX[1]}",
                "min_version": f"{MIN[0]}.{MIN[1]}",
                "updated": "2023-08-31T00:00:00Z",
                "description": DESCRIPTION,
                "links": [
                    {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
                    {"rel": "self", "href": f"{base}/v3/"},
                ],
                "media-types": [
                    {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}
                ],
            }
        ]
    }
