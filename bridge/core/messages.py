# SPDX-License-Identifier: Apache-2.0
"""What engine and host agent say to each other: Order down, Reports and Inventory up.

Every message carries `version`. Unknown keys are ignored, so a newer sender may add; a message of a higher major
version is refused by name. Wire form is JSON; the golden files in tests/fixtures/messages hold each version.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from bridge.core.encryption import Encryption
from bridge.core.extend import Bytes, ExtendKey, clean_request_id, is_uuid
from bridge.core.outcome import Outcome, Told
from bridge.core.wire import BadMessageError, items, mapping, seconds, text, whole

VERSION: Final = 1  # raised when a reader of the old version could misread the new; added keys do not raise it
_CODE_MAX: Final = 64
_WHY_MAX: Final = 200


class GuestState(StrEnum):
    """A domain as far as an extend cares."""

    ACTIVE = "active"  # running, paused or held after a panic: QEMU has the disk open
    INCOMING = "incoming"  # the receiving side of a migration: not ours to touch yet
    OFF = "off"  # shut off or saved, or its QEMU died: no QEMU


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Bring one disk of one guest up to `target` bytes. Sent by the engine, in groups per host.

    `connection` is the attachment's connection data in os-brick's form ({driver_volume_type, data}), reduced by
    allow-list, or None where Cinder gives none. `encryption`: how an encrypted volume is opened, None for others
    and where Cinder does not tell; engines before it send none, agents before it do not look. `attachment_id`:
    Cinder's attachment, which every new attach replaces; an added key as well.
    """

    attempt_id: str
    key: ExtendKey
    gen: int
    target: Bytes
    connection: Mapping[str, Any] | None = None
    encryption: Encryption | None = None
    request_id: str | None = None
    global_request_id: str | None = None
    attachment_id: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; without the added keys where they say nothing, as an older engine sends it."""
        wire: dict[str, Any] = {
            "version": VERSION,
            "attempt_id": self.attempt_id,
            "server_id": self.key.server_id,
            "volume_id": self.key.volume_id,
            "gen": self.gen,
            "target_bytes": int(self.target),
            "connection": dict(self.connection) if self.connection is not None else None,
            "request_id": self.request_id,
            "global_request_id": self.global_request_id,
        }
        if self.encryption is not None:
            wire["encryption"] = self.encryption.to_wire()
        if self.attachment_id is not None:
            wire["attachment_id"] = self.attachment_id
        return wire

    @classmethod
    def from_wire(cls, raw: object) -> "Order":
        """Read one order; raises BadMessageError."""
        message = _versioned(raw)
        connection = message.get("connection")
        if connection is not None and not isinstance(connection, Mapping):
            raise BadMessageError("connection: expected an object or null")
        encryption, attachment_id = message.get("encryption"), message.get("attachment_id")
        return cls(
            attempt_id=text(message, "attempt_id"),
            key=_key(message),
            gen=whole(message, "gen"),
            target=Bytes(whole(message, "target_bytes")),
            connection=connection,
            encryption=Encryption.from_wire(encryption) if encryption is not None else None,
            request_id=clean_request_id(message.get("request_id")),
            global_request_id=clean_request_id(message.get("global_request_id")),
            attachment_id=attachment_id if isinstance(attachment_id, str) and is_uuid(attachment_id) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step of the host's work: what was done, how long it took, what was seen."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of one order. Settles only the attempt it names.

    `before` and `after` are the guest's capacity in bytes as read from libvirt, None where it was not read.
    `overhead`: bytes by which the device is always smaller than its volume; agents before it send none.
    """

    attempt_id: str
    key: ExtendKey
    gen: int
    outcome: Outcome
    reason: str
    target: Bytes
    before: Bytes | None = None
    after: Bytes | None = None
    detail: str = ""
    steps: tuple[StepReport, ...] = ()
    overhead: int = 0

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; without `overhead` where there is none, as an older agent sends it."""
        wire = {
            "attempt_id": self.attempt_id,
            "server_id": self.key.server_id,
            "volume_id": self.key.volume_id,
            "gen": self.gen,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "target_bytes": int(self.target),
            "before_bytes": self.before,
            "after_bytes": self.after,
            "detail": self.detail,
            "steps": [
                {
                    "name": s.name,
                    "ok": s.ok,
                    "seconds": round(s.seconds, 6),
                    "detail": s.detail,
                    "size": s.size,
                }
                for s in self.steps
            ],
        }
        return {**wire, "overhead_bytes": self.overhead} if self.overhead else wire

    @classmethod
    def from_wire(cls, raw: object) -> "Report":
        """Read one report; raises BadMessageError. An outcome of a newer agent reads as `error`."""
        message = mapping(raw, "report")
        try:
            outcome = Outcome(text(message, "outcome"))
        except ValueError:
            outcome = Outcome.ERROR
        return cls(
            attempt_id=text(message, "attempt_id"),
            key=_key(message),
            gen=whole(message, "gen"),
            outcome=outcome,
            reason=text(message, "reason")[:_CODE_MAX],
            target=Bytes(whole(message, "target_bytes")),
            before=_size(message, "before_bytes"),
            after=_size(message, "after_bytes"),
            detail=str(message.get("detail") or "")[:500],
            steps=tuple(_step(step) for step in items(message, "steps")[:64]),
            overhead=_size(message, "overhead_bytes") or 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    """One volume of one domain: the size its virtual hardware has, None where libvirt does not say.

    `told`: does the guest know that size; None where the host cannot tell, and from agents before it.
    """

    volume_id: str
    size: Bytes | None
    told: Told | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSeen:
    """One domain on the reporting host. `saved`: it is off and its memory is on disk, to be restored."""

    server_id: str
    state: GuestState
    disks: tuple[DiskSeen, ...] = ()
    saved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a host has. `full` replaces what is known of the host; else `domains` and `gone` are changes.

    An inventory without domains and gone and not full is a heartbeat. `capabilities` are the volume types (Cinder's
    driver_volume_type) this host can extend, `unsupported` those it cannot, each with why. Agents before
    `unsupported` send other words as capabilities.
    """

    full: bool
    domains: tuple[DomainSeen, ...] = ()
    gone: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """A JSON-ready dict; without what is not told, as an older agent sends it."""
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
        return cls(
            full=full,
            domains=tuple(_domain(d) for d in items(message, "domains")),
            gone=tuple(str(s) for s in items(message, "gone") if is_uuid(s)),
            capabilities=tuple(str(c) for c in items(message, "capabilities")),
            unsupported=_reasons(message.get("unsupported")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMessage:
    """What travels on the reports queue: reports, an inventory, or both, from one run of one agent.

    `boot_id` changes with each start of the agent; `seq` grows by one with each message of that run.
    `sent_at` is the host's clock (seconds since the epoch) and is only shown, never compared. `unread` counts
    reports of the message that could not be read: their neighbours are taken all the same.
    """

    host: str
    boot_id: str
    seq: int
    sent_at: float
    reports: tuple[Report, ...] = ()
    inventory: Inventory | None = None
    unread: int = 0

    def to_wire(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {
            "version": VERSION,
            "host": self.host,
            "boot_id": self.boot_id,
            "seq": self.seq,
            "sent_at": self.sent_at,
            "reports": [r.to_wire() for r in self.reports],
            "inventory": self.inventory.to_wire() if self.inventory is not None else None,
        }

    @classmethod
    def from_wire(cls, raw: object) -> "HostMessage":
        """Read one message of the reports queue; raises BadMessageError."""
        message = _versioned(raw)
        inventory = message.get("inventory")
        boot_id = text(message, "boot_id")
        if not is_uuid(boot_id):
            raise BadMessageError("boot_id: expected a UUID")
        reports, unread = [], 0
        for report in items(message, "reports"):
            try:
                reports.append(Report.from_wire(report))
            except BadMessageError:
                unread += 1
        return cls(
            host=text(message, "host"),
            boot_id=boot_id,
            seq=whole(message, "seq"),
            sent_at=seconds(message, "sent_at"),
            reports=tuple(reports),
            inventory=Inventory.from_wire(inventory) if inventory is not None else None,
            unread=unread,
        )


def _versioned(raw: object) -> Mapping[str, Any]:
    message = mapping(raw, "message")
    version = whole(message, "version")
    if version > VERSION:
        raise BadMessageError(f"version: this side reads up to {VERSION}, upgrade it")
    return message


def _reasons(raw: object) -> dict[str, str]:
    """Names with a line each; {} for anything else, since nothing depends on it."""
    if not isinstance(raw, Mapping):
        return {}
    return {str(name)[:_CODE_MAX]: str(why)[:_WHY_MAX] for name, why in list(raw.items())[:_CODE_MAX]}


def _size(message: Mapping[str, Any], key: str) -> Bytes | None:
    return None if message.get(key) is None else Bytes(whole(message, key))


def _key(message: Mapping[str, Any]) -> ExtendKey:
    server_id, volume_id = message.get("server_id"), message.get("volume_id")
    if not is_uuid(server_id) or not is_uuid(volume_id):
        raise BadMessageError("server_id, volume_id: expected UUIDs")
    return ExtendKey(str(server_id).lower(), str(volume_id).lower())


def _step(raw: object) -> StepReport:
    step = mapping(raw, "step")
    size = step.get("size")
    return StepReport(
        name=text(step, "name"),
        ok=step.get("ok") is True,
        seconds=seconds(step, "seconds"),
        detail=str(step.get("detail") or "")[:500],
        size=size if isinstance(size, int) and not isinstance(size, bool) else None,
    )


def _domain_to_wire(domain: DomainSeen) -> dict[str, Any]:
    """Return a JSON-ready dict; a key that older engines do not know is there only where it says something."""
    disks = [
        {"volume_id": disk.volume_id, "size_bytes": disk.size}
        | ({"told": disk.told.value} if disk.told is not None else {})
        for disk in domain.disks
    ]
    wire = {"server_id": domain.server_id, "state": domain.state.value, "disks": disks}
    return {**wire, "saved": True} if domain.saved else wire


def _told(raw: object) -> Told | None:
    """Return a value of `told`; None for one that a newer agent sends."""
    return next((told for told in Told if told == raw), None)


def _domain(raw: object) -> DomainSeen:
    domain = mapping(raw, "domain")
    if not is_uuid(domain.get("server_id")):
        raise BadMessageError("server_id: expected a UUID")
    try:
        state = GuestState(text(domain, "state"))
    except ValueError as ex:
        raise BadMessageError("state: not one of active, incoming, off") from ex
    disks = []
    for raw_disk in items(domain, "disks"):
        disk = mapping(raw_disk, "disk")
        if is_uuid(disk.get("volume_id")):
            disks.append(
                DiskSeen(
                    volume_id=str(disk["volume_id"]).lower(),
                    size=_size(disk, "size_bytes"),
                    told=_told(disk.get("told")),
                )
            )
    return DomainSeen(
        server_id=str(domain["server_id"]).lower(),
        state=state,
        disks=tuple(disks),
        saved=domain.get("saved") is True,
    )
