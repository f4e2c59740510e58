# SPDX-License-Identifier: Apache-2.0
"""tools/bench --scale: what 10, 1,000 and 10,000 hosts with ten volumes each cost, on a real broker and database.

CPU of our own process, never the clock: the machine is shared. Agents and Cinder are played by other processes.
"""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from oslo_config import cfg
from prometheus_client import CollectorRegistry

from bridge.core.extend import Arrival, new_id
from bridge.core.messages import HostMessage, Order, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.dispatch import Dispatcher
from bridge.engine.locator import InventoryLocator
from bridge.engine.rpc import OrderSender
from bridge.engine.settings import engine_groups, engine_settings
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import Claims
from bridge.journal.database import Database
from bridge.journal.reports import Reported
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import disks, passes
from bridge.runtime.audit import StreamAudit
from bridge.runtime.broker import REPORTS_QUEUE, kombu_connection
from bridge.runtime.config import load
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.retry import Backoff
from bridge.runtime.wakeup import Wake
from tests.benchmarks.engine import known_volumes
from tests.benchmarks.fleet import DISKS, boot_of, disks_of
from tests.benchmarks.measure import cpu_of, median, peak_of, per_item
from tests.benchmarks.scale_table import HEARTBEAT, RECONCILE, Fleet
from tests.benchmarks.workspace import Workspace
from tests.lab.deploy import Processes, Site
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.waiting import until

FLEETS: Final = (10, 1_000, 10_000)
_AT_ONCE: Final = 10  # extends, each of another host
_ROUNDS: Final = 30
_BEATING: Final = 20.0  # seconds
_LOOKS: Final = 3
_LEAST: Final = 50.0  # heartbeats a second, of small fleets: fewer cannot be measured
_PATIENCE: Final = 300.0


def measure(workspace: Workspace, name: str, counts: Sequence[int] = FLEETS) -> list[Fleet]:
    """The fleets one after the other, each on an empty database of this kind.

    Their extends come last and in turn, so that the machine's moods are theirs alike.
    """
    with ExitStack() as stack:
        places = [_Place(workspace, count, dict(workspace.databases())[name], stack) for count in counts]
        found = [place.measure(workspace) for place in places]
        rigs = [place.extends() for place in places]
        costs = [[rig.round() for rig in rigs] for _ in range(_ROUNDS)]
        extends = [median(list(column)) for column in zip(*costs, strict=True)]
    return [dataclasses.replace(fleet, extend=cost) for fleet, cost in zip(found, extends, strict=True)]


class _Place:
    """An engine as a process of its own, its agents and its Cinder."""

    def __init__(self, workspace: Workspace, count: int, url: str, stack: ExitStack) -> None:
        self._count = count
        self._idle_share: float | None = None
        self._database = Database(JournalSettings(connection=url))
        stack.callback(self._database.dispose)
        migrate.upgrade(self._database)
        self._directory = workspace.subdirectory("scale")
        bus, port = workspace.broker(), steady_port()
        self._site = Site(
            directory=self._directory, bus_url=bus, cinder_url=f"http://127.0.0.1:{port}/v3",
            extra=f"[journal]\nconnection = {url.replace('%', '%%')}\n[engine]\nhost_timeout = 86400\n"
            f"reconcile_interval = {RECONCILE}\nreconcile_pause = 0.05\n",
        )  # fmt: skip
        self._fleet = stack.enter_context(_child("tests.benchmarks.fleet", bus, str(count)))
        stack.enter_context(_child("tests.benchmarks.cinder_pages", str(port), str(count)))
        self._bus = stack.enter_context(kombu_connection(bus, heartbeat=0, name="bench"))
        self.processes = Processes(self._site)
        stack.callback(self.processes.stop)
        self._no_pass_before(_PATIENCE)
        self._tell("queues")

    def measure(self, workspace: Workspace) -> Fleet:
        """Everything but its extends."""
        name = f"{self._count:,} hosts"
        start, took = self.start()
        workspace.say(f"{name}: started, {start:.1f} s of CPU, {took:.0f} s")
        beat = self.beats()
        workspace.say(f"{name}: {beat:.0f} µs a heartbeat")
        inventory = self.inventories()
        workspace.say(f"{name}: {inventory:.0f} µs a volume in an inventory")
        reconcile = self.reconcile()
        peak = peak_of(self.processes.pid("engine"))
        workspace.say(f"{name}: {reconcile:.2f} s a pass, engine {peak:.0f} MiB at most")
        self.processes.stop()
        return Fleet(
            hosts=self._count, volumes=self._count * DISKS, extend=0.0, beat=beat, inventory=inventory,
            start=start, start_took=took, reconcile=reconcile, peak=peak,
        )  # fmt: skip

    def start(self) -> tuple[float, float]:
        """All agents at once: seconds of CPU, and of the clock until the last is known."""
        self.processes.start("engine")
        self.processes.wait_ready("engine")
        cpu, began = self._cpu(), time.monotonic()
        self._tell("start")
        self._wait_for(disks, self._count * DISKS)
        self._drained()
        return self._cpu() - cpu, time.monotonic() - began

    def beats(self) -> float:
        """µs a heartbeat, at the rate so many agents have."""
        cpu, rate = self._cpu(), max(self._count / HEARTBEAT, _LEAST)
        self._tell(f"beat {_BEATING} {rate}")
        self._drained()
        return (self._cpu() - cpu - self._idle(_BEATING)) / (rate * _BEATING) * 1e6

    def inventories(self) -> float:
        """µs a volume, where nothing has changed."""
        cpu, began = self._cpu(), time.monotonic()
        self._tell("inventory")
        self._drained()
        used = self._cpu() - cpu - self._idle(time.monotonic() - began)
        return used / (self._count * DISKS) * 1e6

    def reconcile(self) -> float:
        """Seconds of CPU of a whole pass."""
        cpu, began = self._cpu(), time.monotonic()
        self._no_pass_before(0.0)
        until(lambda: self._last_pass() is not None, "a pass has ended", seconds=_PATIENCE)
        return self._cpu() - cpu - self._idle(time.monotonic() - began)

    def extends(self) -> "_Extends":
        """The engine's work on extends of this fleet."""
        conf = load("bench", engine_groups(), ["--config-file", str(self._site.conf)], description="")
        return _Extends(conf, self._site.bus_url, self._database, self._directory, self._count)

    def _cpu(self) -> float:
        return cpu_of(self.processes.pid("engine"))

    def _idle(self, seconds: float) -> float:
        """CPU the engine uses in so many seconds when nothing happens: the least of a few looks."""
        if self._idle_share is None:
            self._idle_share = min(self._idle_look() for _ in range(_LOOKS))
        return self._idle_share * seconds

    def _idle_look(self) -> float:
        cpu = self._cpu()
        time.sleep(_BEATING / _LOOKS)
        return (self._cpu() - cpu) / (_BEATING / _LOOKS)

    def _tell(self, command: str) -> None:
        assert self._fleet.stdin is not None
        assert self._fleet.stdout is not None
        self._fleet.stdin.write(f"{command}\n")
        self._fleet.stdin.flush()
        assert self._fleet.stdout.readline().strip() == "done"

    def _drained(self) -> None:
        """Until the engine has taken all there is; the queue counts what is in its hands as well only by and by."""
        channel = self._bus.default_channel

        def ready() -> int:
            return int(channel.queue_declare(REPORTS_QUEUE, passive=True).message_count)

        until(lambda: ready() == 0, "the queue is empty", seconds=_PATIENCE)
        time.sleep(1.0)

    def _wait_for(self, table: sa.Table, rows: int) -> None:
        query = sa.select(sa.func.count()).select_from(table)
        until(lambda: self._database.read(lambda c: c.scalar(query)) == rows, "all are known", seconds=_PATIENCE)

    def _no_pass_before(self, seconds: float) -> None:
        values = {"held_until": 0.0, "next_at": time.time() + seconds, "counts": "{}", "last_counts": "{}"}

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(passes))
            connection.execute(sa.insert(passes).values(name="reconcile", **values))

        self._database.write(work)

    def _last_pass(self) -> float | None:
        return self._database.read(lambda c: c.scalar(sa.select(passes.c.last_ended_at)))


class _Extends:
    """The engine's work on extends, in this process; broker and database are real, Cinder answers at once."""

    def __init__(self, conf: cfg.ConfigOpts, bus: str, database: Database, directory: Path, count: int) -> None:
        settings = dataclasses.replace(engine_settings(conf), host_timeout=86400)
        self._number = 0
        self._journal = Journal(database)
        self._reported = Reported(database, backoff=Backoff(), host_timeout=86400)
        self._agents = _Kept(OrderSender(lambda: kombu_connection(bus, heartbeat=0, name="bench"), health=Health()))
        work = Claims(database)
        self._keys = [key for host in range(0, count, max(1, count // 300)) for key in disks_of(host)]
        self._dispatcher = Dispatcher(
            settings=settings, work=work, cinder=known_volumes(self._keys), agents=self._agents,
            locator=InventoryLocator(work, host_timeout=86400), wake=Wake(("127.0.0.1", 0)), health=Health(),
            metrics=EngineMetrics(CollectorRegistry()), audit=StreamAudit("bench", str(directory / "a.log")),
        )  # fmt: skip

    def round(self) -> float:
        """µs each."""
        self._number += 1
        of_each = len(self._keys) // DISKS
        at = [(self._number * _AT_ONCE + n) % of_each for n in range(_AT_ONCE)]
        keys = [self._keys[host * DISKS + self._number % DISKS] for host in at]
        self._agents.sent.clear()

        def work() -> None:
            self._journal.accept([Arrival(key=key, request_id=f"req-{new_id()}") for key in keys])
            self._dispatcher.round()
            taken = self._reported.take(self._agents.reports(self._number))
            assert len(taken.settled) == _AT_ONCE

        return per_item(work, _AT_ONCE)


class _Kept:
    """Casts, and remembers what was cast where."""

    def __init__(self, agents: OrderSender) -> None:
        self._agents = agents
        self.sent: list[tuple[str, Order]] = []

    def cast(self, host: str, orders: Sequence[Order]) -> Reason | None:
        """See dispatch.Caster."""
        self.sent += [(host, order) for order in orders]
        return self._agents.cast(host, orders)

    def reports(self, seq: int) -> list[HostMessage]:
        """What the hosts say to that."""
        return [
            HostMessage(
                host=host, boot_id=boot_of(host), seq=10**12 + seq, sent_at=0.0,
                reports=(
                    Report(
                        attempt_id=order.attempt_id, key=order.key, gen=order.gen, outcome=Outcome.RESIZED,
                        reason=Reason.SIZE_REACHED.value, target=order.target, after=order.target,
                    ),
                ),
            )
            for host, order in self.sent
        ]  # fmt: skip


@contextmanager
def _child(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
