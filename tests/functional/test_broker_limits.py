# SPDX-License-Identifier: Apache-2.0
"""Limits of newer brokers, for real: messages delivered again and again, and features that are not permitted.

RabbitMQ 4 drops a message of a quorum queue after 20 deliveries, and a lost connection counts as a delivery.
RabbitMQ 4.3 refuses what earlier releases only deprecated. Debian's build permits it again, so it is denied here.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.cmd.upgrade_check import main as upgrade_check
from bridge.runtime.broker import BROKER_ERRORS, DUE_QUEUE, REPORTS_QUEUE, QueueSpec, ensure_queue
from bridge.runtime.publisher import SafePublisher
from listener.lanes import LANES
from listener.sources import NOTIFICATIONS_QUEUE
from tests.functional.conftest import Vhost
from tests.functional.deploying.test_permissions import every_part_works
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_away import QUEUE, publish
from tests.lab.cinder_bus import CinderBus
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

DELIVERIES: Final = 25  # RabbitMQ 4 drops a message that was delivered 21 times
FEW: Final = 3  # deliveries by a broker that has no limit of its own
WAITING: Final = (
    QueueSpec(name=NOTIFICATIONS_QUEUE),
    QueueSpec(name=REPORTS_QUEUE),
    *(lane for lane in LANES if lane.then is None),
)
"""Our queues that deliver; in the others a message only expires."""
DROPPED: Final = "dropped"
LIMIT_SINCE: Final = (4, 0)
DENIED_SINCE: Final = (3, 13)
DENIED: Final = "\n".join(
    f"deprecated_features.permit.{feature} = false" for feature in ("transient_nonexcl_queues", "global_qos")
)


@pytest.fixture
def lab(vhost: Vhost, endpoint: RecordingEndpoint, tmp_path: Path) -> Lab:
    """A listener."""
    return Lab(vhost=vhost, endpoint=endpoint, directory=tmp_path)


@pytest.fixture
def endpoint() -> Iterator[RecordingEndpoint]:
    """The listener's."""
    with RecordingEndpoint() as recording:
        yield recording


def lose(vhost: Vhost, queues: Sequence[str]) -> list[str]:
    """Take the only message of each queue and lose the connection, many times; return what the broker dropped."""
    with vhost.connection() as watching:
        channel = watching.default_channel
        channel.queue_declare(DROPPED, durable=True, auto_delete=False)
        for _ in range(DELIVERIES if vhost.node.version >= LIMIT_SINCE else FEW):
            connection = vhost.connection()
            taker = connection.default_channel
            for queue in queues:
                until(partial(_is_settled, taker, channel, queue), f"{queue} delivers its message or drops it")
            connection.connection.transport.sock.close()
            if dropped := channel.basic_get(DROPPED, no_ack=True):
                return [dropped.headers["x-first-death-queue"]]
        for queue in queues:
            until(partial(_has, channel, queue), f"the message of {queue} is back")
    return []


def _is_settled(taker: Any, channel: Any, queue: str) -> bool:
    """Take the message and return True, also where the broker dropped it."""
    return taker.basic_get(queue) is not None or _has(channel, DROPPED)


def _has(channel: Any, queue: str) -> bool:
    """Return whether a message waits there; a message is looked at and stays."""
    return bool(channel.queue_declare(queue, passive=True).message_count)


def policy(vhost: Vhost, **words: object) -> None:
    """Have the broker put into a queue of its own what it drops from a queue of ours, and what else is said."""
    definition = {"dead-letter-exchange": "", "dead-letter-routing-key": DROPPED, **words}
    vhost.node.ctl(
        "set_policy", "-p", vhost.name, "p", r"^extend_bridge\.", json.dumps(definition), "--apply-to", "queues"
    )


def test_our_queues_keep_a_message_however_often_it_is_delivered(vhost: Vhost) -> None:
    policy(vhost)
    with vhost.connection() as connection, SafePublisher(connection) as publisher:
        for spec in WAITING:
            ensure_queue(connection, spec)
            publisher.publish(spec.name, b"{}")
    assert lose(vhost, [spec.name for spec in WAITING]) == []


def test_a_notification_that_many_listeners_died_with_is_posted_by_the_next(lab: Lab, vhost: Vhost) -> None:
    lab.more = {"notifications": "intake = bind"}
    bus = CinderBus(vhost.url, "notifications")
    with lab.listening() as listener:
        listener.ready()
    (event,) = publish(bus, 1)
    assert lose(vhost, [NOTIFICATIONS_QUEUE]) == []
    with lab.listening() as listener:
        listener.settles(1)
    assert lab.endpoint.events == [event]
    bus.close()


@pytest.mark.parametrize(
    ("limit", "words", "kept"),
    [
        (None, {}, False),
        (2**31 - 1, {}, True),  # [oslo_messaging_rabbit] rabbit_quorum_delivery_limit in cinder.conf
        (None, {"delivery-limit": -1}, True),  # the policy of cinder-notifications.rst
    ],
    ids=["as Cinder makes it", "with Cinder's option", "with the policy"],
)
def test_cinders_quorum_queue_keeps_a_message_where_its_limit_is_set_aside(
    vhost: Vhost, limit: int | None, words: dict[str, int], kept: bool
) -> None:
    if vhost.node.version < LIMIT_SINCE:
        pytest.skip("this broker has no delivery limit of its own")
    policy(vhost, **words)
    bus = CinderBus(vhost.url, quorum=True, delivery_limit=limit)
    publish(bus, 1)
    assert (lose(vhost, [QUEUE]) == []) is kept
    bus.close()


@pytest.fixture(scope="module")
def strict(rabbit: RabbitNode) -> Iterator[RabbitNode]:
    """A broker that denies each deprecated feature."""
    if rabbit.version < DENIED_SINCE:
        pytest.skip("this broker cannot deny a deprecated feature; tests.lab.amqp_rules plays that")
    with RabbitNode(config=DENIED) as node:
        yield node


def test_every_part_works_where_each_deprecated_feature_is_denied(strict: RabbitNode, tmp_path: Path) -> None:
    """And Cinder's queues are durable; in the form that Cinder gives them by default the broker refuses them."""
    with pytest.raises(BROKER_ERRORS, match="transient_nonexcl_queues"):
        CinderBus(strict.url)
    every_part_works(strict, tmp_path, durable=True)


def test_upgrade_check_names_the_release_and_our_queues_that_an_earlier_one_made(
    vhost: Vhost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A queue that is deleted while it is empty is made again without a limit, and the warning ends."""
    conf = tmp_path / "x.conf"
    conf.write_text(f"[bus]\ntransport_url = {vhost.url}\n[endpoint]\nauth_type = none\n")

    def said() -> str:
        upgrade_check(["--config-file", str(conf), "--part", "listener", "upgrade", "check"])
        return " ".join(capsys.readouterr().out.replace("|", " ").split())

    with vhost.connection() as connection:
        ensure_queue(connection, QueueSpec(name=DUE_QUEUE, endless=False))
        limited = f"from {DUE_QUEUE} after 20 deliveries, unless a policy" in said()
        assert limited is (vhost.node.version >= LIMIT_SINCE)
        connection.default_channel.queue_delete(DUE_QUEUE)
        ensure_queue(connection, QueueSpec(name=DUE_QUEUE))
    assert "Our bus Result: Success Details: accepts our user; RabbitMQ " in said()
