# SPDX-License-Identifier: Apache-2.0
"""The journal as a state machine: anybody may die between any two steps, and in the middle of one.

The model is what matters to a user: the size Cinder has, and the size the guest has. Whatever is lost, late, twice
or out of order, an extend that was accepted ends at a verified size.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import event

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, Bytes, ExtendKey, new_id
from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import Claims, Later, NewAttempt
from bridge.journal.database import Database
from bridge.journal.reports import Reported
from bridge.journal.settings import JournalSettings
from bridge.journal.states import Extend
from bridge.journal.tables import extends
from bridge.runtime.retry import Backoff

DISKS = [
    ExtendKey(f"{n}0000000-0000-4000-8000-000000000000", f"{n}1111111-1111-4111-8111-111111111111") for n in "12"
]
HOST = "h1"
BAD = [Outcome.DEVICE_STALE, Outcome.BUSY, Outcome.ERROR, Outcome.NOT_HERE, Outcome.NOT_ATTACHED]


class DiedError(Exception):
    """The process ends here."""


class JournalMachine(RuleBasedStateMachine):
    """API, engine and host, each a rule; what is in a process's memory can be lost at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.directory = tempfile.TemporaryDirectory(prefix="eb-machine-")
        path = Path(self.directory.name) / "journal.sqlite3"
        self.database = Database(JournalSettings(connection=f"sqlite:///{path}"))
        migrate.upgrade(self.database)
        self.statements_left: int | None = None
        event.listen(self.database.engine, "before_cursor_execute", self._maybe_die)
        self.journal = Journal(self.database, clock=lambda: self.now)
        self.work = Claims(self.database, clock=lambda: self.now)
        self.reported = Reported(
            self.database, backoff=Backoff(first=2, cap=8), host_timeout=60, clock=lambda: self.now
        )
        self.cinder = dict.fromkeys(DISKS, 1)
        self.guest = dict.fromkeys(DISKS, 1)
        self.promised = dict.fromkeys(DISKS, 1)  # what Cinder had when the API last said 200
        self.boot, self.seq = new_id(), 0
        self.claimed: list[Extend] = []  # in an engine's memory
        self.casts: list[NewAttempt] = []  # in the agent's queue or memory
        self.outbox: list[HostMessage] = []  # on the reports queue: durable

    def teardown(self) -> None:
        """However it went: once nothing is lost any more, everything comes to its end."""
        self.statements_left = None
        for _ in range(60):
            self.now += 400
            self.claim(die_after=None)
            self.dispatch(die_after=None)
            while self.casts:
                self.carry_out(0, None)
            while self.outbox:
                self.take(0, 1, die_after=None)
            if not self._open():
                break
        try:
            assert self._open() == 0
            for key in DISKS:
                assert self.guest[key] >= self.promised[key]
        finally:
            self.database.dispose()
            self.directory.cleanup()

    @initialize()
    def host_comes_up(self) -> None:
        """The first inventory."""
        self.say_inventory()

    @rule(key=st.sampled_from(DISKS), grows=st.integers(0, 2), die_after=st.none() | st.integers(0, 6))
    def extend(self, key: ExtendKey, grows: int, die_after: int | None) -> None:
        """Cinder grows the volume, then the event is accepted, or the API dies over it."""
        self.cinder[key] += grows
        if self._dying(lambda: self.journal.accept([Arrival(key=key)]), die_after):
            self.promised[key] = self.cinder[key]

    @rule(die_after=st.none() | st.integers(0, 4))
    def claim(self, die_after: int | None) -> None:
        """An engine takes what is due into its memory."""
        taken: list[Extend] = []
        self._dying(lambda: taken.extend(self.work.claim(10, report_within=100)), die_after)
        self.claimed += taken

    @rule(die_after=st.none() | st.integers(0, 3))
    @precondition(lambda self: self.claimed)
    def dispatch(self, die_after: int | None) -> None:
        """The engine asks Cinder, writes attempts down, casts; or dies before, between or after."""
        new = [NewAttempt(id=new_id(), extend=x, host=HOST, target=Bytes(self.cinder[x.key])) for x in self.claimed]
        self.claimed = []
        if self._dying(lambda: self.work.write_attempts(new), die_after):
            self.casts += new

    @rule()
    @precondition(lambda self: self.claimed)
    def put_off(self) -> None:
        """The host seems down, or Cinder is."""
        self.work.wait(
            [
                Later(
                    extend=x, reason=Reason.HOST_DOWN, due_at=self.now + 500, failures=x.failures, waiting_for=HOST
                )
                for x in self.claimed
            ]
        )
        self.claimed = []

    @rule()
    def engine_round(self) -> None:
        """An ordinary round of an engine, in which nobody dies: most of what happens in a cloud."""
        self.claim(die_after=None)
        self.dispatch(die_after=None)

    @rule()
    def host_round(self) -> None:
        """An ordinary round of a host and of the engine that takes its reports."""
        if self.casts:
            self.carry_out(0, None)
        if self.outbox:
            self.take(0, 4, die_after=None)

    @rule()
    def engine_dies(self) -> None:
        """What it had claimed is gone from its memory."""
        self.claimed = []

    @rule()
    def agent_dies(self) -> None:
        """Acked casts are gone, and the next run has another id."""
        self.casts = []
        self.boot, self.seq = new_id(), 0
        self.say_inventory()

    @rule(index=st.integers(0, 5), bad=st.none() | st.sampled_from(BAD))
    @precondition(lambda self: self.casts)
    def carry_out(self, index: int, bad: Outcome | None) -> None:
        """The host works on any of its orders and reports."""
        attempt = self.casts.pop(index % len(self.casts))
        key = attempt.extend.key
        before = self.guest[key]
        if bad is None:
            self.guest[key] = max(before, int(attempt.target))
        after = self.guest[key]
        outcome = bad or (Outcome.RESIZED if after > before else Outcome.ALREADY)
        said = Report(
            attempt_id=attempt.id,
            key=key,
            gen=attempt.extend.wanted_gen,
            outcome=outcome,
            reason=outcome.value,
            target=attempt.target,
            after=Bytes(after),
        )
        self.outbox.append(self._message((said,), None))

    @rule(index=st.integers(0, 5), count=st.integers(1, 4), die_after=st.none() | st.integers(0, 12))
    @precondition(lambda self: self.outbox)
    def take(self, index: int, count: int, die_after: int | None) -> None:
        """An engine takes some messages; one that dies before its acknowledgement gets them again."""
        start = index % len(self.outbox)
        batch = self.outbox[start : start + count]
        if self._dying(lambda: self.reported.take(batch), die_after):
            del self.outbox[start : start + count]

    @rule()
    @precondition(lambda self: self.outbox)
    def deliver_again(self) -> None:
        """The broker delivers a message a second time, later."""
        self.outbox.append(self.outbox[0])

    @rule(seconds=st.sampled_from([1, 50, 120, 600]))
    def time_passes(self, seconds: int) -> None:
        """Back-offs and report limits run out."""
        self.now += seconds

    @invariant()
    def one_open_row_per_disk(self) -> None:
        """The unique key holds."""
        count = sa.func.count()
        query = sa.select(count).where(extends.c.open == 1).group_by(extends.c.server_id, extends.c.volume_id)
        assert all(n == 1 for n in self.database.read(lambda c: c.scalars(query).all()))

    @invariant()
    def nothing_promised_is_forgotten(self) -> None:
        """A guest behind what was promised has an open extend."""
        query = sa.select(extends.c.server_id).where(extends.c.open == 1)
        still_open = set(self.database.read(lambda c: c.scalars(query).all()))
        for key in DISKS:
            assert self.guest[key] >= self.promised[key] or key.server_id in still_open

    def say_inventory(self) -> None:
        """The host's full inventory, on its way."""
        domains = tuple(DomainSeen(server_id=key.server_id, state=GuestState.ACTIVE) for key in DISKS)
        self.outbox.append(self._message((), Inventory(full=True, domains=domains)))

    def _message(self, reports: tuple[Report, ...], inventory: Inventory | None) -> HostMessage:
        self.seq += 1
        return HostMessage(
            host=HOST, boot_id=self.boot, seq=self.seq, sent_at=0.0, reports=reports, inventory=inventory
        )

    def _open(self) -> int:
        return self.work.standing().open

    def _dying(self, step: Callable[[], object], die_after: int | None) -> bool:
        """Do a step of the journal; whether it was done. With `die_after` the process dies at that statement."""
        self.statements_left = die_after
        try:
            step()
        except (DiedError, JournalUnavailableError):
            return False
        finally:
            self.statements_left = None
        return True

    def _maybe_die(self, *_: object) -> None:
        if self.statements_left is not None:
            if self.statements_left == 0:
                raise DiedError
            self.statements_left -= 1


TestJournalMachine = JournalMachine.TestCase
TestJournalMachine.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
