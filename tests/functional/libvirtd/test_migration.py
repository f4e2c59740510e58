# SPDX-License-Identifier: Apache-2.0
"""A guest that migrates live between two hosts, each with its libvirtd and its agent, and one engine for both.

The storage is shared: one file both can open. The resize arrives before, during and after.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt_qemu
import pytest
import requests
import sqlalchemy as sa

from bridge.core.extend import gib
from bridge.journal.inventory import GONE
from bridge.journal.tables import attempts, disks, domains, extends
from bridge.standin.cinder import Attachment, StandInCinder
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.functional.libvirtd.conftest import Machine
from tests.lab.agent import Agent
from tests.lab.deploy import Processes, Site
from tests.lab.guest import Guest
from tests.lab.libvirtd import Libvirtd
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

_LIVE, _UNSAFE = 1, 512  # VIR_MIGRATE_*: libvirt cannot know that this directory is shared
_CRAWL, _RUN = 500, 1 << 30  # bytes a second


class Move:
    """One live migration, which takes for ever until it is let go."""

    def __init__(self, guest: Guest, source: Libvirtd, to: Libvirtd) -> None:
        self._source, self._to = open_libvirt(source.uri), open_libvirt(to.uri)
        self._guest = guest
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._migrate)

    def _domain(self) -> Any:
        return self._source.lookupByUUIDString(self._guest.server_id)

    def _migrate(self) -> None:
        try:
            self._domain().migrate3(self._to, {"migrate_uri": "tcp://127.0.0.1"}, _LIVE | _UNSAFE)
        except Exception as ex:  # noqa: BLE001 - shown by whoever waits
            self._errors.append(ex)

    def begin(self, *, crawl: bool) -> None:
        """Start it; crawling, it is under way when this returns, and stays so."""
        domain = self._domain()
        domain.migrateSetMaxSpeed(1 if crawl else 1000)
        self._thread.start()
        if crawl:
            watched = open_libvirt_again(self._source)
            until(lambda: '"active"' in _monitor(watched, self._guest, "query-migrate"), "QEMU migrates")
            _monitor(watched, self._guest, "migrate-set-parameters", {"max-bandwidth": _CRAWL})
            watched.close()

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Let it go as fast as it can; return when the guest is on the other side."""
        watched = open_libvirt_again(self._source)
        if self.under_way:
            _monitor(watched, self._guest, "migrate-set-parameters", {"max-bandwidth": _RUN})
        watched.close()
        self._thread.join(120)
        assert not self.under_way
        assert not self._errors, self._errors
        self._source.close()
        self._to.close()


def open_libvirt_again(connection: Any) -> Any:
    """A second connection: the first is busy with the migration."""
    return open_libvirt(connection.getURI())


def _monitor(connection: Any, guest: Guest, command: str, arguments: dict[str, Any] | None = None) -> str:
    domain = connection.lookupByUUIDString(guest.server_id)
    said: str = libvirt_qemu.qemuMonitorCommand(
        domain, json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}), 0
    )
    return said


@dataclass(kw_only=True)
class Region:
    """Two hosts, a guest of the first with a volume of 1 GiB, Cinder, API and engine."""

    machine: Machine
    hosts: tuple[Libvirtd, Libvirtd]
    agents: tuple[Agent, Agent]
    guest: Guest
    cinder: StandInCinder
    site: Site
    processes: Processes

    def extend(self, size: int) -> None:
        """Cinder grows the volume (GiB) and somebody tells the bridge."""
        volume_id = self.guest.disks[0].volume_id
        self.cinder.extend(volume_id, size)
        event = {"name": "volume-extended", "server_uuid": self.guest.server_id, "tag": volume_id}
        answer = requests.post(
            f"{self.site.api_url}/os-server-external-events", json={"events": [event]}, timeout=10,
            headers={"OpenStack-API-Version": "compute 2.51"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text

    def rows(self, query: sa.Select[Any]) -> list[Any]:
        """What the journal answers."""
        journal = self.site.journal()
        try:
            return journal.database.read(lambda c: list(c.execute(query)))
        finally:
            journal.database.dispose()

    def open(self) -> int:
        """Open extends."""
        return len(self.rows(sa.select(extends.c.id).where(extends.c.open == 1)))

    def outcomes(self, host: Libvirtd) -> list[str]:
        """What a host answered so far."""
        asked = sa.select(attempts.c.outcome).where(attempts.c.host == host.name, attempts.c.outcome.is_not(None))
        return [row.outcome for row in self.rows(asked)]

    def reasons(self, host: Libvirtd) -> set[str]:
        """The reasons in the answers of a host so far."""
        asked = sa.select(attempts.c.reason).where(attempts.c.host == host.name, attempts.c.outcome.is_not(None))
        return {row.reason for row in self.rows(asked)}

    def is_on(self, host: Libvirtd, size: int) -> None:
        """Wait until the journal's inventory has the guest on this host alone, with this size."""

        def seen() -> list[Any]:
            columns = (domains.c.host, domains.c.state, disks.c.size)
            of_both = sa.and_(disks.c.server_id == domains.c.server_id, disks.c.host == domains.c.host)
            query = sa.select(*columns).outerjoin(disks, of_both)
            here = sa.and_(domains.c.server_id == self.guest.server_id, domains.c.state != GONE)
            return [tuple(row) for row in self.rows(query.where(here))]

        try:
            until(lambda: seen() == [(host.name, "active", size)], "the inventory is right")
        except AssertionError as ex:
            raise AssertionError(f"not on {host.name} alone with {size} bytes but {seen()}") from ex


@pytest.fixture
def region(machine: Machine) -> Iterator[Region]:
    """All of it, ready."""
    with ExitStack() as stack:
        hosts = machine.libvirtd("host-1"), machine.libvirtd("host-2")
        guest, disk = machine.guest()
        connection: Any = open_libvirt(hosts[0].uri)
        connection.createXML(guest.xml(), 0)
        connection.close()
        guest.wait_size(gib(1))
        cinder = StandInCinder()
        cinder.add_volume(disk.volume_id, 1, Attachment(server_id=guest.server_id, host="host-1"))
        server = cinder.server()
        server.start()
        stack.callback(lambda: (server.stop(), server.join(120)))
        site = Site(
            directory=machine.directory, bus_url=machine.url, cinder_url=f"{server.url}/v3",
            extra="[engine]\nretry_cap = 1\nreport_within = 10\n",
        )  # fmt: skip
        processes = Processes(site)
        stack.callback(processes.stop)
        processes.start("api", "engine")
        agents = machine.agent(hosts[0]), machine.agent(hosts[1])
        processes.wait_ready("api", "engine")
        made = Region(
            machine=machine, hosts=hosts, agents=agents, guest=guest, cinder=cinder, site=site, processes=processes
        )
        made.is_on(hosts[0], gib(1))
        yield made


@contextmanager
def _never_smaller(guest: Guest) -> Iterator[None]:
    """What the guest printed, in both its QEMUs."""
    yield
    assert guest.sizes() == sorted(guest.sizes())


def test_resizes_before_during_and_after_a_live_migration_reach_the_guest(region: Region) -> None:
    """There and back again and away; the last resize, which nobody tells of, is found on the new host."""
    one, two = region.hosts
    with _never_smaller(region.guest):
        region.extend(2)
        region.guest.wait_size(gib(2))
        there = Move(region.guest, one, two)
        there.begin(crawl=False)
        there.end()
        region.is_on(two, gib(2))
        until(lambda: region.open() == 0, "the extend before is closed")

        back = Move(region.guest, two, one)
        back.begin(crawl=True)
        region.extend(3)
        until(lambda: "busy" in region.outcomes(two), "the source says that it cannot now")
        assert "domain_job" in region.reasons(two), "libvirt itself would have held the worker for 30 s"
        until(lambda: "not_here" in region.outcomes(one), "the destination leaves it alone")
        assert back.under_way
        assert region.guest.sizes()[-1] == gib(2)
        back.end()
        region.guest.wait_size(gib(3))
        until(lambda: region.open() == 0, "the extend during is closed")
        region.is_on(one, gib(3))

        away = Move(region.guest, one, two)
        away.begin(crawl=False)
        away.end()
        region.extend(4)
        region.guest.wait_size(gib(4))
        until(lambda: region.open() == 0, "the extend after is closed")
        region.is_on(two, gib(4))

        with region.site.conf.open("a") as conf:
            conf.write("[engine]\nreconcile_interval = 1\n")
        region.processes.stop("engine")
        region.processes.start("engine")
        region.cinder.extend(region.guest.disks[0].volume_id, 5)
        region.guest.wait_size(gib(5))
        region.is_on(two, gib(5))
    for agent in region.agents:
        assert "Traceback" not in agent.text()
