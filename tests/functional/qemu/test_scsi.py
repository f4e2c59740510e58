# SPDX-License-Identifier: Apache-2.0
"""Disks behind virtio-scsi: the guest asks them by READ CAPACITY."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import RbdImage
from tests.lab.disks import LoopDevice, Qcow2File, RawFile

pytestmark = pytest.mark.functional
MIB = 1 << 20
SMALL, LARGE = 64 * MIB, 128 * MIB


@pytest.mark.parametrize("kind", [RawFile, Qcow2File, LoopDevice, "rbd"])
def test_the_guest_sees_its_disk_grow(
    host: Host,
    bench: Bench,
    keep: Callable[[Any], Any],
    tmp_path: Path,
    kind: Any,
    request: pytest.FixtureRequest,
) -> None:
    """Two disks of the kind, of which one was meant."""
    image: Callable[[int], RbdImage] | None = request.getfixturevalue("image") if kind == "rbd" else None
    disks = [image(SMALL) if image else keep(kind(tmp_path / name, SMALL)) for name in "ab"]
    guest = host.boot(*disks, bus="scsi")
    disks[1].grow(LARGE)
    report = bench(
        Order(
            attempt_id=new_id(), key=ExtendKey(guest.server_id, disks[1].volume_id), gen=1, target=Bytes(LARGE)
        )
    )  # fmt: skip
    assert report.outcome is Outcome.RESIZED, report
    guest.wait_size(LARGE, "sdb")
    assert guest.sizes("sda") == [SMALL]
