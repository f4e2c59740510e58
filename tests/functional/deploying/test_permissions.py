# SPDX-License-Identifier: Apache-2.0
"""Each part with the RabbitMQ permissions of etc/rabbitmq/permissions: enough, and none of them to spare."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Final

import kombu
import pytest
import sqlalchemy as sa

from bridge.cli.app import main
from bridge.cmd.broker_commands import EXCHANGES
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage
from bridge.journal import migrate
from bridge.journal.tables import attempts
from bridge.runtime.broker import (
    HOSTS_EXCHANGE,
    PARKED_QUEUE,
    REPORTS_QUEUE,
    UNREADABLE_QUEUE,
    QueueSpec,
    ensure_agent_exchange,
    ensure_queue,
    ensure_topic_way,
    kombu_connection,
)
from bridge.runtime.publisher import SafePublisher
from bridge.standin.cinder import Attachment, StandInCinder
from listener.retry_policy import SlowDelay
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.deploy import MODULES, Site
from tests.lab.endpoint import RecordingEndpoint, says
from tests.lab.rabbitmq import RabbitNode
from tests.lab.rights import Broker, Rights, documented, documented_topics, each_less
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

HOST: Final = "cmp-1.example"
GUEST: Final = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The domain that libvirt's test driver has from the start."""
REFUSED: Final = ("AccessRefused", "ACCESS_REFUSED", "refuses to", "access to", "may not", "no permission")


ALL: Final = documented(HOST)
TOPICS: Final = documented_topics(HOST)
LESS: Final = {
    f"{user} at {vhost} without {what}": (user, vhost, rights)
    for (user, vhost), every in ALL.items()
    for what, rights in each_less(every)
}
BEFORE: Final = {
    ("engine", "bridge"): Rights(
        configure=r"^extend_bridge(\.reports)?$",
        write=r"^(amq\.default|extend_bridge)$",
        read=r"^extend_bridge\.reports$",
    ),
    ("hostagent", "bridge"): Rights(
        configure=r"^extend_bridge(_agent(\.HOST|_fanout(_.*)?)?)?$".replace("HOST", HOST),
        write=r"^(amq\.default|extend_bridge_agent(\.HOST|_fanout_.*)?)$".replace("HOST", HOST),
        read=r"^extend_bridge(_agent(\.HOST|_fanout(_.*)?)?)?$".replace("HOST", HOST),
    ),
}
"""As this file had them when agents used the default exchange."""
AT_ONCE: Final = 12
"""Processes."""


class Case:
    """A site whose parts have a broker user each."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        directory: Path,
        cinder_url: str,
        endpoint: str = "",
        *,
        durable: bool = False,
    ) -> None:
        self.broker, self.name = broker, name
        self._directory = directory / name
        self._directory.mkdir()
        extra = f"[endpoint]\nendpoint_override = {endpoint}\n" if endpoint else ""
        self.site = Site(
            directory=self._directory, bus_url=broker.own(name, "bridge"), cinder_url=cinder_url, host=HOST,
            extra=extra,
        )  # fmt: skip
        self.bus = CinderBus(broker.own(name, "cinder"), durable=durable)
        self._running: list[subprocess.Popen[bytes]] = []

    def conf(self, user: str, intake: str = "topic") -> Path:
        """The site's configuration with the URLs of one user."""
        path = self._directory / f"{user}.conf"
        cinder = "operator" if user == "operator" else f"listener-{intake}"
        topic = "extend_bridge"
        path.write_text(
            f"[bus]\ntransport_url = {self.broker.url(self.name, user, 'bridge')}\n"
            f"[notifications]\ntransport_url = {self.broker.url(self.name, cinder, 'cinder')}\n"
            f"intake = {intake}\ntopic = {topic}\n"
        )
        return path

    def start(self, part: str, intake: str = "topic") -> None:
        """A process of its own."""
        confs = [str(self.site.conf), str(self.conf(part, intake))]
        argv = [word for conf in confs for word in ("--config-file", conf)]
        with self.log(part).open("ab") as output:
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", MODULES[part], *argv],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )
            )  # fmt: skip

    def log(self, part: str) -> Path:
        """Of one part."""
        return self._directory / f"{part}.log"

    def said(self) -> str:
        """All logs."""
        return "".join(path.read_text(errors="replace") for path in self._directory.glob("*.log"))

    def refused(self) -> bool:
        """Whether the broker refused a part something, and the part says so."""
        return any(word in self.said() for word in REFUSED)

    def waiting(self, queue: str) -> int:
        """Messages in a queue of our own bus; 0 where there is none."""
        with kombu_connection(self.broker.own(self.name, "bridge"), heartbeat=0, name="test") as connection:
            try:
                return int(
                    kombu.Queue(queue, channel=connection.channel()).queue_declare(passive=True).message_count
                )
            except connection.channel_errors:
                return 0

    def close(self) -> None:
        """End its processes."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait()
        self.bus.close()


@contextmanager
def cinder_with(volume: str) -> Iterator[str]:
    """A Cinder that has one volume, of the guest."""
    cinder = StandInCinder()
    info = {"driver_volume_type": "nfs", "format": "qcow2"}
    cinder.add_volume(volume, 1, Attachment(server_id=GUEST, host=HOST, connection_info=info))
    server = cinder.server()
    server.start()
    try:
        yield f"{server.url}/v3"
    finally:
        server.stop()
        server.join(120)


def grown(volume: str, server: str) -> bytes:
    """Cinder's notification."""
    return resize_end(volume_id=volume, server_id=server, attachment_id=new_id(), host=HOST, size=1)[0]


def reported(case: Case) -> bool:
    """Whether a host's report of an attempt is in the journal."""
    journal = case.site.journal()
    try:
        asked = sa.select(sa.func.count()).where(attempts.c.outcome.is_not(None))
        return bool(journal.database.read(lambda c: c.scalar(asked)))
    finally:
        journal.database.dispose()


def test_every_part_does_its_work_with_its_own_permissions(rabbit: RabbitNode, tmp_path: Path) -> None:
    every_part_works(rabbit, tmp_path)


def every_part_works(rabbit: RabbitNode, tmp_path: Path, *, durable: bool = False) -> None:
    """Notification to report, the slow lane and the unreadable lane; then the operator's commands.

    `durable`: Cinder's queues.
    """
    broker, volume = Broker(rabbit, tmp_path), new_id()
    broker.make({"enough": ALL}, TOPICS)
    with ExitStack() as stack:
        case = Case(broker, "enough", tmp_path, stack.enter_context(cinder_with(volume)), durable=durable)
        stack.callback(case.close)
        make_exchanges(case)
        for part in MODULES:
            case.start(part)
        until(lambda: case.site.knows(GUEST), "the host's inventory")
        for body in (grown(volume, GUEST), grown(volume, new_id()), b"\xff\xfe volume.resize.end"):
            case.bus.publish(body)
        until(lambda: reported(case), "the host's report")
        until(lambda: case.waiting(SlowDelay.SHORT.queue) == 1, "the slow lane")
        until(lambda: case.waiting(UNREADABLE_QUEUE) == 1, "the unreadable lane")
        conf = str(case.conf("operator"))
        assert main(["parked", "list", "--config-file", conf]) == 0
        status = ["status", "--config-file", str(case.site.conf), "--config-file", conf]
        until(lambda: main(status) == 0, "every part is ready: the listener looks at the API every ten seconds")
        assert main(["record", "--for", "1s", "--config-file", conf]) == 0
        assert not case.refused(), case.said()
        for command in (["parked", "list"], ["record", "--for", "1s"]):
            with redirect_stderr(StringIO()) as said:
                assert main([*command, "--config-file", str(case.conf("listener"))]) == 3
            assert "broker-commands --part operator" in said.getvalue(), "a daemon's user is not an operator's"


def test_the_permissions_of_before_the_exchange_of_reports_go_on_working(
    rabbit: RabbitNode, tmp_path: Path
) -> None:
    """An upgrade comes before the new permissions: reports arrive, and both sides say what is missing."""
    broker = Broker(rabbit, tmp_path)
    broker.make({"before": {**ALL, **BEFORE}}, {})
    with ExitStack() as stack:
        case = Case(broker, "before", tmp_path, stack.enter_context(cinder_with(new_id())))
        stack.callback(case.close)
        for part in ("engine", "hostagent"):
            case.start(part)
        until(lambda: case.site.knows(GUEST), "the host's inventory")
        until(lambda: "to which hosts report, is missing" in case.log("engine").read_text(), "the engine says it")
        words = "reports are sent to the default exchange, where the broker does not verify this host's name"
        until(lambda: words in case.log("hostagent").read_text(), "the agent says it")


def test_with_any_permission_less_it_does_not_and_says_so(
    rabbit: RabbitNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many at once, each in virtual hosts of its own."""
    broker, volume = Broker(rabbit, tmp_path), new_id()
    named = [(f"less{n}", about) for n, about in enumerate(LESS)]
    broker.make({name: {**ALL, LESS[about][:2]: LESS[about][2]} for name, about in named}, TOPICS)
    wrong: dict[str, str] = {}
    with ExitStack() as stack:
        cinder = stack.enter_context(cinder_with(volume))
        endpoint = stack.enter_context(RecordingEndpoint())
        endpoint.behaviour = says(404)  # whatever comes has to go into a lane
        make = partial(Case, broker, directory=tmp_path, cinder_url=cinder, endpoint=endpoint.url)
        of_people = [(name, about) for name, about in named if LESS[about][0] == "operator"]
        of_parts = [(name, about) for name, about in named if LESS[about][0] != "operator"]
        for name, about in of_people:
            with closing(make(name=name)) as case:
                code, said = the_command(case, LESS[about][1]), capsys.readouterr().err
                if code == 0 or not any(words in said for words in ("has no right to this", "has no permission")):
                    wrong[about] = said
        for start in range(0, len(of_parts), AT_ONCE):
            with ExitStack() as group:
                cases = {
                    about: group.enter_context(closing(make(name=name)))
                    for name, about in of_parts[start : start + AT_ONCE]
                }
                for about, case in cases.items():
                    the_part(case, about, volume)
                for about, case in cases.items():
                    try:
                        until(case.refused, about)
                    except (TimeoutError, AssertionError):
                        wrong[about] = case.said()[-600:]
    assert not wrong


def the_command(case: Case, vhost: str) -> int:
    """What an operator's user is for at that virtual host; the exit code."""
    command = ["parked", "list"] if vhost == "bridge" else ["record", "--for", "1s"]
    if vhost == "bridge":
        one_parked(case.broker.own(case.name, "bridge"))
    return main([*command, "--config-file", str(case.conf("operator"))])


def the_part(case: Case, about: str, volume: str) -> None:
    """Start the part that has less, with something to do."""
    part, _, intake = LESS[about][0].partition("-")
    case.bus.publish(grown(new_id(), new_id()))
    if part == "engine" and about.endswith(" extend_bridge"):  # the exchange of casts
        one_due(case, volume)
    if part == "hostagent":
        make_exchanges(case)
    if part == "engine" and " configure " in about:  # needed after the restart of a broker
        lose_exchanges(case)
    case.start(part, intake or "topic")


def lose_exchanges(case: Case) -> None:
    """Delete the exchanges, as the restart of a broker does with those that are not durable."""
    with kombu_connection(case.broker.own(case.name, "bridge"), heartbeat=0, name="test") as connection:
        for name in EXCHANGES:
            connection.channel().exchange_delete(name)


def make_exchanges(case: Case) -> None:
    """Declare what the engine makes, so that an agent that starts before the engine is not refused."""
    with kombu_connection(case.broker.own(case.name, "bridge"), heartbeat=0, name="test") as connection:
        ensure_agent_exchange(connection)
        ensure_queue(connection, QueueSpec(name=REPORTS_QUEUE))
        ensure_topic_way(connection, HOSTS_EXCHANGE, REPORTS_QUEUE)


def one_due(case: Case, volume: str) -> None:
    """An extend in the journal, its host alive and known."""
    journal = case.site.journal()
    try:
        migrate.upgrade(journal.database)
        journal.accept([Arrival(key=ExtendKey(GUEST, volume))])
    finally:
        journal.database.dispose()
    seen = Inventory(full=True, domains=(DomainSeen(server_id=GUEST, state=GuestState.ACTIVE),))
    message = HostMessage(host=HOST, boot_id=new_id(), seq=1, sent_at=time.time(), inventory=seen)
    with kombu_connection(case.broker.own(case.name, "bridge"), heartbeat=0, name="test") as connection:
        ensure_queue(connection, QueueSpec(name=REPORTS_QUEUE))
        with SafePublisher(connection) as publisher:
            publisher.publish(REPORTS_QUEUE, json.dumps(message.to_wire()).encode())


def one_parked(url: str) -> None:
    """A message that waits for a person."""
    with kombu_connection(url, heartbeat=0, name="test") as connection:
        queue = kombu.Queue(PARKED_QUEUE, channel=connection.channel(), queue_arguments={"x-queue-type": "quorum"})
        queue.declare()
        connection.Producer(auto_declare=False).publish(b"{}", exchange="", routing_key=PARKED_QUEUE)
