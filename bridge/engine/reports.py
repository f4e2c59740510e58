# SPDX-License-Identifier: Apache-2.0
"""Reports of hosts: taken off the reports queue in batches, committed, then acknowledged. In that order."""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import kombu

from bridge.core import limits
from bridge.core.errors import JournalRefusedError, JournalUnavailableError, ShuttingDownError
from bridge.core.messages import HostMessage
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.core.wire import BadMessageError
from bridge.engine.alarms import HostAlarms, Seldom
from bridge.engine.report_records import file_system_records, opening_record, report_records
from bridge.journal.portions import portions
from bridge.journal.reports import BatchResult, Reported, SettledReport
from bridge.journal.states import Move, not_its_order
from bridge.runtime.audit import AuditLog
from bridge.runtime.broker import (
    BROKER_ERRORS,
    HOSTS_EXCHANGE,
    REPORTS_EXCHANGE,
    REPORTS_QUEUE,
    QueueSpec,
    ensure_agent_exchange,
    ensure_queue,
    ensure_topic_way,
    ensure_way,
    is_memory_connection,
)
from bridge.runtime.bus_url import failure_words
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.metrics import EngineMetrics, exemplar
from bridge.runtime.raw_messages import as_sent, body_bytes
from bridge.runtime.retry import Backoff, keep_trying

LOG = logging.getLogger(__name__)

_BATCH: Final = 200
_IDLE: Final = 1.0  # seconds to wait for a first message
_MORE: Final = 0.002  # seconds to wait for another message of the same burst
_BEATS: Final = 500  # heartbeats taken together; no caller waits for them
_GATHERED: Final = 1.0  # seconds the first heartbeat may wait for the others
_CROWD: Final = 20  # heartbeats in that time from which on a wake-up for each costs more than its work
_NAP: Final = 0.05  # seconds to sleep then, while more heartbeats come; news waits at most that long
_NO_NEWS: Final = (b'"reports":[]', b'"full":false,"domains":[],"gone":[]')
"""Words of an agent's heartbeat, byte for byte. A message with other words is only taken a little sooner."""
_NEVER: Final = 6  # attempts after which Nova's host is logged as not extending; it is still prompted
_UNKNOWN: Final = "unknown"
_REASONS: Final = frozenset(reason.value for reason in Reason)
_OTHER: Final = "other"  # label of a reason that this release does not know
_BYTES: Final = 4 * 1024 * 1024  # bytes of messages taken together: each may have the full length allowed
_TOGETHER: Final = 2  # attempts at messages together, before halves of them are tried
_LONG: Final = 0.2  # seconds of one transaction, after which other writers get a turn
_BREATH: Final = 0.12  # seconds of that turn: SQLite's writers look for the lock every 100 ms
_QUIET: Final = 10.0  # seconds between two log lines that say the same about one host
_BUS: Final = "engine.bus"
_LOOK_AGAIN: Final = 30.0  # seconds; a deleted exchange is missing until then, and agents wait


class _Inbox:
    """Messages taken from the queue and not yet settled."""

    def __init__(self) -> None:
        self.messages: list[kombu.Message] = []
        self._news = False
        self._bytes = 0
        self._since = 0.0

    def take(self, message: kombu.Message) -> None:
        """Add one message to the batch."""
        if not self.messages:
            self._since = time.monotonic()
        self.messages.append(message)
        body = body_bytes(message)
        self._bytes += len(body)
        self._news = self._news or not all(words in body for words in _NO_NEWS)

    def empty(self) -> None:
        """Forget all messages, because they are settled."""
        self.messages, self._news, self._bytes = [], False, 0

    def patience(self) -> float:
        """Return the seconds to wait for another message; 0 if the batch has to be settled."""
        if not self.messages:
            return _IDLE
        if self._bytes >= _BYTES:
            return 0.0
        if self._news:
            return _MORE if len(self.messages) < _BATCH else 0.0
        left = self._since + _GATHERED - time.monotonic() if len(self.messages) < _BEATS else 0.0
        return min(left, _MORE) if self.crowded() else left

    def crowded(self) -> bool:
        """Return True if the batch has many heartbeats and nothing else."""
        return not self._news and len(self.messages) >= _CROWD


class ReportsConsumer:
    """One supervised thread on the reports queue; several engines share the queue."""

    def __init__(
        self,
        *,
        connect: Callable[[], kombu.Connection],
        reported: Reported,
        on_due: Callable[[], None],
        health: Health,
        metrics: EngineMetrics,
        audit: AuditLog,
        accept_unbound: bool = True,
    ) -> None:
        self._connect = connect
        self._reported = reported
        self._on_due = on_due
        self._health = health
        self._metrics = metrics
        self._audit = audit
        self._accept_unbound = accept_unbound
        self._alarms = HostAlarms(metrics=metrics, audit=audit)
        self._up, self._twice = Seldom(_QUIET), Seldom(_QUIET)
        self._in_memory = False
        self._no_way: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set; connect again, with back-off, when the broker is lost."""

        def session() -> None:
            with self._connect() as connection:
                ensure_queue(connection, QueueSpec(name=REPORTS_QUEUE))
                self._in_memory = is_memory_connection(connection)
                self._consume(connection, stop)

        keep_trying(
            stop,
            Backoff(first=0.5, cap=10, floor=0.2),
            self._health,
            _BUS,
            BROKER_ERRORS,
            session,
            words=lambda error: f"our bus cannot be used: {failure_words(error)}",
        )

    def _consume(self, connection: kombu.Connection, stop: threading.Event) -> None:
        inbox = _Inbox()
        with connection.channel() as channel:
            consumer = kombu.Consumer(
                as_sent(channel),
                [kombu.Queue(REPORTS_QUEUE, no_declare=True)],
                on_message=inbox.take,
                prefetch_count=_BEATS,
                accept=None,
                auto_declare=False,
            )
            with consumer:
                look = 0.0
                while not stop.is_set():
                    self._health.ok(_BUS, good_for=LIMIT)
                    if time.monotonic() >= look:
                        self._have_a_way(connection)
                        look = time.monotonic() + _LOOK_AGAIN
                    self._gather(connection, inbox)
                    if inbox.messages:
                        self._settle(inbox.messages, stop)
                        inbox.empty()

    def _have_a_way(self, connection: kombu.Connection) -> None:
        """Declare the exchange of orders and the exchanges that agents write to.

        HOSTS_EXCHANGE proves the sender. REPORTS_EXCHANGE is for older agents.
        """
        if self._in_memory:
            return
        ensure_agent_exchange(connection)
        ways = {HOSTS_EXCHANGE: ensure_topic_way}
        if self._accept_unbound:
            ways[REPORTS_EXCHANGE] = ensure_way
        for exchange, ensure in ways.items():
            try:
                ensure(connection, exchange, REPORTS_QUEUE)
            except connection.channel_errors as ex:
                why = " ".join(str(ex).split())
                if why != self._no_way.get(exchange):
                    LOG.warning("the exchange %s, to which hosts report, is missing: %s", exchange, why)
                self._no_way[exchange] = why
            else:
                self._no_way.pop(exchange, None)

    @staticmethod
    def _gather(connection: kombu.Connection, inbox: "_Inbox") -> None:
        """Wait for a message, then take what came with it; heartbeats wait for other heartbeats, or for news."""
        while (wait := inbox.patience()) > 0:
            try:
                connection.drain_events(timeout=wait)
            except TimeoutError:
                if not inbox.crowded():
                    break
                time.sleep(_NAP)
        connection.heartbeat_check()  # last, because unread data is a sign of life as well

    def _settle(self, inbox: Sequence[kombu.Message], stop: threading.Event) -> None:
        read = [message for message in map(self._read, inbox) if message is not None]
        try:
            for portion in portions(read):
                began = time.monotonic()
                # The audit is written before the acknowledgement. A killed engine gets the messages again, judged
                # as late.
                for taken in self._take(portion, stop):
                    self._follow_up(taken)
                if time.monotonic() - began > _LONG:
                    stop.wait(_BREATH)
        except ShuttingDownError:
            return  # not acknowledged: delivered again after the restart
        if self._in_memory:
            for message in inbox:
                message.ack()
        else:
            inbox[-1].ack(multiple=True)  # all earlier messages on this channel are in the journal

    def _read(self, message: kombu.Message) -> HostMessage | None:
        """Read one message; return None if it is dropped.

        Reports of a dropped message come again, because their extends stay open.
        """
        body, sender = body_bytes(message), sender_of(message)
        if len(body) > limits.MESSAGE_BYTES.most:
            self._alarms.sound(Reason.HOST_TOO_MUCH, sender or _UNKNOWN, f"a message of {len(body)} bytes, dropped")
            return None
        try:
            read = HostMessage.from_wire(json.loads(body), bound=self._in_memory or sender is not None)
        except (BadMessageError, ValueError, RecursionError) as ex:
            self._alarms.sound(Reason.HOST_TOO_MUCH, sender or _UNKNOWN, f"a message that cannot be read: {ex}")
            return None
        if sender is not None and sender != read.host:
            self._alarms.sound(
                Reason.HOST_NOT_ITSELF, sender, f"in the name of {read.host}; the message is dropped"
            )
            return None
        if not read.bound and not self._accept_unbound:
            self._alarms.sound(
                Reason.HOST_UNPROVED,
                read.host,
                "dropped, because [engine] accept_unbound_hosts is false",
            )
            return None
        unread = read.unread + (read.inventory.unread if read.inventory is not None else 0)
        if unread:
            self._alarms.sound(
                Reason.HOST_TOO_MUCH, read.host, f"{unread} reports, domains or volumes of a message are left out"
            )
        return read

    def _take(self, messages: Sequence[HostMessage], stop: threading.Event) -> list[BatchResult]:
        """Commit the messages together.

        If the database refuses a value, commit one by one without the message that has it. Reports of a dropped
        message come again, because their extends stay open and are cast anew.
        """
        away, failures = Backoff(first=0.2, cap=5, floor=0.1), 0
        while True:
            try:
                return [self._reported.take(messages)]
            except JournalRefusedError as ex:
                if len(messages) > 1:
                    return [taken for message in messages for taken in self._take([message], stop)]
                LOG.error("a message of host %s is dropped: %s", messages[0].host, ex)  # noqa: TRY400
                return []
            except JournalUnavailableError as ex:
                failures += 1
                if stop.wait(away.delay(failures)):
                    raise ShuttingDownError from ex
                if failures >= _TOGETHER and len(messages) > 1:  # together they may take longer than the deadline
                    half = len(messages) // 2
                    return [*self._take(messages[:half], stop), *self._take(messages[half:], stop)]

    def _follow_up(self, taken: BatchResult) -> None:
        self._audit.write(*(opening_record(moved, time.time()) for moved in taken.opened))
        for settled in taken.settled:
            self._say(settled)
        for host, seen in taken.file_systems:
            reason = seen.reason if seen.reason in _REASONS else _OTHER  # a host must not invent time series
            self._metrics.file_system_reports.labels(seen.state.value, reason).inc()
            self._audit.write(*file_system_records(host, seen, time.time()))
        if taken.came_up or taken.back or any(s.decision and s.decision.move is Move.NEWER for s in taken.settled):
            self._on_due()
        for host in filter(self._up.about, taken.came_up):
            LOG.info("host %s is up", host)
        for host in filter(self._twice.about, taken.duplicate):
            LOG.error("two host agents report under the name %s: give each its own [hostagent] host", host)
        self._metrics.duplicate_hosts.inc(len(taken.duplicate))
        for host in taken.refused:
            self._alarms.sound(
                Reason.HOST_UNPROVED,
                host,
                "refused: the broker verifies the messages of this host's running agent, but not this sender",
            )
        for host, lost in taken.lost.items():
            self._alarms.sound(
                Reason.HOST_SHRANK, host, f"{lost} servers; they stay as they were until an inventory repeats it"
            )

    def _say(self, settled: SettledReport) -> None:
        report, extend, attempt, decision = settled.report, settled.extend, settled.attempt, settled.decision
        if decision is None:
            self._alarms.sound(
                Reason.HOST_NOT_ORDERED,
                settled.host,
                f"attempt {report.attempt_id}, which is not in the journal",
            )
            return
        if attempt is not None and (why := not_its_order(attempt, report, settled.host)) is not None:
            self._alarms.sound(Reason.HOST_NOT_ORDERED, settled.host, why)
            return
        self._metrics.attempts.labels(decision.outcome.value).inc()
        if decision.move in {Move.CLOSE, Move.FAIL}:
            self._metrics.closed.labels(decision.outcome.value).inc()
            if extend is not None:
                self._metrics.extend_seconds.observe(
                    max(0.0, time.time() - extend.opened_at), exemplar(extend.traceparent)
                )
        if decision.move is Move.FAIL:
            LOG.error(
                "extend of volume %s on server %s failed on host %s: %s (%s); the next event opens it again",
                report.key.volume_id, report.key.server_id, settled.host, decision.outcome.value, decision.reason,
            )  # fmt: skip
        if decision.outcome is Outcome.NOT_YET and extend is not None and extend.attempt == _NEVER:
            LOG.error(
                "Nova's host %s does not extend volume %s on server %s: the event was sent %d times, the "
                "guest sees %s of %d bytes",
                settled.host, report.key.volume_id, report.key.server_id, _NEVER - 1, report.after, report.target,
            )  # fmt: skip
        self._audit.write(*report_records(settled, time.time()))


def sender_of(message: kombu.Message) -> str | None:
    """Return the host that sent a message, proved by the broker; None if the broker does not prove the sender.

    At this exchange a user may only write the routing keys of its topic permission.
    """
    where = message.delivery_info
    return str(where["routing_key"]) if where.get("exchange") == HOSTS_EXCHANGE else None
