# SPDX-License-Identifier: Apache-2.0
"""The broker's users as doc/source/security.rst has them: enough for the whole path; what is missing is said."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import requests

from bridge.core.extend import gib, new_id
from bridge.runtime.transport import PARKED_QUEUE, UNREADABLE_QUEUE
from bridge.standin.cinder import Attachment, StandInCinder
from listener.patience import Step
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.deploy import Processes, Site
from tests.lab.disks import RawFile
from tests.lab.guest import new_guest
from tests.lab.hypervisor import have_hypervisor, private_hypervisor
from tests.lab.paths import ROOT
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

HOST: Final = "host-1"
PARTS: Final = {"eb-listener": "listener", "eb-engine": "engine", "eb-agent": "hostagent"}
CONFIGURE, WRITE, READ = range(3)
NOTHING: Final = "^$"
BUS: Final = {"listener": "listener.broker", "engine": "engine.bus", "hostagent": "hostagent.bus"}
REFUSED: Final = re.compile("ACCESS_REFUSED|AccessRefused")


def documented() -> dict[str, tuple[str, ...]]:
    """Part → what it may configure, write and read."""
    text = (ROOT / "doc" / "source" / "security.rst").read_text()
    lines = re.findall(r"# (rabbitmqctl set_permissions .*)$", text, re.MULTILINE)
    return {PARTS[words[4]]: tuple(words[5:]) for words in map(shlex.split, lines)}


class Users:
    """The users of a site: one for each part that has been given permissions."""

    def __init__(self, vhost: Vhost, site: Site) -> None:
        self._vhost, self._site = vhost, site
        self._names: dict[str, str] = {}

    def let(self, part: str, patterns: Sequence[str]) -> None:
        """Give the part these permissions, and a user where it has none."""
        ctl = self._vhost.node.ctl
        if part not in self._names:
            self._names[part] = name = f"{part}-{new_id()}"
            ctl("add_user", name, "secret")
            self._site.users[part] = self._vhost.url.replace("guest:guest", f"{name}:secret")
        ctl("set_permissions", "-p", self._vhost.name, self._names[part], *patterns)

    def forget(self) -> None:
        """Delete them."""
        for name in self._names.values():
            self._vhost.node.ctl("delete_user", name)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """Four processes that do not run yet."""

    site: Site
    processes: Processes
    users: Users

    def bus(self, part: str) -> tuple[bool, str]:
        """Whether its check of the bus is good, and its reason; (False, "") while it does not answer."""
        try:
            answer = requests.get(f"http://127.0.0.1:{self.site.ports[part]}/healthz/ready", timeout=2)
        except requests.RequestException:
            return False, ""
        check = answer.json()["checks"][BUS[part]]
        return check["ok"], check["reason"]


@contextmanager
def deployment(vhost: Vhost, directory: Path, *, cinder_url: str, libvirt_uri: str) -> Iterator[Deployed]:
    """Over these; nothing is reconciled."""
    site = Site(
        directory=directory, bus_url=vhost.url, cinder_url=cinder_url, libvirt_uri=libvirt_uri, host=HOST,
        extra="[engine]\nreconcile_interval = 0\n",
    )  # fmt: skip
    users, processes = Users(vhost, site), Processes(site)
    try:
        yield Deployed(site=site, processes=processes, users=users)
    finally:
        processes.stop()
        users.forget()


def test_the_documented_permissions_are_enough_for_an_extend_and_for_every_lane(vhost: Vhost) -> None:
    if not have_hypervisor():
        missing("QEMU, libvirt or gcc")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="eb-")))
        hypervisor = stack.enter_context(private_hypervisor(directory / "lv"))
        disk = RawFile(directory / "volume", gib(1))
        guest = new_guest([disk], directory)
        hypervisor.start(guest.xml())
        guest.wait_size(gib(1))
        cinder = StandInCinder()
        on_nfs = Attachment(
            id=new_id(), server_id=guest.server_id, host=HOST, connection_info={"driver_volume_type": "nfs"}
        )
        cinder.add_volume(disk.volume_id, 2, on_nfs)
        server = cinder.server()
        server.start()
        stack.callback(lambda: (server.stop(), server.join(5)))
        bus = CinderBus(vhost.url)
        stack.callback(bus.close)
        deployed = stack.enter_context(
            deployment(vhost, directory, cinder_url=f"{server.url}/v3", libvirt_uri=hypervisor.uri)
        )
        for part, patterns in documented().items():
            deployed.users.let(part, patterns)
        deployed.processes.start()
        deployed.processes.wait_ready()
        until(lambda: deployed.site.knows(guest.server_id), "the guest is known")
        for server_id, volume_id in (
            (guest.server_id, disk.volume_id), (new_id(), disk.volume_id), (guest.server_id, "no-uuid"),
        ):  # fmt: skip
            body, _ = resize_end(
                volume_id=volume_id, server_id=server_id, attachment_id=new_id(), host=HOST, size=2
            )
            bus.publish(body)
        bus.publish(b"not json")
        guest.wait_size(gib(2))
        for lane in (Step.SHORT.queue, PARKED_QUEUE, UNREADABLE_QUEUE):
            until(lambda lane=lane: waiting(vhost, lane) == 1, f"one message in {lane}")


@pytest.mark.parametrize(
    ("part", "less"), [("listener", READ), ("engine", READ), ("hostagent", CONFIGURE), ("hostagent", READ)]
)
def test_a_part_that_is_refused_one_of_them_says_so_and_works_once_it_is_given(
    vhost: Vhost, tmp_path: Path, part: str, less: int
) -> None:
    enough = documented()[part]
    with (
        closing(CinderBus(vhost.url)),
        deployment(vhost, tmp_path, cinder_url="http://127.0.0.1:9", libvirt_uri="test:///default") as deployed,
    ):
        deployed.users.let(part, [NOTHING if n == less else pattern for n, pattern in enumerate(enough)])
        deployed.processes.start(part)
        until(lambda: REFUSED.search(deployed.bus(part)[1]), "it says why")
        deployed.users.let(part, enough)
        until(lambda: deployed.bus(part)[0], "it goes on", seconds=60)


def waiting(vhost: Vhost, queue: str) -> int:
    """Messages in it; a lane is made when it is needed."""
    lines = vhost.node.ctl("list_queues", "-q", "-p", vhost.name, "name", "messages").splitlines()
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [queue]), 0)
