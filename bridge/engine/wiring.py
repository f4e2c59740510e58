# SPDX-License-Identifier: Apache-2.0
"""The engine's wiring: the only module that connects the objects."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial

from bridge.core.reasons import Reason
from bridge.engine.cinder import LARGEST_ANSWER, CinderReader
from bridge.engine.dispatch import CINDER, Dispatcher
from bridge.engine.housekeeping import Sweeper
from bridge.engine.locator import NOVA, InventoryLocator, Locator, NovaLocator
from bridge.engine.nova import NovaReader
from bridge.engine.reconcile import RECONCILE, OpenRate, Reconciler
from bridge.engine.renotify import NOVA_EVENTS, Renotifier
from bridge.engine.reports import ReportsConsumer
from bridge.engine.rpc import CASTS, NO_ORDERS, OrderSender
from bridge.engine.settings import EngineSettings, Mode
from bridge.engine.upstream import ServiceProbe, Trouble
from bridge.journal.accept import Journal
from bridge.journal.audit_heads import AuditHeads
from bridge.journal.behind import Behind
from bridge.journal.claims import Claims
from bridge.journal.database import Database
from bridge.journal.file_systems import FileSystems
from bridge.journal.findings import Findings
from bridge.journal.reports import Reported
from bridge.journal.retention import Retention
from bridge.journal.states import Extend
from bridge.journal.sweeps import Passes
from bridge.journal.watch import DatabaseCheck, DatabaseProbe, DueWatch
from bridge.runtime.audit import AuditLog
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_probe import BusProbe
from bridge.runtime.bus_url import check_url
from bridge.runtime.config import Driver
from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.endpoint_probe import EndpointProbe
from bridge.runtime.endpoints import open_client
from bridge.runtime.health import moving
from bridge.runtime.metrics import EngineMetrics, ReconcileMetrics
from bridge.runtime.process import Process
from bridge.runtime.rest import NovaEventsClient
from bridge.runtime.wakeup import Wake

LOG = logging.getLogger(__name__)
_DATABASE = "engine.database"
_DUE = "engine.due"
_HORIZON = 2  # times the longest wait the engine ever writes


def build(settings: EngineSettings, process: Process) -> list[Part]:
    """Build the engine's parts. Connects to nothing yet; raises ConfigError."""
    check_url(settings.bus.transport_url, "[bus] transport_url")
    health, metrics = process.health, EngineMetrics(process.registry)
    health.expect("engine.bus")
    check = DatabaseCheck(health, _DATABASE)
    database = Database(settings.journal, results=check, moved=moving)
    audit = process.audit("engine", AuditHeads(database).keep)
    horizon = _HORIZON * max(settings.backoff.cap, settings.report_within)
    due = DueWatch(horizon=horizon)
    health.due(_DUE, due.oldest, what="extend")
    probe = DatabaseProbe(database, check, sync=settings.journal.sync_on_startup, look=due.look)
    work = Claims(database, horizon=horizon)
    wake = Wake(settings.wake)

    def reader() -> CinderReader:
        return CinderReader(
            open_client(process.conf, "cinder", user_agent="extend-bridge-engine", largest=LARGEST_ANSWER)
        )

    dispatcher = Dispatcher(
        settings=settings,
        work=work,
        cinder=reader(),
        locator=_locator(settings, process, work),
        agents=OrderSender(
            lambda: kombu_connection(settings.bus.transport_url, heartbeat=0, name="extend-bridge-engine casts"),
            health=health,
            on_blocked=process.on_blocked,
        ),
        wake=wake,
        health=health,
        metrics=metrics,
        audit=audit,
        prompt=_prompt(settings, process, audit),
    )
    consumer = ReportsConsumer(
        connect=lambda: kombu_connection(
            settings.bus.transport_url, heartbeat=settings.bus.heartbeat, name="extend-bridge-engine"
        ),
        reported=Reported(database, backoff=settings.backoff, host_timeout=settings.host_timeout),
        on_due=_waker(wake.address),
        health=health,
        metrics=metrics,
        audit=audit,
        accept_unbound=settings.accept_unbound_hosts,
    )

    retention = Retention(database, settings.journal.keep)
    sweep = Sweeper(
        work=work, behind=Behind(database), file_systems=FileSystems(database),
        retention=retention, overdue_after=settings.overdue_after,
        host_timeout=settings.host_timeout, report_within=settings.report_within,
        metrics=metrics, audit=audit,
    )  # fmt: skip

    asked: dict[str, Callable[[], Trouble | None]] = {CINDER: reader().check}
    if settings.locator.driver is Driver.NOVA:
        asked[NOVA] = _nova(process).check

    def loop(name: str, body: Callable[[threading.Event], None]) -> Supervised:
        return Supervised(name, probe.when_usable(body), health)

    bus = BusProbe(
        lambda: kombu_connection(settings.bus.transport_url, heartbeat=0, name="extend-bridge-engine look"),
        health, [CASTS], words=NO_ORDERS,
    )  # fmt: skip
    parts: list[Part] = [
        probe.part(_DATABASE, health),
        Supervised(f"{CASTS}_look", bus.run, health),
        loop("engine.reports", consumer.run),
        loop("engine.dispatch", dispatcher.run),
        loop("engine.sweep", sweep.run),
        *(
            Supervised(f"{name}.look", ServiceProbe(name, check, health).run, health)
            for name, check in asked.items()
        ),
    ]
    if settings.mode is Mode.OBSERVE:
        nova = open_client(process.conf, "nova", user_agent="extend-bridge-engine")
        look = EndpointProbe(nova.get, health, [NOVA_EVENTS]).run
        parts.append(Supervised(f"{NOVA_EVENTS}.look", look, health))
    if settings.reconcile_interval:
        reconciler = Reconciler(
            passes=Passes(database, interval=settings.reconcile_interval),
            sightings=Findings(database),
            cinder=reader(),
            database=database,
            journal=Journal(database, max_open=settings.journal.max_open),
            pace=OpenRate(
                page=settings.reconcile_page,
                pause=settings.reconcile_pause,
                opens=settings.reconcile_opens,
                host_timeout=settings.host_timeout,
                stuck_after=settings.overdue_after,
            ),
            on_due=_waker(wake.address),
            health=health,
            metrics=ReconcileMetrics(process.registry),
            audit=audit,
        )
        parts.append(loop(RECONCILE, reconciler.run))
    return parts


def _waker(address: tuple[str, int]) -> Callable[[], None]:
    sender = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)

    def wake() -> None:
        try:
            sender.sendto(b"due", address)
        except OSError as ex:
            LOG.debug("the dispatcher could not be woken; it polls within a second: %s", ex)

    return wake


def _locator(settings: EngineSettings, process: Process, work: Claims) -> Locator:
    if settings.locator.driver is Driver.INVENTORY:
        return InventoryLocator(work, host_timeout=settings.host_timeout)
    return NovaLocator(
        _nova(process),
        living=partial(work.living, host_timeout=settings.host_timeout),
        keep=settings.locator.cache_seconds,
        health=process.health,
    )


def _nova(process: Process) -> NovaReader:
    return NovaReader(open_client(process.conf, "nova", user_agent="extend-bridge-engine"))


def _prompt(
    settings: EngineSettings, process: Process, audit: AuditLog
) -> Callable[[Sequence[Extend]], Reason | None]:
    if settings.mode is Mode.EXTEND:
        return lambda _: None
    events = NovaEventsClient(open_client(process.conf, "nova", user_agent="extend-bridge-engine"))
    return Renotifier(events, audit=audit, health=process.health)
