# SPDX-License-Identifier: Apache-2.0
"""A Cinder or a Nova that drips its answer holds the only dispatcher no longer than the time of one request."""

import threading
from collections.abc import Iterator
from typing import Final

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

from bridge.core.extend import new_id
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderReader, NotNow
from bridge.engine.nova import NOVA_REASONS, NovaReader, Unsure
from bridge.engine.upstream import OutageBreaker
from bridge.runtime.rest import RestClient
from tests.lab.slow_server import Slowness, SlowServer

LIMIT: Final = 0.3
ENDS: Final = 60.0  # seconds; each of the servers below would hold its caller for longer


@pytest.fixture(params=[Slowness.SILENT, Slowness.HEADERS, Slowness.BODY, Slowness.CHUNKS])
def slow(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    with SlowServer(request.param) as server:
        yield server


def client(server: SlowServer) -> RestClient:
    adapter = Adapter(Session(auth=NoAuth(), timeout=60), endpoint_override=server.url)
    return RestClient(adapter, timeout=LIMIT, group="cinder")


def test_each_read_of_cinder_ends_at_its_deadline(slow: SlowServer) -> None:
    reader = CinderReader(client(slow))
    late = NotNow(Reason.CINDER_TIMED_OUT)
    attachment = Attached(server_id=new_id(), attachment_id=new_id(), host=None)
    answers: list[object] = []

    def ask() -> None:
        answers.append(reader.volume(new_id()))
        answers.append(reader.in_use(marker=None, limit=10))
        answers.append(reader.in_use(marker=new_id(), limit=10))
        answers.append(reader.connection(attachment))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ENDS)
    assert answers == [late, late, late, None]


def test_each_read_of_nova_ends_at_its_deadline(slow: SlowServer) -> None:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(NovaReader(client(slow)).server(new_id())), daemon=True)
    thread.start()
    thread.join(ENDS)
    assert answers == [Unsure(Reason.NOVA_TIMED_OUT)]


def test_after_three_requests_without_an_answer_the_others_are_not_sent() -> None:
    breaker, trouble = OutageBreaker(NOVA_REASONS), Unsure(Reason.NOVA_TIMED_OUT, "h")
    for _ in range(2):
        breaker.note(trouble)
    assert breaker.open() is None
    breaker.note(object())
    for _ in range(3):
        breaker.note(trouble)
    assert breaker.open() is trouble
