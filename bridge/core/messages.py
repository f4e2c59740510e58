# SPDX-License-Identifier: Apache-2.0
"""Messages between engine and host agent: orders down; reports, inventories and file systems up.

Every message carries `version`. Unknown keys are ignored, so a newer sender can add keys. A message of a higher
major version is refused by name. The wire form is JSON; the golden files in tests/fixtures/messages hold each
version.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.core import limits
from bridge.core.encryption import Encryption
from bridge.core.extend import Bytes, ExtendKey, clean_request_id, clean_traceparent, is_uuid
from bridge.core.file_systems import FileSystemSeen
from bridge.core.inventory import Inventory
from bridge.core.outcome import Outcome
from bridge.core.wire import BadMessageError, items, mapping, seconds, size, text, whole, word, words

VERSION: Final = 1  # raised where an old reader could misread a new message; added keys do not raise it


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order to bring one disk of one guest up to `target` bytes. Sent by the engine, in groups per host.

    `connection` is the attachment's connection data in os-brick's form ({driver_volume_type, data}), reduced by
    allow-list. It is None where Cinder does not give connection data.

    `encryption` is None for other volumes, and where Cinder does not say. It is an added key: older engines do not
    send it, older agents ignore it. `attachment_id` is Cinder's attachment, which every new attach replaces; an
    added key as well, and so is `traceparent`, the extend's trace. `grow_file_system`: the volume's owner asked for
    the growth of the file system on it; an added key, too.
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
    traceparent: str | None = None
    grow_file_system: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; without the added keys where they are None, as an older engine sends it."""
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
        if self.traceparent is not None:
            wire["traceparent"] = self.traceparent
        if self.grow_file_system:
            wire["grow_file_system"] = True
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
            traceparent=clean_traceparent(message.get("traceparent")),
            grow_file_system=message.get("grow_file_system") is True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step of the host's work: its name, duration, detail, and the size it read."""

    name: str
    ok: bool
    seconds: float
    detail: str = ""
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one order. A report settles only the attempt that it names.

    `before` and `after` are the guest's capacity in bytes as read from libvirt, None where it was not read.
    `overhead`: bytes by which the device is always smaller than its volume. Older agents do not send it, nor the
    order's `traceparent`.
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
    traceparent: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; without the added keys where they are empty, as an older agent sends it."""
        wire: dict[str, Any] = {
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
        if self.overhead:
            wire["overhead_bytes"] = self.overhead
        if self.traceparent is not None:
            wire["traceparent"] = self.traceparent
        return wire

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
            reason=word(message, "reason", limits.CODE.most),
            target=Bytes(whole(message, "target_bytes")),
            before=size(message, "before_bytes"),
            after=size(message, "after_bytes"),
            detail=words(message, "detail", limits.DETAIL.most),
            steps=tuple(_steps(items(message, "steps")[: limits.STEPS.most])),
            overhead=size(message, "overhead_bytes") or 0,
            traceparent=clean_traceparent(message.get("traceparent")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMessage:
    """A message of the reports queue: reports, an inventory, or both, from one run of one agent.

    `boot_id` changes with each start of the agent; `seq` grows by one with each message of that run.
    `sent_at` is the host's clock (seconds since the epoch) and is only shown, never compared. `unread` counts
    reports of the message that could not be read; the other reports are processed all the same.

    `bound`: the broker vouches that the message is from this host. The flag is not part of the message.

    `file_systems` are those of guests; an added key, which older engines ignore.
    """

    host: str
    boot_id: str
    seq: int
    sent_at: float
    reports: tuple[Report, ...] = ()
    inventory: Inventory | None = None
    unread: int = 0
    bound: bool = False
    file_systems: tuple[FileSystemSeen, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict; without `file_systems` where there are none, as an older agent sends it."""
        wire: dict[str, Any] = {
            "version": VERSION,
            "host": self.host,
            "boot_id": self.boot_id,
            "seq": self.seq,
            "sent_at": self.sent_at,
            "reports": [r.to_wire() for r in self.reports],
            "inventory": self.inventory.to_wire() if self.inventory is not None else None,
        }
        if self.file_systems:
            wire["file_systems"] = [seen.to_wire() for seen in self.file_systems]
        return wire

    @classmethod
    def from_wire(cls, raw: object, *, bound: bool = False) -> "HostMessage":
        """Read one message of the reports queue; raises BadMessageError."""
        message = _versioned(raw)
        inventory = message.get("inventory")
        boot_id = text(message, "boot_id")
        if not is_uuid(boot_id):
            raise BadMessageError("boot_id: expected a UUID")
        raw_reports = items(message, "reports")
        reports, unread = [], max(0, len(raw_reports) - limits.REPORTS.most)
        for report in raw_reports[: limits.REPORTS.most]:
            try:
                reports.append(Report.from_wire(report))
            except BadMessageError:
                unread += 1
        file_systems, unread_file_systems = _file_systems(message.get("file_systems"))
        unread += unread_file_systems
        return cls(
            host=text(message, "host"),
            boot_id=boot_id,
            seq=whole(message, "seq"),
            sent_at=seconds(message, "sent_at"),
            reports=tuple(reports),
            inventory=Inventory.from_wire(inventory) if inventory is not None else None,
            unread=unread,
            bound=bound,
            file_systems=file_systems,
        )


def _file_systems(raw: object) -> tuple[tuple[FileSystemSeen, ...], int]:
    """Return the readable file systems, and how many are not. A newer agent's form of the list counts as none."""
    rows = raw if isinstance(raw, list) else []
    seen, unread = [], max(0, len(rows) - limits.FILE_SYSTEMS.most)
    for row in rows[: limits.FILE_SYSTEMS.most]:
        try:
            seen.append(FileSystemSeen.from_wire(row))
        except BadMessageError:
            unread += 1
    return tuple(seen), unread


def _versioned(raw: object) -> Mapping[str, Any]:
    message = mapping(raw, "message")
    version = whole(message, "version")
    if version > VERSION:
        raise BadMessageError(f"version: this side reads up to {VERSION}, upgrade it")
    return message


def _key(message: Mapping[str, Any]) -> ExtendKey:
    server_id, volume_id = message.get("server_id"), message.get("volume_id")
    if not is_uuid(server_id) or not is_uuid(volume_id):
        raise BadMessageError("server_id, volume_id: expected UUIDs")
    return ExtendKey(str(server_id).lower(), str(volume_id).lower())


def _steps(raw: Sequence[object]) -> Iterator[StepReport]:
    """Yield the readable steps; the others are dropped because steps are only shown."""
    for raw_step in raw:
        try:
            step = mapping(raw_step, "step")
            seen = step.get("size")
            yield StepReport(
                name=word(step, "name", limits.CODE.most),
                ok=step.get("ok") is True,
                seconds=seconds(step, "seconds"),
                detail=words(step, "detail", limits.DETAIL.most),
                size=seen if isinstance(seen, int) and not isinstance(seen, bool) else None,
            )
        except BadMessageError:
            continue
