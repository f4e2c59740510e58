# SPDX-License-Identifier: Apache-2.0
"""A broker that is neither up nor down: frozen, dripping, blocked, TLS only, or saying no. Every wait ends."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bridge.core.extend import new_id
from bridge.core.messages import Order
from bridge.core.reasons import Reason
from bridge.engine.rpc import CASTS
from bridge.runtime.broker import BROKER_ERRORS, PARKED_QUEUE, ensure_agent_exchange, kombu_connection
from bridge.runtime.health import Health
from bridge.runtime.publisher import NotPublishedError
from hostagent.rpc import HEALTH
from listener.lanes import Lanes
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.lab.broker_tls import TlsFiles, tls_node, tls_url
from tests.lab.orders import consuming, sender_to
from tests.lab.ports import steady_port
from tests.lab.proxy import Proxy, Which
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq
from tests.lab.waiting import until
from tests.unit.hostagent.fakes import order

pytestmark = pytest.mark.functional

HOST = "h1"
RAW = b"not to be read", Reason.NOT_JSON
ENDS = 40.0
"""Seconds in which a call that has a deadline of 10 s ends, on a machine that is busy."""

FAULTS: dict[str, Callable[[Proxy], None]] = {
    "frozen": lambda proxy: proxy.freeze(),
    "losing": lambda proxy: proxy.lose(),
    "dripping": lambda proxy: proxy.drip(2),
}


@pytest.fixture
def proxy(vhost: Vhost) -> Iterator[Proxy]:
    with Proxy(vhost.node.port) as made:
        yield made


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitNode]:
    """A broker of this module's own, for alarms and restarts."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    with RabbitNode() as made:
        yield made


def ended(act: Callable[[], object]) -> object:
    """Return the value of a call, or the error it raised; it has to end."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(act())
        except Exception as ex:  # noqa: BLE001 - handed to the test
            outcome.append(ex)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ENDS)
    assert not thread.is_alive(), "it does not end"
    return outcome[0]


def an_order() -> Order:
    return order(new_id(), new_id(), 1 << 30)


def lanes_of(url: str) -> Lanes:
    return Lanes(lambda: kombu_connection(url, heartbeat=0, name="test lanes"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lane_ends_its_publish_and_uses_a_new_connection(vhost: Vhost, proxy: Proxy, fault: str) -> None:
    """Old connections are half dead, new ones work: the message is safe in one call."""
    lanes = lanes_of(proxy.url(vhost.url))
    lanes.keep_raw(*RAW)
    FAULTS[fault](proxy)
    assert ended(lambda: lanes.keep_raw(*RAW)) is None
    assert ended(lanes.close) is None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cast_ends_and_uses_a_new_connection(vhost: Vhost, proxy: Proxy, fault: str) -> None:
    got: list[Order] = []
    with consuming(vhost.url, HOST, got):
        health = Health()
        sender = sender_to(proxy.url(vhost.url), health)
        assert sender.cast(HOST, [an_order()]) is None
        FAULTS[fault](proxy)
        sent = an_order()
        assert ended(lambda: sender.cast(HOST, [sent])) is None
        until(lambda: sent in got, "the order")
        assert health.checks()[CASTS].ok
        sender.close()


def test_a_cast_into_a_broker_that_is_wholly_frozen_ends_and_says_so(vhost: Vhost, proxy: Proxy) -> None:
    health, got = Health(), list[Order]()
    with consuming(vhost.url, HOST, got):
        sender = sender_to(proxy.url(vhost.url), health)
        assert sender.cast(HOST, [an_order()]) is None
        proxy.freeze(Which.ALL)
        assert ended(lambda: sender.cast(HOST, [an_order()])) is Reason.CAST_FAILED
        assert not health.checks()[CASTS].ok
        assert f"127.0.0.1:{proxy.port}: no answer in time" in health.checks()[CASTS].reason
        tried = proxy.accepted
        assert sender.cast("another-host", [an_order()]) is Reason.CAST_FAILED
        assert proxy.accepted == tried, "the next host of the round pays the timeout again"
        proxy.heal()
        until(lambda: sender.cast(HOST, [an_order()]) is None, "casts go out again", seconds=60)
        assert health.checks()[CASTS].ok


@pytest.mark.parametrize("fault", FAULTS)
def test_a_consumer_notices_and_goes_on_over_a_new_connection(vhost: Vhost, proxy: Proxy, fault: str) -> None:
    """An agent whose connection is half dead would take no order until somebody restarted it."""
    got: list[Order] = []
    with consuming(proxy.url(vhost.url), HOST, got, heartbeat=6) as health:
        FAULTS[fault](proxy)
        until(lambda: not health.checks()[HEALTH].ok, "it is not ready", seconds=60)
        until(lambda: health.checks()[HEALTH].ok, "it is ready again", seconds=60)
        sent = an_order()
        assert sender_to(vhost.url).cast(HOST, [sent]) is None
        until(lambda: sent in got, "the order")


def test_a_connection_that_died_while_it_was_idle_costs_nothing(node: RabbitNode) -> None:
    """As after a restart of the broker: the first use of it succeeds."""
    lanes = lanes_of(node.url)
    lanes.keep_raw(*RAW)
    node.restart()
    until(lambda: _takes(node), "the broker is back", seconds=90)
    assert ended(lambda: lanes.keep_raw(*RAW)) is None


def test_a_memory_alarm_is_named_and_leaves_one_copy_for_all_tries(node: RabbitNode) -> None:
    blocked: list[bool] = []
    health, got = Health(), list[Order]()
    with consuming(node.url, HOST, got):
        sender = sender_to(node.url, health, blocked.append)
        assert sender.cast(HOST, [an_order()]) is None
        node.ctl("set_vm_memory_high_watermark", "0.000001")
        try:
            until(lambda: "memory" in node.ctl("eval", "rabbit_alarm:get_alarms()."), "the alarm", seconds=60)
            sent = an_order()
            for _ in range(3):
                assert ended(lambda: sender.cast(HOST, [sent])) is Reason.BUS_BLOCKED
                sender._failed = None
            assert "memory or disk space alarm" in health.checks()[CASTS].reason
            assert "low on memory" in health.checks()[CASTS].reason
            assert blocked == [True]
        finally:
            node.ctl("set_vm_memory_high_watermark", "0.6")
        last = an_order()
        until(lambda: sender.cast(HOST, [last]) is None, "casts go out again", seconds=60)
        until(lambda: last in got, "the order")
        assert blocked == [True, False]
        assert got.count(sent) <= 1
        assert health.checks()[CASTS].ok


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RabbitNode, int, TlsFiles]]:
    """A broker that wants a client certificate; its files."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    files = TlsFiles(tmp_path_factory.mktemp("tls"))
    made, port = tls_node(files, client_certificates=True)
    with made:
        yield made, port, files


def ours(files: TlsFiles) -> dict[str, Any]:
    """Return the query of a client that has everything."""
    return {"ssl_ca_file": files.ca, "ssl_cert_file": files.client_cert, "ssl_key_file": files.client_key}


def test_every_kind_of_connection_speaks_verified_tls_with_a_client_certificate(
    tls: tuple[RabbitNode, int, TlsFiles],
) -> None:
    node, port, files = tls
    url, sent, got = tls_url(port, **ours(files)), an_order(), list[Order]()
    lanes_of(url).keep_raw(*RAW)
    with consuming(url, HOST, got):
        assert sender_to(url).cast(HOST, [sent]) is None
        until(lambda: got == [sent], "the order")
        assert node.ctl("list_connections", "ssl").split().count("true") >= 2


@pytest.mark.parametrize(
    ("kept", "words"),
    [(("ssl_cert_file", "ssl_key_file"), "certificate is not trusted"), (("ssl_ca_file",), "client certificate")],
)
def test_the_check_names_the_missing_tls_option(
    tls: tuple[RabbitNode, int, TlsFiles], kept: tuple[str, ...], words: str
) -> None:
    _, port, files = tls
    query = {name: value for name, value in ours(files).items() if name in kept}
    assert words in reason(tls_url(port, **query))


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    if not have_rabbitmq():
        missing("RabbitMQ")
    files = TlsFiles(tmp_path / "tls", "another.test")
    made, port = tls_node(files)
    with made:
        assert "Hostname mismatch" in reason(tls_url(port, ssl_ca_file=files.ca))
        url = tls_url(port, ssl_ca_file=files.ca, ssl_enforce_hostname_verification="false")
        with consuming(url, HOST, []):
            pass


def reason(url: str) -> str:
    """Return why an agent that uses this URL is not ready."""
    with consuming(url, HOST, [], wait=False) as health:
        until(lambda: health.checks()[HEALTH].reason != "starting", "it has tried", seconds=60)
        return health.checks()[HEALTH].reason


def test_the_brokers_own_words_are_shown(vhost: Vhost, tls: tuple[RabbitNode, int, TlsFiles]) -> None:
    node, closed = vhost.node, steady_port()
    there = f"127.0.0.1:{node.port}"
    cases = {
        f"rabbit://guest:wrong@{there}/": (there, "login of guest", "ACCESS_REFUSED"),
        f"rabbit://guest:guest@{there}/no-such": (there, "vhost no-such not found"),
        f"rabbit://guest:guest@rabbit.invalid:{node.port}/": ("rabbit.invalid", "does not resolve"),
        f"rabbit://guest:guest@127.0.0.1:{closed}/": (f"127.0.0.1:{closed}", "no broker listens"),
        f"{node.url}?ssl=1": (there, "does this port speak TLS"),
        f"rabbit://guest:guest@127.0.0.1:{tls[1]}/": ("TLS port", "ssl = true"),
    }
    for url, words in cases.items():
        said = reason(url)
        for word in words:
            assert word in said, (url, said)
        assert "wrong" not in said
        with pytest.raises(NotPublishedError) as told:
            lanes_of(url).keep_raw(*RAW)
        assert told.value.reason is Reason.BUS_UNREACHABLE
        assert words[-1] in str(told.value)
        assert "endpoint" not in str(told.value)


def test_a_user_without_the_queues_permission_is_told_so(vhost: Vhost) -> None:
    node, user = vhost.node, f"u-{vhost.name}"
    node.ctl("add_user", user, "pw")
    node.ctl("set_permissions", "-p", vhost.name, user, "^$", "^$", "^$")
    url = f"rabbit://{user}:pw@127.0.0.1:{node.port}/{vhost.name}"
    with vhost.connection() as connection:
        ensure_agent_exchange(connection)  # as the engine does
    words = reason(url)
    assert re.search("ACCESS_REFUSED - (access|configure access) to", words)
    assert "does not exist yet" not in words


def test_the_first_host_may_be_dead_or_frozen(vhost: Vhost) -> None:
    """A cluster's URL: whichever node takes us serves."""
    with ExitStack() as stack:
        frozen = stack.enter_context(Proxy(vhost.node.port))
        frozen.freeze(Which.NEW)
        rest = vhost.url.partition("@")[2]
        hosts = f"guest:guest@127.0.0.1:{frozen.port},guest:guest@127.0.0.1:{steady_port()},guest:guest@{rest}"
        for _ in range(3):
            with consuming(f"rabbit://{hosts}", HOST, []):
                pass


def _takes(node: RabbitNode) -> bool:
    try:
        with kombu_connection(node.url, heartbeat=0, name="test") as connection:
            channel = connection.default_channel
            channel.queue_declare(PARKED_QUEUE, passive=True)
    except BROKER_ERRORS:
        return False
    return True
