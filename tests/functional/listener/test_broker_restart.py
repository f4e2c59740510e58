# SPDX-License-Identifier: Apache-2.0
"""The broker restarted under load: what Cinder's settings mean for what waits in it, and for each intake."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from bridge.runtime.broker import BROKER_ERRORS
from tests.functional.conftest import Vhost
from tests.functional.listener.conftest import Lab
from tests.functional.listener.test_flow import extend
from tests.lab.cinder_bus import CinderBus
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

Event = tuple[str, str]


class Cinder:
    """Sends one notification after the other, like a busy Cinder; connects and declares again when it has to."""

    def __init__(self, url: str, topic: str, *, durable: bool) -> None:
        self._url, self._topic, self._durable = url, topic, durable
        self.confirmed: list[Event] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(120)
            assert not self._thread.is_alive()

    def _run(self) -> None:
        body, event = extend()
        while not self._stop.is_set():
            try:
                bus = CinderBus(self._url, self._topic, durable=self._durable, timeout=5)
                while not self._stop.is_set():
                    bus.publish(body)
                    self.confirmed.append(event)
                    body, event = extend()
                    self._stop.wait(0.005)
                bus.close()
            except BROKER_ERRORS:
                self._stop.wait(0.2)


@dataclass(frozen=True)
class Loss:
    """Confirmed notifications that never came to the endpoint, of those sent until the listener was ready again and
    of those sent later. `sent`: all."""

    until_ready: int
    later: int
    sent: int


def loss_of_a_restart(lab: Lab, vhost: Vhost, *, intake: str, durable: bool) -> Loss:
    """Restart the broker while Cinder sends and messages wait, both in the broker and in hand."""
    lab.more = {"notifications": f"intake = {intake}"}
    cinder = Cinder(vhost.url, "notifications" if intake == "bind" else "extend_bridge", durable=durable)
    queue = "extend_bridge.notifications" if intake == "bind" else "extend_bridge.info"
    with lab.listening() as listener, cinder.sending():
        until(lambda: len(cinder.confirmed) > 20, "Cinder is at work")  # which makes its exchange
        listener.ready()
        first = len(cinder.confirmed)
        lab.endpoint.gate.clear()
        until(lambda: len(cinder.confirmed) > first + 250, "messages wait")
        vhost.node.stop()
        lab.endpoint.gate.set()
        until(lambda: not listener.check("broker").ok, "the listener sees that the broker is gone")
        vhost.node.start()
        listener.ready()
        again = len(cinder.confirmed)
        until(lambda: len(cinder.confirmed) > again + 50, "Cinder is back at work")
    with lab.listening() as listener:
        listener.ready()
        until(lambda: lab.waiting(queue) == 0 and listener.count("in_hand") == 0, "all is worked off")
    came = set(lab.endpoint.events)
    loss = Loss(
        until_ready=len(set(cinder.confirmed[first:again]) - came),
        later=len(set(cinder.confirmed[again:]) - came),
        sent=len(cinder.confirmed) - first,
    )
    print(f"{intake}, {'durable' if durable else 'as by default'}: {loss}")
    return loss


@pytest.mark.parametrize("intake", ["topic", "bind"])
def test_with_cinders_queues_durable_nothing_is_lost(intake: str, lab: Lab, vhost: Vhost) -> None:
    loss = loss_of_a_restart(lab, vhost, intake=intake, durable=True)
    assert (loss.until_ready, loss.later) == (0, 0)


@pytest.mark.parametrize("intake", ["topic", "bind"])
def test_with_cinders_default_the_loss_ends_when_the_listener_is_ready_again_which_it_is_by_itself(
    intake: str, lab: Lab, vhost: Vhost
) -> None:
    loss = loss_of_a_restart(lab, vhost, intake=intake, durable=False)
    assert loss.later == 0
