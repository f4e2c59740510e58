# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks.last_mile`: an extend's latency while the agents of guests hang, drip or flood.

From the cast to the report on the queue, with real guests. Each setting has several turns in one run, so that the
turns of the same setting show the noise.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import kombu

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import HostMessage, Order
from bridge.core.outcome import Outcome
from bridge.runtime.broker import REPORTS_QUEUE, QueueSpec, ensure_queue, kombu_connection
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.lab.agent import Agent, caster, wait_for
from tests.lab.agent_socket import Reply, SocketAgent, dripping, flooding, hanging
from tests.lab.disks import RawFile
from tests.lab.guest import Guest, new_guest
from tests.lab.libvirtd import private_libvirtd
from tests.lab.plain_qemu import PlainQemu
from tests.lab.rabbitmq import RabbitNode

_MIB: Final = 1 << 20
_GUESTS: Final = 4  # as many as [guest] workers: each thread that looks into guests has a hostile one
_WARM: Final = 3  # extends before those that count
_REPLIES: Final[dict[str, Reply]] = {"hanging": hanging, "dripping": dripping, "flooding": flooding}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of [guest] filesystems, and what the guests' agents do."""

    mode: str
    agent: str


SETTINGS: Final = (
    Setting("off", "hanging"),
    *(Setting(mode, agent) for agent in _REPLIES for mode in ("see", "grow")),
)


class LatencyRig:
    """A broker, guests with played agents, and one host agent after the other."""

    def __init__(self, stack: ExitStack, driver: str) -> None:
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eb-")))
        self._url = stack.enter_context(RabbitNode()).url_of("/")
        self._driver, self._gen = driver, 0
        self._agents: list[SocketAgent] = []
        self._guests = list(self._start(stack))
        self._sizes = {guest.server_id: 64 * _MIB for guest in self._guests}
        self._cast = caster(self._url)
        self._connection = kombu_connection(self._url, heartbeat=0, name="test")
        ensure_queue(self._connection, QueueSpec(name=REPORTS_QUEUE))

    def _start(self, stack: ExitStack) -> Iterator[Guest]:
        disks = [RawFile(self._directory / f"disk{n}", 64 * _MIB) for n in range(_GUESTS)]
        if self._driver == "qmp":
            self._options = f"driver = qmp\n[qmp]\nsockets = {self._directory}/*.qmp\n"
            for disk in disks:
                qemu = stack.enter_context(PlainQemu(self._directory, [disk], agent=True))
                self._agents.append(stack.enter_context(SocketAgent(qemu.agent_socket, hanging)))
                yield qemu.guest
            return
        host = stack.enter_context(private_libvirtd(self._directory / "lv"))
        self._uri, self._options = host.uri, ""
        connection = open_libvirt(host.uri)
        for number, disk in enumerate(disks):
            channel = self._directory / f"agent{number}"
            self._agents.append(stack.enter_context(SocketAgent(channel, hanging)))
            guest = new_guest([disk], self._directory, agent=channel)
            connection.createXML(guest.xml(), 0)
            guest.wait_ready()
            yield guest

    def turn(self, setting: Setting, extends: int) -> list[float]:
        """Return the seconds of so many extends, one after the other, under one setting."""
        for played in self._agents:
            played.reply = _REPLIES[setting.agent]
        more = f"{self._options}[guest]\nfilesystems = {setting.mode}\ninterval = 1\n[hostagent]\n"
        uri = getattr(self, "_uri", "test:///default")
        with Agent(self._directory, url=self._url, libvirt_uri=uri, host="host-1", more=more) as agent:
            wait_for(agent.ready, agent)
            return [self._extend(number) for number in range(_WARM + extends)][_WARM:]

    def _extend(self, number: int) -> float:
        guest = self._guests[number % len(self._guests)]
        self._gen += 1
        self._sizes[guest.server_id] += _MIB
        key, size = ExtendKey(guest.server_id, guest.disks[0].volume_id), self._sizes[guest.server_id]
        order = Order(attempt_id=new_id(), key=key, gen=self._gen, target=Bytes(size), grow_file_system=True)
        began = time.perf_counter()
        self._cast("host-1", [order.to_wire()])
        return self._reported(order.attempt_id) - began

    def _reported(self, attempt_id: str) -> float:
        """Wait for the report of an attempt; return when it came."""
        came: list[float] = []

        def take(_body: object, message: kombu.Message) -> None:
            now = time.perf_counter()
            found = [
                r for r in HostMessage.from_wire(json.loads(message.body)).reports if r.attempt_id == attempt_id
            ]
            message.ack()
            for report in found:
                assert report.outcome is Outcome.RESIZED, report
                came.append(now)

        with self._connection.channel() as channel:
            queue = kombu.Queue(REPORTS_QUEUE, channel=channel, no_declare=True)
            with kombu.Consumer(channel, [queue], on_message=lambda message: take(None, message)):
                while not came:
                    self._connection.drain_events(timeout=120)
        return came[0]


def measure(
    rig: LatencyRig, turns: int, extends: int, tell: Callable[[str], None]
) -> dict[Setting, list[list[float]]]:
    """Return the seconds of each setting's turns; every second round goes through the settings backwards."""
    found: dict[Setting, list[list[float]]] = {setting: [] for setting in SETTINGS}
    for number in range(turns):
        for setting in SETTINGS if number % 2 == 0 else reversed(SETTINGS):
            found[setting].append(rig.turn(setting, extends))
        tell(f"turn {number + 1} of {turns}")
    return found


def table(found: dict[Setting, list[list[float]]]) -> Iterator[str]:
    """Yield the lines of the result, in milliseconds."""
    yield f"{'filesystems':12} {'agents':9} {'median':>7} {'p90':>7}   medians of the turns"
    for setting, turns in found.items():
        every = sorted(seconds for turn in turns for seconds in turn)
        medians = "  ".join(f"{1e3 * statistics.median(turn):.1f}" for turn in turns)
        p90 = every[int(0.9 * (len(every) - 1))]
        figures = f"{1e3 * statistics.median(every):7.1f} {1e3 * p90:7.1f}"
        yield f"{setting.mode:12} {setting.agent:9} {figures}   {medians}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", choices=("libvirt", "qmp"), default="libvirt")
    parser.add_argument("--turns", type=int, default=3, help="of each setting")
    parser.add_argument("--extends", type=int, default=40, help="in each turn")
    chosen = parser.parse_args(argv)
    with ExitStack() as stack:
        found = measure(
            LatencyRig(stack, chosen.driver), chosen.turns, chosen.extends, lambda text: print(text, flush=True)
        )
    print(f"milliseconds from the cast to the report, driver {chosen.driver}, {_GUESTS} guests")
    for line in table(found):
        print(line)


if __name__ == "__main__":
    main()
