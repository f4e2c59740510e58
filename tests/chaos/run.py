# SPDX-License-Identifier: Apache-2.0
"""One run: start everything, load and faults side by side, wait for the end, compare."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import gib
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.runtime.broker import DUE_QUEUE, QueueSpec, ensure_queue, kombu_connection
from listener.retry_policy import SlowDelay
from tests.chaos.cinder_side import CinderSide
from tests.chaos.fake_host import LEDGER
from tests.chaos.faults import Faults
from tests.chaos.gray_faults import ordinary_user, small_disk
from tests.chaos.ledger import Ledger
from tests.chaos.links import Links
from tests.chaos.load import Growth, Load, load
from tests.chaos.members import Member, Server
from tests.chaos.nova_side import NovaSide
from tests.chaos.observe import Observer, delivered_again
from tests.chaos.options import Options
from tests.chaos.plan import plan, processes
from tests.chaos.progress import Bar
from tests.chaos.site import HOST, Site, straight
from tests.chaos.verdict import Seen, Summary, Verdict, behind, judge
from tests.lab.cinder_bus import CinderBus
from tests.lab.databases import MariaDB, PostgreSQL
from tests.lab.keystone_standin import KeystoneStandIn
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

LOG = logging.getLogger("chaos")

_LOOK_EVERY: Final = 0.25
_ASK_EVERY: Final = 3.0  # seconds between questions to the broker, which are dear
_LISTED_WITHIN: Final = 20.0  # seconds
_QUIET: Final = 2  # questions in a row that find nothing on its way anywhere: then no more will come
_PUBLISH: Final = 10.0  # seconds
_TOKEN: Final = 123.0
"""Seconds a token lives: keystoneauth gets a new one in the last 120, so that Keystone is asked all the time."""
_STEP: Final = 2.0  # seconds


class Run:
    """The parts of a run, started; `stack` ends them. `reconcile` in seconds, 0: never; `nova`: the
    URL of one that extends.
    """

    def __init__(
        self,
        options: Options,
        directory: Path,
        stack: ExitStack,
        *,
        reconcile: float = 0,
        tells: Callable[[Growth], bool] = lambda _: True,
        nova: str | None = None,
        links: Links | None = None,
    ) -> None:
        self._options = options
        self._load: Load = load(options)
        nodes = _broker(options.cluster, stack)
        bus = _url_of_all(nodes)
        members: dict[str, Member] = {f"broker-{n}": Server(node) for n, node in enumerate(nodes)}
        self._journal_disk = directory / "journal"
        self._journal_disk.mkdir()
        if options.gray:
            stack.enter_context(small_disk(self._journal_disk))
        journal = f"sqlite:///{self._journal_disk / 'journal.sqlite3'}"
        self._nodes = nodes
        self._admin = journal
        if options.db != "sqlite":
            database = stack.enter_context(MariaDB() if options.db == "mariadb" else PostgreSQL())
            journal = self._admin = database.new_url()
            if options.gray:
                journal = ordinary_user(journal)
            members["database"] = Server(database)
        _sync(journal)
        connect = partial(CinderBus, bus, durable=True, quorum=len(nodes) > 1, timeout=_PUBLISH)
        connect().close()  # declares the queues: the listener waits for them
        _slow_lane(bus)
        self._cinder = CinderSide(self._load, connect, tells=tells)
        stack.callback(self._cinder.close)
        api = self._cinder.server()
        api.start()
        stack.callback(api.join, 2)
        stack.callback(api.stop)
        keystone = stack.enter_context(KeystoneStandIn(token_seconds=_TOKEN)).url if links else None
        located_by = stack.enter_context(NovaSide(self._hosts())).url if links else None
        self._site = Site(
            directory=directory, bus=bus, journal=journal, cinder=str(api.url), planted=options.planted,
            reconcile=reconcile, nova=nova, through=links.through if links else straight,
            heartbeat=30 if links else 8, keystone=keystone, located_by=located_by,
        )  # fmt: skip
        daemons = self._site.daemons(processes(options.agents))
        if links:
            for n in range(options.agents):
                links.libvirt(f"hostagent-{n}", self._site.state(n))
        members.update(daemons)
        self._daemons = daemons
        self._ledgers = self._disks()
        self._observer = Observer(journal=journal, bus=bus, ctl=nodes[0].ctl, ledgers=self._ledgers)
        stack.callback(self._observer.close)
        for daemon in daemons.values():
            daemon.start()
            stack.callback(daemon.die)
        self._faults = Faults(members, self._observer.delete)
        stack.callback(self._faults.close)
        servers = {server_id for host in self._load.hosts for server_id in host}
        attached = {server_id for server_id, _ in self._cinder.wanted()}
        until(lambda: attached & servers <= self._known(), "every server is known", seconds=90)

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong beside the disks."""
        return True

    def go(self, bar: Bar) -> tuple[Verdict, Summary, Seen]:
        """Play load and faults to the end, then wait for the disks."""
        self._play(bar)
        seen, took = self._wait_for_the_end(bar)
        verdict = judge(seen)
        summary = Summary(
            lost=len(verdict.lost) + verdict.vanished,
            shrunk=len(verdict.shrunk),
            stuck=len(verdict.stuck),
            parked=seen.in_lanes,
            duplicates=self._again(),
            recovered_in=round(took, 1),
        )
        return verdict, summary, seen

    def _play(self, bar: Bar) -> None:
        stop = threading.Event()
        faults = plan(self._options)
        threads = [
            threading.Thread(target=self._cinder.play, args=(stop,), name="load", daemon=True),
            threading.Thread(target=self._faults.carry_out, args=(faults, stop), name="faults", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                bar.show(self._cinder.told.growths, self._faults.done.total())
                time.sleep(_LOOK_EVERY)
        finally:
            stop.set()

    def about(self) -> Sequence[str]:
        """What was done, in lines for a person."""
        faults = ", ".join(f"{n} {kind}" for kind, n in sorted(self._faults.done.items()))
        told, load_ = self._cinder.told, self._load
        what = f"{told.growths} notifications of {len(load_.growths)} extends, {len(load_.volumes)} volumes"
        deferred = sum(
            audit.read_bytes().count(b'"event":"deferred"') for audit in self._listeners() if audit.exists()
        )
        lines = [
            f"{what}, {len(load_.noise)} others, {told.counts['poison']} bad",
            f"faults: {faults or 'none'}",
            f"{deferred} times an event went into the slow lane",
        ]
        if self._faults.by_itself:
            ended = ", ".join(f"{name} {n}×" for name, n in sorted(self._faults.by_itself.items()))  # noqa: RUF001
            lines.append(f"ended by themselves and started again: {ended}")
        if rough := sorted(name for name, daemon in self._daemons.items() if daemon.rough):
            lines.append(f"not ended within their grace time when told to: {', '.join(rough)}")
        if tracebacks := {name: n for name, daemon in sorted(self._daemons.items()) if (n := daemon.tracebacks())}:
            lines.append(f"tracebacks in their logs: {', '.join(f'{name} {n}' for name, n in tracebacks.items())}")
        return [*lines, *(f"FAULT NOT DONE {why}" for why in self._faults.failed)]

    def histories(self, verdict: Verdict, seen: Seen) -> Sequence[str]:
        """What the journal says of each disk something is wrong with."""
        lines = []
        for what, disks in (("lost", verdict.lost), ("shrunk", verdict.shrunk), ("stuck", verdict.stuck)):
            for disk in disks:
                size, wanted = seen.disks[disk].size, seen.wanted[disk]
                lines.append(f"{what}: server {disk[0]} volume {disk[1]}: {size} of {wanted} bytes")
                lines += [f"    {row}" for row in self._observer.history(disk)]
        return lines

    def _wait_for_the_end(self, bar: Bar) -> tuple[Seen, float]:
        began, quiet, asked = time.monotonic(), 0, 0.0
        while True:
            now = time.monotonic()
            seen = self._look(waiting=0)
            late = behind(seen)
            bar.show(self._cinder.told.growths, self._faults.done.total(), behind=len(late))
            if (not late and not seen.open) or now - began > self._options.patience:
                return self._with_lanes(), now - began
            if late and not seen.open and now - asked > _ASK_EVERY:
                seen = self._look(waiting=None)
                quiet = quiet + 1 if behind(seen) and not seen.open and not seen.waiting else 0
                asked = time.monotonic()
                if quiet >= _QUIET:
                    return seen, asked - began
            time.sleep(_LOOK_EVERY)

    def _with_lanes(self) -> Seen:
        """The last look: the broker lists quorum queues seconds late, most of all after its own restart."""
        end = time.monotonic() + _LISTED_WITHIN
        while (seen := self._look(waiting=None)).in_lanes < seen.to_lanes and time.monotonic() < end:
            time.sleep(_LOOK_EVERY)
        return seen

    def _look(self, *, waiting: int | None) -> Seen:
        """What there is; with None the broker is asked as well."""
        depths = self._observer.depths() if waiting is None else {}
        try:
            open_ = self._observer.open()
        except JournalUnavailableError:
            open_ = set(self._cinder.told.disks)
        return Seen(
            wanted=self._cinder.wanted(),
            disks=self._observer.disks(),
            told=frozenset(self._cinder.told.disks),
            open=open_,
            waiting=self._observer.waiting(depths),
            to_lanes=self._cinder.told.to_lanes,
            in_lanes=self._observer.in_lanes(depths),
        )

    def _hosts(self) -> dict[str, str]:
        """Return the host of each server."""
        return {server_id: f"{HOST}{n}" for n, servers in enumerate(self._load.hosts) for server_id in servers}

    def _disks(self) -> list[Ledger]:
        """Each disk with its volume's first size, on its server's host."""
        ledgers = [Ledger(self._site.state(n) / LEDGER) for n in range(self._options.agents)]
        host_of = {server_id: n for n, servers in enumerate(self._load.hosts) for server_id in servers}
        for ledger in ledgers:
            ledger.touch()
        for volume in self._load.volumes:
            for server_id in volume.attachments:
                ledgers[host_of[server_id]].put((server_id, volume.id), gib(volume.size))
        return ledgers

    def _known(self) -> set[str]:
        try:
            return self._observer.servers()
        except JournalUnavailableError:
            return set()

    def _again(self) -> int:
        return delivered_again(self._listeners()) + self._observer.already()

    def _listeners(self) -> list[Path]:
        return [self._site.audit(name) for name in processes(self._options.agents) if name.startswith("listener")]


def _broker(count: int, stack: ExitStack) -> list[RabbitNode]:
    first = stack.enter_context(RabbitNode())
    nodes = [first]
    for _ in range(count - 1):
        node = stack.enter_context(RabbitNode(beside=first))
        node.join()
        nodes.append(node)
    return nodes


def _url_of_all(nodes: Sequence[RabbitNode]) -> str:
    hosts = ",".join(f"guest:guest@127.0.0.1:{node.port}" for node in nodes)
    return f"rabbit://{hosts}/"


def _slow_lane(bus: str) -> None:
    """The lane as the listener makes it, but quicker: a run is shorter than its waits."""
    with kombu_connection(bus, heartbeat=0, name="chaos") as connection:
        ensure_queue(connection, QueueSpec(name=DUE_QUEUE))
        for step in SlowDelay:
            ensure_queue(connection, QueueSpec(name=step.queue, ttl=_STEP, then=DUE_QUEUE))


def _sync(url: str) -> None:
    database = Database(JournalSettings(connection=url))
    migrate.upgrade(database)
    database.dispose()
