# SPDX-License-Identifier: Apache-2.0
"""A name is not a device."""

import os
import stat
from typing import Any

import pytest

from bridge.core.outcome import Outcome
from hostagent.devices.checks import check_identity
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError


def disk(source: str | None, kind: SourceKind = SourceKind.BLOCK) -> Disk:
    return Disk(target="vda", kind=kind, source=source, driver_format="raw", volume_id=None)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/a and /dev/b are two block devices, /dev/link is /dev/a, /dev/null is what it is."""
    real = os.stat

    def fake(path: Any, **more: Any) -> Any:
        numbers = {"/dev/a": 7, "/dev/link": 7, "/dev/b": 8}
        if path in numbers:

            class Status:
                st_rdev = numbers[path]
                st_mode = stat.S_IFBLK

            return Status()
        return real(path, **more)

    monkeypatch.setattr("os.stat", fake)


@pytest.mark.parametrize(
    "connection",
    [None, {}, {"data": None}, {"data": {}}, {"data": {"device_path": "/dev/link"}}, {"data": {"device_path": 5}},
     {"data": {"device_path": "/dev/not-on-this-host"}}],
)  # fmt: skip
def test_the_same_device_or_nothing_to_compare_passes(devices: None, connection: Any) -> None:
    """Links are followed."""
    check_identity(disk("/dev/a"), connection)


def test_another_device_is_refused(devices: None) -> None:
    """Loudly, naming both."""
    with pytest.raises(StepFailedError) as caught:
        check_identity(disk("/dev/a"), {"data": {"device_path": "/dev/b"}})
    assert caught.value.outcome is Outcome.REFUSED
    assert "/dev/b" in caught.value.detail


@pytest.mark.parametrize("source", ["/dev/null", "/no/such/device"])
def test_what_is_no_block_device_is_refused(devices: None, source: str) -> None:
    """A path that was reused for something else."""
    with pytest.raises(StepFailedError):
        check_identity(disk(source), None)


def test_files_have_no_device_to_compare(devices: None) -> None:
    """Nothing to say about them."""
    check_identity(disk("/srv/x", SourceKind.FILE), {"data": {"device_path": "/dev/b"}})
