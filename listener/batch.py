# SPDX-License-Identifier: Apache-2.0
"""One batch: its messages, the events that each of them waits for, and pending writes to lanes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import kombu

from bridge.core.errors import ShuttingDownError
from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.decode import Events
from listener.intake import Acks
from listener.lanes import Deferred


class Bus(Protocol):
    """The connection over which the messages of a batch came."""

    def acks(self, messages: Sequence[kombu.Message]) -> Acks:
        """Return the acknowledgements of these messages."""

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        """Wait, and send heartbeats meanwhile; returns early when told to stop."""

    def service_connection(self) -> None:
        """Send and read heartbeats without waiting."""


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message whose events are being delivered; settled when `waiting` is empty."""

    message: kombu.Message
    asked: Events
    waiting: set[ExtendKey]

    def deferred(self, key: ExtendKey, attempts: int, reason: Reason) -> Deferred:
        """Return one of its events in the form of the slow lane."""
        return Deferred(
            key=key,
            origin=self.asked.origin,
            first_seen=self.asked.first_seen,
            attempts=attempts,
            reason=reason,
        )


@dataclass(slots=True)
class Batch:
    """A batch in progress.

    `waiters`: the messages that wait for an event. `deferred_writes`: writes that a lane did not take at once, each
    with the call that follows the write.
    """

    bus: Bus
    acks: Acks
    stop: threading.Event
    waiters: dict[ExtendKey, list[PendingMessage]] = field(default_factory=dict)
    deferred_writes: list[tuple[Callable[[], None], Callable[[], None]]] = field(default_factory=list)

    def take(self, message: kombu.Message, asked: Events) -> None:
        """Add a message that is settled when each of its events is done."""
        pending = PendingMessage(message, asked, set(asked.keys))
        for key in asked.keys:
            self.waiters.setdefault(key, []).append(pending)

    def done(self, pending: PendingMessage, key: ExtendKey) -> None:
        """Note an event of this message as done; settle the message with its last event."""
        pending.waiting.discard(key)
        if not pending.waiting:
            self.acks.settle(pending.message)

    def wait(self, seconds: float) -> None:
        """Wait, and send heartbeats meanwhile; raises ShuttingDownError when told to stop."""
        self.bus.keep_alive(seconds, self.stop)
        if self.stop.is_set():
            raise ShuttingDownError
