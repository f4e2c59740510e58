# SPDX-License-Identifier: Apache-2.0
"""Each part with the RabbitMQ permissions of etc/rabbitmq/permissions: enough, and none of them to spare."""

import base64
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import kombu
import pytest
import sqlalchemy as sa

from bridge.cli.app import main
from bridge.core.extend import Arrival, ExtendKey, new_id
from bridge.core.messages import DomainSeen, GuestState, HostMessage, Inventory
from bridge.journal import schema
from bridge.journal.tables import attempts
from bridge.runtime.publisher import SafePublisher
from bridge.runtime.transport import (
    PARKED_QUEUE,
    REPORTS_QUEUE,
    UNREADABLE_QUEUE,
    QueueSpec,
    ensure_queue,
    kombu_connection,
)
from bridge.standin.cinder import Attachment, StandInCinder
from listener.patience import Step
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.deploy import MODULES, Site
from tests.lab.endpoint import RecordingEndpoint, says
from tests.lab.paths import ROOT
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

HOST: Final = "cmp-1.example"
GUEST: Final = "6695eb01-f6a4-8304-79aa-97f2502e193f"
"""The domain that libvirt's test driver has from the start."""
REFUSED: Final = ("AccessRefused", "ACCESS_REFUSED", "refuses us", "access to", "may not")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """A line of the file; regular expressions."""

    configure: str
    write: str
    read: str


def documented() -> dict[tuple[str, str], Rights]:
    """By user and virtual host."""
    found = {}
    for line in (ROOT / "etc" / "rabbitmq" / "permissions").read_text().splitlines():
        if line and not line.startswith("#"):
            user, vhost, *rights = line.split()
            configure, write, read = (right.replace("HOST", HOST.replace(".", r"\.")) for right in rights)
            found[user, vhost] = Rights(configure=configure, write=write, read=read)
    return found


ALL: Final = documented()
LESS: Final = {
    f"{user} at {vhost} without {column}": (user, vhost, replace(rights, **{column: "^$"}))
    for (user, vhost), rights in ALL.items()
    for column in ("configure", "write", "read")
    if getattr(rights, column) != "^$"
}


class Broker:
    """Users and virtual hosts of a node, made many at a time: rabbitmqctl takes a second for each call."""

    def __init__(self, node: RabbitNode, directory: Path) -> None:
        self._node = node
        self._file = directory / "definitions.json"

    def make(self, cases: Mapping[str, Mapping[tuple[str, str], Rights]]) -> None:
        """Per case its virtual hosts `CASE-cinder` and `CASE-bridge`, and its users with these rights."""
        vhosts = [f"{case}-{name}" for case in cases for name in ("cinder", "bridge")]
        permissions: list[dict[str, str]] = [
            {"user": "guest", "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"} for vhost in vhosts
        ]
        for case, given in cases.items():
            permissions += [
                {
                    "user": f"{case}-{user}", "vhost": f"{case}-{vhost}", "configure": rights.configure,
                    "write": rights.write, "read": rights.read,
                }
                for (user, vhost), rights in given.items()
            ]  # fmt: skip
        users = sorted({permission["user"] for permission in permissions} - {"guest"})
        hashed = base64.b64encode(b"salt" + hashlib.sha256(b"saltsecret").digest()).decode()
        told: dict[str, Any] = {
            "vhosts": [{"name": vhost} for vhost in vhosts],
            "users": [
                {
                    "name": user, "password_hash": hashed,
                    "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": "",
                }
                for user in users
            ],
            "permissions": permissions,
        }  # fmt: skip
        self._file.write_text(json.dumps(told))
        self._node.ctl("import_definitions", str(self._file))

    def url(self, case: str, user: str, vhost: str) -> str:
        """Of a user of a case."""
        return self._node.url_of(f"{case}-{vhost}").replace("guest:guest", f"{case}-{user}:secret")

    def own(self, case: str, vhost: str) -> str:
        """Of the test itself, which may do everything."""
        return self._node.url_of(f"{case}-{vhost}")


class Case:
    """A site whose parts have a broker user each."""

    def __init__(self, broker: Broker, name: str, directory: Path, cinder_url: str, endpoint: str = "") -> None:
        self.broker, self.name = broker, name
        self._directory = directory / name
        self._directory.mkdir()
        extra = f"[endpoint]\nendpoint_override = {endpoint}\n" if endpoint else ""
        self.site = Site(
            directory=self._directory, bus_url=broker.own(name, "bridge"), cinder_url=cinder_url, host=HOST,
            extra=extra,
        )  # fmt: skip
        self.bus = CinderBus(broker.own(name, "cinder"))
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
            process.terminate()
        for process in self._running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
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
        server.join(5)


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


@pytest.mark.timeout(180)
def test_every_part_does_its_work_with_its_own_permissions(rabbit: RabbitNode, tmp_path: Path) -> None:
    """Notification to report, the slow lane and the unreadable lane; then the operator's commands."""
    broker, volume = Broker(rabbit, tmp_path), new_id()
    broker.make({"enough": ALL})
    with ExitStack() as stack:
        case = Case(broker, "enough", tmp_path, stack.enter_context(cinder_with(volume)))
        stack.callback(case.close)
        for part in MODULES:
            case.start(part)
        until(lambda: case.site.knows(GUEST), "the host's inventory", seconds=60)
        for body in (grown(volume, GUEST), grown(volume, new_id()), b"\xff\xfe volume.resize.end"):
            case.bus.publish(body)
        until(lambda: reported(case), "the host's report", seconds=60)
        until(lambda: case.waiting(Step.SHORT.queue) == 1, "the slow lane", seconds=30)
        until(lambda: case.waiting(UNREADABLE_QUEUE) == 1, "the unreadable lane", seconds=30)
        conf = str(case.conf("operator"))
        assert main(["parked", "list", "--config-file", conf]) == 0
        assert main(["status", "--config-file", str(case.site.conf), "--config-file", conf]) == 0
        assert main(["record", "--for", "1s", "--config-file", conf]) == 0
        assert not case.refused(), case.said()


@pytest.mark.timeout(300)
def test_with_any_permission_less_it_does_not_and_says_so(
    rabbit: RabbitNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All at once, each in virtual hosts of its own. Nothing is taken from Cinder's queue and lost."""
    broker, volume, named = Broker(rabbit, tmp_path), new_id(), {f"less{n}": about for n, about in enumerate(LESS)}
    broker.make({name: {**ALL, LESS[about][:2]: LESS[about][2]} for name, about in named.items()})
    wrong: dict[str, str] = {}
    with ExitStack() as stack:
        cinder = stack.enter_context(cinder_with(volume))
        endpoint = stack.enter_context(RecordingEndpoint())
        endpoint.behaviour = says(404)  # whatever comes has to go into a lane
        cases: dict[str, Case] = {}
        for name, about in named.items():
            user, vhost, _ = LESS[about]
            case = Case(broker, name, tmp_path, cinder, endpoint.url)
            stack.callback(case.close)
            if user == "operator":
                command = ["parked", "list"] if vhost == "bridge" else ["record", "--for", "1s"]
                if vhost == "bridge":
                    one_parked(broker.own(name, "bridge"))
                code = main([*command, "--config-file", str(case.conf("operator"))])
                if code == 0:
                    wrong[about] = capsys.readouterr().err
                continue
            case.bus.publish(grown(new_id(), new_id()))
            if about == "engine at bridge without write":
                one_due(case, volume)  # it has to have something to cast
            part, _, intake = user.partition("-")
            case.start(part, intake or "topic")
            cases[about] = case
        for about, case in cases.items():
            try:
                until(case.refused, about, seconds=40)
            except (TimeoutError, AssertionError):
                wrong[about] = case.said()[-600:]
    assert not wrong


def one_due(case: Case, volume: str) -> None:
    """An extend in the journal, its host alive and known."""
    journal = case.site.journal()
    try:
        schema.upgrade(journal.database)
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
