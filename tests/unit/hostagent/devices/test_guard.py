# SPDX-License-Identifier: Apache-2.0
"""Names by which storage knows its devices, and the guard that compares them, on a small sysfs of our own."""

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from hostagent.devices import sysfs
from hostagent.devices.guard import RememberedDevices
from hostagent.domain import Disk, Domain, SourceKind
from hostagent.errors import StepFailedError
from hostagent.identity import DeviceMemory
from tests.unit.hostagent.fake_sys import NUMBERS, FakeSys
from tests.unit.hostagent.fakes import storage_reads

SERVER, VOLUME = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSys:
    made = FakeSys(tmp_path / "sys")
    for name, wwid in (("sda", "naa.a"), ("sdb", "naa.a"), ("sdc", "naa.c")):
        made.scsi(name)
        made.wwid(name, wwid)
    made.device("dm-0", uuid="mpath-3a", slaves=("sda", "sdb"))
    made.device("dm-1", uuid=f"CRYPT-LUKS2-{'0' * 32}-x", slaves=("sdc",))
    made.device("loop0")
    made.nvme("nvme0n1", "nvme0", uuid="0F-AA", nguid="00000000-0000-0000-0000-000000000000", wwid="uuid.0f")
    monkeypatch.setattr(sysfs, "device_number", NUMBERS.get)
    return made


def guard(fake: FakeSys, sleep: Callable[[float], object] = lambda _: None) -> RememberedDevices:
    """The guard of an agent that has just started."""
    memory = DeviceMemory(fake.root.parent / "state", Health())
    return RememberedDevices(memory, storage_reads(), fake.root, sleep=sleep)


def look(fake: FakeSys, seen: Domain, detached: Iterable[str] = ()) -> None:
    """Look at a guest as the inventory of an agent that has just started."""
    own = guard(fake)
    own.observe(seen, detached)
    own.write_observed()


def disk(source: str = "/dev/sda", alias: str | None = None) -> Disk:
    return Disk(
        target="vda", kind=SourceKind.BLOCK, source=source, driver_format="raw", volume_id=VOLUME, alias=alias
    )


def domain(*disks: Disk, state: GuestState = GuestState.ACTIVE, run: str | None = "1") -> Domain:
    return Domain(server_id=SERVER, state=state, disks=disks, run=run)


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("sda", {"scsi naa.a"}),
        ("dm-0", {"scsi naa.a"}),
        ("dm-1", {f"luks {'0' * 32}", "scsi naa.c"}),
        ("nvme0n1", {"nvme-uuid 0f-aa"}),
        ("loop0", set()),
    ],
)
def test_the_worldwide_names_of_each_kind_of_device_are_read(fake: FakeSys, device: str, names: set[str]) -> None:
    assert sysfs.worldwide_names(NUMBERS[f"/dev/{device}"], fake.root) == names


def test_an_lvm_volume_has_its_own_name_wherever_it_lies(fake: FakeSys) -> None:
    (fake.root / "block" / "dm-0" / "dm" / "uuid").write_text("LVM-abc\n")
    assert sysfs.worldwide_names(NUMBERS["/dev/dm-0"], fake.root) == {"lvm abc"}


@pytest.mark.parametrize(
    ("source", "file", "was"),
    [
        ("sda", "sda/device/wwid", "naa.a"),
        ("dm-0", "sdb/device/wwid", "naa.a"),
        ("nvme0n1", "nvme0n1/uuid", "0f-aa"),
    ],
)
def test_a_reused_number_is_refused_by_every_run_of_the_agent_until_its_detach(
    fake: FakeSys, source: str, file: str, was: str
) -> None:
    """iSCSI and Fibre Channel, one path of a map, an NVMe namespace; a new attach is accepted and remembered."""
    attached = disk(f"/dev/{source}")
    look(fake, domain(attached))
    (fake.root / "block" / file).write_text("0f-stranger\n")
    for _ in range(2):
        for ask in (guard(fake).check, guard(fake).learn):
            with pytest.raises(StepFailedError, match=rf"0f-stranger.*{was}") as info:
                ask(domain(attached), attached)
            assert (info.value.outcome, info.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
        look(fake, domain(attached))
    look(fake, domain())
    guard(fake).learn(domain(attached), attached)
    guard(fake).check(domain(attached), attached)
    (fake.root / "block" / file).write_text("0f-another\n")
    with pytest.raises(StepFailedError, match=r"0f-another"):
        guard(fake).check(domain(attached), attached)


def test_a_device_under_another_name_passes(fake: FakeSys) -> None:
    guard(fake).learn(domain(disk("/dev/sda")), disk("/dev/sda"))
    guard(fake).check(domain(disk("/dev/dm-0")), disk("/dev/dm-0"))
    with pytest.raises(StepFailedError):
        guard(fake).check(domain(disk("/dev/sdc")), disk("/dev/sdc"))


def test_one_path_of_a_map_that_is_another_volume_is_refused(fake: FakeSys) -> None:
    guard(fake).learn(domain(disk("/dev/dm-0")), disk("/dev/dm-0"))
    fake.wwid("sdb", "naa.stranger")
    with pytest.raises(StepFailedError, match=r"naa\.stranger"):
        guard(fake).check(domain(disk("/dev/dm-0")), disk("/dev/dm-0"))


def test_a_disk_libvirt_removed_and_attached_again_is_learned_anew(fake: FakeSys) -> None:
    """Both happened before the look."""
    first = disk(alias="ua-x")
    look(fake, domain(first))
    fake.wwid("sda", "naa.new")
    look(fake, domain(first), detached=["ua-x"])
    guard(fake).check(domain(first), first)


def test_the_device_of_a_guest_that_is_off_is_compared_and_never_learned(fake: FakeSys) -> None:
    off = domain(disk(), state=GuestState.OFF, run=None)
    look(fake, off)
    fake.wwid("sda", "naa.good")
    look(fake, domain(disk()))
    fake.wwid("sda", "naa.stranger")
    look(fake, off)
    with pytest.raises(StepFailedError, match=r"naa\.good"):
        guard(fake).check(off, disk())


def test_a_device_that_tells_no_name_any_more_is_tried_again(fake: FakeSys) -> None:
    look(fake, domain(disk()))
    fake.wwid("sda", "")
    with pytest.raises(StepFailedError) as info:
        guard(fake).check(domain(disk()), disk())
    assert info.value.outcome is Outcome.DEVICE_STALE


@pytest.mark.parametrize("source", ["/dev/loop0", "/dev/gone"])
def test_a_device_without_a_name_and_a_disk_without_a_device_pass(fake: FakeSys, source: str) -> None:
    for _ in range(2):
        guard(fake).learn(domain(disk(source)), disk(source))


def test_a_running_guests_device_that_its_host_lost_is_refused(
    fake: FakeSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes an NVMe namespace away whose names have changed; a guest that is off may have none."""
    look(fake, domain(disk("/dev/nvme0n1")))
    monkeypatch.setattr(sysfs, "device_number", lambda _path: None)
    with pytest.raises(StepFailedError, match="does not exist on this host any more") as info:
        guard(fake).check(domain(disk("/dev/nvme0n1")), disk("/dev/nvme0n1"))
    assert (info.value.outcome, info.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
    guard(fake).check(domain(disk("/dev/nvme0n1"), state=GuestState.OFF, run=None), disk("/dev/nvme0n1"))


def test_a_device_that_is_about_to_leave_its_host_is_refused_as_one_that_left(
    fake: FakeSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes the names of a namespace away first; the order that meets this waits for the rest."""
    attached = disk("/dev/nvme0n1")
    look(fake, domain(attached))
    for name in ("uuid", "wwid"):
        (fake.root / "block" / "nvme0n1" / name).write_text("\n")

    def leaves(_seconds: float) -> None:
        monkeypatch.setattr(sysfs, "device_number", lambda _path: None)

    with pytest.raises(StepFailedError, match="does not exist on this host any more") as info:
        guard(fake, leaves).check(domain(attached), attached)
    assert info.value.outcome is Outcome.REFUSED


def test_a_new_attachment_of_cinders_is_a_new_attach(fake: FakeSys) -> None:
    """It was detached and attached while no agent ran; a hard reboot keeps the attachment."""
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    guard(fake).learn(domain(disk()), disk(), first)
    fake.wwid("sda", "naa.new")
    with pytest.raises(StepFailedError, match=r"naa\.new"):
        guard(fake).check(domain(disk(), run="9"), disk(), first)
    guard(fake).learn(domain(disk(), run="9"), disk(), second)
    guard(fake).check(domain(disk(), run="9"), disk())


@pytest.fixture
def fabrics(fake: FakeSys) -> FakeSys:
    """The map's two paths are LUN 0 of two Fibre Channel ports."""
    fake.address("sda", "1:0:0:0", port="0x5001aa")
    fake.address("sdb", "2:0:0:0", port="0x5001bb")
    return fake


def thrown_out(fake: FakeSys, *names: str) -> None:
    """multipathd takes these paths out of the map."""
    for name in names:
        (fake.root / "block" / "dm-0" / "slaves" / name).unlink()


def test_a_map_whose_paths_all_became_another_volume_is_refused_though_multipathd_threw_them_out(
    fabrics: FakeSys,
) -> None:
    """At every order, also of an agent that has just started: the storage is asked where it showed the volume."""
    attached = disk("/dev/dm-0")
    look(fabrics, domain(attached))
    thrown_out(fabrics, "sda", "sdb")
    for name in ("sda", "sdb"):
        fabrics.wwid(name, "naa.stranger")
    for _ in range(2):
        for ask in (guard(fabrics).check, guard(fabrics).learn):
            with pytest.raises(StepFailedError, match=r"sda, LUN 0 of 5001aa is scsi naa.stranger;.*naa.a") as info:
                ask(domain(attached), attached)
            assert (info.value.outcome, info.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
    for name in ("sda", "sdb"):
        fabrics.wwid(name, "naa.a")
        (fabrics.root / "block" / "dm-0" / "slaves" / name).symlink_to(fabrics.root / "block" / name)
    guard(fabrics).check(domain(attached), attached)


@pytest.mark.parametrize("gone", [True, False])
def test_a_map_whose_paths_went_is_no_other_volume(fabrics: FakeSys, gone: bool) -> None:
    """dev_loss took the disks, or multipathd has not taken them back yet: tried again."""
    attached = disk("/dev/dm-0")
    look(fabrics, domain(attached))
    thrown_out(fabrics, "sda", "sdb")
    if gone:
        for name in ("sda", "sdb"):
            (fabrics.root / "block" / name).rename(fabrics.root / f"gone-{name}")
    with pytest.raises(StepFailedError, match=r"no worldwide name now") as info:
        guard(fabrics).check(domain(attached), attached)
    assert info.value.outcome is Outcome.DEVICE_STALE


def test_a_namespace_under_a_map_that_became_another_volume_is_refused(fake: FakeSys) -> None:
    """The kernel takes the namespace away and shows the new one under the same id, by another name."""
    (fake.root / "block" / "nvme0n1" / "nsid").write_text("10\n")
    for name in ("sda", "sdb"):
        thrown_out(fake, name)
    (fake.root / "block" / "dm-0" / "slaves" / "nvme0n1").symlink_to(fake.root / "block" / "nvme0n1")
    attached = disk("/dev/dm-0")
    look(fake, domain(attached))
    thrown_out(fake, "nvme0n1")
    (fake.root / "block" / "nvme0n1" / "uuid").write_text("0f-stranger\n")
    (fake.root / "block" / "nvme0n1").rename(fake.root / "block" / "nvme0n2")
    with pytest.raises(StepFailedError, match=r"nvme0n2, namespace 10 of n is nvme-uuid 0f-stranger") as info:
        guard(fake).check(domain(attached), attached)
    assert info.value.outcome is Outcome.REFUSED
