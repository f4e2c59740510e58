# SPDX-License-Identifier: Apache-2.0
"""The host agent as a process beside 1,000 guests nobody extends: CPU and memory.

The guests are those of libvirt's test driver, which runs inside the agent: what it takes is counted as the agent's.
"""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order
from tests.benchmarks.measure import Row, cpu_of, peak_of
from tests.benchmarks.workspace import Workspace
from tests.lab.agent import Agent, Reports, caster, wait_for

_GUESTS: Final = 1000
_HUNDRED: Final = 100
_ORDERS: Final = 200
_FEW: Final = 20
_LOOK_EVERY: Final = 5.0  # seconds between full looks while it is measured
_LOOKS: Final = 4
_DEFAULT_LOOK: Final = 600.0  # [hostagent] inventory_interval
_DEFAULT_BEAT: Final = 10.0  # [hostagent] heartbeat_interval


def idle_rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    guests = workspace.count(_GUESTS)
    directory = workspace.subdirectory("agent")
    url = workspace.broker()
    reports = Reports(url)
    reports.drain()
    with _agent(
        directory, url, guests, f"inventory_interval = 3600\nheartbeat_interval = {_DEFAULT_BEAT}"
    ) as quiet:
        workspace.say(f"{guests} guests, nothing happens")
        wait_for(lambda: len(reports.domains(quiet.host)) == guests, quiet)
        still = _rate(quiet, _LOOK_EVERY * _LOOKS)
        yield _memory(quiet, f"{guests:,} guests, idle")
    with _agent(directory, url, _HUNDRED, f"inventory_interval = {_LOOK_EVERY}") as small:
        workspace.say(f"{_HUNDRED} guests")
        wait_for(lambda: len(reports.domains(small.host)) == _HUNDRED, small)
        time.sleep(_LOOK_EVERY * 2)
        yield Row(
            what=f"memory: host agent, {_HUNDRED} guests, idle, its children counted",
            value=_resident(small.pid) + sum(map(_resident, _children(small.pid))), budget=64, unit="MiB",
        )  # fmt: skip
    more = f"inventory_interval = {_LOOK_EVERY}\nheartbeat_interval = {_DEFAULT_BEAT}"
    with _agent(directory, url, guests, more) as looking:
        workspace.say("the same with full looks")
        wait_for(lambda: reports.domains(looking.host), looking)
        busy = _rate(looking, _LOOK_EVERY * _LOOKS)
    with _agent(directory, url, _FEW, more, volumes=_ORDERS // _FEW) as ordered:
        workspace.say(f"{_ORDERS} orders at once")
        wait_for(lambda: reports.domains(ordered.host), ordered)
        _order_all(url, ordered, reports)
        yield _memory(ordered, f"after {_ORDERS} orders at once, its children not counted")
    look = max(0.0, busy - still) * _LOOK_EVERY
    yield Row(what=f"host agent: one full look at {guests:,} guests, of CPU", value=look * 1000, unit="ms")
    yield Row(
        what=f"host agent: {guests:,} guests, idle, of one core (2 % is 20)",
        value=(still + look / _DEFAULT_LOOK) * 1000, budget=20, unit="‰",
    )  # fmt: skip


def _order_all(url: str, agent: Agent, reports: Reports) -> None:
    """One for each volume of the host, in one cast. The test driver resizes nothing, so each fails.

    Few guests: each worker's connection is a copy of the driver with all its guests, which no real libvirt costs.
    """
    guests = reports.domains(agent.host).values()
    keys = [ExtendKey(guest.server_id, disk.volume_id) for guest in guests for disk in guest.disks]
    orders = [Order(attempt_id=new_id(), key=key, gen=1, target=Bytes(1 << 50)) for key in keys]
    caster(url)(agent.host, [order.to_wire() for order in orders])
    wait_for(lambda: all(reports.report(order.attempt_id) for order in orders), agent)


def _memory(agent: Agent, when: str) -> Row:
    return Row(what=f"memory: host agent, {when}", value=peak_of(agent.pid), budget=100, unit="MiB")


def _resident(pid: int) -> float:
    """MiB in memory now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _agent(directory: Path, url: str, guests: int, more: str, *, volumes: int = 2) -> Agent:
    uri = f"test://{_node(directory, guests, volumes)}"
    return Agent(directory, url=url, libvirt_uri=uri, host=f"h-{uuid.uuid4().hex[:6]}", more=more)


def _rate(agent: Agent, seconds: float) -> float:
    """Seconds of CPU a second."""
    began, used = time.monotonic(), cpu_of(agent.pid)
    time.sleep(seconds)
    return (cpu_of(agent.pid) - used) / (time.monotonic() - began)


def _node(directory: Path, guests: int, volumes: int) -> Path:
    """A file of libvirt's test driver with so many running guests, each with so many volumes."""
    file = directory / "node.xml"
    file.write_text(f"<node>{''.join(_guest(number, volumes) for number in range(guests))}</node>")
    return file


def _guest(number: int, volumes: int) -> str:
    disks = "".join(
        f"<disk type='file' device='disk'><source file='/none'/><target dev='vd{chr(97 + n)}' bus='virtio'/>"
        f"<serial>{uuid.uuid4()}</serial></disk>"
        for n in range(volumes)
    )
    return (
        f"<domain type='test'><name>g{number}</name><uuid>{uuid.uuid4()}</uuid><memory>1024</memory><vcpu>1</vcpu>"
        f"<os><type>hvm</type></os><devices>{disks}</devices></domain>"
    )
