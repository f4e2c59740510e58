# SPDX-License-Identifier: Apache-2.0
"""What a host says it can extend, which is what it then does."""

from collections.abc import Mapping
from typing import Any

import pytest

from hostagent.capabilities import NO_STRATEGY, VOLUME_TYPES, volume_types
from hostagent.devices import all_strategies
from hostagent.devices.image import FileStrategy, QemuImages, RbdStrategy
from hostagent.domain import SourceKind
from hostagent.drivers.base import DriverCapabilities


class NoBrick:
    """Asked for nothing."""

    def extend(self, protocol: str, properties: Mapping[str, Any]) -> int:
        raise AssertionError

    paths = extend


ALL = DriverCapabilities(sources=frozenset(SourceKind), protocols=frozenset({"rbd"}))
STRATEGIES = [
    *all_strategies(NoBrick()),  # type: ignore[arg-type]
    RbdStrategy(QemuImages(lambda _secret_id: None, limit=1)),
]


def test_with_every_tool_there_all_that_has_a_strategy_is_extended() -> None:
    """The strategies themselves are asked, as for a real disk."""
    found = volume_types(STRATEGIES, ALL, use_multipath=True, have=lambda _tool: True)
    assert {name for name, why_not in found.items() if not why_not} >= {
        "iscsi", "fibre_channel", "nvmeof", "nfs", "rbd",
    }  # fmt: skip
    assert set(found.values()) <= {"", NO_STRATEGY}


def test_a_strategy_less_is_a_type_less() -> None:
    """Files only: each block type says that nobody extends it."""
    found = volume_types([FileStrategy()], ALL, use_multipath=False, have=lambda _tool: True)
    assert (found["nfs"], found["iscsi"], found["local"]) == ("", NO_STRATEGY, NO_STRATEGY)
    assert found.keys() == VOLUME_TYPES.keys()


@pytest.mark.parametrize(
    ("missing", "name", "multipath", "says"),
    [
        ("nvme", "nvmeof", False, "not installed: nvme"),
        ("lsscsi", "iscsi", False, "not installed: lsscsi"),
        ("multipathd", "fibre_channel", True, "not installed: multipathd"),
        ("multipathd", "fibre_channel", False, ""),
        ("nvme", "iscsi", True, ""),
        ("qemu-img", "rbd", False, "not installed: qemu-img"),
        ("qemu-img", "nfs", False, ""),
    ],
)
def test_a_tool_that_os_brick_would_miss_is_named(missing: str, name: str, multipath: bool, says: str) -> None:
    """Else it is found out by the first extend."""
    found = volume_types(STRATEGIES, ALL, use_multipath=multipath, have=lambda tool: tool != missing)
    assert found[name] == says


def test_what_the_driver_cannot_resize_is_said_before_it_is_tried() -> None:
    """A strategy alone is not enough."""
    driver = DriverCapabilities(sources=frozenset({SourceKind.BLOCK}))
    found = volume_types(STRATEGIES, driver, use_multipath=False, have=lambda _tool: True)
    assert found["iscsi"] == ""
    assert "the hypervisor's driver cannot resize disks of this kind: network rbd raw" in found["rbd"]
    assert "cannot resize disks of this kind: file raw" in found["nfs"]
