# SPDX-License-Identifier: Apache-2.0
"""What the journal keeps of file systems in guests, and for how long."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.file_systems import FileSystemSeen, Follow, FsLayout, FsState
from bridge.core.outcome import Told
from bridge.journal.file_systems import FileSystems
from bridge.journal.reports import BatchResult
from bridge.journal.retention import Retention
from bridge.journal.settings import Keep
from bridge.journal.tables import file_systems
from tests.unit.journal.conftest import Bench
from tests.unit.journal.test_told import say, seen


def behind(key: ExtendKey, **changes: object) -> FileSystemSeen:
    """Return a file system that leaves room."""
    one = FileSystemSeen(
        key=key, state=FsState.BEHIND, reason="fs_can_follow", layout=FsLayout.PARTITION, follow=Follow.YES,
        kind="ext4", mount_point="/data", disk=Bytes(800), size=Bytes(500),
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]


def tell(bench: Bench, host: str, *looks: FileSystemSeen) -> BatchResult:
    return bench.reported.take([replace(bench.message(host), file_systems=looks)])


def listed(bench: Bench) -> list[tuple[str, float]]:
    return [(row.seen.state.value, row.since) for row in FileSystems(bench.database).behind(limit=9)]


@pytest.fixture
def here(bench: Bench, key: ExtendKey) -> ExtendKey:
    """A guest that host h1 reports."""
    say(bench, "h1", seen(key, Told.YES))
    return key


def test_a_file_system_that_is_behind_is_listed_since_it_is_and_no_longer_than_that(
    bench: Bench, here: ExtendKey
) -> None:
    since = bench.now
    tell(bench, "h1", behind(here))
    bench.now += 100
    tell(bench, "h1", behind(here, size=Bytes(510)))
    assert listed(bench) == [("behind", since)]
    [row] = FileSystems(bench.database).behind(limit=9)
    assert (row.seen, row.host, row.seen.unused) == (behind(here, size=Bytes(510)), "h1", 290)
    tell(bench, "h1", behind(here, state=FsState.GROWN, reason="fs_grown", size=Bytes(780)))
    assert listed(bench) == []
    assert FileSystems(bench.database).counts() == {"grown": 1}


def test_only_what_changed_or_was_worked_on_is_news(bench: Bench, here: ExtendKey) -> None:
    assert [each.key for _, each in tell(bench, "h1", behind(here)).file_systems] == [here]
    assert tell(bench, "h1", behind(here)).file_systems == []
    assert len(tell(bench, "h1", behind(here, size=Bytes(501))).file_systems) == 1


def test_a_host_speaks_only_for_the_guests_it_reports(bench: Bench, here: ExtendKey) -> None:
    say(bench, "h2", seen(ExtendKey("99999999-9999-4999-8999-999999999999", here.volume_id), Told.YES))
    assert tell(bench, "h2", behind(here)).file_systems == []
    assert FileSystems(bench.database).counts() == {}


def test_a_volume_that_was_detached_is_neither_counted_nor_listed(bench: Bench, here: ExtendKey) -> None:
    tell(bench, "h1", behind(here))
    inventory = seen(here, Told.YES)
    say(bench, "h1", replace(inventory, domains=(replace(inventory.domains[0], disks=()),)))
    assert FileSystems(bench.database).counts() == {}
    assert listed(bench) == []


def test_rows_that_no_look_renews_are_deleted_in_the_end(bench: Bench, here: ExtendKey) -> None:
    tell(bench, "h1", behind(here))
    keep = Keep(closed_days=30, gone_days=7, audit_heads_days=365)
    Retention(bench.database, keep, clock=lambda: bench.now + 6 * 86400).forget()
    assert len(listed(bench)) == 1
    Retention(bench.database, keep, clock=lambda: bench.now + 8 * 86400).forget()
    assert bench.database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(file_systems))) == 0


def test_tables_of_the_release_before_keep_nothing_and_break_nothing(bench: Bench, here: ExtendKey) -> None:
    bench.database.write(file_systems.drop)
    assert tell(bench, "h1", behind(here)).file_systems == []
    assert (FileSystems(bench.database).counts(), listed(bench)) == ({}, [])
