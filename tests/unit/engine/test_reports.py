# SPDX-License-Identifier: Apache-2.0
"""Taking reports: what the journal will never hold is dropped alone, what it cannot hold now is waited with."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import kombu
import pytest
from prometheus_client import CollectorRegistry

from bridge.core.audit import AuditRecord
from bridge.core.errors import JournalRefusedError, JournalUnavailableError
from bridge.core.extend import ExtendKey, new_id
from bridge.core.file_systems import FileSystemSeen, FsState
from bridge.core.messages import HostMessage
from bridge.engine import reports
from bridge.engine.alarms import Seldom
from bridge.engine.reports import ReportsConsumer
from bridge.journal.reports import BatchResult, Reported
from bridge.runtime.broker import REPORTS_QUEUE, kombu_connection
from bridge.runtime.bus_url import MEMORY
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from tests.lab.waiting import until


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_IDLE", 0.02)


class Journal(Reported):
    """Refuses what the host `bad` says; is away for the first `away` takes. Takes `most` messages in time."""

    def __init__(self, away: int = 0, most: int = 100) -> None:
        self.away, self.most = away, most
        self.taken: list[str] = []

    def take(self, messages: Sequence[HostMessage]) -> BatchResult:
        if self.away:
            self.away -= 1
            raise JournalUnavailableError("not now")
        if len(messages) > self.most:
            raise JournalUnavailableError("no answer within 15 s")
        if any(message.host == "bad" for message in messages):
            raise JournalRefusedError("never")
        self.taken += [message.host for message in messages]
        return BatchResult(settled=[], came_up=[], duplicate=[])


class Silent:
    """An audit log nobody reads."""

    def write(self, *records: AuditRecord) -> None:
        pass


class Inventing(Journal):
    """A host says of each file system another reason, none of them ours."""

    def take(self, messages: Sequence[HostMessage]) -> BatchResult:
        super().take(messages)
        seen = [
            FileSystemSeen(key=ExtendKey(new_id(), new_id()), state=FsState.BEHIND, reason=f"fs_{number}")
            for number in range(100)
        ]
        known = replace(seen[0], reason="fs_luks")
        return BatchResult(
            settled=[], came_up=[], duplicate=[], file_systems=[("h1", each) for each in (*seen, known)]
        )


def said(host: str, **changed: object) -> bytes:
    message = HostMessage(host=host, boot_id=new_id(), seq=1, sent_at=1.0)
    return json.dumps({**message.to_wire(), **changed}).encode()


@contextmanager
def consuming(journal: Journal, *bodies: bytes, registry: CollectorRegistry | None = None) -> Iterator[None]:
    with kombu_connection(MEMORY, heartbeat=0, name="test") as connection:
        channel = connection.default_channel
        kombu.Queue(
            REPORTS_QUEUE, exchange=kombu.Exchange(""), routing_key=REPORTS_QUEUE, channel=channel
        ).declare()
        for body in bodies:
            connection.Producer().publish(
                body, exchange="", routing_key=REPORTS_QUEUE, content_type="application/json",
                content_encoding="utf-8",
            )  # fmt: skip
    consumer = ReportsConsumer(
        connect=lambda: kombu_connection(MEMORY, heartbeat=0, name="test"),
        reported=journal,
        on_due=lambda: None,
        health=Health(),
        metrics=EngineMetrics(registry or CollectorRegistry()),
        audit=Silent(),
    )
    stop = threading.Event()
    thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


def test_a_message_the_database_will_never_take_is_dropped_and_its_neighbours_are_taken() -> None:
    journal = Journal()
    with consuming(journal, said("a"), said("bad"), said("b")):
        until(lambda: sorted(journal.taken) == ["a", "b"], "the neighbours are taken")
    with kombu_connection(MEMORY, heartbeat=0, name="test") as connection:
        left = kombu.Queue(REPORTS_QUEUE, channel=connection.default_channel).queue_declare(passive=True)
        assert left.message_count == 0


def test_a_number_no_float_holds_is_no_reason_to_fall_over() -> None:
    journal = Journal()
    with consuming(journal, said("a", sent_at=10**400), b"junk", said("b")):
        until(lambda: sorted(journal.taken) == ["a", "b"], "both are taken")


def test_a_journal_that_is_away_is_waited_for() -> None:
    journal = Journal(away=2)
    with consuming(journal, said("a")):
        until(lambda: journal.taken == ["a"], "it is taken")


def test_messages_that_together_take_longer_than_the_deadline_are_taken_in_halves() -> None:
    journal = Journal(most=1)
    with consuming(journal, said("a"), said("b"), said("c")):
        until(lambda: sorted(journal.taken) == ["a", "b", "c"], "all are taken")


def test_a_host_that_comes_up_again_and_again_does_not_fill_the_log() -> None:
    now = [0.0]
    seldom = Seldom(10, clock=lambda: now[0])
    assert [seldom.about("a"), seldom.about("a"), seldom.about("b")] == [True, False, True]
    now[0] = 11.0
    assert seldom.about("a")


def test_reasons_that_a_host_invents_make_no_time_series_of_their_own() -> None:
    journal, registry = Inventing(), CollectorRegistry()
    name = "extend_bridge_engine_file_system_reports_total"

    def samples() -> dict[str, float]:
        found = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
        return {sample.labels["reason"]: sample.value for sample in found}

    with consuming(journal, said("h1"), registry=registry):
        until(lambda: "fs_luks" in samples(), "the report")
    assert samples() == {"other": 100, "fs_luks": 1}
