# SPDX-License-Identifier: Apache-2.0
"""Outcomes whose cause is nobody's usual day, on real guests."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from tests.functional.qemu.conftest import Bench, Host
from tests.lab.ceph import RbdImage
from tests.lab.disks import Disk, LoopDevice
from tests.lab.guest import Guest

pytestmark = pytest.mark.functional
MIB = 1 << 20
SMALL, LARGE = 64 * MIB, 128 * MIB


def order(guest: Guest, disk: Disk, size: int, connection: dict[str, Any] | None = None) -> Order:
    return Order(
        attempt_id=new_id(), key=ExtendKey(guest.server_id, disk.volume_id), gen=1, target=Bytes(size),
        connection=connection,
    )  # fmt: skip


@contextmanager
def no_more_files() -> Iterator[None]:
    """The process may open nothing more, as where somebody leaks descriptors; what is open goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_has_no_name_is_an_error_and_tried_again(
    host: Host, bench: Bench, image: Callable[[int], RbdImage]
) -> None:
    """The agent has no file descriptor left: nothing is resized, and once it has some it works."""
    disk = image(SMALL)
    guest = host.boot(disk)
    assert bench(order(guest, disk, SMALL)).outcome is Outcome.ALREADY  # its connection to libvirt is open
    disk.grow(LARGE)
    with no_more_files():
        report = bench(order(guest, disk, LARGE))
    assert (report.outcome, report.reason, report.detail) == (Outcome.ERROR, "uncertain", "OSError")
    assert guest.sizes() == [SMALL]
    assert bench(order(guest, disk, LARGE)).outcome is Outcome.RESIZED
    guest.wait_size(LARGE)


def test_a_volume_type_that_nobody_extends_is_unsupported(
    host: Host, bench: Bench, keep: Callable[[Any], Any], tmp_path: Path
) -> None:
    """Final and named; the guest's disk is as it was."""
    disk = keep(LoopDevice(tmp_path / "disk", SMALL))
    guest = host.boot(disk)
    disk.grow(LARGE)
    report = bench(order(guest, disk, LARGE, {"driver_volume_type": "vmdk", "data": {}}))
    assert (report.outcome, report.reason) == (Outcome.UNSUPPORTED, "no_strategy")
    assert "vmdk" in report.detail
    assert guest.sizes() == [SMALL]
