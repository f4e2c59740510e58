# SPDX-License-Identifier: Apache-2.0
"""Disks that dm-crypt on the host decrypts: who asks for a key and when, and that a map and a guest only grow."""

import contextlib
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.encryption import Encryption
from bridge.core.inventory import GuestState
from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices import crypt, luks, luks2, sysfs
from hostagent.devices.sysfs import CryptMap
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from hostagent.extend import extend
from tests.unit.hostagent.fake_sys import NUMBERS, FakeSys
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeHypervisor, order, tools

SMALL, LARGE, HEADER = 64 * MIB, 128 * MIB, 16 * MIB
ENCRYPTION = Encryption(key_id="a-key", provider="luks2", control_location="front-end")
MAP = CryptMap(number="253:1", name="map-of-dm-1", kind="LUKS2", beneath="/dev/sdc")


def luks2_header(
    offset: object = str(HEADER), *, segments: dict[str, Any] | None = None, size: int = 16384
) -> bytes:
    """As cryptsetup writes it."""
    segment = {"type": "crypt", "offset": offset, "size": "dynamic", "encryption": "aes-xts-plain64"}
    area = json.dumps({"segments": {"0": segment} if segments is None else segments}).encode()
    binary = bytearray(struct.pack(">6sHQ", b"LUKS\xba\xbe", 2, size).ljust(4096, b"\0"))
    binary[72:78] = b"sha256"
    whole = binary + area.ljust(size - 4096, b"\0")
    whole[448:480] = hashlib.sha256(whole).digest()
    return bytes(whole)


@dataclass
class Host:
    """sdc, and on it the map dm-1, which a guest has as its disk. `grown`: the device as the array has it now."""

    sys: FakeSys
    disk: FakeDisk
    hypervisor: FakeHypervisor
    server_id: str
    header: bytes = field(default_factory=luks2_header)
    grown: int = LARGE
    device: int = SMALL
    keys_asked_for: list[str] = field(default_factory=list)
    refuses: StepFailedError | None = None
    name: str = "fake"

    def show(self) -> None:
        """The sizes, where the agent reads them."""
        self.sys.resize("sdc", self.device)
        self.sys.resize("dm-1", self.disk.source)

    # a strategy, which knows the device beneath
    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        return disk.source == "/dev/sdc"

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        assert disk.source == "/dev/sdc"
        self.device = self.grown
        self.show()
        return self.device

    def size(self, disk: Disk) -> int:
        assert disk.source == "/dev/sdc"
        return self.device

    # an encryptor; as `cryptsetup resize`, the map becomes what its device has, larger or smaller
    def grow_map(self, name: str, encryption: Encryption) -> None:
        assert name == "map-of-dm-1"
        self.keys_asked_for.append(encryption.key_id)
        if self.refuses is not None:
            raise self.refuses
        self.disk.source = self.device - HEADER
        self.show()

    def extend(
        self, target: int = LARGE, *, encryption: Encryption | None = ENCRYPTION, opted_in: bool = True
    ) -> Report:
        asked = replace(order(self.server_id, self.disk.volume_id, target), encryption=encryption)
        used = replace(tools(self.hypervisor, self), encryptor=self if opted_in else None)
        return extend(asked, used)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    sys = FakeSys(tmp_path)
    sys.scsi("sdc")
    sys.device("dm-1", uuid="CRYPT-LUKS2-00-map-of-dm-1", slaves=("sdc",))
    disk = FakeDisk(kind=SourceKind.BLOCK, path="/dev/dm-1", capacity=SMALL - HEADER, source=SMALL - HEADER)
    hypervisor = FakeHypervisor()
    made = Host(sys=sys, disk=disk, hypervisor=hypervisor, server_id=hypervisor.add(disk))
    made.show()
    monkeypatch.setattr(sysfs, "device_number", NUMBERS.get)
    monkeypatch.setattr(sysfs, "_device", lambda number, _root: tmp_path / "dev" / "block" / number)
    monkeypatch.setattr(luks, "_read", lambda _path, size: made.header[:size])
    monkeypatch.setattr("hostagent.extend.check_identity", lambda _disk, _connection: None)
    return made


def names(report: Report) -> list[str]:
    return [step.name for step in report.steps]


def test_the_device_then_its_map_then_the_guest_and_all_sizes_are_the_volumes(host: Host) -> None:
    report = host.extend()
    assert (report.outcome, report.before, report.after) == (Outcome.RESIZED, SMALL, LARGE)
    assert names(report) == ["find", "header", "before", "refresh", "resize", "verify"]
    assert host.disk.capacity == LARGE - HEADER
    assert host.keys_asked_for == ["a-key"]
    assert report.steps[3].detail == "fake, dm-crypt luks2"


def test_a_guest_that_has_the_size_costs_no_key_with_opt_in_or_without(host: Host) -> None:
    """nova-compute may have been quicker."""
    host.device, host.disk.source, host.disk.capacity = LARGE, LARGE - HEADER, LARGE - HEADER
    host.show()
    for opted_in in (True, False):
        report = host.extend(opted_in=opted_in)
        assert (report.outcome, report.after) == (Outcome.ALREADY, LARGE)
    assert host.keys_asked_for == []


def test_a_map_somebody_else_resized_costs_no_key(host: Host) -> None:
    host.device, host.disk.source = LARGE, LARGE - HEADER
    report = host.extend()
    assert (report.outcome, host.disk.capacity, host.keys_asked_for) == (Outcome.RESIZED, LARGE - HEADER, [])


@pytest.mark.parametrize(
    ("encryption", "kind", "opted_in", "says"),
    [
        (ENCRYPTION, "LUKS2", False, r"set \[key_manager\] backend"),
        (None, "LUKS2", True, "the key's id"),
        (ENCRYPTION, "PLAIN", True, "kind PLAIN"),
        (ENCRYPTION, "INTEGRITY", True, "kind INTEGRITY"),
        (replace(ENCRYPTION, provider="plain"), "LUKS2", True, "provider plain"),
        (replace(ENCRYPTION, provider="os.system"), "LUKS2", True, "provider os.system"),
        (replace(ENCRYPTION, control_location="back-end"), "LUKS1", True, "at the back-end"),
    ],
)
def test_what_cannot_be_resized_is_unsupported_in_words(
    host: Host, encryption: Encryption | None, kind: str, opted_in: bool, says: str
) -> None:
    """Final, and nothing was touched, not even the device. os-brick imports any other provider as a class."""
    (host.sys.root / "block" / "dm-1" / "dm" / "uuid").write_text(f"CRYPT-{kind}-00-map-of-dm-1\n")
    if kind == "LUKS1":
        host.header = struct.pack(">6sH96xI", b"LUKS\xba\xbe", 1, HEADER // 512).ljust(592, b"\0")
    report = host.extend(encryption=encryption, opted_in=opted_in)
    assert (report.outcome, report.reason) == (Outcome.UNSUPPORTED, "no_strategy")
    assert says.replace("\\", "") in report.detail
    assert (host.device, host.disk.capacity, host.keys_asked_for) == (SMALL, SMALL - HEADER, [])


@pytest.mark.parametrize("provider", ["luks", "luks2", "nova.volume.encryptors.luks.LuksEncryptor"])
@pytest.mark.parametrize("kind", ["LUKS1", "LUKS2"])
def test_both_kinds_of_luks_can_by_every_name_cinder_has_for_them(provider: str, kind: str) -> None:
    encryption = replace(ENCRYPTION, provider=provider, control_location="Front-End")
    assert crypt.why_not(replace(MAP, kind=kind), encryption, opted_in=True) is None


@pytest.mark.parametrize("reason", [Reason.KEY_UNAVAILABLE, Reason.KEY_WRONG])
def test_without_the_key_the_guest_keeps_its_size_and_it_is_tried_again(host: Host, reason: Reason) -> None:
    host.refuses = StepFailedError(Outcome.BRICK_FAILED, reason, "key a-key: Forbidden")
    report = host.extend()
    assert (report.outcome, report.reason, report.detail) == (Outcome.BRICK_FAILED, reason, "key a-key: Forbidden")
    assert host.disk.capacity == SMALL - HEADER
    assert names(report)[-1] == "refresh"
    host.refuses = None
    assert host.extend().outcome is Outcome.RESIZED


def test_a_device_that_lost_bytes_never_makes_its_map_smaller(host: Host) -> None:
    """cryptsetup would; the guest's data lie in what it takes away."""
    host.grown = SMALL - MIB
    report = host.extend()
    assert (report.outcome, report.reason) == (Outcome.REFUSED, "would_shrink")
    assert (host.disk.source, host.disk.capacity, host.keys_asked_for) == (SMALL - HEADER, SMALL - HEADER, [])


def test_a_device_that_stays_as_it_is_costs_no_key(host: Host) -> None:
    host.grown = SMALL
    report = host.extend()
    assert (report.outcome, report.reason) == (Outcome.DEVICE_STALE, "device_smaller")
    assert host.keys_asked_for == []


def test_a_map_that_did_not_follow_is_stale_and_the_guest_is_left_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Host, "grow_map", lambda *_: None)
    report = host.extend()
    assert (report.outcome, report.reason) == (Outcome.DEVICE_STALE, "device_smaller")
    assert host.disk.capacity == SMALL - HEADER


def test_a_guest_that_is_off_has_its_map_resized_as_well(host: Host) -> None:
    """Where the map is still open."""
    host.hypervisor.domains[host.server_id].state = GuestState.OFF
    host.disk.path = "/dev/dm-1"
    report = host.extend()
    assert report.outcome is Outcome.GUEST_OFF


def test_a_header_that_cannot_be_read_is_tried_again_only_where_it_matters(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary user may not read devices: without the opt-in it is unsupported as ever, in one line."""

    def denied(_path: str, _size: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(luks, "_read", denied)
    report = host.extend()
    assert (report.outcome, report.reason) == (Outcome.DEVICE_STALE, "image_unreadable")
    assert "the LUKS header of /dev/sdc: Permission denied" in report.detail
    report = host.extend(opted_in=False)
    assert report.outcome is Outcome.UNSUPPORTED
    assert "Permission denied" in report.steps[1].detail


def test_a_header_is_not_read_from_a_path_that_is_down(host: Host) -> None:
    """That would take as long as its transport waits for it."""
    host.sys.state("sdc", "offline")
    host.header = b""
    report = host.extend()
    assert (report.outcome, report.detail) == (Outcome.PATHS_DOWN, "down: sdc (offline)")


def test_the_inventory_sees_the_volumes_size(host: Host) -> None:
    """Else every such guest would look as if it were behind, for ever."""
    disk = Disk(target="vda", kind=SourceKind.BLOCK, source="/dev/dm-1", driver_format="raw", volume_id=None)
    assert crypt.hidden_bytes(disk, None) == HEADER
    assert crypt.hidden_bytes(replace(disk, source="/dev/sdc"), None) == 0


def test_the_payload_of_luks2_begins_at_its_segment() -> None:
    header = luks2_header("4194304", size=32768)
    assert luks2.header_size(header[: luks2.FIRST]) == 32768
    assert luks2.payload_offset(header) == 4 * MIB


SEGMENT = {"type": "crypt", "offset": "4096", "size": "dynamic"}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        luks2_header(size=16384 + 4096),
        luks2_header()[:-1] + b"x",
        luks2_header(segments={}),
        luks2_header(segments={"0": SEGMENT, "1": SEGMENT}),
        luks2_header(segments={"0": {**SEGMENT, "type": "linear"}}),
        luks2_header(segments={"0": {**SEGMENT, "size": "1048576"}}),
        luks2_header(offset=None),
        luks2_header(offset="9" * 4000),
        luks2_header(offset="-4096"),
        luks2_header(offset="\u0664\u0660"),
        luks2_header(segments={"0": {**SEGMENT, "offset": 4096}}),
    ],
    ids=[
        "short",
        "size",
        "checksum",
        "none",
        "two",
        "linear",
        "fixed",
        "no offset",
        "4,000 digits",
        "below 0",
        "other digits",
        "a number",
    ],
)
def test_what_is_not_one_segment_to_the_end_is_said_in_words(header: bytes) -> None:
    """A volume that is being reencrypted has several."""
    with pytest.raises(ValueError, match="LUKS"):
        luks2.payload_offset(header.ljust(luks2.header_size(header), b"\0"))


@given(st.binary(max_size=200), st.integers(0, 16383))
def test_damage_anywhere_is_a_value_error_and_never_another_offset(noise: bytes, at: int) -> None:
    whole = bytearray(luks2_header())
    whole[at : at + len(noise)] = noise
    damaged = bytes(whole[:16384])
    offset: int | None = None
    with contextlib.suppress(ValueError):
        offset = luks2.payload_offset(damaged[: luks2.header_size(damaged[: luks2.FIRST])])
    assert offset in {None, HEADER}
