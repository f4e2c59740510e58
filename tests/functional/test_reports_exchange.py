# SPDX-License-Identifier: Apache-2.0
"""The exchange hosts report through, on a real broker: the engine makes it, and makes it again."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.core.audit import AuditRecord
from bridge.core.extend import new_id
from bridge.core.messages import HostMessage
from bridge.core.reasons import Reason
from bridge.engine import reports
from bridge.engine.reports import ReportsConsumer
from bridge.journal.reports import BatchResult, Reported
from bridge.runtime.broker import REPORTS_EXCHANGE, REPORTS_QUEUE
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from tests.functional.conftest import Vhost
from tests.lab.odd_headers import ODD_HEADERS
from tests.lab.waiting import until

pytestmark = pytest.mark.functional


class Journal(Reported):
    """Keeps the names of the hosts that spoke."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def take(self, messages: Sequence[HostMessage]) -> BatchResult:
        self.taken += [message.host for message in messages]
        return BatchResult(settled=[], came_up=[], duplicate=[])


class Silent:
    """An audit log nobody reads."""

    def write(self, *records: AuditRecord) -> None:
        pass


@pytest.fixture
def journal(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    """Of an engine that takes reports, and looks after the exchange often."""
    monkeypatch.setattr(reports, "_LOOK_AGAIN", 0.1)
    monkeypatch.setattr(reports, "_IDLE", 0.05)
    journal, stop = Journal(), threading.Event()
    consumer = ReportsConsumer(
        connect=vhost.connection,
        reported=journal,
        on_due=lambda: None,
        health=Health(),
        metrics=EngineMetrics(CollectorRegistry()),
        audit=Silent(),
    )
    thread = threading.Thread(target=consumer.run, args=(stop,), daemon=True)
    thread.start()
    yield journal
    stop.set()
    thread.join(120)
    assert not thread.is_alive()


def _sent(vhost: Vhost, host: str) -> Callable[[], bool]:
    """Whether a message of a host can be published through the exchange now."""
    body = json.dumps(HostMessage(host=host, boot_id=new_id(), seq=1, sent_at=1.0).to_wire()).encode()

    def publish() -> bool:
        with vhost.connection() as connection, SafePublisher(connection) as publisher:
            try:
                publisher.publish(REPORTS_QUEUE, body, exchange=REPORTS_EXCHANGE)
            except NotPublishedError:
                return False
            return True

    return publish


@pytest.mark.parametrize("what", ["exchange", "queue"])
def test_is_there_again_after_somebody_deleted_it(vhost: Vhost, journal: Journal, what: str) -> None:
    """With its binding, which goes with the queue. Until then whoever publishes is told: nothing is lost unseen."""
    until(_sent(vhost, "before"), "the engine has made it")
    until(lambda: "before" in journal.taken, "the message comes")
    with vhost.connection() as connection, connection.channel() as channel:
        if what == "exchange":
            channel.exchange_delete(REPORTS_EXCHANGE)
        else:
            channel.queue_delete(REPORTS_QUEUE)
    until(_sent(vhost, "after"), "the engine has made it again")
    until(lambda: "after" in journal.taken, "the message comes")


def test_whoever_publishes_before_there_is_one_is_told(vhost: Vhost) -> None:
    """By the broker, which closes the channel; the next try has a new one."""
    with vhost.connection() as connection, SafePublisher(connection) as publisher:
        for _ in range(2):
            with pytest.raises(NotPublishedError, match=f"no exchange {REPORTS_EXCHANGE}") as told:
                publisher.publish(REPORTS_QUEUE, b"{}", exchange=REPORTS_EXCHANGE)
            assert told.value.reason is Reason.RETURNED


@pytest.mark.parametrize("headers", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_no_header_of_one_host_keeps_the_engine_from_hearing_the_others(
    vhost: Vhost, journal: Journal, headers: dict[str, Any]
) -> None:
    """What a client library raises while it reads would come again with every delivery, for ever."""
    until(_sent(vhost, "before"), "the engine has made it")
    with vhost.connection() as connection, SafePublisher(connection) as publisher:
        publisher.publish(REPORTS_QUEUE, b"{}", exchange=REPORTS_EXCHANGE, headers=headers)
    assert _sent(vhost, "behind")()
    until(lambda: {"before", "behind"} <= set(journal.taken), "both neighbours come")
