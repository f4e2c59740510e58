# SPDX-License-Identifier: Apache-2.0
"""The way of this host's messages to the engine."""

import logging
from typing import Final, Protocol

from bridge.core.reasons import Reason
from bridge.runtime.publisher import NotPublishedError
from bridge.runtime.transport import REPORTS_EXCHANGE, REPORTS_QUEUE

LOG = logging.getLogger(__name__)

_NO_WAY: Final = {Reason.RETURNED, Reason.NOT_PERMITTED}
"""An engine that does not know the exchange yet, or a broker's user with the permissions from before it."""


class Sender(Protocol):
    """A safe publish."""

    def publish(self, queue: str, body: bytes, *, exchange: str = "") -> None:
        """Returns when the broker has it; raises NotPublishedError."""


class ToEngine:
    """Publishes to the reports queue through the exchange for it; where there is no such way, as once was done.

    That is the default exchange, which a hypervisor's user should have no right to, for it leads to every queue.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._said = False

    def publish(self, body: bytes) -> None:
        """Returns when the broker has it in the queue; raises NotPublishedError: why not through the exchange."""
        try:
            self._sender.publish(REPORTS_QUEUE, body, exchange=REPORTS_EXCHANGE)
        except NotPublishedError as ex:
            if ex.reason not in _NO_WAY:
                raise
            self._the_old_way(body, ex)
        else:
            self._said = False

    def _the_old_way(self, body: bytes, why: NotPublishedError) -> None:
        try:
            self._sender.publish(REPORTS_QUEUE, body)
        except NotPublishedError:
            raise why from None
        if not self._said:
            self._said = True
            LOG.warning("reports take the default exchange, which our user should have no right to: %s", why)
