# SPDX-License-Identifier: Apache-2.0
"""Orders across an upgrade from 0.1.0, which cast by oslo.messaging; and a broker with the rule of RabbitMQ 4.3."""

import json
import threading
from typing import Any

import oslo_messaging
import pytest

from bridge.core.cast import encode_cast
from bridge.core.extend import new_id
from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.runtime.broker import agent_key
from tests.functional.conftest import Vhost
from tests.lab.amqp_rules import NoTransientQueues
from tests.lab.orders import consuming, sender_to
from tests.lab.oslo_rpc import oslo_agent, oslo_caster, oslo_conf
from tests.lab.proxy import Proxy
from tests.lab.waiting import until
from tests.unit.hostagent.fakes import order

pytestmark = pytest.mark.functional

HOST = "host.example-1"
GIB = 1 << 30
QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}


def an_order() -> Order:
    return order(new_id(), new_id(), GIB)


def queues(vhost: Vhost) -> dict[str, dict[str, Any]]:
    """Return the queues of the virtual host by name."""
    rows = json.loads(
        vhost.node.ctl(
            "list_queues", "-p", vhost.name, "--formatter", "json", "name", "durable", "type", "messages"
        )
    )
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("options", [{}, {"amqp_durable_queues": True}, QUORUM])
def test_the_queue_of_an_older_agent_is_used_as_it_is_with_what_lies_in_it(
    vhost: Vhost, options: dict[str, object]
) -> None:
    """No 406, whichever kind of queue 0.1.0 was told to make; and the way back needs nothing."""
    old = oslo_agent(vhost.url, HOST, lambda _orders: None, oslo_conf(**options))
    old.start()
    old.stop()
    old.wait()
    waiting, sent, got = an_order(), an_order(), list[Order]()
    oslo_caster(vhost.url, oslo_conf(**options))(HOST, [waiting.to_wire()])
    with consuming(vhost.url, HOST, got):
        until(lambda: got == [waiting], "what the older engine had cast")
        assert sender_to(vhost.url).cast(HOST, [sent]) is None
        until(lambda: got == [waiting, sent], "what this engine casts")
    back: list[Any] = []
    again = oslo_agent(vhost.url, HOST, back.extend, oslo_conf(**options))
    again.start()
    assert sender_to(vhost.url).cast(HOST, [sent]) is None
    until(lambda: [it["attempt_id"] for it in back] == [sent.attempt_id], "the older agent takes it")
    again.stop()
    again.wait()


@pytest.mark.parametrize("options", [{}, QUORUM])
def test_an_engine_of_the_version_before_casts_to_this_agent(vhost: Vhost, options: dict[str, object]) -> None:
    """The exchange is there in the form that the older side would have made by default."""
    sent, got = an_order(), list[Order]()
    if options:  # 0.1.0 with these options came first, or it could not work with an exchange of its own kind
        with pytest.raises(oslo_messaging.MessageUndeliverable):
            oslo_caster(vhost.url, oslo_conf(**options))(HOST, [])
    with consuming(vhost.url, HOST, got):
        oslo_caster(vhost.url, oslo_conf(**options))(HOST, [sent.to_wire()])
        until(lambda: got == [sent], "the order")


def test_back_to_the_version_before_from_a_queue_of_this_one(vhost: Vhost) -> None:
    """As the upgrade notes say: with quorum queues in its configuration, or after the queue is deleted."""
    sent, back = an_order(), list[Any]()
    with consuming(vhost.url, HOST, []):
        assert queues(vhost)[agent_key(HOST)]["type"] == "quorum"
    vhost.node.ctl("delete_queue", "-p", vhost.name, agent_key(HOST))
    old = oslo_agent(vhost.url, HOST, back.extend)
    old.start()
    assert sender_to(vhost.url).cast(HOST, [sent]) is None
    until(lambda: len(back) == 1, "the older agent takes orders again")
    old.stop()
    old.wait()


def test_a_broker_that_refuses_transient_queues_is_served(vhost: Vhost) -> None:
    """RabbitMQ 4.3. The same rule turns an agent of 0.1.0 away, or this test would show nothing."""
    rule, sent, got = NoTransientQueues(), an_order(), list[Order]()
    with Proxy(vhost.node.port, look=rule.look) as proxy:
        url = proxy.url(vhost.url)
        with consuming(url, HOST, got):
            assert sender_to(url).cast(HOST, [sent]) is None
            until(lambda: got == [sent], "the order")
            durable = queues(vhost)
            assert all(row["durable"] for row in durable.values()), durable
        assert not rule.refused
        old = oslo_agent(url, "old", lambda _orders: None)
        threading.Thread(target=old.start, daemon=True).start()  # tries for ever
        until(lambda: rule.refused, "the older agent is turned away")


def test_a_deleted_queue_is_made_anew(vhost: Vhost) -> None:
    sent, got = an_order(), list[Order]()
    with consuming(vhost.url, HOST, got):
        vhost.node.ctl("delete_queue", "-p", vhost.name, agent_key(HOST))
        sender = sender_to(vhost.url)
        until(lambda: sender.cast(HOST, [sent]) is None, "the queue is back", seconds=60)
        until(lambda: sent in got, "the order")


def test_a_host_without_a_queue_is_named(vhost: Vhost) -> None:
    assert sender_to(vhost.url).cast("nowhere", [an_order()]) is Reason.UNDELIVERABLE


def test_the_form_is_oslo_messagings_own(vhost: Vhost) -> None:
    """Byte for byte but for the unique id: what oslo.messaging casts, and what we do, are the same message."""
    sent, seen = an_order(), list[bytes]()
    with vhost.connection() as connection:
        channel = connection.default_channel
        channel.queue_declare(agent_key(HOST), durable=True, auto_delete=False)
        oslo = oslo_agent(vhost.url, "other", lambda _orders: None)
        oslo.start()
        channel.queue_bind(agent_key(HOST), exchange="extend_bridge", routing_key=agent_key(HOST))
        oslo_caster(vhost.url)(HOST, [sent.to_wire()])
        message = channel.basic_get(agent_key(HOST), no_ack=True)
        seen.append(message.body if isinstance(message.body, bytes) else message.body.encode())
        oslo.stop()
        oslo.wait()
    assert _parsed(seen[0]) == _parsed(encode_cast([sent]))


def _parsed(body: bytes) -> dict[str, Any]:
    envelope = json.loads(body)
    message: dict[str, Any] = json.loads(envelope["oslo.message"])
    assert message.pop("_unique_id")
    return {"envelope": envelope["oslo.version"], **message}
