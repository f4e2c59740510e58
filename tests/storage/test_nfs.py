# SPDX-License-Identifier: Apache-2.0
"""Files on a real NFS server, in the VM."""

import pytest

from tests.storage.checks import grew, in_the_vm, long_form
from tests.storage.conftest import Case

pytestmark = in_the_vm
_LONG_CELLS = [pytest.param(cell, marks=long_form) for cell in ("paused_local", "off_connection")]
_CELLS = ["running_connection", *_LONG_CELLS]


@pytest.mark.parametrize(
    "cell",
    ["running_connection", *(pytest.param(cell, marks=long_form) for cell in ("paused_local", "off_connection"))],
)
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_the_guest_prints_the_new_size(case: Case, kind: str, cell: str) -> None:
    """QEMU grows the file; of a guest that is off that waits for its next start."""
    seen = case(f"nfs_{kind}_{cell}")
    grew(seen, "running")
    if "off" in seen:
        assert seen["off"]["outcome"] == "device_stale", seen["off"]


@long_form
def test_a_server_that_is_gone_holds_its_order_for_a_while_and_heals(case: Case) -> None:
    """A hard mount waits for ever: the call into libvirt is given up on, the next order does it."""
    seen = case("nfs_server_gone")
    assert seen["report"]["outcome"] in {"libvirt_failed", "device_stale"}, seen["report"]
    assert seen["healed"]["outcome"] in {"resized", "already"}, seen["healed"]
    assert seen["healed_guest"] == seen["wanted"]
