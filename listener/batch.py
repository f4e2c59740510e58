# SPDX-License-Identifier: Apache-2.0
"""What belongs together while the messages of one gather are worked on: whose events they are, what is late."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import kombu

from bridge.core.extend import ExtendKey
from bridge.core.reasons import Reason
from listener.decode import Events
from listener.intake import Acks
from listener.lanes import Deferred


class ShuttingDownError(Exception):
    """Told to stop with messages in hand: they are not acknowledged, so the broker delivers them again."""


class Bus(Protocol):
    """What the work needs of the connection its messages came by."""

    def acks(self, messages: Sequence[kombu.Message]) -> Acks:
        """How these messages are acknowledged."""

    def keep_alive(self, seconds: float, stop: threading.Event) -> None:
        """Wait, with the connection looked after; returns early when told to stop."""

    def breathe(self) -> None:
        """Look after the connection without waiting."""


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message whose events are on their way; settled when none is waiting."""

    message: kombu.Message
    asked: Events
    waiting: set[ExtendKey]

    def deferred(self, key: ExtendKey, attempts: int, reason: Reason) -> Deferred:
        """One of its events as it goes into the slow lane."""
        return Deferred(
            key=key,
            origin=self.asked.origin,
            first_seen=self.asked.first_seen,
            attempts=attempts,
            reason=reason,
        )


@dataclass(slots=True)
class Batch:
    """`owners`: who waits for an event. `late`: what a lane did not take at once, and what follows once it has."""

    bus: Bus
    acks: Acks
    stop: threading.Event
    owners: dict[ExtendKey, list[PendingMessage]] = field(default_factory=dict)
    late: list[tuple[Callable[[], None], Callable[[], None]]] = field(default_factory=list)

    def take(self, message: kombu.Message, asked: Events) -> None:
        """A message that is settled when each of its events is done."""
        hand = PendingMessage(message, asked, set(asked.keys))
        for key in asked.keys:
            self.owners.setdefault(key, []).append(hand)

    def done(self, hand: PendingMessage, key: ExtendKey) -> None:
        """The event needs nothing more for this message."""
        hand.waiting.discard(key)
        if not hand.waiting:
            self.acks.settle(hand.message)

    def wait(self, seconds: float) -> None:
        """Wait with the connection looked after; raises StoppedError when told to stop."""
        self.bus.keep_alive(seconds, self.stop)
        if self.stop.is_set():
            raise ShuttingDownError
