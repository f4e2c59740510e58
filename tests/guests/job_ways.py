# SPDX-License-Identifier: Apache-2.0
"""Ways of a guest that is busy while its volumes grow: a job of libvirt's, or a limit on its I/O."""

import threading
from pathlib import Path

from tests.guests.lab import GuestLab
from tests.guests.migration import LiveMigration
from tests.guests.way import Played, now
from tests.lab.disks import Qcow2File
from tests.lab.waiting import until

_COPY = "<disk type='file'><source file='{}'/><driver type='{}'/></disk>"
_SLOW = 1 << 20  # bytes a second
_TRANSIENT_JOB = 4  # VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
_PIVOT = 2  # VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
_BYTES_A_SECOND = 100 << 20


def mirrored(lab: GuestLab) -> Played:
    """A copy of the first disk is under way: QEMU refuses to resize it until the copy has ended."""
    volume = lab.volumes.all[0]
    copy = lab.directory / "copy"
    lab.domain.blockCopy(volume.target, _COPY.format(copy, "raw"), {"bandwidth": _SLOW}, _TRANSIENT_JOB)
    try:
        lab.extend()
        until(lambda: lab.row(volume).outcome == "busy", "the disk is said to be busy", seconds=60)
    finally:
        lab.domain.blockJobAbort(volume.target, 0)
        copy.unlink(missing_ok=True)
    return now()


def copied(lab: GuestLab) -> Played:
    """A disk is copied to another file and the guest moved onto it, as Nova swaps a volume; then back again."""
    target, disk = next(
        (volume.target, volume.disk) for volume in lab.volumes.all if isinstance(volume.disk, Qcow2File)
    )
    home, copy = disk.path, lab.directory / "copy.qcow2"
    _move(lab, target, copy)
    lab.extend()
    lab.wait_ended()
    home.unlink()
    _move(lab, target, home)
    copy.unlink()
    lab.extend()
    return now()


def _move(lab: GuestLab, target: str, file: Path) -> None:
    domain = lab.domain
    domain.blockCopy(target, _COPY.format(file, "qcow2"), {}, _TRANSIENT_JOB)
    until(lambda: "ready='yes'" in domain.XMLDesc(0), "the copy is complete", seconds=60)
    domain.blockJobAbort(target, _PIVOT)


def dumped(lab: GuestLab) -> Played:
    """The guest stands still while its memory is written to a file."""
    file = lab.directory / "dump"
    domain = lab.open_another(lab.here).lookupByUUIDString(lab.guest.server_id)
    dump = threading.Thread(target=domain.coreDump, args=(str(file), 0))
    dump.start()
    lab.extend()
    dump.join()
    Path(file).unlink()
    return now()


def throttled(lab: GuestLab) -> Played:
    """Each disk has a limit, as a QoS of Nova's or Cinder's sets it."""
    for volume in lab.volumes.all:
        lab.domain.setBlockIoTune(volume.target, {"total_bytes_sec": _BYTES_A_SECOND}, 0)
    lab.extend()
    return now()


def migration_cancelled(lab: GuestLab) -> Played:
    """The guest stays where it was."""
    there = 1 - lab.here
    move = LiveMigration(lab.open_another(lab.here), lab.open_another(there), lab.guest.server_id)
    move.begin(lab.domain)
    lab.extend()
    until(
        lambda: all(lab.row(volume).outcome == "busy" for volume in lab.volumes.all),
        "the source says that it cannot now", seconds=60,
    )  # fmt: skip
    move.cancel(lab.domain)
    return now()
