# SPDX-License-Identifier: Apache-2.0
"""Headers of LUKS volumes: given up where the storage hangs, remembered once they were read."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.headers import LuksHeaders
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError
from tests.unit.hostagent.devices.test_luks import header
from tests.unit.hostagent.fakes import storage_reads

HIDDEN = 4096 * 512


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A LUKS1 volume in a file."""
    path = tmp_path / "volume"
    path.write_bytes(header(sectors=4096))
    yield path
    if path.is_fifo():
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def luks(path: Path, node: str | None = "1") -> Disk:
    return Disk(
        target="vda", kind=SourceKind.FILE, source=str(path), driver_format="raw", volume_id=str(uuid.UUID(int=5)),
        encrypted=True, luks=True, node=node,
    )  # fmt: skip


def hang(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on reading it waits inside the kernel, as on a hung share."""
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr("hostagent.devices.luks.os.O_NONBLOCK", 0)


def test_a_header_that_was_read_does_not_need_its_storage_any_more(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = LuksHeaders(storage_reads(limit=0.1))
    assert headers.hidden_bytes(luks(volume), None) == HIDDEN
    hang(volume, monkeypatch)
    assert headers.hidden_bytes(luks(volume), None) == HIDDEN


def test_a_header_on_storage_that_hangs_is_given_up_and_tried_again(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang(volume, monkeypatch)
    headers = LuksHeaders(storage_reads(limit=0.1))
    for _ in range(2):
        with pytest.raises(StepFailedError) as info:
            headers.hidden_bytes(luks(volume), None)
        assert (info.value.outcome, info.value.reason) == (Outcome.DEVICE_STALE, Reason.STORAGE_SILENT)


def test_a_volume_that_was_attached_anew_is_read_anew(volume: Path) -> None:
    headers = LuksHeaders(storage_reads())
    headers.hidden_bytes(luks(volume), None)
    volume.write_bytes(header(sectors=8192))
    assert headers.hidden_bytes(luks(volume, node="7"), None) == 2 * HIDDEN


def test_a_failure_is_not_remembered(volume: Path) -> None:
    headers = LuksHeaders(storage_reads())
    volume.write_bytes(b"")
    with pytest.raises(StepFailedError):
        headers.hidden_bytes(luks(volume), None)
    volume.write_bytes(header(sectors=4096))
    assert headers.hidden_bytes(luks(volume), None) == HIDDEN


def test_a_file_without_luks_is_not_read(tmp_path: Path) -> None:
    plain = replace(luks(tmp_path / "absent"), luks=False, encrypted=False)
    assert LuksHeaders(storage_reads()).hidden_bytes(plain, None) == 0
