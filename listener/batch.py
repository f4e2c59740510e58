# SPDX-License-Identifier: Apache-2.0
"""One batch: its messages, the events that each of them waits for, pending writes to lanes, and its acks.

The acknowledgements are as few as the order of settling allows. They never come before the message is settled.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import kombu

from bridge.core.errors import ShuttingDownError
from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.decode import Events
from listener.lanes import Deferred


class Acks:
    """Acknowledgements of one batch, in the order of delivery on its channel.

    With `multiple` one ack covers all messages up to the watermark: the last message before the first unsettled
    one. A settled message behind the watermark is acknowledged alone. Messages of earlier batches must be
    acknowledged already.
    """

    def __init__(self, messages: Sequence[kombu.Message], *, multiple: bool) -> None:
        self._open = list(messages)
        self._settled: set[object] = set()
        self._multiple = multiple

    def settle(self, message: kombu.Message) -> None:
        """Note that each event of the message has a verdict or is safe in one of our lanes."""
        self._settled.add(message.delivery_tag)

    def flush(self) -> None:
        """Acknowledge the settled messages."""
        watermark = next(
            (n for n, message in enumerate(self._open) if message.delivery_tag not in self._settled),
            len(self._open),
        )
        below, beyond = self._open[:watermark], self._open[watermark:]
        if self._multiple and below:
            below[-1].ack(multiple=True)
        else:
            for message in below:
                message.ack()
        for message in beyond:
            if message.delivery_tag in self._settled:
                message.ack()
        self._open = [message for message in beyond if message.delivery_tag not in self._settled]

    @property
    def left(self) -> int:
        """Return the number of messages that are not acknowledged yet."""
        return len(self._open)


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
