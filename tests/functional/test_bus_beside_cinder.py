# SPDX-License-Identifier: Apache-2.0
"""Our casts on the very virtual host Cinder's notifications are on, whatever Cinder's exchange is like."""

from collections.abc import Sequence

import kombu
import pytest

from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.engine.rpc import Agents
from bridge.runtime import config
from bridge.runtime.broker import rpc_transport
from bridge.runtime.health import Health
from hostagent.rpc import RpcServer
from tests.functional.conftest import Vhost
from tests.lab.cinder_bus import CinderBus
from tests.lab.waiting import until
from tests.unit.hostagent.fakes import order

pytestmark = pytest.mark.functional


@pytest.mark.parametrize("durable", [False, True])
def test_casts_arrive_beside_any_exchange_of_cinders(vhost: Vhost, durable: bool) -> None:
    """amqp_durable_queues is Cinder's to choose; neither side may spoil the other's exchange."""
    CinderBus(vhost.url, durable=durable).close()
    conf = config.load("test", [], [], description="")
    got: list[Order] = []

    def submit(orders: Sequence[Order]) -> None:
        got.extend(orders)

    server = RpcServer(conf, vhost.url, "host-1", submit, Health())
    agents = Agents(rpc_transport(conf, vhost.url))
    assert agents.cast("host-2", []) is Reason.UNDELIVERABLE
    server.start()
    sent = order("3a8e7f8c-3a49-4f6f-8f2f-1d9f6f0f2a11", "7c0b6c1e-52d0-4a57-9c55-64a8a0c0d4be", 1 << 30)
    until(lambda: agents.cast("host-1", [sent]) is None, "the host has its queue")
    until(lambda: sent in got, "the order")
    server.stop()
    server.join(5)


def test_agents_first_leave_cinder_its_exchange(vhost: Vhost) -> None:
    """An agent that came to the broker before Cinder must not have made `openstack` in a form Cinder cannot use."""
    conf = config.load("test", [], [], description="")
    server = RpcServer(conf, vhost.url, "host-1", lambda _orders: None, Health())
    server.start()
    agents = Agents(rpc_transport(conf, vhost.url))
    until(lambda: agents.cast("host-1", []) is None, "the host has its queue")
    with vhost.connection() as connection:
        kombu.Exchange("openstack", type="topic", durable=True, channel=connection.default_channel).declare()
    server.stop()
    server.join(5)
