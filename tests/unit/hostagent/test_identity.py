# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a disk's device, when it is replaced, and what a restart leaves of it."""

import json
import stat
import uuid
from pathlib import Path

import pytest

from bridge.core.extend import ExtendKey
from bridge.runtime.health import Health
from hostagent import identity
from hostagent.identity import FILE_NAME, HEALTH, AttachEvidence, DeviceMemory, IdentityVerdict

MINE = frozenset({"scsi naa.6001405aa"})
STRANGE = frozenset({"scsi naa.6001405bb"})
NOTHING: frozenset[str] = frozenset()
RUN = AttachEvidence(run="boot/3", node="2")


def key() -> ExtendKey:
    return ExtendKey(str(uuid.uuid4()), str(uuid.uuid4()))


@pytest.fixture
def memory(tmp_path: Path) -> DeviceMemory:
    return DeviceMemory(tmp_path, Health())


def again(tmp_path: Path) -> DeviceMemory:
    """The memory of the next run of the agent."""
    return DeviceMemory(tmp_path, Health())


def test_a_device_is_learned_once_and_refused_for_ever_when_it_becomes_another(
    memory: DeviceMemory, tmp_path: Path
) -> None:
    disk = key()
    assert memory.learn(disk, MINE, RUN) is IdentityVerdict.FIRST
    for _ in range(3):
        assert memory.learn(disk, STRANGE, RUN) is IdentityVerdict.OTHER
    assert again(tmp_path).learn(disk, STRANGE, RUN) is IdentityVerdict.OTHER
    assert again(tmp_path).learn(disk, MINE, RUN) is IdentityVerdict.SAME


def test_one_path_that_was_given_to_another_volume_is_enough(memory: DeviceMemory) -> None:
    disk = key()
    memory.learn(disk, MINE, RUN)
    assert memory.judge(disk, MINE | STRANGE, RUN) is IdentityVerdict.OTHER


def test_a_device_under_another_name_and_in_another_run_is_the_same_by_its_worldwide_name(
    memory: DeviceMemory,
) -> None:
    disk = key()
    memory.learn(disk, MINE, RUN)
    assert memory.learn(disk, MINE, AttachEvidence(run="boot/9", node="7")) is IdentityVerdict.SAME


def test_a_restarted_guest_proves_no_new_attach(memory: DeviceMemory) -> None:
    """libvirt numbers the sources anew in each run."""
    disk = key()
    memory.learn(disk, MINE, RUN)
    assert memory.learn(disk, STRANGE, AttachEvidence(run="boot/9", node="7")) is IdentityVerdict.OTHER


def test_a_source_with_another_number_in_the_same_run_was_attached_anew(memory: DeviceMemory) -> None:
    """A detach and attach that nobody saw, or a swap of volumes by libvirt's own block copy."""
    disk = key()
    memory.learn(disk, MINE, RUN)
    assert memory.learn(disk, STRANGE, AttachEvidence(run="boot/3", node="5")) is IdentityVerdict.FIRST
    assert memory.learn(disk, MINE, AttachEvidence(run="boot/3", node="5")) is IdentityVerdict.OTHER


def test_cinders_attachment_decides_where_both_are_known(memory: DeviceMemory) -> None:
    """A hard reboot keeps the attachment and gives a new run; a new attach has a new one."""
    disk = key()
    memory.learn(disk, MINE, AttachEvidence(run="boot/3", node="2", attachment_id="a"))
    assert (
        memory.judge(disk, STRANGE, AttachEvidence(run="boot/3", node="5", attachment_id="a"))
        is IdentityVerdict.OTHER
    )
    assert memory.learn(disk, STRANGE, AttachEvidence(attachment_id="b")) is IdentityVerdict.FIRST


def test_a_look_without_an_attachment_keeps_the_one_that_is_known(memory: DeviceMemory) -> None:
    disk = key()
    memory.learn(disk, MINE, AttachEvidence(attachment_id="a"))
    memory.learn(disk, MINE, RUN)
    assert (
        memory.judge(disk, STRANGE, AttachEvidence(run="boot/3", node="5", attachment_id="a"))
        is IdentityVerdict.OTHER
    )


def test_a_detached_disk_is_forgotten_and_its_new_attach_is_learned(memory: DeviceMemory, tmp_path: Path) -> None:
    disk, other = key(), str(uuid.uuid4())
    memory.observe_guest(disk.server_id, {disk.volume_id: (MINE, RUN), other: (STRANGE, RUN)})
    memory.observe_guest(disk.server_id, {other: (STRANGE, RUN)})
    memory.write_observed()
    assert again(tmp_path).learn(disk, STRANGE, RUN) is IdentityVerdict.FIRST
    assert memory.judge(ExtendKey(disk.server_id, other), MINE, RUN) is IdentityVerdict.OTHER


def test_a_disk_that_was_removed_and_is_back_before_the_look_is_attached_anew(memory: DeviceMemory) -> None:
    disk = key()
    memory.observe_guest(disk.server_id, {disk.volume_id: (MINE, AttachEvidence())})
    seen = memory.observe_guest(
        disk.server_id, {disk.volume_id: (STRANGE, AttachEvidence())}, detached=[disk.volume_id]
    )
    assert seen == {disk.volume_id: IdentityVerdict.FIRST}
    assert memory.judge(disk, STRANGE, RUN) is IdentityVerdict.SAME


def test_a_look_at_a_whole_host_writes_for_many_guests_together(
    memory: DeviceMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write is of all disks, so one per guest would cost the square of their number."""
    written: list[str] = []
    keep = identity._replace
    monkeypatch.setattr(identity, "_replace", lambda file, body: (written.append(body), keep(file, body)))
    disks = [key() for _ in range(100)]
    for _ in range(2):
        for disk in disks:
            memory.observe_guest(disk.server_id, {disk.volume_id: (MINE, RUN)})
        memory.write_observed()
    assert len(written) == 2
    stored = again(tmp_path)
    assert {stored.judge(disk, STRANGE, RUN) for disk in disks} == {IdentityVerdict.OTHER}


def test_an_order_during_the_look_has_what_was_observed_on_disk(memory: DeviceMemory, tmp_path: Path) -> None:
    disk = key()
    memory.observe_guest(disk.server_id, {disk.volume_id: (MINE, RUN)})
    assert memory.learn(disk, MINE, RUN) is IdentityVerdict.SAME
    assert again(tmp_path).judge(disk, STRANGE, RUN) is IdentityVerdict.OTHER


def test_a_disk_whose_device_is_silent_keeps_its_name(memory: DeviceMemory) -> None:
    """Of a guest that is off, too: its device may not be connected."""
    disk = key()
    memory.observe_guest(disk.server_id, {disk.volume_id: (MINE, RUN)})
    assert memory.observe_guest(disk.server_id, {disk.volume_id: (NOTHING, RUN)}) == {
        disk.volume_id: IdentityVerdict.SILENT
    }
    assert memory.judge(disk, STRANGE, RUN) is IdentityVerdict.OTHER


def test_a_kind_of_name_that_only_one_side_has_proves_nothing(memory: DeviceMemory) -> None:
    """Another kernel tells the uuid as well; the nguid is the same."""
    disk = key()
    memory.learn(disk, frozenset({"nguid 1"}), RUN)
    assert memory.learn(disk, frozenset({"nguid 1", "uuid 2"}), RUN) is IdentityVerdict.SAME
    assert memory.judge(disk, frozenset({"uuid 3"}), RUN) is IdentityVerdict.OTHER


def test_a_hard_reboot_undefines_the_guest_and_its_disks_stay_known(tmp_path: Path) -> None:
    now = [0.0]
    memory = DeviceMemory(tmp_path, Health(), clock=lambda: now[0])
    disk, moved = key(), key()
    for known in (disk, moved):
        memory.learn(known, MINE, RUN)
    memory.observe_host(frozenset())
    now[0] = 3600.0
    memory.observe_guest(disk.server_id, {disk.volume_id: (NOTHING, RUN)})
    assert memory.judge(disk, STRANGE, AttachEvidence(run="boot/4", node="2")) is IdentityVerdict.OTHER
    now[0] = 8 * 86400.0
    memory.observe_host(frozenset({disk.server_id}))
    assert memory.known_names(disk) == MINE
    assert memory.known_names(moved) == NOTHING, "its guest left this host a week ago"


def test_the_file_is_ours_alone_and_whole_after_every_write(memory: DeviceMemory, tmp_path: Path) -> None:
    memory.learn(key(), MINE, RUN)
    file = tmp_path / FILE_NAME
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["version"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 2, "disks": []}', '{"version": 1, "disks": [{}]}',
     '{"version": 1, "disks": [{"server_id": "x", "volume_id": "y", "names": []}]}', "[" * 100_000],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_kept_and_the_agent_starts(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    disk = key()
    assert again(tmp_path).learn(disk, MINE, RUN) is IdentityVerdict.FIRST
    assert again(tmp_path).learn(disk, STRANGE, RUN) is IdentityVerdict.OTHER
    assert (tmp_path / "identities.unreadable").read_text() == content


def test_a_directory_that_cannot_be_written_shows_and_keeps_the_memory_of_this_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    health = Health()
    memory, disk = DeviceMemory(tmp_path / "file", health), key()
    memory.learn(disk, MINE, RUN)
    assert not health.checks()[HEALTH].ok
    assert memory.learn(disk, STRANGE, RUN) is IdentityVerdict.OTHER
