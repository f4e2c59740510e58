# SPDX-License-Identifier: Apache-2.0
"""How much of a LUKS1 volume the guest does not see."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.outcome import Outcome
from hostagent.devices.luks import HEADER, hidden_bytes, payload_offset
from hostagent.domain import Disk, SourceKind
from hostagent.errors import StepFailedError


def header(version: int = 1, sectors: int = 4040) -> bytes:
    return struct.pack(">6sH96xI", b"LUKS\xba\xbe", version, sectors).ljust(HEADER, b"\0")


def luks(path: Path, kind: SourceKind = SourceKind.FILE, driver_format: str = "raw") -> Disk:
    return Disk(
        target="vda", kind=kind, source=str(path), driver_format=driver_format, volume_id=None, encrypted=True,
        luks=True,
    )  # fmt: skip


@given(st.integers(0, 2**32 - 1))
def test_the_offset_is_what_the_header_says(sectors: int) -> None:
    """In sectors of 512, big-endian."""
    assert payload_offset(header(sectors=sectors)) == sectors * 512


@given(st.binary(max_size=700))
def test_what_is_no_luks1_is_said_in_words(noise: bytes) -> None:
    """No other error, whatever lies there."""
    with pytest.raises(ValueError, match="LUKS"):
        payload_offset(noise)


def test_luks2_is_nothing_qemu_opens(tmp_path: Path) -> None:
    """Its payload lies elsewhere: unsupported, in words, rather than a wrong size."""
    path = tmp_path / "disk"
    path.write_bytes(header(version=2))
    with pytest.raises(StepFailedError, match="version 2") as caught:
        hidden_bytes(luks(path), None)
    assert caught.value.outcome is Outcome.UNSUPPORTED


def test_a_disk_without_luks_hides_nothing(tmp_path: Path) -> None:
    """And is not read."""
    disk = Disk(
        target="vda", kind=SourceKind.FILE, source=str(tmp_path / "absent"), driver_format="raw", volume_id=None
    )
    assert hidden_bytes(disk, None) == 0


def test_luks_inside_of_qcow2_hides_nothing(tmp_path: Path) -> None:
    """The virtual size is what the guest sees; the file is not read."""
    assert hidden_bytes(luks(tmp_path / "absent", SourceKind.FILE, "qcow2"), None) == 0


def test_a_header_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    """The device may come back."""
    with pytest.raises(StepFailedError) as caught:
        hidden_bytes(luks(tmp_path / "absent"), None)
    assert caught.value.outcome is Outcome.DEVICE_STALE


@pytest.mark.parametrize(("kind", "fmt"), [(SourceKind.FILE, "vmdk"), (SourceKind.OTHER, "raw")])
def test_luks_inside_another_format_is_unsupported(tmp_path: Path, kind: SourceKind, fmt: str) -> None:
    """The header is not where it was looked for."""
    with pytest.raises(StepFailedError) as caught:
        hidden_bytes(luks(tmp_path / "disk", kind, fmt), None)
    assert caught.value.outcome is Outcome.UNSUPPORTED
