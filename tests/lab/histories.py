# SPDX-License-Identifier: Apache-2.0
"""Random histories: the parts' own code on a real journal and real audit logs, in one process, by one clock."""

import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import kombu
from prometheus_client import CollectorRegistry

from bridge.api.events import EventsResource
from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.extend import Bytes, ExtendKey, gib, new_id
from bridge.core.file_systems import FileSystemSeen, FileSystemStep, FsState
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Order, Report, StepReport
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.engine.cinder import Attached, CinderAnswer, CinderVolume, Gone, NotNow, Page
from bridge.engine.dispatch import Dispatcher
from bridge.engine.housekeeping import Sweeper
from bridge.engine.locator import InventoryLocator
from bridge.engine.reconcile import OpenRate, Reconciler
from bridge.engine.renotify import Renotifier
from bridge.engine.reports import ReportsConsumer
from bridge.engine.settings import EngineSettings
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.admin import DISCARDED, Admin
from bridge.journal.behind import Behind
from bridge.journal.claims import Claims
from bridge.journal.database import Database
from bridge.journal.findings import Findings
from bridge.journal.reports import Reported
from bridge.journal.retention import Retention
from bridge.journal.settings import JournalSettings
from bridge.journal.sweeps import Passes
from bridge.runtime.audit import StreamAudit
from bridge.runtime.config import BusSettings
from bridge.runtime.health import Health
from bridge.runtime.metrics import ApiMetrics, EngineMetrics, ListenerMetrics, ReconcileMetrics
from bridge.runtime.rest import Answer
from bridge.runtime.retry import Backoff
from bridge.runtime.wakeup import Wake
from listener.lanes import Deferred, Parked
from listener.notification import Origin, ResizeEnd, Row, translate
from listener.retry_policy import SlowDelay
from listener.telemetry import Telemetry
from listener.verdicts import Kind, Verdict

HOSTS: Final = ("h1", "h2")
_START: Final = 1_700_000_000.0
_DELIVERED: Final = Verdict(Kind.DELIVERED, Reason.DELIVERED)
_UNKNOWN: Final = Verdict(Kind.SLOW, Reason.EVENT_UNKNOWN_SERVER)
_LOOK: Final = 5.0  # seconds between looks of reconciliation for work
_OUTCOMES: Final = (
    *[Outcome.RESIZED] * 6, *[Outcome.ALREADY] * 2, Outcome.GUEST_OFF, Outcome.GUEST_SAVED, Outcome.NOT_HERE,
    Outcome.NOT_ATTACHED, Outcome.DEVICE_STALE, Outcome.BUSY, Outcome.NOT_YET, Outcome.ERROR, Outcome.UNSUPPORTED,
    Outcome.REFUSED,
)  # fmt: skip
_VERIFIED: Final = {Outcome.RESIZED, Outcome.ALREADY, Outcome.GUEST_OFF}


@dataclass
class _Disk:
    """A volume of a guest: its size in Cinder, the size the guest sees, and the guest's host."""

    key: ExtendKey
    size: int = 1
    seen: int = 1
    host: str = HOSTS[0]
    attached: bool = True


class PlayedHistory:
    """A cloud of two hosts in which a seed decides what happens next. `observe`: beside a Nova."""

    def __init__(self, directory: Path, seed: int, *, observe: bool) -> None:
        self.journal, self._directory = directory / "journal.sqlite3", directory
        self.now = _START
        self._pick = random.Random(seed)
        self.database = Database(JournalSettings(connection=f"sqlite:///{self.journal}"))
        migrate.upgrade(self.database)
        self._disks = [_Disk(ExtendKey(self._id(), self._id())) for _ in range(3)]
        shared = self._disks[0].key.volume_id  # a volume of two guests
        self._disks.append(_Disk(ExtendKey(self._id(), shared), host=HOSTS[1]))
        self._down: set[str] = set()
        self._cinder_away = False
        self._orders: list[tuple[str, Order]] = []
        self._sent: list[HostMessage] = []
        self._waiting: list[tuple[ExtendKey, Origin, int]] = []
        self._boots, self._seq = dict.fromkeys(HOSTS, new_id()), 0
        self._wire(observe=observe)

    def close(self) -> None:
        """Close what the parts hold open."""
        self._wake.close()
        self.database.dispose()

    def play(self, steps: int) -> None:
        """Let that many things happen, one after another."""
        with mock.patch("time.time", self._clock):
            self._say_inventories()
            for _ in range(steps):
                self.now += self._pick.choice((0.01, 0.5, 3.0, 40.0))
                self._pick.choice(self._ways)()

    def _clock(self) -> float:
        return self.now

    def _wire(self, *, observe: bool) -> None:
        clock = self._clock

        def log(part: str) -> StreamAudit:
            return StreamAudit(part, str(self._directory / f"{part}.audit.jsonl"))

        database, engine, health = self.database, log("engine"), Health()
        metrics, registry = EngineMetrics(CollectorRegistry()), CollectorRegistry()
        settings = EngineSettings(
            journal=JournalSettings(connection="sqlite://"),
            bus=BusSettings(transport_url="memory://", heartbeat=30),
            backoff=Backoff(first=8, cap=64, floor=8),
        )
        work, self._wake, self._operator = Claims(database, clock=clock), Wake(settings.wake), log("operator")
        told_again = Renotifier(_Nova(), audit=engine, health=health, clock=clock)  # type: ignore[arg-type]
        self._dispatcher = Dispatcher(
            settings=settings, work=work, cinder=self, locator=InventoryLocator(work, host_timeout=60),
            agents=self, prompt=told_again if observe else lambda _: None, wake=self._wake, health=health,
            metrics=metrics, audit=engine, clock=clock,
        )  # fmt: skip
        self._reports = ReportsConsumer(
            connect=kombu.Connection,
            reported=Reported(database, backoff=settings.backoff, host_timeout=60, clock=clock),
            on_due=lambda: None, health=health, metrics=metrics, audit=engine,
        )  # fmt: skip
        self._sweeper = Sweeper(
            work=work, behind=Behind(database), retention=Retention(database, settings.journal.keep, clock=clock),
            overdue_after=100, metrics=metrics, audit=engine, clock=clock,
        )  # fmt: skip
        journal = Journal(database, clock=clock)
        self._reconciler = Reconciler(
            passes=Passes(database, interval=1, clock=clock), sightings=Findings(database),
            cinder=self,  # type: ignore[arg-type]
            database=database, journal=journal,
            pace=OpenRate(page=10, pause=1, opens=60, host_timeout=60), on_due=lambda: None, health=health,
            metrics=ReconcileMetrics(registry), audit=engine, clock=clock,
        )  # fmt: skip
        self._api = EventsResource(
            journal, ApiMetrics(CollectorRegistry()), log("api"), lambda: None,
            SimpleNamespace(),
            versioned=True,
        )  # fmt: skip
        self._listener = Telemetry(log("listener"), ListenerMetrics(CollectorRegistry()), clock=clock)
        self._admin = Admin(database, clock=clock)
        self._ways: Sequence[Callable[[], Any]] = (
            *[self._resize] * 4, *[self._dispatcher.round] * 5, *[self._carry_out] * 6, self._post_again,
            self._post_again, self._lose_an_order, self._repeat_a_report, self._say_inventories, self._reconcile,
            self._sweep, self._migrate, self._detach, self._toggle_host, self._toggle_cinder, self._retry,
            self._discard, self._file_system, self._restart_agent,
        )  # fmt: skip

    # the listener and the API

    def _resize(self) -> None:
        """Cinder grows a volume, and its notification reaches the listener."""
        disk = self._pick.choice(self._disks)
        same = [d for d in self._disks if d.key.volume_id == disk.key.volume_id]
        size = max(d.size for d in same) + 1
        for each in same:
            each.size = size
        user = f"req-{self._id()}"
        origin = Origin(
            message_id=self._id(), project=self._id(), request_id=f"req-{self._id()}", global_request_id=user
        )
        rows = tuple(Row(server_id=d.key.server_id, attached=True, readable=True) for d in same if d.attached)
        end = ResizeEnd(volume_id=disk.key.volume_id, size=size, rows=rows, origin=origin)
        found = translate(end)
        self._listener.received(end, found)
        for key in found.events:
            if self._pick.random() < 0.15:
                self._listener.held(key, Reason.TIMED_OUT, origin)
            self._post(key, origin, attempts=0)

    def _post_again(self) -> None:
        """Send an event of the slow lane once more."""
        if self._waiting:
            key, origin, attempts = self._waiting.pop(self._pick.randrange(len(self._waiting)))
            self._post(key, origin, attempts=attempts)

    def _post(self, key: ExtendKey, origin: Origin, *, attempts: int) -> None:
        """Post one event; put it into a lane where the API does not accept it, or where its answer is lost."""
        assert origin.carried is not None
        sent_as = origin.carried if self._pick.random() < 0.6 else f"req-{self._id()}"
        event = {"name": "volume-extended", "server_uuid": key.server_id, "tag": key.volume_id}
        ok = False
        if (arrives := self._pick.random()) < 0.95:
            _, (answer,) = self._api._take([event], [None], f"req-{self._id()}", sent_as)
            self.now += 0.004
            if arrives < 0.9:  # else the answer is lost, and the event is posted again later
                ok = answer["code"] == 200
                verdict = _DELIVERED if ok else _UNKNOWN
                self._listener.posted(key, verdict, origin, sent_as, 0.004)
        if ok:
            return
        if attempts >= 2 and self._pick.random() < 0.3:
            self._listener.parked(
                Parked(
                    origin=origin,
                    reason=Reason.EVENT_UNKNOWN_SERVER,
                    server_id=key.server_id,
                    volume_id=key.volume_id,
                    attempts=attempts,
                    first_seen=self.now,
                )
            )
            return
        late = Deferred(
            key=key, origin=origin, first_seen=self.now, attempts=attempts + 1, reason=Reason.EVENT_UNKNOWN_SERVER
        )
        self._listener.deferred(late, SlowDelay.SHORT)
        self._waiting.append((key, origin, attempts + 1))

    # the hosts

    def _say_inventories(self) -> None:
        for host in HOSTS:
            if host not in self._down:
                self._say(host, inventory=self._inventory(host, full=True))

    def _inventory(self, host: str, *, full: bool) -> Inventory:
        def seen(disk: _Disk) -> DomainSeen:
            disks = (DiskSeen(volume_id=disk.key.volume_id, size=gib(disk.seen)),) if disk.attached else ()
            return DomainSeen(server_id=disk.key.server_id, state=GuestState.ACTIVE, disks=disks)

        return Inventory(full=full, domains=tuple(seen(d) for d in self._disks if d.host == host))

    def _say(self, host: str, **more: Any) -> None:
        self._seq += 1
        message = HostMessage(host=host, boot_id=self._boots[host], seq=self._seq, sent_at=self.now, **more)
        self._sent.append(message)
        self._settle(message)

    def _settle(self, message: HostMessage) -> None:
        raw = SimpleNamespace(
            body=json.dumps(message.to_wire()).encode(),
            delivery_info={"exchange": "", "routing_key": ""},
            ack=lambda **_: None,
        )
        self._reports._settle([raw], threading.Event())

    def _carry_out(self) -> None:
        """A host works on an order and reports."""
        ready = [pair for pair in self._orders if pair[0] not in self._down]
        if not ready:
            return
        host, order = self._pick.choice(ready)
        self._orders.remove((host, order))
        outcome = self._pick.choice(_OUTCOMES)
        (disk,) = (d for d in self._disks if d.key == order.key)
        before, target = gib(disk.seen), order.target
        if outcome in _VERIFIED:
            disk.seen = max(disk.seen, int(target) // gib(1))
        report = Report(
            attempt_id=order.attempt_id, key=order.key, gen=order.gen, outcome=outcome, reason=outcome.value,
            target=target, before=before, after=Bytes(gib(disk.seen)), traceparent=order.traceparent,
            steps=(StepReport(name="resize", ok=outcome in _VERIFIED, seconds=0.1),),
        )  # fmt: skip
        self._say(host, reports=(report,), inventory=self._inventory(host, full=False))

    def _lose_an_order(self) -> None:
        if self._orders:
            self._orders.pop(self._pick.randrange(len(self._orders)))

    def _repeat_a_report(self) -> None:
        """A message comes once more, as after an engine that was killed before its acknowledgement."""
        if self._sent:
            self._settle(self._pick.choice(self._sent[-5:]))

    def _restart_agent(self) -> None:
        host = self._pick.choice(HOSTS)
        self._boots[host] = new_id()
        self._orders = [pair for pair in self._orders if pair[0] != host]
        self._say(host, inventory=self._inventory(host, full=True))

    def _toggle_host(self) -> None:
        self._down ^= {self._pick.choice(HOSTS)}

    def _migrate(self) -> None:
        """A guest is on both hosts for a moment, then on the other."""
        disk = self._pick.choice(self._disks)
        old = disk.host
        disk.host = HOSTS[1 - HOSTS.index(old)]
        if disk.host not in self._down:
            self._say(disk.host, inventory=self._inventory(disk.host, full=False))
        if self._pick.random() < 0.5:
            self._dispatcher.round()
        if old not in self._down:
            self._say(old, inventory=self._inventory(old, full=True))

    def _detach(self) -> None:
        disk = self._pick.choice(self._disks)
        disk.attached = not disk.attached

    def _file_system(self) -> None:
        """The file system of a guest is grown; no step of an extend."""
        disk = self._pick.choice(self._disks)
        steps = (FileSystemStep(name="grow", ok=True, seconds=0.2),)
        seen = FileSystemSeen(
            key=disk.key, state=FsState.GROWN, reason="grown", disk=gib(disk.seen), size=gib(disk.seen), asked=True,
            steps=steps,
        )  # fmt: skip
        if disk.host not in self._down:
            self._say(disk.host, file_systems=(seen,))

    # the engine's other threads, and the operator

    def _reconcile(self) -> None:
        self._reconciler.run(_OnePass())

    def _sweep(self) -> None:
        self._sweeper.sweep()

    def _toggle_cinder(self) -> None:
        self._cinder_away = not self._cinder_away

    def _extend_id(self) -> str | None:
        with self.database.engine.connect() as connection:
            ids = [row[0] for row in connection.exec_driver_sql("SELECT id FROM extends ORDER BY opened_at, id")]
        return self._pick.choice(ids) if ids else None

    def _retry(self) -> None:
        """`event retry`, with the line that the command writes."""
        if (extend_id := self._extend_id()) is None:
            return
        request_id = f"req-{self._id()}"
        if (opened := self._admin.retry(extend_id, request_id=request_id)) is not None:
            key, opened_id = opened
            record = AuditRecord.of(
                key, AuditEvent.ACCEPTED, self.now, extend_id=opened_id, request_id=request_id,
                data={"retried": extend_id},
            )  # fmt: skip
            self._operator.write(record)

    def _discard(self) -> None:
        """`event discard`, with the line that the command writes."""
        if (extend_id := self._extend_id()) is None:
            return
        if (key := self._admin.discard(extend_id)) is not None:
            self._operator.write(
                AuditRecord.of(key, AuditEvent.DISCARDED, self.now, extend_id=extend_id, outcome=DISCARDED)
            )

    # Cinder, Nova and the broker, as the parts call them

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
        """Return the volume as Cinder shows it now."""
        if self._cinder_away:
            return NotNow(Reason.CINDER_TIMED_OUT, "played")
        return self._volume(volume_id)

    def _volume(self, volume_id: str) -> CinderVolume:
        same = [d for d in self._disks if d.key.volume_id == volume_id]
        rows = tuple(
            Attached(server_id=d.key.server_id, attachment_id=d.key.server_id, host=None)
            for d in same
            if d.attached
        )
        size = max(d.size for d in same)
        return CinderVolume(id=volume_id, size=gib(size), extending=self._pick.random() < 0.1, attached=rows)

    def volumes(self, volume_ids: Sequence[str]) -> Mapping[str, CinderVolume]:
        """Answer nothing in pages."""
        return {}

    def connections(self, attachments: Sequence[Attached]) -> Mapping[str, Mapping[str, Any]]:
        """Answer nothing in pages."""
        return {}

    def connection(self, attachment: Attached, *, global_request_id: str | None = None) -> Mapping[str, Any] | None:
        """Return the connection data of a local disk."""
        return {"driver_volume_type": "local", "data": {}}

    def extending(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """Return no volume in `extending`."""
        return Page(volumes=(), marker=None)

    def in_use(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """Return all volumes in one page."""
        return Page(
            volumes=tuple(self._volume(v) for v in dict.fromkeys(d.key.volume_id for d in self._disks)), marker=None
        )

    def cast(self, host: str, orders: Sequence[Order]) -> Reason | None:
        """Take orders for a host; say undeliverable for a host that is down, as a broker does."""
        if host in self._down and self._pick.random() < 0.5:
            return Reason.UNDELIVERABLE
        self._orders += [(host, order) for order in orders]
        return None

    def _id(self) -> str:
        value = f"{self._pick.getrandbits(128):032x}"
        return f"{value[:8]}-{value[8:12]}-4{value[13:16]}-8{value[17:20]}-{value[20:]}"


class _OnePass(threading.Event):
    """A stop that lets reconciliation make one pass without waiting."""

    def wait(self, timeout: float | None = None) -> bool:
        """Stop where a pass has ended and the next is looked for."""
        if timeout == _LOOK:
            self.set()
        return self.is_set()


class _Nova:
    """A Nova that takes every event and does nothing."""

    def post(self, events: Sequence[ExtendKey], request_id: str, traces: Mapping[ExtendKey, str]) -> Answer:
        """Answer 200 for each event."""
        rows = [{"server_uuid": key.server_id, "tag": key.volume_id, "code": 200} for key in events]
        return Answer(status=200, body={"events": rows})
