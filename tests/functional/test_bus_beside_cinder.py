# SPDX-License-Identifier: Apache-2.0
"""Our casts on the very virtual host Cinder's notifications are on, whatever Cinder's exchange is like."""

import kombu
import pytest

from bridge.core.messages import Order
from bridge.core.reasons import Reason
from tests.functional.conftest import Vhost
from tests.lab.cinder_bus import CinderBus
from tests.lab.orders import consuming, sender_to
from tests.lab.waiting import until
from tests.unit.hostagent.fakes import order

pytestmark = pytest.mark.functional


@pytest.mark.parametrize("durable", [False, True])
def test_casts_arrive_beside_any_exchange_of_cinders(vhost: Vhost, durable: bool) -> None:
    """amqp_durable_queues is Cinder's to choose; neither side may spoil the other's exchange."""
    CinderBus(vhost.url, durable=durable).close()
    got: list[Order] = []
    sender = sender_to(vhost.url)
    assert sender.cast("host-2", []) is Reason.UNDELIVERABLE
    sent = order("3a8e7f8c-3a49-4f6f-8f2f-1d9f6f0f2a11", "7c0b6c1e-52d0-4a57-9c55-64a8a0c0d4be", 1 << 30)
    with consuming(vhost.url, "host-1", got):
        assert sender.cast("host-1", [sent]) is None
        until(lambda: sent in got, "the order")
    sender.close()


def test_agents_first_leave_cinder_its_exchange(vhost: Vhost) -> None:
    """An agent that came to the broker before Cinder must not have made `openstack` in a form Cinder cannot use."""
    with consuming(vhost.url, "host-1", []), vhost.connection() as connection:
        kombu.Exchange("openstack", type="topic", durable=True, channel=connection.default_channel).declare()
