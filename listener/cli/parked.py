# SPDX-License-Identifier: Apache-2.0
"""The parked lane for a person: look at it without leaving a trace, send again, throw away.

A message that is taken and given back counts as delivered, and a broker with a delivery limit drops it after some
looks. Therefore what stays is published anew, safely, before the old copy is acknowledged: nothing is lost at any
moment, and what an interruption leaves is at most a second copy, which is shown once.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import amqp.exceptions
import kombu

from bridge.core.errors import OperatorError
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from bridge.runtime.transport import BROKER_ERRORS, PARKED_QUEUE

_GUARD: Final = f"{PARKED_QUEUE}.looked_at"
_ID: Final = 12


@dataclass(frozen=True, slots=True)
class Kept:
    """A message of the lane: its id, which stays the same however often it is looked at, and what it says."""

    id: str
    says: Mapping[str, Any]


class Lane:
    """The parked lane, for one person at a time."""

    def __init__(self, connection: kombu.Connection) -> None:
        self._connection = connection

    def walk(self, gone: Callable[[Kept], bool]) -> list[Kept]:
        """Look at every message once; those for which `gone` says so are taken out. The rest stays, in order.

        Raises OperatorError; then everything is still there.
        """
        seen: dict[str, Kept] = {}
        with self._alone() as channel, SafePublisher(self._connection) as publisher:
            try:
                left = kombu.Queue(PARKED_QUEUE, channel=channel).queue_declare(passive=True).message_count
            except amqp.exceptions.NotFound:
                return []
            while left and (message := channel.basic_get(PARKED_QUEUE)) is not None:
                left -= 1
                body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
                kept = _kept(body)
                if kept.id in seen or gone(kept):
                    seen.setdefault(kept.id, kept)
                else:
                    seen[kept.id] = kept
                    publisher.publish(PARKED_QUEUE, body)
                channel.basic_ack(message.delivery_tag)
        return list(seen.values())

    @contextmanager
    def _alone(self) -> Iterator[Any]:
        try:
            with self._connection, self._connection.channel() as channel:
                kombu.Queue(
                    _GUARD, channel=channel, exclusive=True, auto_delete=True, durable=False
                ).queue_declare()
                yield channel
        except amqp.exceptions.ResourceLocked as ex:
            raise OperatorError("somebody else is looking at the parked lane; try again", code=1) from ex
        except NotPublishedError as ex:
            raise OperatorError(f"the parked lane cannot be written: {ex}", code=3) from ex
        except BROKER_ERRORS as ex:
            raise OperatorError(f"our bus cannot be reached: {type(ex).__name__}", code=3) from ex


def _kept(body: bytes) -> Kept:
    try:
        says = json.loads(body)
    except (ValueError, RecursionError):
        says = {}
    return Kept(hashlib.sha256(body).hexdigest()[:_ID], says if isinstance(says, dict) else {})
