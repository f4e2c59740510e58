# SPDX-License-Identifier: Apache-2.0
"""Reads that hang are given up, named in health, and not begun a second time."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from bridge.runtime.health import Health
from hostagent.storage_reads import HEALTH, StorageReads, StorageSilentError
from tests.lab.waiting import until


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def reads(health: Health) -> StorageReads:
    return StorageReads(limit=0.05, most=3, health=health, gauge=Gauge("g", "g", registry=CollectorRegistry()))


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """Reading it hangs as long as nobody writes: an open inside the kernel, as on a dead share."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def test_a_read_that_answers_gives_its_value_and_its_error(reads: StorageReads, health: Health) -> None:
    assert reads.read("a", lambda: 5, limit=30) == 5
    with pytest.raises(FileNotFoundError):
        reads.read("a", lambda: Path("/nowhere").read_bytes(), limit=30)
    assert health.ready()


def test_a_read_that_hangs_is_given_up_and_named_until_it_returns(
    reads: StorageReads, health: Health, pipe: Path
) -> None:
    with pytest.raises(StorageSilentError, match="volume-1 does not answer within"):
        reads.read("volume-1", pipe.read_bytes)
    assert not health.checks()[HEALTH].ok
    assert "volume-1" in health.checks()[HEALTH].reason
    with pytest.raises(StorageSilentError, match="an earlier read of it has hung for"):
        reads.read("volume-1", lambda: 1, limit=30)
    assert reads.read("volume-2", lambda: 2, limit=30) == 2, "others are read meanwhile"
    with pipe.open("wb") as writer:
        writer.write(b"x")
    until(health.ready, "the read returned")
    assert reads.read("volume-1", lambda: 3, limit=30) == 3


def test_no_more_reads_hang_than_may(reads: StorageReads, health: Health) -> None:
    """Each holds a thread: what hangs is bounded, whatever the number of volumes."""
    back = threading.Event()
    for n in range(3):
        with pytest.raises(StorageSilentError, match="does not answer within"):
            reads.read(f"volume-{n}", back.wait)
    with pytest.raises(StorageSilentError, match="3 other reads of storage hang"):
        reads.read("volume-9", lambda: 1)
    assert reads.hanging() == ("volume-0", "volume-1", "volume-2")
    back.set()
    until(health.ready, "they returned")
