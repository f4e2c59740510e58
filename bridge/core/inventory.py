# SPDX-License-Identifier: Apache-2.0
"""The inventory of a host: its domains, their volumes with the sizes that guests see, and what it can extend."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from bridge.core import limits
from bridge.core.clean import clean
from bridge.core.extend import Bytes, is_uuid
from bridge.core.outcome import Told
from bridge.core.wire import BadMessageError, items, mapping, size

_KEPT_MOST: Final = 2 * limits.DOMAINS.most


class GuestState(StrEnum):
    """The state of a domain, as far as an extend depends on it."""

    ACTIVE = "active"  # running, paused or held after a panic: QEMU has the disk open
    INCOMING = "incoming"  # the receiving side of a migration: must not be touched yet
    OFF = "off"  # shut off or saved, or its QEMU died: QEMU does not run


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    """One volume of one domain, with the size of its virtual hardware; None where libvirt does not say.

    `told`: the guest's knowledge of that size. None where the host cannot tell, and from older agents.
    """

    volume_id: str
    size: Bytes | None
    told: Told | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSeen:
    """One domain on the reporting host. `saved`: the domain is off and its memory is on disk, to be restored."""

    server_id: str
    state: GuestState
    disks: tuple[DiskSeen, ...] = ()
    saved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The domains of one host. `full` replaces the stored inventory; else `domains` and `gone` are changes.

    An inventory that is not full, without domains and gone, is a heartbeat. `capabilities` are the volume types
    (Cinder's driver_volume_type) this host can extend. `unsupported` are the types it cannot extend, each with the
    reason. Agents before `unsupported` send other words as capabilities.

    `unread` counts domains and volumes that could not be read or were too many. `kept` are those of these domains
    that exist all the same: their stored state stays.
    """

    full: bool
    domains: tuple[DomainSeen, ...] = ()
    gone: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    unread: int = 0
    kept: frozenset[str] = frozenset()

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; without an empty `unsupported`, as an older agent sends it."""
        wire = {
            "full": self.full,
            "domains": [_domain_to_wire(domain) for domain in self.domains],
            "gone": list(self.gone),
            "capabilities": list(self.capabilities),
        }
        return {**wire, "unsupported": dict(self.unsupported)} if self.unsupported else wire

    @classmethod
    def from_wire(cls, raw: object) -> "Inventory":
        """Read one inventory; raises BadMessageError."""
        message = mapping(raw, "inventory")
        full = message.get("full")
        if not isinstance(full, bool):
            raise BadMessageError("full: expected true or false")
        seen = _Domains()
        for raw_domain in items(message, "domains"):
            seen.take(raw_domain)
        gone = items(message, "gone")
        types = items(message, "capabilities")[: limits.VOLUME_TYPES.most]
        return cls(
            full=full and not seen.nameless,
            domains=tuple(seen.domains),
            gone=tuple(s.lower() for s in gone[: limits.DOMAINS.most] if is_uuid(s)),
            capabilities=tuple(clean(c, limits.CODE.most) for c in types if isinstance(c, str)),
            unsupported=_reasons(message.get("unsupported")),
            unread=seen.unread + max(0, len(gone) - limits.DOMAINS.most),
            kept=frozenset(seen.kept),
        )


def _reasons(raw: object) -> dict[str, str]:
    """Return names with a line each; {} for any other value, because the lines are only shown."""
    if not isinstance(raw, Mapping):
        return {}
    return {
        clean(str(name), limits.CODE.most): clean(why, limits.WHY.most)
        for name, why in list(raw.items())[: limits.VOLUME_TYPES.most]
        if isinstance(why, str)
    }


def _domain_to_wire(domain: DomainSeen) -> dict[str, Any]:
    """Return a JSON-ready dict; keys that older engines do not know are left out where they are empty."""
    disks = [
        {"volume_id": disk.volume_id, "size_bytes": disk.size}
        | ({"told": disk.told.value} if disk.told is not None else {})
        for disk in domain.disks
    ]
    wire = {"server_id": domain.server_id, "state": domain.state.value, "disks": disks}
    return {**wire, "saved": True} if domain.saved else wire


class _Domains:
    """The domains of one inventory, each read by itself: an unreadable domain leaves the others whole.

    `nameless`: the id of a domain could not be read. Then an unlisted domain must not count as gone.
    """

    def __init__(self) -> None:
        self.domains: list[DomainSeen] = []
        self.kept: set[str] = set()
        self.unread = 0
        self.nameless = False
        self._volumes = 0

    def take(self, raw: object) -> None:
        """Read one more domain of the inventory."""
        domain = raw if isinstance(raw, Mapping) else {}
        server_id = domain.get("server_id")
        if not is_uuid(server_id):
            self.nameless, self.unread = True, self.unread + 1
            return
        volumes = domain.get("disks") or []
        state = next((state for state in GuestState if state == domain.get("state")), None)
        if (
            state is None
            or not isinstance(volumes, list)
            or len(self.domains) >= limits.DOMAINS.most
            or self._volumes >= limits.VOLUMES.most
        ):
            self._keep(str(server_id).lower())
            return
        self.unread += max(0, len(volumes) - limits.DISKS.most)
        disks = [self._disk(volume) for volume in volumes[: limits.DISKS.most]]
        self._volumes += len(disks)
        self.domains.append(_domain(domain, state, tuple(disk for disk in disks if disk is not None)))

    def _keep(self, server_id: str) -> None:
        self.unread += 1
        if len(self.kept) < _KEPT_MOST:
            self.kept.add(server_id)
        else:
            self.nameless = True

    def _disk(self, raw: object) -> DiskSeen | None:
        """Read one volume; a size that is not valid counts as unknown."""
        disk = raw if isinstance(raw, Mapping) else {}
        if not is_uuid(disk.get("volume_id")):
            self.unread += 1
            return None
        try:
            bytes_seen = size(disk, "size_bytes")
        except BadMessageError:
            self.unread += 1
            bytes_seen = None
        told = next((told for told in Told if told == disk.get("told")), None)  # None for a newer agent's word
        return DiskSeen(volume_id=str(disk["volume_id"]).lower(), size=bytes_seen, told=told)


def _domain(domain: Mapping[str, Any], state: GuestState, disks: tuple[DiskSeen, ...]) -> DomainSeen:
    return DomainSeen(
        server_id=str(domain["server_id"]).lower(), state=state, disks=disks, saved=domain.get("saved") is True
    )
