# SPDX-License-Identifier: Apache-2.0
"""The ways a guest can be when its volumes grow, or come back afterwards. Each leaves it running."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import libvirt

from bridge.core.extend import gib
from tests.guests import job_ways
from tests.guests.lab import GuestLab
from tests.guests.migration import LiveMigration
from tests.guests.volumes import BOOT_ONLY, QEMU_GROWS
from tests.guests.way import Played, Way, now
from tests.lab.agent import wait_for
from tests.lab.disks import RawFile
from tests.lab.waiting import until

_RESCUE: Final = 1 << 20
_PAUSED_AT_START: Final = 4  # VIR_DOMAIN_SAVE_PAUSED
_BYTES: Final = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES


def _running(lab: GuestLab) -> Played:
    lab.extend()
    return now()


def _paused(lab: GuestLab) -> Played:
    lab.domain.suspend()
    lab.extend()
    lab.wait_ended()
    lab.domain.resume()
    return now()


def _resumed_during(lab: GuestLab) -> Played:
    lab.domain.suspend()
    lab.extend()
    lab.domain.resume()
    return now()


def _saved(lab: GuestLab) -> Played:
    lab.domain.managedSave(0)
    lab.extend()
    lab.wait_rows("guest_saved")
    lab.domain.create()
    return now()


def _saved_no_event(lab: GuestLab) -> Played:
    lab.domain.managedSave(0)
    lab.grow_backends()
    lab.domain.create()
    return now(silent=True)


def _saved_to_a_file(lab: GuestLab) -> Played:
    file = _save(lab)
    lab.extend()
    lab.wait_rows("guest_saved")
    lab.connection.restore(file)
    return now()


def _restored_paused(lab: GuestLab) -> Played:
    file = _save(lab)
    lab.grow_backends()
    lab.connection.restoreFlags(file, None, _PAUSED_AT_START)
    lab.send_events()
    lab.wait_ended()
    lab.domain.resume()
    return now()


def _save(lab: GuestLab) -> str:
    file = str(lab.directory / "saved")
    Path(file).unlink(missing_ok=True)
    lab.domain.save(file)
    return file


def _restored_before_the_agent(lab: GuestLab) -> Played:
    lab.domain.managedSave(0)
    lab.agent.end(signal.SIGKILL)
    lab.grow_backends()
    lab.domain.create()
    lab.agent.start()
    wait_for(lab.agent.ready, lab.agent)
    return now(silent=True)


def _off(lab: GuestLab) -> Played:
    boots = lab.guest.boots()
    lab.domain.destroy()
    lab.extend()
    until(
        lambda: all(not lab.row(v).open for v in lab.volumes.all if v.backing not in QEMU_GROWS),
        "the host's side is done", seconds=60,
    )  # fmt: skip
    lab.domain.create()
    lab.guest.wait_boot(boots + 1)
    return now(booted=True)


def _rebooting(lab: GuestLab) -> Played:
    boots = lab.guest.boots()
    lab.domain.reset(0)
    lab.extend()
    lab.guest.wait_boot(boots + 1)
    lab.wait_ended()
    return now()


def _rebooted_later(lab: GuestLab) -> Played:
    lab.extend()
    lab.wait_ended()
    boots = lab.guest.boots()
    lab.domain.reset(0)
    lab.guest.wait_boot(boots + 1)
    return now(booted=True)


def _panicked(lab: GuestLab) -> Played:
    boots = lab.guest.boots()
    lab.domain.injectNMI(0)  # its kernel panics on it, and reboots at once
    lab.extend()
    lab.guest.wait_boot(boots + 1)
    lab.wait_ended()
    return now()


def _replugged(lab: GuestLab) -> Played:
    plugs = [volume for volume in lab.volumes.all if volume.bus in {"virtio", "scsi"}]
    for volume in plugs:
        lab.domain.detachDevice(volume.xml())
    until(lambda: not any(volume.disk.volume_id in lab.domain.XMLDesc(0) for volume in plugs), "all are unplugged")
    lab.grow_backends()
    for volume in plugs:
        lab.domain.attachDevice(volume.xml())
    lab.send_events()
    return now()


def _crashed(lab: GuestLab) -> Played:
    boots = lab.guest.boots()
    os.kill(lab.hosts[lab.here].pids()[lab.guest.name], signal.SIGKILL)
    until(lambda: not lab.domain.isActive(), "libvirt notices that QEMU is gone")
    lab.extend()
    lab.domain.create()
    lab.guest.wait_boot(boots + 1)
    lab.wait_ended()
    return now(booted=True)


def _rescued(lab: GuestLab) -> Played:
    """Another disk takes the first name, so that the volumes have other names, and later their own again."""
    rescue = RawFile(lab.directory / "rescue", _RESCUE)
    try:
        _start_as(lab, +1, rescue.xml("vda"))
        lab.extend()
        lab.wait_ended()
        seen = [volume for volume in lab.volumes.all if volume.bus not in BOOT_ONLY]
        until(lambda: all(lab.guest.sees(gib(volume.size)) for volume in seen), "it is told in its rescue")
        lab.domain.destroy()
        lab.extend()
    finally:
        _start_as(lab, -1)
    lab.wait_ended()
    return now(booted=True)


def _start_as(lab: GuestLab, shift: int, more: str = "") -> None:
    """Start the guest anew with its virtio disks' names shifted, and with one more disk."""
    boots = lab.guest.boots()
    if lab.domain.isActive():
        lab.domain.destroy()
    lab.volumes.shift("virtio", shift)
    lab.connection.defineXML(replace(lab.guest, devices=more + lab.volumes.devices()).xml())
    lab.domain.create()
    lab.guest.wait_boot(boots + 1)


def _agent_down(lab: GuestLab) -> Played:
    lab.agent.end()
    lab.extend()
    lab.agent.start()
    wait_for(lab.agent.ready, lab.agent)
    return now()


def _agent_killed(lab: GuestLab) -> Played:
    lab.extend()
    lab.agent.end(signal.SIGKILL)
    lab.agent.start()
    wait_for(lab.agent.ready, lab.agent)
    return now()


def _libvirtd_down(lab: GuestLab) -> Played:
    lab.hosts[lab.here].stop()
    lab.extend()
    lab.hosts[lab.here].start()
    lab.reconnect(lab.here)
    wait_for(lab.agent.ready, lab.agent)
    return now()


def _libvirtd_restarted_while_saved(lab: GuestLab) -> Played:
    lab.domain.managedSave(0)
    lab.hosts[lab.here].stop(signal.SIGKILL)
    lab.hosts[lab.here].start()
    lab.reconnect(lab.here)
    lab.extend()
    lab.wait_rows("guest_saved")
    lab.domain.create()
    return now()


def _somebody_was_quicker(lab: GuestLab) -> Played:
    lab.grow_backends()
    for volume in lab.volumes.all:
        lab.domain.blockResize(volume.target, volume.size << 30, _BYTES)
    lab.send_events()
    return now()


def _migrating(lab: GuestLab) -> Played:
    def during() -> None:
        lab.extend()
        until(
            lambda: all(lab.row(volume).outcome == "busy" for volume in lab.volumes.all),
            "the source says that it cannot now", seconds=60,
        )  # fmt: skip

    _migrate(lab, during)
    return now()


def _migrated(lab: GuestLab) -> Played:
    agent = lab.agent
    agent.end(signal.SIGKILL)
    lab.grow_backends()
    _migrate(lab)
    since = time.monotonic()
    agent.start()
    lab.send_events()
    return Played(since=since)


def _migrated_no_event(lab: GuestLab) -> Played:
    lab.grow_backends()
    _migrate(lab)
    return now(silent=True)


def _post_copy(lab: GuestLab) -> Played:
    def during() -> None:
        until(lambda: _switches(lab.domain), "the migration switches to post-copy", seconds=60)
        lab.extend()

    _migrate(lab, during, postcopy=True)
    return now()


def _migrate(lab: GuestLab, during: Callable[[], None] = lambda: None, *, postcopy: bool = False) -> None:
    """Take the guest to the other host, which from then on has it alone."""
    source, there = lab.here, 1 - lab.here
    move = LiveMigration(
        lab.open_another(source), lab.open_another(there), lab.guest.server_id, postcopy=postcopy
    )  # fmt: skip
    watched = lab.domain
    move.begin(watched)
    try:
        during()
    finally:
        move.end(watched)
    _forget(lab.connections[source], lab.guest.server_id)
    lab.here = there
    lab.attach_here()
    lab.connection.defineXML(lab.guest.xml())


def _switches(domain: Any) -> bool:
    """Switch a migration to post-copy; False while QEMU has not begun it."""
    try:
        return bool(domain.migrateStartPostCopy(0) == 0)
    except libvirt.libvirtError:
        return False


def _forget(connection: Any, server_id: str) -> None:
    domain = connection.lookupByUUIDString(server_id)
    if not domain.isActive():
        domain.undefine()


WAYS: Final = (
    Way(name="running", about="extended while it runs", play=_running, short=True),
    Way(name="paused", about="extended while it is paused", play=_paused),
    Way(name="resumed-during", about="resumed while the extend is under way", play=_resumed_during),
    Way(name="saved", about="managed save, as Nova's suspend", play=_saved, short=True),
    Way(name="saved-no-event", about="grown while it was saved, no event", play=_saved_no_event),
    Way(name="saved-to-file", about="virsh save and restore", play=_saved_to_a_file),
    Way(name="restored-paused", about="restored paused, told, then resumed", play=_restored_paused),
    Way(
        name="restored-before-agent", about="restored while the agent was down, no event",
        play=_restored_before_the_agent,
    ),
    Way(name="libvirtd-while-saved", about="libvirtd restarted while the guest was saved",
        play=_libvirtd_restarted_while_saved),
    Way(name="quicker", about="somebody else has resized the disks before", play=_somebody_was_quicker),
    Way(name="agent-down", about="extended while its agent is down", play=_agent_down),
    Way(name="agent-killed", about="its agent is killed with the order in hand", play=_agent_killed),
    Way(name="libvirtd-down", about="extended while its libvirtd is down", play=_libvirtd_down),
    Way(name="migrated", about="grown while the source's agent is down, migrated", play=_migrated, short=True),
    Way(name="migrating", about="extended while it migrates back", play=_migrating),
    Way(name="migrated-no-event", about="grown, then migrated, no event", play=_migrated_no_event),
    Way(name="post-copy", about="extended in the middle of a post-copy migration", play=_post_copy),
    Way(name="off", about="extended while it is shut off", play=_off),
    Way(name="rebooting", about="extended while it reboots", play=_rebooting),
    Way(name="rebooted-later", about="extended, then rebooted", play=_rebooted_later),
    Way(name="panicked", about="extended while its kernel panics and reboots", play=_panicked),
    Way(name="replugged", about="grown while it was unplugged, plugged in again", play=_replugged),
    Way(name="rescued", about="extended in a rescue under other disk names, and as it ends", play=_rescued),
    Way(name="copied", about="extended after a disk was copied and the guest moved onto the copy, and back",
        play=job_ways.copied),
    Way(name="mirrored", about="extended while a disk is being copied", play=job_ways.mirrored),
    Way(name="dumped", about="extended while its memory is being dumped", play=job_ways.dumped),
    Way(name="throttled", about="extended with a limit on each disk's I/O", play=job_ways.throttled),
    Way(
        name="migration-cancelled", about="extended while it migrates, which is cancelled then",
        play=job_ways.migration_cancelled,
    ),
    Way(name="crashed", about="its QEMU was killed, extended, started", play=_crashed),
)  # fmt: skip
