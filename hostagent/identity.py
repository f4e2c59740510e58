# SPDX-License-Identifier: Apache-2.0
"""Memory of which device each attached volume is, kept in `state_path` across orders, refusals and restarts.

Storage gives LUN numbers and namespace ids of old volumes to new ones (CVE-2023-2088). After any rescan, also one
by nova-compute, multipathd or a person, the kernel shows the new volume under the old name. So the worldwide names
are learned when a disk is first seen, and are replaced only after the disk was detached and attached again.
"""

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import ExtendKey, is_uuid
from bridge.runtime.health import Check, Health, InFlight

LOG = logging.getLogger(__name__)

HEALTH: Final = "hostagent.identities"
FILE_NAME: Final = "identities.json"
_VERSION: Final = 1
_MODE: Final = 0o600
_GONE_KEPT: Final = 7 * 86400.0
"""Seconds an entry outlives its guest on this host: a hard reboot by Nova undefines the domain for a while."""
_NAMES_MAX: Final = 64
_TEXT_MAX: Final = 256
_WRITE_TOGETHER: Final = 64  # guests of one look at a host whose changes are one write
_WRITE_LIMIT: Final = 10.0  # seconds after which a write on its way counts as one that does not return


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachEvidence:
    """Marks of one attach of a disk; a mark that is None says nothing.

    `run`: one run of the guest. `node`: the hypervisor's mark of the attach, which is not used twice in a run.
    `attachment_id`: Cinder's attachment, which a hard reboot keeps and every new attach replaces.

    `places`: where the storage shows the device. They prove nothing: there one that lost its paths is looked for.
    """

    run: str | None = None
    node: str | None = None
    attachment_id: str | None = None
    places: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDisk:
    """A remembered disk. `names`: `kind value` texts; `gone`: epoch seconds since its guest left this host."""

    names: frozenset[str]
    evidence: AttachEvidence = AttachEvidence()
    gone: float | None = None


class IdentityVerdict(StrEnum):
    """The comparison of a disk with what is remembered of it."""

    SAME = "same"  # one name at least is the remembered one, and none contradicts
    FIRST = "first"  # nothing is remembered, or the disk was attached anew: to be learned
    SILENT = "silent"  # the device has no name now, and had one before
    OTHER = "other"  # another volume


def judge(known: KnownDisk | None, names: frozenset[str], evidence: AttachEvidence) -> IdentityVerdict:
    """Compare a disk with the remembered one. Pure.

    Names of a kind that only one side has prove nothing: a kernel or firmware update adds kinds.
    """
    if known is None or not known.names:
        return IdentityVerdict.FIRST
    if not names:
        return IdentityVerdict.SILENT
    shared = _kinds(known.names) & _kinds(names)
    strange = any(_kind(name) in shared and name not in known.names for name in names)
    if not strange and names & known.names:
        return IdentityVerdict.SAME
    return IdentityVerdict.FIRST if attached_anew(known.evidence, evidence) else IdentityVerdict.OTHER


def attached_anew(before: AttachEvidence, now: AttachEvidence) -> bool:
    """Return True where the marks prove a detach and a new attach, or a swap by the hypervisor itself. Pure."""
    if before.attachment_id is not None and now.attachment_id is not None:
        return before.attachment_id != now.attachment_id
    if None in {before.run, now.run, before.node, now.node}:
        return False
    return before.run == now.run and before.node != now.node


class DeviceMemory:
    """The remembered disks of this host; for several threads. Written to disk before a caller goes on.

    A look at the whole host is written once for many guests, because each write is of all disks.

    A file that cannot be written makes the check `hostagent.identities` bad and leaves the memory of this process.
    So does a disk on which a write does not return.
    """

    def __init__(self, directory: Path | None, health: Health, *, clock: Callable[[], float] = time.time) -> None:
        """`directory`: None keeps the memory in this process only."""
        self._file = directory / FILE_NAME if directory is not None else None
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[ExtendKey, KnownDisk] = {}
        self._of_server: dict[str, set[ExtendKey]] = {}
        self._unwritten = 0  # guests whose disks have changed since the last write
        self._wrong: str | None = None
        self._writes = InFlight()
        health.state(HEALTH, self._state)
        if self._file is not None:
            for key, known in self._read(self._file).items():
                self._keep(key, known)

    def judge(self, key: ExtendKey, names: frozenset[str], evidence: AttachEvidence) -> IdentityVerdict:
        """Compare a disk with what is remembered; changes nothing."""
        with self._lock:
            return judge(self._known.get(key), names, evidence)

    def known_names(self, key: ExtendKey) -> frozenset[str]:
        """Return the remembered names; empty where there are none."""
        with self._lock:
            known = self._known.get(key)
            return known.names if known is not None else frozenset()

    def known_places(self, key: ExtendKey) -> frozenset[str]:
        """Return where the storage showed the device when it was seen last."""
        with self._lock:
            known = self._known.get(key)
            return known.evidence.places if known is not None else frozenset()

    def learn(self, key: ExtendKey, names: frozenset[str], evidence: AttachEvidence) -> IdentityVerdict:
        """Judge, and remember where the verdict allows it; a disk that is another volume changes nothing."""
        with self._lock:
            verdict, changed = self._learn(key, names, evidence)
            if changed or self._unwritten:
                self._write()
            return verdict

    def observe_guest(
        self,
        server_id: str,
        disks: Mapping[str, tuple[frozenset[str], AttachEvidence]],
        detached: Iterable[str] = (),
    ) -> Mapping[str, IdentityVerdict]:
        """Learn from one guest's complete list of disks; those it no longer has are forgotten.

        `detached`: volumes that the hypervisor reported as removed since the last look, also where they are back.
        """
        with self._lock:
            known = self._of_server.get(server_id, set())
            gone = {key for key in known if key.volume_id not in disks}
            gone |= {ExtendKey(server_id, volume_id) for volume_id in detached} & known
            for key in gone:
                LOG.info(
                    "server %s volume %s: detached, its device's identity is removed", key.server_id, key.volume_id
                )
                self._forget(key)
            changed, verdicts = bool(gone), {}
            for volume_id, (names, evidence) in disks.items():
                verdict, learned = self._learn(ExtendKey(server_id, volume_id), names, evidence)
                verdicts[volume_id] = verdict
                changed |= learned
            self._unwritten += changed
            if self._unwritten >= _WRITE_TOGETHER:
                self._write()
            return verdicts

    def write_observed(self) -> None:
        """Write what the looks at guests have changed; to be called after the last of them."""
        with self._lock:
            if self._unwritten:
                self._write()

    def observe_host(self, server_ids: frozenset[str]) -> None:
        """Note which guests left this host; their disks are forgotten a week later."""
        now, changed = self._clock(), False
        with self._lock:
            for key, known in list(self._known.items()):
                if key.server_id in server_ids:
                    continue
                if known.gone is None:
                    self._known[key] = replace(known, gone=now)
                    changed = True
                elif now - known.gone > _GONE_KEPT:
                    self._forget(key)
                    changed = True
            if changed or self._wrong is not None:
                self._write()

    def _learn(
        self, key: ExtendKey, names: frozenset[str], evidence: AttachEvidence
    ) -> tuple[IdentityVerdict, bool]:
        before = self._known.get(key)
        verdict = judge(before, names, evidence)
        if not names or verdict in {IdentityVerdict.OTHER, IdentityVerdict.SILENT}:
            return verdict, False
        if before is not None and verdict is IdentityVerdict.SAME:
            marks = evidence if evidence.run is not None else before.evidence
            marks = replace(
                marks,
                attachment_id=evidence.attachment_id or before.evidence.attachment_id,
                places=evidence.places or before.evidence.places,
            )
            after = KnownDisk(names=_bounded(before.names | names), evidence=marks)
        else:
            after = KnownDisk(names=_bounded(names), evidence=evidence)
        self._keep(key, after)
        return verdict, after != before

    def _keep(self, key: ExtendKey, known: KnownDisk) -> None:
        self._known[key] = known
        self._of_server.setdefault(key.server_id, set()).add(key)

    def _forget(self, key: ExtendKey) -> None:
        del self._known[key]
        self._of_server[key.server_id].discard(key)
        if not self._of_server[key.server_id]:
            del self._of_server[key.server_id]

    def _write(self) -> None:
        self._unwritten = 0
        if self._file is None:
            return
        body = json.dumps({"version": _VERSION, "disks": [_to_wire(*item) for item in self._known.items()]})
        try:
            with self._writes.one():
                _replace(self._file, body)
        except OSError as ex:
            self._wrong = f"{self._file} cannot be written: {ex.strerror}"
        else:
            self._wrong = None

    def _state(self) -> Check:
        """Return the state of the file now; takes no lock, because a write on a frozen disk holds it."""
        if (since := self._writes.oldest()) is not None and since > _WRITE_LIMIT:
            return Check(False, f"{self._file} cannot be written: a write has not returned for {since:.0f} s")
        wrong = self._wrong
        return Check(wrong is None, wrong or "ok")

    def _read(self, file: Path) -> dict[ExtendKey, KnownDisk]:
        try:
            return _from_wire(json.loads(file.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, RecursionError) as ex:
            why = ex.strerror if isinstance(ex, OSError) else str(ex)
            LOG.error("%s cannot be read (%s): it is renamed, and identities are stored anew", file, why)  # noqa: TRY400 - one line
            _set_aside(file)
            return {}


def _kind(name: str) -> str:
    return name.partition(" ")[0]


def _kinds(names: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_kind, names))


def _bounded(names: frozenset[str]) -> frozenset[str]:
    return frozenset(sorted(name[:_TEXT_MAX] for name in names)[:_NAMES_MAX])


def _replace(file: Path, body: str) -> None:
    """Write a new file beside the old one and put it in its place, both on disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "w") as out:
            os.fchmod(out.fileno(), _MODE)
            out.write(body)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, file)  # noqa: PTH105 - a name from mkstemp
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _set_aside(file: Path) -> None:
    try:
        file.replace(file.with_suffix(".unreadable"))
    except OSError:
        LOG.warning("%s cannot be renamed", file)


def _to_wire(key: ExtendKey, known: KnownDisk) -> dict[str, Any]:
    return {
        "server_id": key.server_id,
        "volume_id": key.volume_id,
        "names": sorted(known.names),
        "run": known.evidence.run,
        "node": known.evidence.node,
        "attachment_id": known.evidence.attachment_id,
        "places": sorted(known.evidence.places),
        "gone": known.gone,
    }


def _from_wire(raw: Any) -> dict[ExtendKey, KnownDisk]:
    """Read the file's content; raises ValueError. One entry that cannot be read spoils the file: it is ours."""
    if not isinstance(raw, Mapping) or raw.get("version") != _VERSION or not isinstance(raw.get("disks"), list):
        raise ValueError("not a file of remembered disks, or one of a newer release")
    return dict(map(_entry, raw["disks"]))


def _entry(raw: Any) -> tuple[ExtendKey, KnownDisk]:
    if not isinstance(raw, Mapping):
        raise TypeError("an entry is not an object")
    names, gone = raw.get("names"), raw.get("gone")
    ids = raw.get("server_id"), raw.get("volume_id")
    if not all(isinstance(text, str) and is_uuid(text) for text in ids):
        raise ValueError("an entry without a server id or volume id")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("an entry without names")
    marks = {mark: raw.get(mark) for mark in ("run", "node", "attachment_id")}
    if not all(mark is None or isinstance(mark, str) for mark in marks.values()):
        raise ValueError("an entry whose marks are not texts")
    if gone is not None and (isinstance(gone, bool) or not isinstance(gone, int | float)):
        raise ValueError("an entry whose time is not a number")
    places = raw.get("places", [])
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise ValueError("an entry whose places are not texts")
    evidence = AttachEvidence(**marks, places=_bounded(frozenset(places)))
    known = KnownDisk(names=_bounded(frozenset(names)), evidence=evidence, gone=gone)
    return ExtendKey(str(ids[0]), str(ids[1])), known
