# SPDX-License-Identifier: Apache-2.0
"""iSCSI over one path, in the VM."""

import pytest

from tests.storage.conftest import Case

MIB = 1 << 20
pytestmark = [pytest.mark.functional, pytest.mark.timeout(1000)]


def test_a_running_guest_prints_the_new_size(case: Case) -> None:
    """The order carries Cinder's connection data; os-brick rescans, QEMU resizes, the guest itself prints it."""
    seen = case("iscsi_running")
    assert seen["first"] == 64 * MIB
    assert seen["report"]["outcome"] == "resized", seen
    assert seen["report"]["after_bytes"] == seen["guest"] == 128 * MIB
