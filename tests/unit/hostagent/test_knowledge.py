# SPDX-License-Identifier: Apache-2.0
"""Which guests count as told: by run, by size, and by how they came."""

import pytest

from bridge.core.inventory import GuestState
from bridge.core.outcome import Told
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.drivers.base import GuestArrival
from hostagent.knowledge import ToldDisks

SERVER = "11111111-1111-4111-8111-111111111111"
VOLUME = "22222222-2222-4222-8222-222222222222"
SMALL, LARGE = 1 << 30, 2 << 30


def disk(
    *, notifies: bool = True, kind: SourceKind = SourceKind.BLOCK, read_only: bool = False, volume_id: str = VOLUME
) -> Disk:
    return Disk(
        target="vda", kind=kind, source="/dev/x", driver_format="raw", volume_id=volume_id, notifies=notifies,
        read_only=read_only,
    )  # fmt: skip


def judged(
    told: ToldDisks,
    one: Disk,
    size: int = SMALL,
    *,
    run: str = "1",
    state: GuestState = GuestState.ACTIVE,
    saved: bool = False,
) -> Told | None:
    domain = Domain(server_id=SERVER, state=state, disks=(one,), run=run, saved=saved)
    return told.judge(domain, {VOLUME: size if state is GuestState.ACTIVE else None})[VOLUME]


def test_a_guest_that_was_there_before_the_agent_is_not_told() -> None:
    """The agent cannot know; once told it stays told."""
    told = ToldDisks()
    assert judged(told, disk()) is Told.NO
    told.note(SERVER, "1", VOLUME, SMALL, Told.YES)
    assert judged(told, disk()) is Told.YES


def test_a_guest_that_boots_reads_its_disks_itself() -> None:
    told = ToldDisks()
    told.arrived(SERVER, GuestArrival.STARTED)
    assert judged(told, disk()) is Told.YES


def test_another_run_is_told_again() -> None:
    """Restored or migrated in: its memory is of before."""
    told = ToldDisks()
    told.note(SERVER, "1", VOLUME, SMALL, Told.YES)
    assert judged(told, disk(), run="2") is Told.NO


def test_another_size_in_the_same_run_is_told_again() -> None:
    told = ToldDisks()
    told.note(SERVER, "1", VOLUME, SMALL, Told.YES)
    assert judged(told, disk(), LARGE) is Told.NO


def test_a_guest_that_came_back_within_its_run_is_told_again() -> None:
    """A snapshot that is loaded into the same QEMU."""
    told = ToldDisks()
    told.arrived(SERVER, GuestArrival.STARTED)
    assert judged(told, disk()) is Told.YES
    told.arrived(SERVER, GuestArrival.CAME_BACK)
    assert judged(told, disk()) is Told.NO


def test_after_libvirt_was_lost_every_guest_is_told_again() -> None:
    """Numbers of runs are given anew by a new libvirtd."""
    told = ToldDisks()
    told.note(SERVER, "1", VOLUME, SMALL, Told.YES)
    told.forget_all()
    assert judged(told, disk()) is Told.NO


def test_a_disk_that_is_plugged_in_is_read_then() -> None:
    told = ToldDisks()
    empty = Domain(server_id=SERVER, state=GuestState.ACTIVE, disks=(), run="1")
    told.judge(empty, {})
    assert judged(told, disk()) is Told.YES


def test_a_disk_that_was_detached_and_came_back_is_read_then() -> None:
    """On a bus that looks only when a disk comes, too."""
    told = ToldDisks()
    assert judged(told, disk(notifies=False)) is None
    told.judge(Domain(server_id=SERVER, state=GuestState.ACTIVE, disks=(), run="1"), {})
    assert judged(told, disk(notifies=False), LARGE) is Told.YES


def test_a_file_needs_no_telling() -> None:
    """Nothing but QEMU makes it larger, which tells the guest."""
    assert judged(ToldDisks(), disk(kind=SourceKind.FILE)) is Told.YES


@pytest.mark.parametrize("silent", [disk(notifies=False), disk(read_only=True)])
def test_a_disk_that_cannot_be_told_waits_for_the_restart(silent: Disk) -> None:
    """Not known where the agent came later; by a growth in this run it is; until the guest starts again."""
    told = ToldDisks()
    assert judged(told, silent) is None
    assert judged(told, silent, LARGE) is Told.AT_RESTART
    assert judged(told, silent, LARGE) is Told.AT_RESTART
    told.arrived(SERVER, GuestArrival.CAME_BACK)
    told.forget_all()
    assert judged(told, silent, LARGE) is Told.AT_RESTART, "nothing of this was a restart"
    told.arrived(SERVER, GuestArrival.STARTED)
    assert judged(told, silent, LARGE) is Told.YES


def test_a_guest_that_is_off_reads_its_disks_when_it_starts_and_a_saved_one_does_not() -> None:
    assert judged(ToldDisks(), disk(), state=GuestState.OFF) is Told.YES
    assert judged(ToldDisks(), disk(), state=GuestState.OFF, saved=True) is None
    assert judged(ToldDisks(), disk(), state=GuestState.INCOMING) is None


def test_an_observer_leaves_open_what_it_cannot_know() -> None:
    """It tells no guest; a growth it sees was another's resize, which told it."""
    told = ToldDisks(watches=True)
    assert judged(told, disk()) is None
    assert judged(told, disk(), LARGE) is Told.YES


def test_guests_that_are_gone_are_forgotten() -> None:
    told = ToldDisks()
    told.note(SERVER, "1", VOLUME, SMALL, Told.YES)
    told.keep(())
    assert judged(told, disk()) is Told.NO
