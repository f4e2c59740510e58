# SPDX-License-Identifier: Apache-2.0
"""The *bind* intake on a real broker: our queue on Cinder's exchange, whatever kind that is, through restarts."""

import kombu
import pytest

from listener.sources import NOTIFICATIONS_QUEUE
from tests.functional.conftest import Vhost
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_away import publish
from tests.lab.cinder_bus import CinderBus
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

KEEPS_EXCHANGES = (4, 3)
"""The release of RabbitMQ since which an exchange that is not durable survives a restart of its node."""


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """With that intake."""
    lab.more = {"notifications": "intake = bind"}
    return lab


@pytest.mark.parametrize("kind", [{}, {"durable": True}, {"quorum": True}], ids=["default", "durable", "quorum"])
def test_every_notification_also_comes_to_us_and_cinders_own_queue_is_left_alone(
    kind: dict[str, bool], lab: Lab, vhost: Vhost
) -> None:
    bus = CinderBus(vhost.url, "notifications", **kind)
    with lab.listening() as listener:
        listener.ready()
        events = publish(bus, 20)
        listener.settles(20)
        assert sorted(lab.endpoint.events) == events
        publish(bus, 1)  # would fail were anything of Cinder's declared otherwise
        listener.settles(21)
    assert lab.waiting("notifications.info") == 21
    bus.close()


def test_what_comes_while_no_listener_runs_is_kept(lab: Lab, vhost: Vhost) -> None:
    bus = CinderBus(vhost.url, "notifications")
    with lab.listening() as listener:
        listener.ready()
    events = publish(bus, 10)
    assert lab.waiting(NOTIFICATIONS_QUEUE) == 10
    with lab.listening() as listener:
        listener.settles(10)
    assert sorted(lab.endpoint.events) == events
    bus.close()


def test_an_exchange_that_is_not_there_is_named_and_bound_to_once_cinder_made_it(lab: Lab, vhost: Vhost) -> None:
    with lab.listening() as listener:
        until(lambda: "exchange openstack does not exist" in listener.check("queue").reason, "the reason is said")
        assert not listener.process.health.ready()
        bus = CinderBus(vhost.url, "notifications")
        listener.ready()
        (event,) = publish(bus, 1)
        listener.settles(1)
        bus.close()
    assert lab.endpoint.events == [event]


def test_a_user_who_may_not_bind_is_told_which_permissions_are_missing(lab: Lab, vhost: Vhost) -> None:
    bus = CinderBus(vhost.url, "notifications")
    user = f"bind-{vhost.name}"
    vhost.node.ctl("add_user", user, "guest")
    try:
        vhost.node.ctl(
            "set_permissions", "-p", vhost.name, user, "^extend_bridge", "^extend_bridge", "^extend_bridge"
        )
        url = vhost.url.replace("guest:", f"{user}:", 1)
        lab.more = {"notifications": f"intake = bind\ntransport_url = {url}"}
        with lab.listening() as listener:
            until(lambda: "permissions" in listener.check("queue").reason, "the reason is said")
            vhost.node.ctl(
                "set_permissions", "-p", vhost.name, user, "^extend_bridge", "^extend_bridge",
                "^(extend_bridge.*|openstack)$",
            )  # fmt: skip
            listener.ready()
            (event,) = publish(bus, 1)
            listener.settles(1)
    finally:
        vhost.node.ctl("delete_user", user)
        bus.close()
    assert lab.endpoint.events == [event]


def test_with_cinders_exchange_durable_a_restart_of_the_broker_loses_nothing(lab: Lab, vhost: Vhost) -> None:
    bus = CinderBus(vhost.url, "notifications", durable=True)
    with lab.listening() as listener:
        listener.ready()
        lab.endpoint.close()
        events = publish(bus, 30)
        until(lambda: listener.count("in_hand") > 0, "messages are in hand")
        bus.close()
        vhost.node.restart()
        bus = CinderBus(vhost.url, "notifications", durable=True)
        events += publish(bus, 10)
        lab.endpoint.open()
        until(lambda: set(lab.endpoint.events) == set(events), "every event is delivered")
    bus.close()


def test_with_cinders_exchange_as_it_is_by_default_the_gap_after_a_restart_ends_with_the_next_look(
    lab: Lab, vhost: Vhost
) -> None:
    bus = CinderBus(vhost.url, "notifications")
    with lab.listening() as listener:
        listener.ready()
        before = publish(bus, 10)
        listener.settles(10)
        bus.close()
        vhost.node.restart()
        if vhost.node.version >= KEEPS_EXCHANGES:
            bus = CinderBus(vhost.url, "notifications")
            listener.ready()
            after = publish(bus, 10)
            until(lambda: set(after) <= set(lab.endpoint.events), "nothing is lost once the listener is back")
            bus.close()
            return
        until(
            lambda: "does not exist" in listener.check("queue").reason,
            "it is back and sees that the exchange is gone",
        )
        bus = CinderBus(vhost.url, "notifications")  # as Cinder's next notification does
        lost = publish(bus, 1)
        listener.ready()
        after = publish(bus, 10)
        until(lambda: set(after) <= set(lab.endpoint.events), "what comes after is delivered")
        assert set(before) <= set(lab.endpoint.events)
        assert set(lab.endpoint.events) - set(lost) == set(before + after)
    bus.close()


def test_an_exchange_that_goes_while_we_are_connected_is_noticed_and_bound_to_again(
    lab: Lab, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.sources.BindSource.tended", 0.2)
    bus = CinderBus(vhost.url, "notifications")
    with lab.listening() as listener:
        listener.ready()
        with vhost.connection() as connection:
            kombu.Exchange("openstack", type="topic", channel=connection.channel()).delete()
        until(lambda: not listener.check("queue").ok, "not ready")
        bus.declare()
        listener.ready()
        (event,) = publish(bus, 1)
        listener.settles(1)
    assert lab.endpoint.events == [event]
    bus.close()
