# SPDX-License-Identifier: Apache-2.0
"""A real SQLite journal per test, and a clock the test moves."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.core.extend import Arrival, Bytes, ExtendKey, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import Claims, NewAttempt
from bridge.journal.database import Database
from bridge.journal.reports import BatchResult, Reported
from bridge.journal.settings import JournalSettings
from bridge.journal.states import Extend
from bridge.runtime.retry import Backoff

TARGET = Bytes(2 * 1024**3)
HOST_TIMEOUT = 60.0
REPORT_WITHIN = 300.0


@dataclass
class Bench:
    """The journal with everything that writes to it, on one clock."""

    database: Database
    now: float = 1_000_000.0
    boot: str = field(default_factory=new_id)
    seq: int = 0

    def __post_init__(self) -> None:
        self.journal = Journal(self.database, clock=lambda: self.now)
        self.work = Claims(self.database, clock=lambda: self.now)
        self.reported = Reported(
            self.database,
            backoff=Backoff(first=8, cap=64, floor=8),
            host_timeout=HOST_TIMEOUT,
            clock=lambda: self.now,
        )

    def arrive(self, key: ExtendKey, request_id: str = "req-1") -> None:
        """One accepted event."""
        self.journal.accept([Arrival(key=key, request_id=request_id)])

    def claim(self) -> list[Extend]:
        """What is due now."""
        return self.work.claim(100, report_within=REPORT_WITHIN)

    def dispatch(self, extend: Extend, *hosts: str) -> list[NewAttempt]:
        """Attempts written down for these hosts."""
        new = [NewAttempt(id=new_id(), extend=extend, host=host, target=TARGET) for host in hosts]
        self.work.write_attempts(new)
        return new

    def report(
        self, attempt: NewAttempt, outcome: Outcome, *, after: int | None = TARGET, host: str = ""
    ) -> BatchResult:
        """One report, as its host would send it."""
        self.seq += 1
        said = Report(
            attempt_id=attempt.id,
            key=attempt.extend.key,
            gen=attempt.extend.wanted_gen,
            outcome=outcome,
            reason=outcome.value,
            target=attempt.target,
            after=Bytes(after) if after is not None else None,
        )
        return self.reported.take([self.message(host or attempt.host, reports=(said,))])

    def message(
        self, host: str, *, reports: tuple[Report, ...] = (), inventory: Inventory | None = None
    ) -> HostMessage:
        """A host's message with the next number."""
        self.seq += 1
        return HostMessage(
            host=host, boot_id=self.boot, seq=self.seq, sent_at=0.0, reports=reports, inventory=inventory
        )

    def has(
        self, host: str, *keys: ExtendKey, state: GuestState = GuestState.ACTIVE, full: bool = True
    ) -> BatchResult:
        """The host says it has these servers with one disk each."""
        seen = tuple(
            DomainSeen(
                server_id=k.server_id,
                state=state,
                disks=(DiskSeen(volume_id=k.volume_id, size=Bytes(1)),),
            )
            for k in keys
        )
        return self.reported.take([self.message(host, inventory=Inventory(full=full, domains=seen))])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A journal in a file of its own."""
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'journal.sqlite3'}"))
    migrate.upgrade(database)
    yield Bench(database)
    database.dispose()


@pytest.fixture
def key() -> ExtendKey:
    """A disk of a guest."""
    return ExtendKey(new_id(), new_id())
