# SPDX-License-Identifier: Apache-2.0
"""Target and LUN of each path by sysfs, against what the connection data name."""

from pathlib import Path
from typing import Any

import pytest

from hostagent.devices.paths import PathAddress, addresses, connection_targets, mismatch
from tests.unit.hostagent.fake_sys import NUMBERS, FakeSys

A, B, IQN = "5001405aaaaaaaaa", "5001405bbbbbbbbb", "iqn.2010-10.org.openstack:x"


@pytest.fixture
def two_fabrics(tmp_path: Path) -> FakeSys:
    made = FakeSys(tmp_path)
    for name, hctl, port in (("sda", "1:0:0:3", A), ("sdb", "2:0:0:3", B)):
        made.scsi(name)
        made.address(name, hctl, port=f"0x{port}")
    made.device("dm-0", uuid="mpath-36001405aa", slaves=("sda", "sdb"))
    return made


def test_a_map_has_the_addresses_of_its_paths(two_fabrics: FakeSys) -> None:
    found = addresses(NUMBERS["/dev/dm-0"], two_fabrics.root)
    assert found == (PathAddress("sda", A, 3), PathAddress("sdb", B, 3))


def test_an_iscsi_disk_has_its_sessions_target(tmp_path: Path) -> None:
    made = FakeSys(tmp_path)
    made.scsi("sda")
    made.address("sda", "3:0:0:1", session="session7", iqn=IQN)
    assert addresses(NUMBERS["/dev/sda"], made.root) == (PathAddress("sda", IQN, 1),)


@pytest.mark.parametrize("name", ["loop0", "nvme0n1"])
def test_devices_other_than_scsi_have_no_address(tmp_path: Path, name: str) -> None:
    made = FakeSys(tmp_path)
    made.nvme("nvme0n1", "nvme0") if name == "nvme0n1" else made.device("loop0")
    assert addresses(NUMBERS[f"/dev/{name}"], made.root) == ()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"target_wwn": [A, B], "target_lun": 3}, {(A, 3), (B, 3)}),
        ({"target_wwn": f"0x{A}".upper(), "target_lun": "3"}, {(A, 3)}),
        ({"target_wwn": "50:01:40:5a:aa:aa:aa:aa", "target_lun": "0x3"}, {(A, 3)}),
        ({"target_wwns": [A, B], "target_luns": [3, 4]}, {(A, 3), (B, 4)}),
        ({"initiator_target_lun_map": {"10": [[A, 3]], "11": [[B, 4]]}}, {(A, 3), (B, 4)}),
        ({"target_iqn": IQN, "target_lun": 1}, {(IQN, 1)}),
        ({"target_iqns": [IQN, IQN], "target_luns": [1, 2], "target_portal": "x"}, {(IQN, 1), (IQN, 2)}),
        ({"target_wwns": [A, B], "target_luns": [3]}, set()),
        ({"target_wwn": 5, "target_lun": None, "target_iqns": "x", "target_luns": {}}, set()),
        ({"target_wwn": [A, None], "target_lun": True}, set()),
        ({}, set()),
    ],
)
def test_connection_data_name_targets_and_their_luns(data: dict[str, Any], named: set[tuple[str, int]]) -> None:
    assert connection_targets(data) == named


@pytest.mark.parametrize(
    ("paths", "named", "says"),
    [
        ([("sda", A, 3), ("sdb", B, 3)], {(A, 3), (B, 3)}, ""),
        ([("sda", A, 0)], {(A, 1)}, "sda is LUN 0"),
        ([("sda", A, 1), ("sdb", B, 0)], {(A, 1), (B, 1)}, "sdb is LUN 0"),
        ([("sda", A, 3)], {(B, 3)}, "sda is LUN 3"),
        ([("sda", A, 3), ("sdb", B, 9)], {(A, 3)}, ""),  # a portal that Cinder does not list
        ([("sda", A, 0x4000 + 300)], {(A, 300)}, ""),  # flat addressing
        ([("sda", A, 3)], set(), ""),
        ([], {(A, 3)}, ""),
    ],
)
def test_a_path_to_another_lun_is_named(
    paths: list[tuple[str, str, int]], named: set[tuple[str, int]], says: str
) -> None:
    assert mismatch([PathAddress(*path) for path in paths], frozenset(named)).startswith(says)
    assert bool(mismatch([PathAddress(*path) for path in paths], frozenset(named))) == bool(says)
