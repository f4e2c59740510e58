# SPDX-License-Identifier: Apache-2.0
"""The cast to a host agent, with the broker's word whether there is a queue for it."""

import logging
from collections.abc import Sequence

import oslo_messaging
from oslo_messaging.exceptions import MessageDeliveryFailure, MessageUndeliverable, MessagingException

from bridge.core.messages import VERSION, Order
from bridge.core.reasons import Reason
from bridge.runtime.broker import AGENT_EXCHANGE, AGENT_TOPIC, BROKER_ERRORS

LOG = logging.getLogger(__name__)


class Agents:
    """Casts orders. Acknowledged by the agent's driver before they are worked on: the journal makes it good."""

    def __init__(self, transport: oslo_messaging.Transport) -> None:
        self._client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(exchange=AGENT_EXCHANGE, topic=AGENT_TOPIC, version="1.0"),
            retry=1,
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
        )

    def cast(self, host: str, orders: Sequence[Order]) -> Reason | None:
        """Send a group of orders to one host; None when the broker has them in the host's queue, else why not."""
        try:
            self._client.prepare(server=host).cast(
                {}, "extend", version=VERSION, orders=[o.to_wire() for o in orders]
            )
        except MessageUndeliverable:
            LOG.warning("host %s has no queue: its agent never ran, or its name differs", host)
            return Reason.UNDELIVERABLE
        except (MessageDeliveryFailure, MessagingException, *BROKER_ERRORS) as ex:
            LOG.warning("the broker did not take a cast to host %s: %s", host, type(ex).__name__)
            return Reason.CAST_FAILED
        return None
