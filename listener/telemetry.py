# SPDX-License-Identifier: Apache-2.0
"""The audit records and metrics of the listener, in one module."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from bridge.runtime.audit import AuditLog
from bridge.runtime.metrics import ListenerMetrics
from listener.lanes import Deferred, Parked
from listener.notification import Origin, ResizeEnd, Translation
from listener.retry_policy import SlowDelay
from listener.verdicts import Verdict


class Telemetry:
    """The audit records and metrics of one loop. Never raises. `due`: the loop reads the slow lane's due queue."""

    def __init__(
        self,
        audit: AuditLog,
        metrics: ListenerMetrics,
        *,
        due: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._audit = audit
        self._metrics = metrics
        self._took = metrics.due if due else metrics.messages
        self._in_hand = metrics.due_in_hand if due else metrics.in_hand
        self._clock = clock

    def count_received(self, messages: int) -> None:
        """Count messages taken from the queue."""
        self._took.inc(messages)

    def in_hand(self, messages: int) -> None:
        """Set the number of messages that are not acknowledged yet."""
        self._in_hand.set(messages)

    def other(self, reason: Reason) -> None:
        """Count a notification of another event; such notifications are too many for the audit log."""
        self._metrics.skipped.labels(reason.value).inc()

    def received(self, end: ResizeEnd, translation: Translation) -> None:
        """Record a volume.resize.end, its events, and each row without an event."""
        for reason, number in Counter(translation.skipped).items():
            self._metrics.skipped.labels(reason.value).inc(number)
        data = {"size_gib": end.size, "sent": end.origin.sent, "events": len(translation.events)}
        servers: list[str | None] = [key.server_id for key in translation.events]
        self._audit.write(
            *(
                self._record(AuditEvent.RECEIVED, end.origin, volume=end.volume_id, server=server, data=data)
                for server in servers or [None]
            ),
            *(
                self._record(AuditEvent.SKIPPED, end.origin, volume=end.volume_id, reason=reason.value)
                for reason in translation.skipped
            ),
        )

    def unreadable(self, reason: Reason, size: int) -> None:
        """Record a message that is now in the unreadable lane."""
        self._metrics.unreadable.labels(reason.value).inc()
        self._audit.write(self._record(AuditEvent.UNREADABLE, Origin(), reason=reason.value, data={"bytes": size}))

    def posted(self, key: ExtendKey, verdict: Verdict, origin: Origin, sent_as: str, seconds: float) -> None:
        """Record the endpoint's answer for an event. `sent_as`: request id of the request."""
        self._metrics.events.labels(verdict.kind.value, verdict.reason.value).inc()
        self.asked_again(key, verdict, origin, sent_as, seconds)

    def asked_again(self, key: ExtendKey, verdict: Verdict, origin: Origin, sent_as: str, seconds: float) -> None:
        """Record an answer to a probe; the event keeps waiting for its verdict in the slow lane."""
        self._audit.write(
            self._record(
                AuditEvent.POSTED,
                origin,
                volume=key.volume_id,
                server=key.server_id,
                outcome=verdict.kind.value,
                reason=verdict.reason.value,
                seconds=seconds,
                data={} if sent_as == origin.carried else {"posted_as": sent_as},
            )
        )

    def held(self, key: ExtendKey, reason: Reason, origin: Origin) -> None:
        """Record an event that waits for the endpoint; once per hold."""
        self._metrics.held.labels(reason.value).inc()
        self._audit.write(
            self._record(AuditEvent.HELD, origin, volume=key.volume_id, server=key.server_id, reason=reason.value)
        )

    def deferred(self, deferred: Deferred, step: SlowDelay) -> None:
        """Record an event that is now in the slow lane."""
        self._metrics.deferred.labels(deferred.reason.value).inc()
        self._audit.write(
            self._record(
                AuditEvent.DEFERRED,
                deferred.origin,
                volume=deferred.key.volume_id,
                server=deferred.key.server_id,
                reason=deferred.reason.value,
                data={"step": step.code, "answered": deferred.attempts},
            )
        )

    def parked(self, parked: Parked) -> None:
        """Record an event or message that is now in the parked lane."""
        self._metrics.parked.labels(parked.reason.value).inc()
        self._audit.write(
            self._record(
                AuditEvent.PARKED,
                parked.origin,
                volume=parked.volume_id,
                server=parked.server_id,
                reason=parked.reason.value,
                data={"mark": parked.mark.value} if parked.mark is not None else {},
            )
        )

    def _record(self, event: AuditEvent, origin: Origin, **more: Any) -> AuditRecord:
        return AuditRecord(
            event=event,
            at=self._clock(),
            project=origin.project,
            message_id=origin.message_id,
            request_id=origin.request_id,
            global_request_id=origin.carried,
            traceparent=origin.traceparent,
            **more,
        )
