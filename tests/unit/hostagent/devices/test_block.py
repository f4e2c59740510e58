# SPDX-License-Identifier: Apache-2.0
"""Which strategy takes a volume, what os-brick is asked, and what is refused, on a small sysfs of our own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import all_strategies, choose, sysfs
from hostagent.devices.base import properties, volume_type
from hostagent.devices.block import LocalStrategy, NvmeStrategy, ScsiStrategy
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Nudge
from tests.unit.hostagent.fake_sys import NUMBERS, SIZE, FakeSys

ISCSI = {"driver_volume_type": "iscsi", "data": {"target_portal": "127.0.0.1:3260", "target_lun": 1}}


def disk(source: str = "/dev/sda", **more: Any) -> Disk:
    values = {"target": "vda", "kind": SourceKind.BLOCK, "driver_format": "raw", "volume_id": None, **more}
    return Disk(source=source, **values)


def connection(kind: str, **data: Any) -> dict[str, Any]:
    return {"driver_volume_type": kind, "data": data}


@dataclass
class FakeBrick:
    """os-brick that finds these paths; writes into what it is given, as connectors do."""

    found: list[str] = field(default_factory=lambda: ["/dev/sda"])
    fails: StepFailedError | None = None
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    nudged: list[Nudge] = field(default_factory=list)
    evens: "FakeSys | None" = None
    touches: Callable[[], None] = lambda: None
    read: list[Nudge] = field(default_factory=list)
    shows: Callable[[Nudge], None] = lambda _nudge: None

    def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
        self.asked.append((protocol, dict(properties)))
        self.touches()
        if self.fails is not None:
            raise self.fails
        assert isinstance(properties, dict)
        properties.clear()
        return 1

    def rescan(self, nudge: Nudge) -> None:
        self.nudged.append(nudge)
        self.touches()
        if self.fails is not None:
            raise self.fails
        for name in (*nudge.scsi, *filter(None, (nudge.map,))) if self.evens is not None else ():
            assert self.evens is not None
            self.evens.resize(name, 2 * SIZE)

    def read_anew(self, nudge: Nudge) -> None:
        self.read.append(nudge)
        self.shows(nudge)

    def paths(self, protocol: str, properties: Mapping[str, Any]) -> list[str]:
        assert isinstance(properties, dict)
        properties.clear()
        return self.found


@pytest.fixture
def fake_sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSys:
    """sda and sdb under the multipath map dm-0, dm-1 a dm-crypt map on sdc, a namespace with two controllers."""
    made = FakeSys(tmp_path)
    for name in ("sda", "sdb", "sdc"):
        made.scsi(name)
    made.device("dm-0", uuid="mpath-36001405aa", slaves=("sda", "sdb"))
    made.device("dm-1", uuid="CRYPT-LUKS1-00", slaves=("sdc",))
    made.device("loop0")
    made.nvme("nvme0n1", "nvme0", "nvme1", nqn="nqn.a", nsid="10", uuid="0f-AA")
    monkeypatch.setattr(sysfs, "device_number", NUMBERS.get)
    return made


@pytest.fixture
def sys_root(fake_sys: FakeSys) -> Path:
    """Its root."""
    return fake_sys.root


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("iscsi", "scsi"), ("iser", "scsi"), ("fibre_channel", "scsi"), ("nvmeof", "nvme"), ("scaleio", "vendor"),
        ("storpool", "vendor"), ("lightos", "vendor"), ("local", "block"), ("ISCSI", "scsi"),
    ],
)  # fmt: skip
def test_a_block_device_goes_to_the_strategy_of_its_volume_type(kind: str, name: str) -> None:
    """Names as in Nova's driver table; Cinder's spelling of case does not matter."""
    chosen = choose(all_strategies(FakeBrick()), disk(), connection(kind))
    assert chosen is not None
    assert chosen.name == name


def test_without_connection_data_the_device_itself_is_read() -> None:
    """Cinder gives none for some attachments."""
    chosen = choose(all_strategies(FakeBrick()), disk(), None)
    assert chosen is not None
    assert chosen.name == "block"


@pytest.mark.parametrize("kind", ["huaweisdshypervisor", "vmdk", "of_tomorrow"])
def test_an_unknown_volume_type_has_no_strategy(kind: str) -> None:
    """It is not tried as a plain device, which would wait for a size that never comes."""
    assert choose(all_strategies(FakeBrick()), disk(), connection(kind)) is None


@pytest.mark.parametrize("kind", ["iscsi", "nvmeof", "scaleio", "local"])
@pytest.mark.parametrize("more", [{"encrypted": True}, {"driver_format": "qcow2"}, {"kind": SourceKind.NETWORK}])
def test_what_is_not_a_plain_block_device_has_no_strategy(kind: str, more: dict[str, Any]) -> None:
    """QEMU's own encryption needs the payload offset."""
    assert choose(all_strategies(FakeBrick()), disk(**more), connection(kind)) is None


def test_a_dm_crypt_map_has_no_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays as large as it is when the device beneath it grows; its key is not ours."""
    monkeypatch.setattr(sysfs, "device_number", NUMBERS.get)
    monkeypatch.setattr(sysfs, "is_crypt", lambda number: number == "253:1")
    strategies = all_strategies(FakeBrick())
    assert choose(strategies, disk("/dev/dm-1"), ISCSI) is None
    assert choose(strategies, disk("/dev/dm-0"), ISCSI) is not None


def test_sysfs_tells_maps_apart(sys_root: Path) -> None:
    """By the device mapper's uuid."""
    assert sysfs.is_crypt("253:1", sys_root)
    assert sysfs.crypt_map("253:1", sys_root) == sysfs.CryptMap(
        number="253:1", name="map-of-dm-1", kind="LUKS1", beneath="/dev/sdc"
    )
    assert sysfs.crypt_map("253:0", sys_root) is None
    assert not sysfs.is_crypt("253:0", sys_root)
    assert not sysfs.is_crypt("8:0", sys_root)
    assert sysfs.beneath("253:0", sys_root) == {"253:0", "8:0", "8:16"}
    assert sysfs.beneath("8:0", sys_root) == {"8:0"}


def test_os_brick_gets_a_copy_and_its_own_word_is_not_the_size(sys_root: Path) -> None:
    """It writes into what it is given, and returns whatever is there; a second call asks the same."""
    brick, info = FakeBrick(), connection("iscsi", target_portal="p", nested={"a": [1]})
    strategy = ScsiStrategy(brick, sys_root)
    assert [strategy.refresh(disk(), info), strategy.refresh(disk(), info)] == [SIZE, SIZE]
    assert brick.asked == [("ISCSI", {"target_portal": "p", "nested": {"a": [1]}})] * 2
    assert info == connection("iscsi", target_portal="p", nested={"a": [1]})


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("/dev/sda", ["/dev/sda"]),
        ("/dev/dm-0", ["/dev/sda", "/dev/sdb"]),
        ("/dev/dm-0", ["/dev/sdb"]),
        ("/dev/sda", []),
    ],
)
def test_a_disk_that_is_one_of_the_paths_or_on_them_passes(sys_root: Path, source: str, found: list[str]) -> None:
    """A map by any path of it; no path at all is os-brick's to complain about."""
    assert ScsiStrategy(FakeBrick(found=found), sys_root).refresh(disk(source), ISCSI) == SIZE


@pytest.mark.parametrize("source", ["/dev/sdc", "/dev/dm-0"])
def test_a_disk_that_is_none_of_the_paths_is_refused_and_nothing_is_touched(sys_root: Path, source: str) -> None:
    """The name was reused: both are in the report."""
    brick = FakeBrick(found=["/dev/dm-1"])
    with pytest.raises(StepFailedError) as caught:
        ScsiStrategy(brick, sys_root).refresh(disk(source), ISCSI)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
    assert source in caught.value.detail
    assert "/dev/dm-1" in caught.value.detail
    assert not brick.asked


@pytest.mark.parametrize("info", [ISCSI, None])
def test_a_path_that_is_down_is_named(fake_sys: FakeSys, info: Any) -> None:
    """Before os-brick, which would wait for the path as long as the transport does, and not name it."""
    fake_sys.state("sdb", "transport-offline")
    brick = FakeBrick()
    chosen = ScsiStrategy(brick, fake_sys.root) if info else LocalStrategy(brick, fake_sys.root)
    with pytest.raises(StepFailedError) as caught:
        chosen.refresh(disk("/dev/dm-0"), info)
    assert (caught.value.outcome, caught.value.detail) == (Outcome.PATHS_DOWN, "down: sdb (transport-offline)")
    assert not brick.asked
    assert not brick.nudged


def test_a_map_that_does_not_follow_its_paths_is_stale(fake_sys: FakeSys) -> None:
    """os-brick raises; the sizes say what is wrong. Tried again."""
    fake_sys.resize("sda", 2 * SIZE)
    fake_sys.resize("sdb", 2 * SIZE)
    brick = FakeBrick(fails=StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_RAISED, "resize map: fail"))
    with pytest.raises(StepFailedError) as caught:
        ScsiStrategy(brick, fake_sys.root).refresh(disk("/dev/dm-0"), ISCSI)
    assert caught.value.outcome is Outcome.DEVICE_STALE
    assert f"dm-0 {SIZE}, sda {2 * SIZE}, sdb {2 * SIZE}" in caught.value.detail


def test_what_os_brick_left_behind_is_told_too(fake_sys: FakeSys) -> None:
    """It rescans the paths the connection lists, and the map only with use_multipath."""
    fake_sys.resize("sda", 2 * SIZE)
    brick = FakeBrick(evens=fake_sys)
    assert ScsiStrategy(brick, fake_sys.root).refresh(disk("/dev/dm-0"), ISCSI) == 2 * SIZE
    assert brick.nudged == [Nudge(scsi=("sda", "sdb"), map="dm-0")]


@pytest.mark.parametrize("info", [ISCSI, None])
@pytest.mark.parametrize("source", ["/dev/sda", "/dev/dm-0"])
def test_a_path_that_turns_out_to_be_another_volume_is_refused(fake_sys: FakeSys, source: str, info: Any) -> None:
    """The rescan shows its worldwide name of now; sdb keeps the old one."""
    for name in ("sda", "sdb"):
        fake_sys.wwid(name, "naa.6001405aa")
    brick = FakeBrick(touches=lambda: fake_sys.wwid("sda", "naa.6001405bb"))
    chosen = ScsiStrategy(brick, fake_sys.root) if info else LocalStrategy(brick, fake_sys.root)
    for _ in range(2 if source == "/dev/dm-0" else 1):  # a map is refused again and again
        with pytest.raises(StepFailedError) as caught:
            chosen.refresh(disk(source), info)
        assert (caught.value.outcome, caught.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
        assert "sda is naa.6001405bb" in caught.value.detail


@pytest.mark.parametrize("fails", [None, StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_RAISED, "resize map")])
@pytest.mark.parametrize("info", [ISCSI, None])
def test_a_map_whose_paths_multipathd_threw_out_as_another_volumes_is_refused(
    fake_sys: FakeSys, info: Any, fails: StepFailedError | None
) -> None:
    """The rescan shows new names, and multipathd is quicker than the look at the map."""
    for number, name in enumerate(("sda", "sdb"), start=1):
        fake_sys.address(name, f"{number}:0:0:0", port="0x5001405aaaaaaaaa")
        fake_sys.wwid(name, "naa.6001405aa")

    def touches() -> None:
        for name in ("sda", "sdb"):
            fake_sys.wwid(name, "naa.6001405bb")
            (fake_sys.root / "block" / "dm-0" / "slaves" / name).unlink()

    brick = FakeBrick(fails=fails, touches=touches)
    strategy = ScsiStrategy(brick, fake_sys.root) if info else LocalStrategy(brick, fake_sys.root)
    assert "sda was naa.6001405aa, sdb was naa.6001405aa" in refused(strategy, "/dev/dm-0", info)


FAILED = [
    StepFailedError(Outcome.PATHS_DOWN, Reason.BRICK_RAISED, "All paths need to be up"),
    StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_RAISED, "VolumePathsNotFound"),
    StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_NO_SIZE, ""),
]


def refused(strategy: Any, source: str, info: Any) -> str:
    with pytest.raises(StepFailedError) as caught:
        strategy.refresh(disk(source), info)
    assert (caught.value.outcome, caught.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
    return caught.value.detail


@pytest.mark.parametrize("failed", FAILED, ids=lambda ex: f"{ex.outcome}-{ex.reason}")
@pytest.mark.parametrize("info", [ISCSI, connection("fibre_channel"), None])
@pytest.mark.parametrize("source", ["/dev/sda", "/dev/dm-0"])
def test_another_volume_is_refused_where_os_brick_failed_before_it_rescanned(
    fake_sys: FakeSys, source: str, info: Any, failed: StepFailedError
) -> None:
    """A LUN that was given away fails os-brick's first read of its path: the kernel still has the old name."""
    for name in ("sda", "sdb"):
        fake_sys.wwid(name, "naa.6001405aa")
    brick = FakeBrick(fails=failed, shows=lambda _nudge: fake_sys.wwid("sda", "naa.6001405bb"))
    strategy = ScsiStrategy(brick, fake_sys.root) if info else LocalStrategy(brick, fake_sys.root)
    assert "sda is naa.6001405bb; sda was naa.6001405aa" in refused(strategy, source, info).replace(
        ", sdb is naa.6001405aa", ""
    )
    assert brick.read == [Nudge(scsi=("sda", "sdb") if source == "/dev/dm-0" else ("sda",))]


@pytest.mark.parametrize("info", [connection("nvmeof", nqn="nqn.a"), None])
def test_another_namespace_is_refused_where_the_rescan_failed(fake_sys: FakeSys, info: Any) -> None:
    wwid = fake_sys.root / "block" / "nvme0n1" / "wwid"
    wwid.write_text("uuid.0f-aa\n")
    (fake_sys.root / "class" / "nvme" / "nvme1" / "state").write_text("connecting\n")

    def show(_nudge: Nudge) -> None:
        wwid.write_text("uuid.0f-bb\n")

    brick = FakeBrick(fails=FAILED[1], shows=show)
    strategy = NvmeStrategy(brick, fake_sys.root) if info else LocalStrategy(brick, fake_sys.root)
    assert "nvme0n1 is uuid.0f-bb" in refused(strategy, "/dev/nvme0n1", info)
    assert brick.read == [Nudge(nvme=("nvme0",))], "a controller that is away is not asked"


@pytest.mark.parametrize("info", [ISCSI, None])
def test_another_volume_is_refused_on_the_path_that_works_while_the_other_one_is_down(
    fake_sys: FakeSys, info: Any
) -> None:
    for name in ("sda", "sdb"):
        fake_sys.wwid(name, "naa.6001405aa")
    fake_sys.state("sdb", "transport-offline")
    brick = FakeBrick(shows=lambda _nudge: fake_sys.wwid("sda", "naa.6001405bb"))
    strategy = ScsiStrategy(brick, fake_sys.root) if info else LocalStrategy(brick, fake_sys.root)
    refused(strategy, "/dev/dm-0", info)
    assert brick.read == [Nudge(scsi=("sda",))]
    assert not brick.asked
    assert not brick.nudged


@pytest.mark.parametrize("reason", [Reason.BRICK_TIMED_OUT, Reason.BRICK_DIED, Reason.BRICK_LOCK_HELD])
def test_after_a_call_that_was_given_up_the_volume_is_judged_by_what_the_kernel_knows(
    fake_sys: FakeSys, reason: Reason
) -> None:
    """Another rescan would wait as long again; the one that was given up may have shown the new name."""
    fake_sys.wwid("sda", "naa.6001405aa")
    failed = StepFailedError(Outcome.BRICK_FAILED, reason, "given up")
    brick = FakeBrick(fails=failed)
    with pytest.raises(StepFailedError) as caught:
        ScsiStrategy(brick, fake_sys.root).refresh(disk(), ISCSI)
    assert caught.value is failed
    brick.touches = lambda: fake_sys.wwid("sda", "naa.6001405bb")
    refused(ScsiStrategy(brick, fake_sys.root), "/dev/sda", ISCSI)
    assert not brick.read


@pytest.mark.parametrize("failed", FAILED, ids=lambda ex: f"{ex.outcome}-{ex.reason}")
def test_a_volume_that_is_read_anew_and_is_itself_keeps_its_failure(
    fake_sys: FakeSys, failed: StepFailedError
) -> None:
    """Also where the paths cannot be read anew."""
    fake_sys.wwid("sda", "naa.6001405aa")

    def unread(_nudge: Nudge) -> None:
        raise StepFailedError(Outcome.BRICK_FAILED, Reason.BRICK_DIED)

    for shows in (lambda _nudge: None, unread):
        with pytest.raises(StepFailedError) as caught:
            ScsiStrategy(FakeBrick(fails=failed, shows=shows), fake_sys.root).refresh(disk(), ISCSI)
        assert caught.value is failed


def test_a_map_is_as_large_as_its_smallest_path(fake_sys: FakeSys) -> None:
    """A larger map would lose what is written behind that path's end."""
    fake_sys.resize("sda", 2 * SIZE)
    fake_sys.resize("dm-0", 2 * SIZE)
    assert LocalStrategy(FakeBrick(), fake_sys.root).size(disk("/dev/dm-0")) == SIZE


@pytest.mark.parametrize(
    ("source", "nudge"),
    [
        ("/dev/sda", Nudge(scsi=("sda",))),
        ("/dev/dm-0", Nudge(scsi=("sda", "sdb"), map="dm-0")),
        ("/dev/nvme0n1", Nudge(nvme=("nvme0", "nvme1"))),
    ],
)
def test_without_connection_data_sysfs_says_whom_to_tell(fake_sys: FakeSys, source: str, nudge: Nudge) -> None:
    """A plain SCSI disk, a multipath map, an NVMe namespace with all its controllers."""
    brick = FakeBrick()
    assert LocalStrategy(brick, fake_sys.root).refresh(disk(source), None) == SIZE
    assert brick.nudged == [nudge]
    assert not brick.asked


@pytest.mark.parametrize("info", [None, connection("local")])
def test_what_grows_by_itself_is_only_read(fake_sys: FakeSys, info: Any) -> None:
    """A loop device or an LVM volume; and all that Cinder calls local."""
    brick = FakeBrick()
    LocalStrategy(brick, fake_sys.root).refresh(disk("/dev/loop0"), info)
    assert brick.asked == [("LOCAL", {"device_path": "/dev/loop0"})]
    assert not brick.nudged


@pytest.mark.parametrize(
    "data",
    [
        {"nqn": "nqn.b", "ns_id": 10},
        {"nqn": "nqn.a", "ns_id": 11},
        {"target_nqn": "nqn.b", "vol_uuid": "0FAA"},
        {"target_nqn": "nqn.a", "vol_uuid": "0fab"},
    ],
)
def test_another_namespace_than_the_connections_is_refused(fake_sys: FakeSys, data: dict[str, Any]) -> None:
    """By subsystem, namespace id or uuid, as far as both sides tell."""
    brick = FakeBrick()
    with pytest.raises(StepFailedError) as caught:
        NvmeStrategy(brick, fake_sys.root).refresh(disk("/dev/nvme0n1"), connection("nvmeof", **data))
    assert (caught.value.outcome, caught.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
    assert not brick.asked


@pytest.mark.parametrize(
    "data", [{"nqn": "nqn.a", "ns_id": 10}, {"target_nqn": "nqn.a", "vol_uuid": "0FAA"}, {"target_nqn": "NQN.a"}]
)
def test_the_namespace_that_the_connection_names_is_accepted(fake_sys: FakeSys, data: dict[str, Any]) -> None:
    """Backends write uuids with and without hyphens, in either case."""
    brick = FakeBrick()
    assert NvmeStrategy(brick, fake_sys.root).refresh(disk("/dev/nvme0n1"), connection("nvmeof", **data)) == SIZE


def test_one_living_controller_is_enough(fake_sys: FakeSys) -> None:
    """The kernel fails over by itself; with none alive the paths are named."""
    states = [fake_sys.root / "class" / "nvme" / name / "state" for name in ("nvme0", "nvme1")]
    states[0].write_text("connecting\n")
    assert sysfs.paths_down("259:0", fake_sys.root) == ()
    states[1].write_text("connecting\n")
    assert sysfs.paths_down("259:0", fake_sys.root) == ("nvme0 (connecting)", "nvme1 (connecting)")


@pytest.mark.parametrize("outcome", [Outcome.PATHS_DOWN, Outcome.BRICK_FAILED])
def test_other_failures_keep_os_bricks_words(sys_root: Path, outcome: Outcome) -> None:
    """Nothing is made up where the kernel calls every path running."""
    brick = FakeBrick(fails=StepFailedError(outcome, Reason.BRICK_RAISED, "its words"))
    with pytest.raises(StepFailedError) as caught:
        ScsiStrategy(brick, sys_root).refresh(disk("/dev/dm-0"), ISCSI)
    assert (caught.value.outcome, caught.value.detail) == (outcome, "its words")


def test_nvme_properties_are_mended_for_os_brick(sys_root: Path) -> None:
    """ns_id as JSON gives it, and volume_replicas: None, both make os-brick fail."""
    brick = FakeBrick()
    info = connection("nvmeof", nqn="n", ns_id=10, volume_replicas=None)
    assert NvmeStrategy(brick, sys_root).refresh(disk(), info) == SIZE
    assert brick.asked == [("NVMEOF", {"nqn": "n", "ns_id": "10"})]
    assert info["data"]["ns_id"] == 10


def test_nvme_properties_of_the_new_form_go_as_they_are(sys_root: Path) -> None:
    """Target, uuid and portals."""
    brick, data = FakeBrick(), {"target_nqn": "n", "vol_uuid": "u", "portals": [["a", "4420", "tcp"]]}
    NvmeStrategy(brick, sys_root).refresh(disk(), connection("nvmeof", **data))
    assert brick.asked == [("NVMEOF", data)]


@pytest.mark.parametrize("raw", [None, {}, {"driver_volume_type": 3, "data": 4}])
def test_connection_data_that_says_nothing_reads_as_none(raw: Any) -> None:
    """Never an exception."""
    assert (volume_type(raw), properties(raw)) == (None, {})


def test_a_map_over_nvme_namespaces_follows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvme_core.multipath=N: os-brick rescans the namespaces and knows no map."""
    monkeypatch.setattr(sysfs, "device_number", NUMBERS.get)
    made = FakeSys(tmp_path)
    made.nvme("nvme0n1", "nvme0", nqn="nqn.a", nsid="10", uuid="0f")
    made.device("dm-0", uuid="mpath-uuid.0f", slaves=("nvme0n1",))
    brick = FakeBrick(evens=made, touches=lambda: made.resize("nvme0n1", 2 * SIZE))
    data = {"nqn": "nqn.a", "ns_id": 10}
    found = NvmeStrategy(brick, made.root).refresh(disk("/dev/dm-0"), connection("nvmeof", **data))
    assert found == 2 * SIZE
    assert [nudge.map for nudge in brick.nudged] == ["dm-0"]
    with pytest.raises(StepFailedError, match="nsid"):
        NvmeStrategy(brick, made.root).refresh(disk("/dev/dm-0"), connection("nvmeof", nqn="nqn.a", ns_id=11))


def test_fibre_channel_to_another_lun_is_refused_and_nothing_is_touched(fake_sys: FakeSys) -> None:
    """As for iSCSI: by the target's port and the LUN of each path; os-brick is asked for no paths."""
    for name, hctl in (("sda", "1:0:0:0"), ("sdb", "2:0:0:0")):
        fake_sys.address(name, hctl, port="0x5001405aaaaaaaaa")
    brick = FakeBrick()
    strategy = ScsiStrategy(brick, fake_sys.root)
    for source in ("/dev/sda", "/dev/dm-0"):
        with pytest.raises(StepFailedError, match="LUN 0 of 5001405aaaaaaaaa") as info:
            strategy.refresh(disk(source), connection("fibre_channel", target_wwn="5001405AAAAAAAAA", target_lun=1))
        assert (info.value.outcome, info.value.reason) == (Outcome.REFUSED, Reason.WRONG_DEVICE)
    assert brick.asked == []
    strategy.refresh(disk(), connection("fibre_channel", target_wwn=["5001405aaaaaaaaa"], target_lun=0))


def test_a_map_whose_paths_are_all_gone_is_down(fake_sys: FakeSys) -> None:
    """dev_loss_tmo took them; with no_path_retry queue every read of it waits for ever."""
    for path in (fake_sys.root / "block" / "dm-0" / "slaves").iterdir():
        path.unlink()
    for strategy, data in ((LocalStrategy, None), (ScsiStrategy, ISCSI)):
        brick = FakeBrick()
        with pytest.raises(StepFailedError, match=r"dm-0 .a map without paths") as info:
            strategy(brick, fake_sys.root).refresh(disk("/dev/dm-0"), data)
        assert info.value.outcome is Outcome.PATHS_DOWN
        assert not brick.read, "os-brick's lock is not taken for nothing"
