# SPDX-License-Identifier: Apache-2.0
"""What hosts send: taken off the reports queue in batches, committed, then acknowledged. In that order."""

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import kombu

from bridge.core import limits
from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import JournalRefusedError, JournalUnavailableError, ShuttingDownError
from bridge.core.messages import HostMessage
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.core.wire import BadMessageError
from bridge.engine.alarms import HostAlarms
from bridge.journal.reports import BatchResult, Reported, SettledReport, portions
from bridge.journal.states import Move
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
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.raw_messages import as_sent, body_bytes
from bridge.runtime.retry import Backoff, keep_trying

LOG = logging.getLogger(__name__)

_BATCH: Final = 200
_IDLE: Final = 1.0  # seconds to wait for a first message
_MORE: Final = 0.002  # seconds to wait for one more of the same burst
_BEATS: Final = 500  # heartbeats taken together, which wait for nobody
_GATHERED: Final = 1.0  # seconds the first of them may wait for the others
_CROWD: Final = 20  # heartbeats in that time from which on to wake up for each costs more than the work on it
_NAP: Final = 0.05  # seconds of sleep then, in which more of them come; news waits so long at most
_NO_NEWS: Final = (b'"reports":[]', b'"full":false,"domains":[],"gone":[]')
"""What an agent's heartbeat says, word for word. A message that says it otherwise is only taken a little sooner."""
_NEVER: Final = 6  # attempts after which it is said that Nova's host does not do it; it is prompted all the same
_UNKNOWN: Final = "unknown"
_BYTES: Final = 4 * 1024 * 1024  # of messages taken together: each may be as long as a host may make it
_BUS: Final = "engine.bus"
_LOOK_AGAIN: Final = 30.0  # seconds; an exchange that was deleted is missing until then, and agents wait

_EVENTS: Final = {
    Move.CLOSE: AuditEvent.CLOSED,
    Move.FAIL: AuditEvent.FAILED,
    Move.AGAIN: AuditEvent.REPORTED,
    Move.NEWER: AuditEvent.REOPENED,
    Move.NOTE: AuditEvent.LATE,
    Move.IGNORE: AuditEvent.LATE,
}


class _Inbox:
    """Messages taken and not yet settled."""

    def __init__(self) -> None:
        self.messages: list[kombu.Message] = []
        self._news = False
        self._bytes = 0
        self._since = 0.0

    def take(self, message: kombu.Message) -> None:
        """One more."""
        if not self.messages:
            self._since = time.monotonic()
        self.messages.append(message)
        body = body_bytes(message)
        self._bytes += len(body)
        self._news = self._news or not all(words in body for words in _NO_NEWS)

    def empty(self) -> None:
        """All are settled."""
        self.messages, self._news, self._bytes = [], False, 0

    def patience(self) -> float:
        """Seconds to wait for one more; 0 when what is here has to be settled."""
        if not self.messages:
            return _IDLE
        if self._bytes >= _BYTES:
            return 0.0
        if self._news:
            return _MORE if len(self.messages) < _BATCH else 0.0
        left = self._since + _GATHERED - time.monotonic() if len(self.messages) < _BEATS else 0.0
        return min(left, _MORE) if self.crowded() else left

    def crowded(self) -> bool:
        """Whether there are many heartbeats and nothing else."""
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
        self._in_memory = False
        self._no_way: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Run until told to stop; connect again, with back-off, when the broker is lost."""

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
        """Have the exchange of orders, and those agents write: one proves their name, one is for older agents."""
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
                    LOG.warning("hosts have no exchange %s to report to: %s", exchange, why)
                self._no_way[exchange] = why
            else:
                self._no_way.pop(exchange, None)

    @staticmethod
    def _gather(connection: kombu.Connection, inbox: "_Inbox") -> None:
        """Wait for a message, then take what came with it; heartbeats wait for others, or for news."""
        while (wait := inbox.patience()) > 0:
            try:
                connection.drain_events(timeout=wait)
            except TimeoutError:
                if not inbox.crowded():
                    break
                time.sleep(_NAP)
        connection.heartbeat_check()  # last: what was not read yet is a sign of life as well

    def _settle(self, inbox: Sequence[kombu.Message], stop: threading.Event) -> None:
        read = [message for message in map(self._read, inbox) if message is not None]
        try:
            for portion in portions(read):
                # Written down before it is acknowledged: what a killed engine did not say comes again, as late.
                for taken in self._take(portion, stop):
                    self._follow_up(taken)
        except ShuttingDownError:
            return  # not acknowledged: delivered again after the restart
        if self._in_memory:
            for message in inbox:
                message.ack()
        else:
            inbox[-1].ack(multiple=True)  # everything before it on this channel is in the journal

    def _read(self, message: kombu.Message) -> HostMessage | None:
        """Read one message; None where it is dropped: its reports come again, since their extends stay open."""
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
                "dropped, as [engine] accept_unbound_hosts is false",
            )
            return None
        unread = read.unread + (read.inventory.unread if read.inventory is not None else 0)
        if unread:
            self._alarms.sound(
                Reason.HOST_TOO_MUCH, read.host, f"{unread} reports, domains or volumes of a message are left out"
            )
        return read

    def _take(self, messages: Sequence[HostMessage], stop: threading.Event) -> list[BatchResult]:
        """Commit them, together or, where the database refuses a value, one by one without the one that has it.

        What a dropped message reported comes again: its extend stays open and is cast anew.
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

    def _follow_up(self, taken: BatchResult) -> None:
        for settled in taken.settled:
            self._say(settled)
        if taken.came_up or taken.back or any(s.decision and s.decision.move is Move.NEWER for s in taken.settled):
            self._on_due()
        for host in taken.came_up:
            LOG.info("host %s is up", host)
        for host in taken.duplicate:
            LOG.error("two host agents report under the name %s: give each its own [hostagent] host", host)
        self._metrics.duplicate_hosts.inc(len(taken.duplicate))
        for host in taken.refused:
            self._alarms.sound(
                Reason.HOST_UNPROVED, host, "refused: the broker vouches for this host's living agent, not for this"
            )
        for host, lost in taken.lost.items():
            self._alarms.sound(
                Reason.HOST_SHRANK, host, f"{lost} servers; they stay as they were until an inventory repeats it"
            )

    def _say(self, settled: SettledReport) -> None:
        report, extend, decision = settled.report, settled.extend, settled.decision
        if decision is None:
            LOG.warning(
                "host %s reported attempt %s, which the journal does not hold", settled.host, report.attempt_id
            )
            return
        self._metrics.attempts.labels(decision.outcome.value).inc()
        if decision.move in {Move.CLOSE, Move.FAIL}:
            self._metrics.closed.labels(decision.outcome.value).inc()
            if extend is not None:
                self._metrics.extend_seconds.observe(max(0.0, time.time() - extend.opened_at))
        if decision.move is Move.FAIL:
            LOG.error(
                "extend of volume %s on server %s failed on host %s: %s (%s); the next event opens it again",
                report.key.volume_id, report.key.server_id, settled.host, decision.outcome.value, decision.reason,
            )  # fmt: skip
        if decision.outcome is Outcome.NOT_YET and extend is not None and extend.attempt == _NEVER:
            LOG.error(
                "Nova's host %s never gets to volume %s on server %s: prompted %d times, it sees %s of %d bytes",
                settled.host, report.key.volume_id, report.key.server_id, _NEVER - 1, report.after, report.target,
            )  # fmt: skip
        self._audit.write(*_records(settled, time.time()))


def sender_of(message: kombu.Message) -> str | None:
    """Return the host that sent a message by the broker's word; None where the broker does not vouch for it.

    At this exchange a user may write the routing keys of its topic permission alone.
    """
    where = message.delivery_info
    return str(where["routing_key"]) if where.get("exchange") == HOSTS_EXCHANGE else None


def _records(settled: SettledReport, now: float) -> list[AuditRecord]:
    """The agent's steps and the end, so that control-plane logs alone tell the whole story."""
    report, extend, attempt, decision = settled.report, settled.extend, settled.attempt, settled.decision
    if attempt is None or decision is None:
        return []
    common: dict[str, Any] = {
        "at": now,
        "server": report.key.server_id,
        "volume": report.key.volume_id,
        "host": settled.host,
        "extend_id": attempt.extend_id,
        "attempt": attempt.number,
        "attempt_id": attempt.id,
        "request_id": extend.request_id if extend is not None else None,
        "global_request_id": extend.global_request_id if extend is not None else None,
    }
    steps = [
        AuditRecord(
            event=AuditEvent.STEP,
            outcome="ok" if step.ok else "failed",
            reason=None,
            seconds=step.seconds,
            data={"step": step.name, "detail": step.detail, "size": step.size},
            **common,
        )
        for step in report.steps
    ]
    sizes = {"before": report.before, "target": report.target, "after": report.after, "detail": report.detail}
    end = AuditRecord(
        event=_EVENTS[decision.move],
        outcome=decision.outcome.value,
        reason=str(decision.reason),
        seconds=now - extend.opened_at if extend is not None else None,
        data={k: v for k, v in sizes.items() if v not in (None, "")},
        **common,
    )
    return [*steps, end]
