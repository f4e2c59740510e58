# SPDX-License-Identifier: Apache-2.0
"""Hosts with a libvirtd of their own, the agent beside it as a process."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order, Report
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.lab.agent import Agent, Reports, caster, wait_for
from tests.lab.disks import Disk, RawFile
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import have_hypervisor
from tests.lab.libvirtd import Libvirtd, have_libvirtd, private_libvirtd

GIB = 1 << 30


@dataclass(kw_only=True)
class Machine:
    """Everything of one test; `directory` is short enough for QEMU's sockets."""

    directory: Path
    stack: ExitStack
    url: str
    reports: Reports
    cast: Callable[[str, list[object]], None]
    gen: int = field(default=0)

    def libvirtd(self, name: str = "host-1") -> Libvirtd:
        """A daemon that runs."""
        return self.stack.enter_context(private_libvirtd(self.directory / name, name=name))

    def agent(self, host: Libvirtd, more: str = "", prefix: Sequence[str] = ()) -> Agent:
        """The agent of that host, ready."""
        made = Agent(
            self.directory, url=self.url, libvirt_uri=host.uri, host=host.name, more=more, prefix=prefix
        )  # fmt: skip
        made.start()
        self.stack.callback(made.end, 9)
        wait_for(made.ready, made)
        return made

    def guest(self, name: str = "disk", kind: type[Any] = RawFile) -> tuple[Guest, Disk]:
        """A guest to be, with one volume of 1 GiB on storage all hosts share."""
        disk: Disk = kind(self.directory / name, GIB)
        return new_guest([disk], self.directory), disk

    def order(self, guest: Guest, size: int) -> Order:
        """The next order for its volume."""
        self.gen += 1
        key = ExtendKey(guest.server_id, guest.disks[0].volume_id)
        return Order(attempt_id=new_id(), key=key, gen=self.gen, target=Bytes(size))

    def extend(self, agent: Agent, guest: Guest, size: int) -> Report:
        """Cast one to a host and wait for what it says."""
        order = self.order(guest, size)
        self.cast(agent.host, [order.to_wire()])
        report = wait_for(lambda: self.reports.report(order.attempt_id), agent)
        assert report is not None
        return report


@pytest.fixture
def machine(vhost: Vhost) -> Iterator[Machine]:
    """Nothing runs yet but the broker."""
    if not (have_hypervisor() and have_libvirtd()):
        missing("libvirtd with QEMU, as root")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eb-")))
        reports = Reports(vhost.url)
        reports.drain()
        yield Machine(directory=directory, stack=stack, url=vhost.url, reports=reports, cast=caster(vhost.url))
