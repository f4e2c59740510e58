# SPDX-License-Identifier: Apache-2.0
"""The stage of every way: two hosts with an agent each, one guest with all its volumes, Cinder, API, engine."""

import base64
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import requests
import sqlalchemy as sa

from bridge.core.extend import gib
from bridge.journal.tables import extends
from bridge.standin.cinder import Attachment, StandInCinder
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.guests.stock import StockGuest, stock_kernel
from tests.guests.verdict import Verdict, overlap, resizes
from tests.guests.volumes import BOOT_ONLY, GuestVolume, Volumes
from tests.lab.agent import Agent, wait_for
from tests.lab.ceph import CephCluster, RbdImage
from tests.lab.deploy import Processes, Site
from tests.lab.libvirtd import Libvirtd, private_libvirtd
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

SEEN_AT_RESTART: Final = "seen_at_restart"
_HEADERS: Final = {"OpenStack-API-Version": "compute 2.51"}
_POLL: Final = 0.02
_PAUSED: Final = 3  # VIR_DOMAIN_PAUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The newest extend of a volume in the journal."""

    open: bool
    outcome: str | None
    reason: str | None


class GuestLab:
    """Everything that runs. `here` is the host the guest is on, by its number."""

    def __init__(
        self, directory: Path, stack: ExitStack, *, kinds: Sequence[tuple[str, str]], limit: float
    ) -> None:
        self.directory, self._stack, self._limit = directory, stack, limit
        self.here = 0
        self.hosts = [self._host(f"host-{number + 1}") for number in range(2)]
        self.connections = [open_libvirt(host.uri) for host in self.hosts]
        self._ceph = stack.enter_context(_ceph()) if any(backing == "rbd" for _, backing in kinds) else None
        self._secret = str(uuid.uuid4())
        if self._ceph is not None:
            self._give_key(self._ceph.key())
        self.volumes = Volumes(directory, kinds, self._image)
        stack.callback(self.volumes.close)
        self.guest = StockGuest(
            server_id=str(uuid.uuid4()),
            console=directory / "console",
            devices=self.volumes.devices(),
            kernel=stock_kernel(),
        )
        self.cinder = StandInCinder()
        for volume in self.volumes.all:
            self.cinder.add_volume(volume.disk.volume_id, volume.size, status="in-use")
        self.attach_here()
        self._deploy()

    def attach_here(self) -> None:
        """Have Cinder name the host that the guest is on, as Nova does after a migration."""
        for volume in self.volumes.all:
            attached = Attachment(server_id=self.guest.server_id, host=self.hosts[self.here].name)
            self.cinder.volumes.change(volume.disk.volume_id, attachments=(attached,))

    def _host(self, name: str) -> Libvirtd:
        return self._stack.enter_context(private_libvirtd(self.directory / name, name=name))

    def _image(self, size: int) -> RbdImage:
        assert self._ceph is not None
        return RbdImage(self._ceph, size, secret_id=self._secret)

    def _give_key(self, key: str) -> None:
        for connection in self.connections:
            connection.secretDefineXML(
                f"<secret ephemeral='no' private='no'><uuid>{self._secret}</uuid>"
                "<usage type='ceph'><name>client.cinder</name></usage></secret>"
            ).setValue(base64.b64decode(key))

    def _deploy(self) -> None:
        server = self.cinder.server()
        server.start()
        self._stack.callback(lambda: (server.stop(), server.join(5)))
        node = self._stack.enter_context(RabbitNode())
        self.site = Site(
            directory=self.directory, bus_url=node.url, cinder_url=f"{server.url}/v3",
            extra="[engine]\nretry_first = 0.2\nretry_cap = 1\nreport_within = 20\n",
        )  # fmt: skip
        self.processes = Processes(self.site)
        self._stack.callback(self.processes.stop)
        self.processes.start("api", "engine")
        self.agents = [
            Agent(
                self.directory, url=node.url, libvirt_uri=host.uri, host=host.name,
                more=f"state_path = {self.directory / f'state-{host.name}'}",
            )
            for host in self.hosts
        ]  # fmt: skip
        for agent in self.agents:
            agent.start()
            self._stack.callback(agent.end, 9)
        self.processes.wait_ready("api", "engine")
        for agent in self.agents:
            wait_for(agent.ready, agent)

    @property
    def domain(self) -> Any:
        """Return the guest's virDomain on the host it is on."""
        return self.connections[self.here].lookupByUUIDString(self.guest.server_id)

    @property
    def connection(self) -> Any:
        """Return the connection of the host the guest is on."""
        return self.connections[self.here]

    @property
    def agent(self) -> Agent:
        """Return the agent of the host the guest is on."""
        return self.agents[self.here]

    def open_another(self, host: int) -> Any:
        """Return a connection of its own to a host; it is closed with the lab."""
        connection = open_libvirt(self.hosts[host].uri)
        self._stack.callback(connection.close)
        return connection

    def reconnect(self, host: int) -> None:
        """Connect again to a libvirtd that was restarted."""
        self.connections[host] = open_libvirt(self.hosts[host].uri)

    def boot(self) -> None:
        """Define the guest on its first host, start it, and wait until it has booted and the journal knows it."""
        self.connection.defineXML(self.guest.xml())
        self.domain.create()
        self.guest.wait_boot(1)
        until(lambda: self.site.knows(self.guest.server_id), "the journal knows the guest")

    def run_guest(self) -> None:
        """Have the guest running, whatever a way that failed has left."""
        here = [n for n, c in enumerate(self.connections) if any(d.isActive() for d in _domains(c, self.guest))]
        self.here = here[0] if here else self.here
        domain = self.domain
        if not domain.isActive():
            boots = self.guest.boots()
            restored = domain.hasManagedSaveImage(0)
            domain.create()
            self.guest.wait_boot(boots + (not restored))
        if domain.state()[0] == _PAUSED:
            domain.resume()

    def grow_backends(self) -> None:
        """Let Cinder and its backends grow every volume, and send no event."""
        self.volumes.next_sizes()
        for volume in self.volumes.all:
            self.cinder.extend(volume.disk.volume_id, volume.size)
            volume.grow_backend()

    def send_events(self) -> None:
        """Send the event of each volume, as Cinder does once its backend has grown it."""
        events = [
            {"name": "volume-extended", "server_uuid": self.guest.server_id, "tag": volume.disk.volume_id}
            for volume in self.volumes.all
        ]
        answer = requests.post(
            f"{self.site.api_url}/os-server-external-events", json={"events": events}, timeout=30, headers=_HEADERS
        )
        if answer.status_code != requests.codes.ok:
            raise AssertionError(f"the API answered {answer.status_code}: {answer.text}")

    def extend(self) -> None:
        """Extend every volume, event included."""
        self.grow_backends()
        self.send_events()

    def row(self, volume: GuestVolume) -> Row:
        """Return the volume's newest extend in the journal."""
        query = (
            sa.select(extends.c.open, extends.c.outcome, extends.c.reason)
            .where(extends.c.volume_id == volume.disk.volume_id)
            .order_by(extends.c.opened_at.desc())
            .limit(1)
        )
        journal = self.site.journal()
        try:
            found = journal.database.read(lambda c: c.execute(query).first())
        finally:
            journal.database.dispose()
        return Row(open=bool(found.open), outcome=found.outcome, reason=found.reason) if found else _NO_ROW

    def wait_rows(self, outcome: str, *, seconds: float = 60.0) -> None:
        """Wait until the newest extend of each volume says this outcome."""
        until(
            lambda: all(self.row(volume).outcome == outcome for volume in self.volumes.all),
            f"every extend says {outcome}, and not {[self.row(v) for v in self.volumes.all]}", seconds=seconds,
        )  # fmt: skip

    def wait_ended(self, *, seconds: float = 90.0) -> None:
        """Wait until every extend is closed."""
        until(
            lambda: not any(self.row(volume).open for volume in self.volumes.all), "all are closed", seconds=seconds
        )

    def judge(self, way: str, volumes: Sequence[GuestVolume], since: float, *, booted: bool) -> list[Verdict]:
        """Wait for what the guest sees of these volumes.

        `booted`: the guest has booted since its volumes grew. Where it has not, a disk on a bus that is looked at
        only at boot is told of by name: its extend is closed with the reason `seen_at_restart`.
        """
        waiting, verdicts = list(volumes), []
        deadline = time.monotonic() + self._limit
        while waiting and time.monotonic() < deadline:
            for volume in list(waiting):
                if self.guest.sees(gib(volume.size)):
                    waiting.remove(volume)
                    verdicts.append(self._verdict(way, volume, time.monotonic() - since, "sees it"))
                elif volume.bus in BOOT_ONLY and not booted:
                    row = self.row(volume)
                    if not row.open and row.reason == SEEN_AT_RESTART:
                        waiting.remove(volume)
                        verdicts.append(self._verdict(way, volume, None, "named: sees it at its restart"))
            time.sleep(_POLL)
        for volume in waiting:
            seen, row = self.guest.sizes(), self.row(volume)
            verdicts.append(
                Verdict(
                    way=way, volume=volume.name, told=False, seconds=None,
                    words=f"NOT TOLD of {gib(volume.size)}; the journal: {row}; it sees {seen}",
                )
            )  # fmt: skip
        return verdicts

    def with_held(self, verdicts: Sequence[Verdict], since: float) -> list[Verdict]:
        """Return the verdicts of closed extends with the seconds that QEMU spent in a resize, by the audit log."""
        began = time.time() - (time.monotonic() - since)
        steps = [json.loads(text) for text in self.site.audit_file.read_text().split("\n")[:-1]]
        stood = resizes([line for line in steps if line["event"] == "step"])
        return [
            replace(verdict, held=overlap(stood, began, began + verdict.seconds))
            if verdict.seconds is not None
            else verdict
            for verdict in verdicts
        ]

    @staticmethod
    def _verdict(way: str, volume: GuestVolume, seconds: float | None, words: str) -> Verdict:
        return Verdict(way=way, volume=volume.name, told=True, seconds=seconds, words=words)


def _domains(connection: Any, guest: StockGuest) -> list[Any]:
    return [domain for domain in connection.listAllDomains(0) if domain.UUIDString() == guest.server_id]


_NO_ROW: Final = Row(open=False, outcome=None, reason=None)


@contextmanager
def _ceph() -> Iterator[CephCluster]:
    cluster = CephCluster()
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@contextmanager
def running_lab(*, kinds: Sequence[tuple[str, str]], limit: float, keep: Path | None) -> Iterator[GuestLab]:
    """Start everything and boot the guest; `keep`: a directory for logs and the console at the end."""
    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    try:
        with ExitStack() as stack:
            lab = GuestLab(directory, stack, kinds=kinds, limit=limit)
            lab.boot()
            yield lab
    finally:
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for path in [*directory.glob("*.log"), *directory.glob("*.jsonl"), directory / "console"]:
                if path.exists():
                    shutil.copy(path, keep / path.name)
        shutil.rmtree(directory, ignore_errors=True)
        os.sync()
